"""Convolutions as products of two matrices: pointwise ones, and with im2col and its transpose, col2im, all others.

Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document processing", 2006.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import Phases, add_to_phases, interleave_phases, padded, tap_slices

_TAPS_AT_ONCE = 9  # whose products with all of dy are one matrix
_COLUMNS = 30  # of such a matrix, about, where there are more taps


def pointwise(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """A window of one position."""
    y = _strided(x, problem.window.stride) @ w.reshape(w.shape[-2:])
    return padded(y, problem.window.padding, problem.window.input_dilation)


def pointwise_kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """x^T dy, with the wider of the two on the right."""
    x, dy = materialized((_strided(x, problem.window.stride), dy))
    positions = tuple(range(x.ndim - 1))
    product = lambda a, b: lax.dot_general(a, b, ((positions, positions), ((), ())))
    # Without materialized, XLA turns the product round again.
    dw = materialized(product(dy, x)).T if x.shape[-1] > dy.shape[-1] else product(x, dy)
    return dw.reshape(problem.kernel_shape)


def _strided(x: jax.Array, stride: tuple[int, ...]) -> jax.Array:
    return x[(slice(None), *(slice(None, None, step) for step in stride))]


def im2col(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """What each window sees as a row of a matrix, times the kernel as another one."""
    rows = [here for _, here in tap_slices(padded(x, problem.window.padding), problem.window)]
    return jnp.concatenate(rows, -1) @ w.reshape(-1, w.shape[-1])


def col2im(dy: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The input's gradient: dy times the taps of the kernel as a product of matrices, each added where its tap was.

    Large windows take one product after the other, so that no array of all of them is needed.
    """
    window, (channels, features) = problem.window, w.shape[-2:]
    taps = list(np.ndindex(*window.size))
    in_one = len(taps) if len(taps) <= _TAPS_AT_ONCE else max(1, round(_COLUMNS / channels))
    wide, columns = at_least_float32(dy), at_least_float32(jnp.moveaxis(w, -1, 0).reshape(features, -1))
    sums: Phases = {}
    for start in range(0, len(taps), in_one):
        some = taps[start : start + in_one]
        sums, wide = materialized((sums, wide))  # a product waits until those before are used
        products = wide @ columns[:, start * channels : (start + len(some)) * channels]
        parts = jnp.split(materialized(products), len(some), -1)
        sums = add_to_phases(sums, parts, some, window, problem.spatial)
    return materialized(interleave_phases(sums, window, problem.spatial).astype(dy.dtype))
