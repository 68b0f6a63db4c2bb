"""Optimization barriers that make XLA compute a value once and store it.

XLA's CPU compiler fuses element-wise operations into each of their users and recomputes them for each: a padded input
for each tap of a kernel, the gradient of an activation for a kernel, a bias and an input. Fused into a reduction or a
transposition, they are not vectorized. An optimization barrier prevents the fusion. (`jaxcnn.jit` keeps the barriers
until after fusion.)
"""

from typing import TypeVar

import jax
from jax import lax

from jaxcnn._lowering._primitive import linear_in, primitive

T = TypeVar("T")


def materialized(x: T) -> T:
    """The identity on a tree of arrays, which are stored in memory."""
    return lax.optimization_barrier(x)


def stored(x: jax.Array) -> jax.Array:
    """The identity; on a CPU, the value and its gradient are stored in memory."""
    return _stored.bind(x)


def stored_gradient(y: jax.Array) -> jax.Array:
    """The identity; on a CPU, its gradient is stored in memory."""
    return _stored_gradient.bind(y)


_stored = primitive("jaxcnn_stored", lambda x: x, cpu=lambda x: materialized(x), spec=lambda x: x, examples=(True,))
_stored_gradient = primitive("jaxcnn_stored_gradient", lambda y: y, spec=lambda y: y, examples=(True,))
linear_in(0, _stored, stored)
linear_in(0, _stored_gradient, stored)
