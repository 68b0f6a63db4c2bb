"""Pictures with a mean of 0 and a deviation of 1 for each channel."""

from collections.abc import Sequence

import numpy as np

from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn.data._load import Dataset


@constructor
def normalize(mean: Sequence[float] | Dataset, deviation: Sequence[float] | None = None) -> Layer:
    """(N, H, W, C) -> (N, H, W, C): y = (x - mean) / deviation, for each channel.

    A layer, as a model that begins with it takes the same pictures, from 0 to 1, in training, in use and when exported.

    Args:
        mean: of each channel; or a data set, whose mean and deviation are taken.
        deviation: of each channel.

    Example:
        >>> model = jaxcnn.serial(jaxcnn.data.normalize([0.5], [0.25]), jaxcnn.flatten)
        >>> model.apply({}, {}, jnp.ones((1, 1, 1, 1)), train=False)[0].tolist()
        [[2.0]]
    """
    if isinstance(mean, Dataset):
        mean, deviation = _statistics(mean.images)
    if deviation is None:
        raise TypeError("normalize needs a mean and a deviation for each channel, or a data set")
    if len(mean) != len(deviation) or min(deviation) <= 0:
        raise ValueError(f"normalize needs as many deviations above 0 as means, got {mean} and {deviation}")
    # Rounded, so that a program is the same, and found in a compilation cache, wherever the sums were taken.
    mean, scale = (tuple(round(float(v), 6) for v in values) for values in (mean, [1 / d for d in deviation]))

    def apply(x):
        if x.shape[-1] != len(mean):
            raise ValueError(f"normalize has {len(mean)} channels, its input {x.shape} has {x.shape[-1]}")
        return (x - np.array(mean, x.dtype)) * np.array(scale, x.dtype)

    return as_layer(apply)


def _statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, as if 255 were 1, from how often each value occurs."""
    levels = np.arange(256) / 255
    counts = [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])]
    means = [float(count @ levels / count.sum()) for count in counts]
    variances = [float(count @ (levels - m) ** 2 / count.sum()) for count, m in zip(counts, means, strict=True)]
    return means, [max(v, 1e-12) ** 0.5 for v in variances]
