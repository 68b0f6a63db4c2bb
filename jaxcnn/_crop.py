"""Crops of a feature map at boxes given by a second input, all resized to one size."""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_choice, check_integer, check_number, check_positive
from jaxcnn._array import at_least_float32, spatial_rank
from jaxcnn._grid_sample import floating_inputs
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._sample import SAMPLE_METHODS, sample
from jaxcnn._window import check_window_options, per_dimension


@constructor
def crop_and_resize(size: int | Sequence[int], method: str = "linear", *, extrapolation_value: float = 0.0) -> Layer:
    """((N, *spatial, C), (N, boxes, 2 * rank)) -> (N, boxes, *size, C): crops boxes, and resizes each of them.

    y[n, b, i, c] = x[n, p, c] between the pixels,  p = (low + (high - low) * i / (size - 1)) * (spatial - 1)

    The input is a pair (x, boxes). As in TensorFlow, a box is (y1, x1, y2, x2), the low and then the high ends of all
    dimensions, in fractions of the image from the center of its first pixel to that of its last. A box with low > high
    is flipped. For size 1, p is the center of the box. A box with a NaN gives NaN.

    Args:
        size: size of all crops, one int for all spatial dimensions or one per dimension.
        method: "linear" (bilinear for images), "nearest" or "cubic".
        extrapolation_value: value of positions outside the image.

    Raises:
        TypeError: if the input is not a pair of floating-point arrays.
        ValueError: for shapes that do not fit together or an unknown method.

    Example:
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> boxes = jnp.array([[[0.0, 0.0, 0.5, 0.5]]])  # the upper left quarter
        >>> crops, _ = jaxcnn.crop_and_resize(2).apply({}, {}, (image, boxes), train=False)
        >>> crops[0, 0, :, :, 0]
        Array([[0., 1.],
               [3., 4.]], dtype=float32)

    Source: Huang et al., "Speed/accuracy trade-offs for modern convolutional object detectors", 2017.
    """
    check_window_options("crop_and_resize", size=size)
    check_choice("crop_and_resize", "method", method, SAMPLE_METHODS)
    extrapolation_value = check_number("crop_and_resize", "extrapolation_value", extrapolation_value, -math.inf)

    def fn(pair):
        x, boxes, sizes = _inputs("crop_and_resize", pair, size)
        at, outside = [], []
        for dim, (n, m) in enumerate(zip(x.shape[1:-1], sizes, strict=True)):
            low, high = boxes[..., dim, None], boxes[..., len(sizes) + dim, None]
            fraction = np.linspace(0, 1, m) if m > 1 else np.array([0.5])
            position = (low + (high - low) * jnp.asarray(fraction, boxes.dtype)[None, None]) * (n - 1)
            outside.append((position < 0) | (position > n - 1))
            at.append(jnp.floor(position + 0.5) if method == "nearest" else position)  # ties up, as in TensorFlow
        return _sample_lattice(x, at, outside, method, extrapolation_value)

    return as_layer(fn)


