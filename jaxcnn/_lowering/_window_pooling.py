"""Pools as the maximum, minimum or sum of one input slice per window tap, and their gradients.

The first of several equal values receives the gradient, in both modes of differentiation and on every backend.
"""

import functools
import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._lowering._lax import identity_element, is_max
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import overlap_add, padded, padded_tap_slices, tap_slices


def window_sum(x: jax.Array, problem: Problem) -> jax.Array:
    return functools.reduce(operator.add, padded_tap_slices(x, problem.window))


def window_sum_gradient(dy: jax.Array, problem: Problem) -> jax.Array:
    return overlap_add([dy] * problem.window.taps, problem.window, problem.spatial)


def window_extreme(x: jax.Array, problem: Problem) -> jax.Array:
    values = padded_tap_slices(x, problem.window, identity_element(x.dtype, problem))
    return functools.reduce(jnp.maximum if is_max(problem) else jnp.minimum, values)


def gather_winners(x: jax.Array, dx: jax.Array, problem: Problem) -> jax.Array:
    """dx at the maximum or minimum of each window of x."""
    pairs = zip(_values(x, problem), _slices(dx, problem, 0), strict=True)
    best, dy = next(pairs)
    for value, tangent in pairs:
        wins = _beats(value, best, problem)
        best, dy = jnp.where(wins, value, best), jnp.where(wins, tangent, dy)
    return dy


def scatter_to_winners(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The transpose of `gather_winners`: each position of x receives the sum of dy over the windows where it wins."""
    values = _values(x, problem)
    best, taps = next(values), problem.window.taps
    # Taps are floats: without AVX-512, LLVM does not vectorize the selection of floats dy by integers.
    winner = jnp.zeros(best.shape, jnp.float32)
    for tap, value in enumerate(values, 1):
        wins = _beats(value, best, problem)
        best, winner = jnp.where(wins, value, best), jnp.where(wins, np.float32(tap), winner)
    winner, dy = materialized((winner, dy))
    zero = np.zeros((), dy.dtype)
    parts = [jnp.where(winner == tap, dy, zero) for tap in range(taps)]
    return overlap_add(parts, problem.window, problem.spatial)


def _slices(x: jax.Array, problem: Problem, padding: Any) -> Iterator[jax.Array]:
    """The inputs that each tap of the window reads for all outputs, in order.

    For winners, slices of the padded array are faster than `padded_tap_slices`.
    """
    xp = padded(x, problem.window.padding, value=padding)
    return (values for _, values in tap_slices(xp, problem.window))


def _values(x: jax.Array, problem: Problem) -> Iterator[jax.Array]:
    return _slices(x, problem, identity_element(x.dtype, problem))


def _beats(value: jax.Array, best: jax.Array, problem: Problem) -> jax.Array:
    """Where a later tap wins: its value is better, or NaN."""
    better = value > best if is_max(problem) else value < best
    return better | (value != value)
