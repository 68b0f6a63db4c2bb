"""Normalization of images to mean 0 and standard deviation 1 per channel."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._array import as_floating
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._validate import check_finite
from jaxcnn.data._load import Dataset


@constructor
def normalize(mean: Sequence[float] | Dataset, std: Sequence[float] | None = None) -> Layer:
    """(N, *spatial, C) -> (N, *spatial, C): y = (x - mean) / std, per channel.

    Put this layer first in the model. The model then takes images from 0 to 1 in training, inference and export.
    uint8 images are divided by 255 first, as in `fit`.

    Args:
        mean: the mean of each channel, or a data set from which both statistics are computed.
        std: the standard deviation of each channel; not together with a data set.

    Raises:
        TypeError: if the images are neither floating-point nor uint8, mean or std are not numbers, or a std is given
            with a data set.
        ValueError: if the data set has no images, a mean or std is not finite in float32, a std is not positive in
            float32, or the number of channels does not match.

    Example:
        >>> model = jaxcnn.serial(jaxcnn.data.normalize([0.5], [0.25]), jaxcnn.flatten)
        >>> model.apply({}, {}, jnp.ones((1, 1, 1, 1)), train=False)[0].tolist()
        [[2.0]]
    """
    if isinstance(mean, Dataset):
        if std is not None:
            raise TypeError(f"normalize computes std from the data set; leave out std={short_repr(std)}")
        mean, std = _statistics(mean.images)
    if std is None:
        raise TypeError("normalize needs a mean and a standard deviation for each channel, or a data set")
    means, stds = _numbers("mean", mean), _numbers("std", std)
    float32 = np.finfo(np.float32)
    in_range = (np.abs([*means, *stds]) <= float32.max).all() and (stds >= float32.tiny).all()
    if len(means) != len(stds) or not in_range:
        raise ValueError(
            "normalize needs a finite mean and a positive standard deviation for each channel, both in float32, "
            f"got {mean} and {std}"
        )

    def apply(x):
        if jnp.issubdtype(jnp.result_type(x), jnp.uint8):
            x = jnp.asarray(x).astype(jnp.float32) / np.float32(255)
        x = as_floating(x, "normalize")
        if x.shape[-1:] != means.shape:
            raise ValueError(f"normalize expects {len(means)} channels, got an input of shape {x.shape}")
        # bfloat16 lacks the precision for the statistics, and float16 the range.
        wide = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
        channels = (1,) * (x.ndim - 1) + means.shape
        mean_, std_ = (values.reshape(channels).astype(wide.dtype) for values in (means, stds))
        return ((wide - mean_) / std_).astype(x.dtype)

    return as_layer(apply)


def _numbers(name: str, values: Any) -> np.ndarray:
    """Return an argument of `normalize` as one number per channel, or raise TypeError."""
    try:
        return np.asarray(values, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise TypeError(f"normalize: {name} must be a number for each channel, got {short_repr(values)}") from error


def _statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and std of each channel. uint8 is divided by 255, and counted in histograms."""
    images = np.asarray(images)
    if not images.size:
        raise ValueError(f"normalize needs a data set with images, got {short_repr(images)}")
    if images.dtype != np.uint8:
        as_floating(jax.ShapeDtypeStruct(images.shape, images.dtype), "normalize")
        check_finite("normalize: images", images)
    channels = [images[..., channel].ravel() for channel in range(images.shape[-1])]
    if images.dtype == np.uint8:
        levels = np.arange(256) / 255
        counts = [np.bincount(values, minlength=256) for values in channels]
        means = [float(count @ levels / count.sum()) for count in counts]
        variances = [float(count @ (levels - m) ** 2 / count.sum()) for count, m in zip(counts, means, strict=True)]
    else:
        means = [float(values.mean(dtype=np.float64)) for values in channels]
        variances = [float(values.var(dtype=np.float64)) for values in channels]
    stds = [max(variance, 1e-12) ** 0.5 for variance in variances]
    return [_rounded(m, std) for m, std in zip(means, stds, strict=True)], [_rounded(std, std) for std in stds]


def _rounded(value: float, std: float) -> float:
    """Rounded to six digits, or more if the value is larger than `std`, so that the error is at most std / 10^6.

    All machines then compile the same program and share a compilation cache.
    """
    extra = max(0, math.ceil(math.log10(max(abs(value), std) / std)))
    return float(f"{value:.{6 + extra}g}")
