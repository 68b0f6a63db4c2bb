"""Pools as one slice of the input for each tap of the window: their maximum, minimum or sum, and the gradients.

Of equal values the first wins, in both modes of differentiation and on every backend.
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
from jaxcnn._lowering._taps import overlap_add, padded, tap_slices


def window_sum(x: jax.Array, problem: Problem) -> jax.Array:
    return functools.reduce(operator.add, _slices(x, problem, 0))


def window_sum_gradient(dy: jax.Array, problem: Problem) -> jax.Array:
    return overlap_add([dy] * problem.window.taps, problem.window, problem.spatial)


def window_extreme(x: jax.Array, problem: Problem) -> jax.Array:
    return functools.reduce(jnp.maximum if is_max(problem) else jnp.minimum, _values(x, problem))


def gather_winners(x: jax.Array, dx: jax.Array, problem: Problem) -> jax.Array:
    """dx where each window of x has its maximum or minimum."""
    pairs = zip(_values(x, problem), _slices(dx, problem, 0), strict=True)
    best, dy = next(pairs)
    for here, dhere in pairs:
        wins = _beats(here, best, problem)
        best, dy = jnp.where(wins, here, best), jnp.where(wins, dhere, dy)
    return dy


def scatter_to_winners(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The transpose of `gather_winners`: each position of x has the sum of dy over the windows that it won."""
    values = _values(x, problem)
    best, taps = next(values), problem.window.taps
    winner = jnp.zeros(best.shape, jnp.int32 if taps > 127 else jnp.int8)
    for number, here in enumerate(values, 1):
        wins = _beats(here, best, problem)
        best, winner = jnp.where(wins, here, best), jnp.where(wins, number, winner)
    winner, dy = materialized((winner, dy))
    zero = np.zeros((), dy.dtype)
    parts = [jnp.where(winner == number, dy, zero) for number in range(taps)]
    return overlap_add(parts, problem.window, problem.spatial)


def _slices(x: jax.Array, problem: Problem, padding: Any) -> Iterator[jax.Array]:
    """What each tap of the window sees at every place, first tap first."""
    xp = padded(x, problem.window.padding, value=padding)
    return (here for _, here in tap_slices(xp, problem.window))


def _values(x: jax.Array, problem: Problem) -> Iterator[jax.Array]:
    return _slices(x, problem, identity_element(x.dtype, problem))


def _beats(here: jax.Array, best: jax.Array, problem: Problem) -> jax.Array:
    """Where a later tap wins: with a better value, or with a NaN."""
    better = here > best if is_max(problem) else here < best
    return better | (here != here)
