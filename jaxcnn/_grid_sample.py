"""Layers that sample a feature map at positions given by a second input."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import (
    Layer,
    as_floating,
    as_layer,
    at_least_float32,
    check_number,
    constructor,
    short_repr,
    spatial_rank,
)
from jaxcnn._sample import BOUNDARIES, SAMPLE_METHODS, sample
from jaxcnn._window import check_choice, check_window_options, per_dimension


@constructor
def grid_sample(method: str = "linear", *, padding_mode: str = "zeros", align_corners: bool = False) -> Layer:
    """((N, *spatial, C), (N, *spatial', rank)) -> (N, *spatial', C): x at the positions in a grid.

    y[n, i, c] = x[n, p, c] between the pixels,  p = ((grid[n, i] + 1) * spatial - 1) / 2

    The input is a pair (x, grid). As in PyTorch, the grid has the last spatial dimension first, (x, y) for images, and
    -1 and 1 are the ends of the image. With align_corners, they are the centers of the outer pixels:
    p = (grid[n, i] + 1) / 2 * (spatial - 1).

    Args:
        method: "linear" (bilinear for images), "nearest" or "cubic".
        padding_mode: values outside the input: "zeros", "border" (the nearest value) or "reflection".
        align_corners: see above.

    Raises:
        TypeError: if the input is not a pair of floating-point arrays.
        ValueError: for shapes that do not fit together, an unknown method or an unknown padding_mode.

    Example: a network that learns where to look. `localize` maps the image to a grid.
        >>> localize = lambda x: jnp.zeros((*x.shape[:-1], 2))  # all positions at the center
        >>> look = jaxcnn.parallel(lambda *pair: pair, x=jaxcnn.identity, grid=localize)
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> y, _ = jaxcnn.serial(look, jaxcnn.grid_sample()).apply({}, {}, image, train=False)
        >>> y[0, 0, :, 0]
        Array([4., 4., 4.], dtype=float32)

    Source: Jaderberg et al., "Spatial transformer networks", 2015.
    """
    check_choice("grid_sample", "method", method, SAMPLE_METHODS)
    check_choice("grid_sample", "padding_mode", padding_mode, BOUNDARIES)

    def fn(pair):
        x, grid = floating_inputs("grid_sample", pair, "(x, grid)")
        rank = spatial_rank(x, "grid_sample")
        if grid.ndim != x.ndim or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
            raise ValueError(f"grid_sample: input {x.shape} needs a grid (N, *spatial', {rank}), got {grid.shape}")
        flat = at_least_float32(grid).reshape(grid.shape[0], math.prod(grid.shape[1:-1]), rank)
        at = []
        for dim, n in enumerate(x.shape[1:-1]):
            position = flat[..., rank - 1 - dim]
            at.append((position + 1) / 2 * (n - 1) if align_corners else ((position + 1) * n - 1) / 2)
        y = sample(x, at, method, padding_mode, align_corners)
        return y.reshape(*grid.shape[:-1], x.shape[-1])

    return as_layer(fn)


@constructor
def crop_and_resize(size: int | Sequence[int], method: str = "linear", *, extrapolation_value: float = 0.0) -> Layer:
    """((N, *spatial, C), (N, boxes, 2 * rank)) -> (N, boxes, *size, C): crops boxes, and resizes each of them.

    y[n, b, i, c] = x[n, p, c] between the pixels,  p = (low + (high - low) * i / (size - 1)) * (spatial - 1)

    The input is a pair (x, boxes). As in TensorFlow, a box is (y1, x1, y2, x2), the low and then the high ends of all
    dimensions, in fractions of the image from the center of its first pixel to that of its last. A box with low > high
    is flipped. For size 1, p is the center of the box.

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
    check_number("crop_and_resize: extrapolation_value", extrapolation_value, -math.inf)

    def fn(pair):
        x, boxes = floating_inputs("crop_and_resize", pair, "(x, boxes)")
        rank = spatial_rank(x, "crop_and_resize")
        sizes = per_dimension("crop_and_resize", "size", size, rank)
        if boxes.ndim != 3 or boxes.shape[-1] != 2 * rank or boxes.shape[0] != x.shape[0]:
            raise ValueError(f"crop_and_resize: input {x.shape} needs boxes (N, boxes, {2 * rank}), got {boxes.shape}")
        boxes = at_least_float32(boxes)
        at, outside = [], jnp.zeros((*boxes.shape[:2], *sizes), bool)
        for dim, (n, m) in enumerate(zip(x.shape[1:-1], sizes, strict=True)):
            low, high = boxes[..., dim, None], boxes[..., rank + dim, None]
            fraction = np.linspace(0, 1, m) if m > 1 else np.array([0.5])
            position = (low + (high - low) * jnp.asarray(fraction, boxes.dtype)[None, None]) * (n - 1)
            position = jnp.expand_dims(position, [2 + d for d in range(rank) if d != dim])
            position = jnp.broadcast_to(position, outside.shape)
            outside = outside | ~((position >= 0) & (position <= n - 1))
            if method == "nearest":
                position = jnp.floor(position + 0.5)  # ties up, as in TensorFlow
            at.append(position.reshape(boxes.shape[0], boxes.shape[1] * math.prod(sizes)))
        y = sample(x, at, method, "border").reshape(*outside.shape, x.shape[-1])
        return jnp.where(outside[..., None], jnp.asarray(extrapolation_value, y.dtype), y)

    return as_layer(fn)


def floating_inputs(name: str, inputs: Any, expected: str) -> tuple[jax.Array, ...]:
    """The arrays of a layer with several inputs."""
    if not isinstance(inputs, tuple | list) or len(inputs) != expected.count(",") + 1:
        raise TypeError(f"{name} needs the inputs {expected}, got {short_repr(inputs)}")
    return tuple(as_floating(value, name) for value in inputs)
