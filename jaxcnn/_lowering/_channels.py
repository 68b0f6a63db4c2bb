"""Sums over all positions of each channel, and their transpose: what normalisation and biases are made of.

    total(x)[c] = sum of x[n, i, c] over n and i        deviations(x, near) = total(x - near), total((x - near)^2)
    spread(v, x)[n, i, c] = v[c]

The gradient of spread is a total, so whatever adds or multiplies by one number for each channel gets the fast sum.
"""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from jaxcnn._layer import widened
from jaxcnn._lowering._primitive import linear_in, primitive

_SLICES = 16


def total(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (C,)."""
    return _total.bind(x)


def spread(v: jax.Array, x: jax.Array) -> jax.Array:
    """(C,), (N, *spatial, C) -> (N, *spatial, C), in v's type: v at each position of x."""
    return _spread.bind(v, x)


def deviations(x: jax.Array, near: jax.Array) -> jax.Array:
    """(N, *spatial, C), (C,) -> (2, C): the totals of x - near and of its square; near is taken for a constant."""
    return _deviations.bind(x, lax.stop_gradient(near))


def _plain_total(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _plain_deviations(x: jax.Array, near: jax.Array) -> jax.Array:
    rest = x - jnp.expand_dims(near, range(x.ndim - 1))
    return jnp.stack([_plain_total(rest), _plain_total(jnp.square(rest))])


def total_on_cpu(x: jax.Array) -> jax.Array:
    """The total of an array that is there, not computed on the way.

    As one dimension of positions it is a vectorised reduction, which with several it is not; see `_summed`.
    """
    # Without the barriers, what x is made of would become part of the sum, and the sum part of its users.
    rows = lax.optimization_barrier(_rows(x))
    return lax.optimization_barrier(rows.sum(0).astype(x.dtype))


def abs_sum(x: jax.Array) -> jax.Array:
    """The sum of all magnitudes: finite only if all values are."""
    return _summed(widened(x), jnp.abs).sum()


def square_sum(x: jax.Array) -> jax.Array:
    """The sum of all squares."""
    return _summed(widened(x), jnp.square).sum()


def _cpu_total(x: jax.Array) -> jax.Array:
    return _summed(x, lambda x: x)


def _cpu_deviations(x: jax.Array, near: jax.Array) -> jax.Array:
    near = near[None]
    return jnp.stack([_summed(x, lambda x: x - near), _summed(x, lambda x: jnp.square(x - near))])


def _summed(x: jax.Array, f: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The total of f(x), first of 16 neighbouring positions, in a vectorised pass over memory.

    f, element-wise, is written into each of the 16 terms, where XLA would not put it; as part of the reduction, it
    would keep that from being vectorised. Totals of x - near and of its square, in ms: these, the reduction alone, and
    plain: (128, 32, 32, 16) 0.17, 1.0, 2.3; (64, 32, 32, 64) 0.28, 9.7, 7.1; (16, 28, 28, 256) 0.26, 1.4, 7.0.
    """
    rows = _rows(x)
    count = rows.shape[0]
    slices = math.gcd(count, _SLICES) if isinstance(count, int) else 1  # a batch in `export` has no number
    parts = rows.reshape(count // slices, slices, rows.shape[-1])
    terms = (f(parts[:, i]) for i in range(slices))
    return total_on_cpu(functools.reduce(operator.add, terms)).astype(x.dtype)


def _rows(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (positions, C), in a type that is wide enough for sums."""
    return widened(x).reshape(-1, x.shape[-1])


def _plain_spread(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(v, x.shape)


_total = primitive("jaxcnn_total", _plain_total, cpu=_cpu_total, examples=(False,))
_spread = primitive("jaxcnn_spread", _plain_spread, examples=(False, True))
_deviations = primitive("jaxcnn_deviations", _plain_deviations, cpu=_cpu_deviations, examples=(False, False))


def _tangent(dx: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    return jnp.stack([total(dx), 2 * total((x - spread(near, x)) * dx)])


ad.deflinear2(_total, lambda dv, x: [lax.broadcast_in_dim(dv, x.aval.shape, (len(x.aval.shape) - 1,))])
linear_in(0, _spread, lambda dx, x: _total.bind(dx))
ad.defjvp(_deviations, _tangent, None)
