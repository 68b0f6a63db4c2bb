"""Sums over all positions of each channel, and their transpose: what normalisation and biases are made of.

    total(x)[c] = sum of x[n, i, c] over n and i        deviations(x, near) = total(x - near), total((x - near)^2)
    spread(v, x)[n, i, c] = v[c]

The gradient of spread is a total, so whatever adds or multiplies by one number for each channel gets the fast sum.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from jaxcnn._layer import widened
from jaxcnn._lowering._primitive import linear_in, primitive

_SLICES = 16
_ROWS = 64  # of which the sum is written out


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
    rest = x - near
    return jnp.stack([_plain_total(rest), _plain_total(jnp.square(rest))])


def total_on_cpu(x: jax.Array) -> jax.Array:
    return _summed(x, lambda x: x)


def _cpu_deviations(x: jax.Array, near: jax.Array) -> jax.Array:
    return jnp.stack([_summed(x, lambda x: x - near), _summed(x, lambda x: jnp.square(x - near))])


def _summed(x: jax.Array, f: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The total of f(x), as sums of 16 neighbouring positions, each a vectorised pass over memory.

    A reduction over many positions is not vectorised; and f, element-wise, is written into each of the 16 terms, where
    XLA would not put it. Totals of x and x * x, in ms: these, plain, and plain with YNNPACK (fast here, wrong or fatal
    elsewhere, see `_jit.py`): (128, 32, 32, 16) 0.5, 2.3, 0.2; (64, 32, 32, 64) 0.6 to 1.4, 7.1, 0.4; (16, 28, 28, 256)
    1.0, 7.0, 0.2.
    """
    if not all(isinstance(n, int) for n in x.shape):
        return _plain_total(f(x))
    dtype = x.dtype
    x = widened(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    while len(x) > _ROWS and (slices := math.gcd(len(x), _SLICES)) > 1:
        parts = x.reshape(len(x) // slices, slices, x.shape[-1])
        x, f = sum(f(parts[:, i]) for i in range(slices)), lambda x: x
    if not 0 < len(x) <= _ROWS:
        return f(x).sum(0).astype(dtype)
    # Without the barrier, the sum becomes part of its users, at each of their positions.
    return lax.optimization_barrier(sum(f(row) for row in x).astype(dtype))


def _plain_spread(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(v, x.shape)


_total = primitive("jaxcnn_total", _plain_total, cpu=total_on_cpu, examples=(False,))
_spread = primitive("jaxcnn_spread", _plain_spread, examples=(False, True))
_deviations = primitive("jaxcnn_deviations", _plain_deviations, cpu=_cpu_deviations, examples=(False, False))


def _tangent(dx: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    return jnp.stack([total(dx), 2 * total((x - spread(near, x)) * dx)])


ad.deflinear2(_total, lambda dv, x: [lax.broadcast_in_dim(dv, x.aval.shape, (len(x.aval.shape) - 1,))])
linear_in(0, _spread, lambda dx, x: _total.bind(dx))
ad.defjvp(_deviations, _tangent, None)
