"""Sampling of a feature map at positions given by a second input."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, short_repr
from jaxcnn._array import as_floating, at_least_float32, check_array, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._sample import BOUNDARIES, SAMPLE_METHODS, sample


@constructor
def grid_sample(method: str = "linear", *, padding_mode: str = "zeros", align_corners: bool = False) -> Layer:
    """((N, *spatial, C), (N, *spatial', rank)) -> (N, *spatial', C): x at the positions in a grid.

    y[n, i, c] = x[n, p, c] between the pixels,  p = ((grid[n, i] + 1) * spatial - 1) / 2

    The input is a pair (x, grid). As in PyTorch, the grid has the last spatial dimension first, (x, y) for images, and
    -1 and 1 are the ends of the image. With align_corners, they are the centers of the outer pixels:
    p = (grid[n, i] + 1) / 2 * (spatial - 1). At a position that is NaN, the output is NaN.

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

    def sampled(x, grid):
        rank = grid.shape[-1]
        flat = at_least_float32(grid).reshape(grid.shape[0], math.prod(grid.shape[1:-1]), rank)
        at = []
        for dim, n in enumerate(x.shape[1:-1]):
            position = flat[..., rank - 1 - dim]
            at.append((position + 1) / 2 * (n - 1) if align_corners else ((position + 1) * n - 1) / 2)
        y = sample(x, at, method, padding_mode, align_corners)
        return y.reshape(*grid.shape[:-1], x.shape[-1])

    sampled.__name__ = program_name(method, padding_mode, align_corners)
    program = jax.jit(sampled)  # with this name, so that the export to ONNX recognizes it

    def fn(pair):
        x, grid = floating_inputs("grid_sample", pair, "(x, grid)")
        rank = spatial_rank(x, "grid_sample")
        if grid.ndim != x.ndim or grid.shape[-1] != rank or grid.shape[0] != x.shape[0]:
            raise ValueError(f"grid_sample: input {x.shape} needs a grid (N, *spatial', {rank}), got {grid.shape}")
        return program(x, grid)

    return as_layer(fn)


def program_name(method: str, padding_mode: str, align_corners: bool) -> str:
    return f"grid_sample_{method}_{padding_mode}" + ("_align_corners" if align_corners else "")


def floating_inputs(name: str, inputs: Any, expected: str) -> tuple[jax.Array, ...]:
    """The arrays of a layer with several inputs."""
    if not isinstance(inputs, tuple | list) or len(inputs) != expected.count(",") + 1:
        raise TypeError(f"{name} needs the inputs {expected}, got {short_repr(inputs)}")
    for value, part in zip(inputs[1:], expected.strip("()").split(", ")[1:], strict=True):
        check_array(value, name)
        if not jnp.issubdtype(value.dtype, jnp.floating):  # `as_floating` would advise to scale it like an image
            raise TypeError(
                f"{name}: {part} must be floating-point, got {short_repr(value)}: use {part}.astype(jnp.float32)"
            )
    return tuple(as_floating(value, name) for value in inputs)