@constructor
def roi_align(
    size: int | Sequence[int], *, spatial_scale: float = 1.0, sampling_ratio: int = 2, aligned: bool = True
) -> Layer:
    """((N, *spatial, C), (N, boxes, 2 * rank)) -> (N, boxes, *size, C): the mean of each of `size` bins of each box.

    y[n, b, i, c] = mean_k x[n, p, c] between the pixels

    p = low + (high - low) / size * (i + (k + 1/2) / sampling_ratio) - 1/2,  k from 0 to sampling_ratio - 1

    The input is a pair (x, boxes). As in torchvision, a box is (x1, y1, x2, y2), the low and then the high ends of all
    dimensions, the last one first, in pixels of an image that is 1 / spatial_scale times as large as x. Positions more
    than one pixel outside give 0, others the nearest value. A box with a NaN gives NaN.

    Args:
        size: number of bins, one int for all spatial dimensions or one per dimension.
        spatial_scale: size of x / size of the image, such as 1 / 16.
        sampling_ratio: number of samples per bin and dimension. torchvision's -1, a number that depends on the box, is
            not supported: shapes must be known before compilation.
        aligned: whether pixel i covers i to i + 1, as in the equation. False, torchvision's default: its center is at
            i, so p is larger by 1/2, and boxes have at least the size of one pixel.

    Raises:
        TypeError: if the input is not a pair of floating-point arrays.
        ValueError: for shapes that do not fit together, or a scale that is not above 0.

    Example:
        >>> image = jnp.arange(16.0).reshape(1, 4, 4, 1)
        >>> boxes = jnp.array([[[0.0, 0.0, 2.0, 2.0]]])
        >>> jaxcnn.roi_align(1).apply({}, {}, (image, boxes), train=False)[0].ravel()
        Array([2.5], dtype=float32)

    Source: He, Gkioxari, Dollar and Girshick, "Mask R-CNN", 2017.
    """
    check_window_options("roi_align", size=size)
    sampling_ratio = check_integer("roi_align", "sampling_ratio", sampling_ratio)
    spatial_scale = check_positive("roi_align", "spatial_scale", spatial_scale)

    def fn(pair):
        x, boxes, sizes = _inputs("roi_align", pair, size)
        rank = len(sizes)
        at, outside = [], []
        for dim, (n, m) in enumerate(zip(x.shape[1:-1], sizes, strict=True)):
            low, high = (boxes[..., end, None] * spatial_scale for end in (rank - 1 - dim, 2 * rank - 1 - dim))
            extent = high - low if aligned else jnp.maximum(high - low, 1)
            fraction = (np.arange(m * sampling_ratio) + 0.5) / (m * sampling_ratio)
            position = low + extent * jnp.asarray(fraction, boxes.dtype)[None, None] - (0.5 if aligned else 0)
            outside.append((position < -1) | (position > n))
            at.append(position)
        y = _sample_lattice(x, at, outside, "linear", 0.0)
        bins = [part for m in sizes for part in (m, sampling_ratio)]
        y = at_least_float32(y).reshape(*boxes.shape[:2], *bins, x.shape[-1])
        return y.mean(tuple(range(3, 3 + 2 * rank, 2))).astype(x.dtype)

    return as_layer(fn)


def _inputs(name: str, pair: Any, size: int | Sequence[int]) -> tuple[jax.Array, jax.Array, tuple[int, ...]]:
    """x, the boxes in at least float32, and the size per dimension."""
    x, boxes = floating_inputs(name, pair, "(x, boxes)")
    rank = spatial_rank(x, name)
    if boxes.ndim != 3 or boxes.shape[-1] != 2 * rank or boxes.shape[0] != x.shape[0]:
        raise ValueError(f"{name}: input {x.shape} needs boxes (N, boxes, {2 * rank}), got {boxes.shape}")
    return x, at_least_float32(boxes), per_dimension(name, "size", size, rank)


def _sample_lattice(
    x: jax.Array, at: Sequence[jax.Array], outside: Sequence[jax.Array], method: str, outside_value: float
) -> jax.Array:
    """(N, *spatial, C), per dimension (N, boxes, m) -> (N, boxes, *m, C): x at all combinations of the positions."""
    shape = (*at[0].shape[:2], *(position.shape[2] for position in at))

    def combine(v, dim):
        return jnp.broadcast_to(jnp.expand_dims(v, [d for d in range(2, len(shape)) if d != 2 + dim]), shape)

    flat = [combine(position, dim).reshape(shape[0], math.prod(shape[1:])) for dim, position in enumerate(at)]
    y = sample(x, flat, method, "border").reshape(*shape, x.shape[-1])
    is_outside = functools.reduce(operator.or_, (combine(mask, dim) for dim, mask in enumerate(outside)))
    return jnp.where(is_outside[..., None], jnp.asarray(outside_value, y.dtype), y)
