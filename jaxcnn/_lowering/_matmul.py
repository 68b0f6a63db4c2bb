"""Convolutions as matrix products: directly if each output reads one position or patch, else by im2col and col2im.

Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering import _onednn
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import Phases, add_to_phases, interleave_phases, padded, tap_slices

_TAPS_AT_ONCE = 9  # one matrix product computes all taps of a window up to this size
_COLUMNS = 30  # of each matrix product for larger windows, approximately


def pointwise(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """A convolution with a window of one position."""
    y = _product(_strided(x, problem.window.stride), w.reshape(w.shape[-2:]), problem)
    return padded(y, problem.window.padding, problem.window.input_dilation)


def pointwise_kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The kernel gradient for a window of one position."""
    return _sum_of_products(_strided(x, problem.window.stride), dy, problem)


def kernel_gradient_of_patches(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The kernel gradient for windows that divide x into patches: the stride is the size, without padding."""
    size, output, rank = problem.window.size, problem.output, len(problem.spatial)
    x = x[(slice(None), *(slice(o * k) for o, k in zip(output, size, strict=True)))]
    # (N, rows, size, .., columns, size * C) -> (N, rows, .., columns, size, .., size * C)
    split = [length for pair in zip(output, size, strict=True) for length in pair]
    x = x.reshape(x.shape[0], *split[:-1], size[-1] * problem.channels)
    x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2))
    return _sum_of_products(x.reshape(*dy.shape[:-1], problem.window.taps * problem.channels), dy, problem)


def _sum_of_products(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The sum of x^T dy over examples and positions. XLA computes it with the wider operand on the right."""
    if problem.models == 1 and _onednn.can_multiply(x, dy):
        return _onednn.sum_of_products(x, dy).reshape(problem.kernel_shape)
    x, dy = materialized((x, dy))
    positions = tuple(range(x.ndim - 1))
    product = lambda a, b: lax.dot_general(a, b, ((positions, positions), ((), ())))
    # Without `materialized`, XLA swaps the operands back.
    dw = materialized(product(dy, x)).T if x.shape[-1] > dy.shape[-1] else product(x, dy)
    return dw.reshape(problem.kernel_shape)


def _product(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """x w. Calls of oneDNN have no form for several models."""
    return _onednn.product(x, w) if problem.models == 1 and _onednn.can_multiply(x, w) else x @ w


def _strided(x: jax.Array, stride: tuple[int, ...]) -> jax.Array:
    return x[(slice(None), *(slice(None, None, step) for step in stride))]


def im2col(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """A matrix with one row per window, times the kernel as a matrix."""
    xp = materialized(padded(x, problem.window.padding))  # otherwise XLA computes x again for each tap
    columns = [part for _, part in tap_slices(xp, problem.window)]
    return _product(jnp.concatenate(columns, -1), w.reshape(-1, w.shape[-1]), problem)


def col2im(dy: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The input gradient: the matrix product of dy and the kernel, with each tap's columns added at its position.

    Large windows are computed in several products, to save memory.
    """
    window, (channels, features) = problem.window, w.shape[-2:]
    taps = list(np.ndindex(*window.size))
    step = len(taps) if len(taps) <= _TAPS_AT_ONCE else max(1, round(_COLUMNS / channels))
    wide, columns = at_least_float32(dy), at_least_float32(jnp.moveaxis(w, -1, 0).reshape(features, -1))
    sums: Phases = {}
    for start in range(0, len(taps), step):
        chunk = taps[start : start + step]
        sums, wide = materialized((sums, wide))  # orders the products, so that memory is reused
        products = _product(wide, columns[:, start * channels : (start + len(chunk)) * channels], problem)
        parts = jnp.split(materialized(products), len(chunk), -1)
        sums = add_to_phases(sums, parts, chunk, window, problem.spatial)
    return materialized(interleave_phases(sums, window, problem.spatial).astype(dy.dtype))
