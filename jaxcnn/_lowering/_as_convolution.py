"""The gradients of a convolution, as other convolutions in the layout (N, *spatial, C).

For other layouts, XLA's CPU compiler generates scalar code inside loops.
"""

import itertools

import jax
import jax.numpy as jnp

from jaxcnn._lowering import _lax, _problem
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._lowering._taps import interleave
from jaxcnn._window import Window


def swap_in_out_channels(w: jax.Array, groups: int) -> jax.Array:
    """(*size, C / groups, F) -> (*size, F / groups, C): transposes each group."""
    *size, channels, _ = w.shape
    w = jnp.swapaxes(w.reshape(*size, channels, groups, -1), -1, -3)
    return w.reshape(*size, -1, groups * channels)


def rotated_kernel(w: jax.Array, problem: Problem) -> jax.Array:
    """The kernel of a convolution of dy that computes the input gradient."""
    w = jnp.flip(w, range(len(problem.window.size)))
    return materialized(swap_in_out_channels(w, problem.groups))


def in_order(dy: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
    """dy and w. A kernel larger than dy is only read once dy is computed.

    XLA would rotate the kernels of all layers at the start of the program, and their sum can exceed the feature maps.
    """
    return materialized((dy, w)) if isinstance(dy.size, int) and w.size > dy.size else (dy, w)


def rotated(problem: Problem) -> Problem:
    """The problem of a convolution of dy that computes the input gradient."""
    window, pads = problem.window, []
    for o, n, s, span, (low, _), input_dilation in zip(
        problem.output,
        problem.spatial,
        window.stride,
        window.span,
        window.padding,
        window.input_dilation,
        strict=True,
    ):
        dilated_dy, dilated_x = (o - 1) * s + 1, (n - 1) * input_dilation + 1
        pads.append((span - 1 - low, dilated_x + low - dilated_dy))
    window = Window(window.size, window.input_dilation, window.dilation, tuple(pads), window.stride)
    return _over_dy(problem, window)


def _over_dy(problem: Problem, window: Window) -> Problem:
    """The problem of a convolution of dy with this window, whose outputs are positions of x."""
    return problem._replace(
        operation="forward",
        spatial=problem.output,
        channels=problem.features,
        features=problem.channels,
        window=window,
    )


def phases(problem: Problem) -> list[tuple[tuple[slice, ...], Problem]]:
    """The input gradient of a strided convolution as one convolution of dy for each phase: the taps and the problem.

    A phase is all positions of x with the same remainder modulo the stride. Only every stride-th tap reads them.
    """
    window, dims = problem.window, []
    for n, o, s, size, (low, _) in zip(
        problem.spatial, problem.output, window.stride, window.size, window.padding, strict=True
    ):
        dim = []
        for remainder in range(s):
            first = (remainder + low) % s
            count, shift = len(range(first, size, s)), (first - low - remainder) // s
            dim.append((slice(first, None, s), count, (count - 1 + shift, -(-n // s) - o - shift)))
        dims.append(dim)
    result, once = [], (1,) * len(dims)
    for phase in itertools.product(*dims):
        taps, sizes, pads = zip(*phase, strict=True)
        result.append((taps, _over_dy(problem, Window(sizes, once, once, pads, once))))
    return result


def input_gradient_by_phases(dy: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    dy, w = in_order(dy, w)
    parts = [compute(dy, rotated_kernel(w[taps], problem), convolution) for taps, convolution in phases(problem)]
    return interleave(parts, problem.window.stride)[(slice(None), *map(slice, problem.spatial))]


def over_examples(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The kernel gradient without groups: a convolution of x with kernel dy that sums over examples as channels."""
    x, dy = materialized((x, dy))  # otherwise XLA recomputes them, value by value, while it transposes them
    window, pads = problem.window, []
    for n, o, k, s, d, (low, _), input_dilation in zip(x.shape[1:-1], dy.shape[1:-1], *window, strict=True):
        # The end padding follows from the kernel size: with a stride, the forward pass may not use all its padding.
        pads.append((low, d * (k - 1) + (o - 1) * s - (n - 1) * input_dilation - low))
    window = Window(dy.shape[1:-1], window.dilation, window.stride, tuple(pads), window.input_dilation)
    x, w = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2)
    return jnp.moveaxis(_lax.forward(x, w, _problem.forward(x, w, window, 1)), 0, -2)
