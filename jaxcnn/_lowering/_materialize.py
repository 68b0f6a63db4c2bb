"""Values that are computed once and kept.

XLA's CPU compiler fuses whatever is element-wise into each of its users, and computes it again for each: a padded
input for each tap of a kernel, the gradient of an activation for a kernel, for a bias and for the input of a layer. As
part of a reduction or a transposition it is not vectorized either. The compiler has no way to see that once is less; an
optimization barrier keeps it from fusing. (`jaxcnn.jit` leaves the barriers in until after fusion.)
"""

from typing import TypeVar

import jax
from jax import lax

from jaxcnn._lowering._primitive import linear_in, primitive

T = TypeVar("T")


def materialized(x: T) -> T:
    """x itself, an array or a tree of arrays, as values in memory."""
    return lax.optimization_barrier(x)


def materialized_gradient(y: jax.Array) -> jax.Array:
    """y itself; on a CPU, its gradient is materialized."""
    return _identity.bind(y)


_identity = primitive("jaxcnn_materialized_gradient", lambda y: y, examples=(True,))
_once = primitive("jaxcnn_materialized", lambda dy: dy, cpu=lambda dy: materialized(dy), examples=(True,))
for _linear in (_identity, _once):
    linear_in(0, _linear, lambda dy: _once.bind(dy))
