"""Sums over all positions of each channel, and their transpose: what normalisation and biases are made of.

    total(x)[c] = sum of x[n, i, c] over n and i        spread(v, x)[n, i, c] = v[c]

The gradient of spread is a total, so whatever adds or multiplies by one number for each channel gets the fast sum.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad

from jaxcnn._layer import widened
from jaxcnn._lowering._primitive import linear_in, primitive

_SLICES = 8
_FEW = 2**15  # values, of which the plain sum takes less time than a second program


def total(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (C,)."""
    return _total.bind(x)


def spread(v: jax.Array, x: jax.Array) -> jax.Array:
    """(C,), (N, *spatial, C) -> (N, *spatial, C), in v's type: v at each position of x."""
    return _spread.bind(v, x)


def _plain_total(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _cpu_total(x: jax.Array) -> jax.Array:
    """As sums of 8 neighbouring positions, which is one vectorised pass over memory; a reduction over many is not.

    Of x and x * x, ms here, plain, and plain with YNNPACK (fast here, and wrong or fatal elsewhere, see `_jit.py`):
    (128, 32, 32, 16) 0.5, 2.3, 0.2; (64, 32, 32, 64) 0.6 to 1.4, 7.1, 0.4; (16, 28, 28, 256) 1.0, 7.0, 0.2.
    """
    if not all(isinstance(n, int) for n in x.shape):
        return _plain_total(x)
    dtype = x.dtype
    x = widened(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])
    while x.size > _FEW and (slices := math.gcd(len(x), _SLICES)) > 1:
        parts = x.reshape(len(x) // slices, slices, x.shape[-1])
        x = sum(parts[:, i] for i in range(slices))
    return x.sum(0).astype(dtype)


def _plain_spread(v: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(v, x.shape)


_total = primitive("jaxcnn_total", _plain_total, cpu=_cpu_total, examples=(False,))
_spread = primitive("jaxcnn_spread", _plain_spread, cpu=_plain_spread, examples=(False, True))

ad.deflinear2(_total, lambda dv, x: [lax.broadcast_in_dim(dv, x.aval.shape, (len(x.aval.shape) - 1,))])
linear_in(0, _spread, lambda dx, x: _total.bind(dx))
