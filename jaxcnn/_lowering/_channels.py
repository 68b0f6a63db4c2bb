"""Channel sums and their transpose, for normalization and biases.

    channel_sum(x)[c] = sum of x[n, i, c] over n and i          broadcast(v, x)[n, i, c] = v[c]
    channel_moment(x, near, order) = channel_sum((x - near)^order)
    scale_centered(x, near, v) = (x - broadcast(near)) * broadcast(v)

The gradient of `broadcast` is a channel sum, so biases and scales use the fast channel sum in the backward pass. The
gradient of `scale_centered` for v is the channel sum of (x - near) * dy, which does not store these products.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jax import ad
from jaxcnn._layer import at_least_float32
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._primitive import linear_in, primitive, transposed_in

_SLICES = 16


def channel_sum(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (C,)."""
    return _sum.bind(x, models=False)


def broadcast(v: jax.Array, x: jax.Array) -> jax.Array:
    """(C,), (N, *spatial, C) -> (N, *spatial, C) in v's dtype: v at each position of x."""
    return _broadcast.bind(v, x, models=False)


def first_row_sum(x: jax.Array) -> jax.Array:
    """(N, rows, *spatial, C) -> (C,): the channel sum of the first row of each image, a constant."""
    return _first_row_sum.bind(lax.stop_gradient(x), models=False)


def channel_moment(x: jax.Array, near: jax.Array, order: int) -> jax.Array:
    """(N, *spatial, C), (C,) -> (C,): the sum of (x - near)^order, which is 1 or 2. `near` is a constant."""
    return _moment.bind(x, lax.stop_gradient(near), order=order, models=False)


def scale_centered(x: jax.Array, near: jax.Array, v: jax.Array) -> jax.Array:
    """(N, *spatial, C), (C,), (C,) -> (N, *spatial, C): (x - near) * v at each position, all of the same dtype."""
    return _scaled.bind(x, near, v, models=False)


def vectorized_channel_sum(x: jax.Array) -> jax.Array:
    """The channel sum of an array in memory. XLA vectorizes a sum over one dimension, but not over several."""
    rows = materialized(_rows(x))
    return materialized(rows.sum(0).astype(x.dtype))


def abs_sum(x: jax.Array) -> jax.Array:
    """The sum of |x|. It is finite only if all values are."""
    return vectorized_channel_sum(partial_abs_sums(x)).sum()


def partial_abs_sums(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (positions / 16, C): sums of |x| over 16 neighbors, or fewer if 16 does not divide them."""
    return materialized(functools.reduce(lax.add, map(jnp.abs, _interleaved(_rows(x)))))


def _lax_sum(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _lax_first_row_sum(x: jax.Array) -> jax.Array:
    return _lax_sum(x[:, 0])


def _cpu_first_row_sum(x: jax.Array) -> jax.Array:
    """Add images first: XLA would copy the rows to give them one dimension."""
    stop = (x.shape[0], 1, *x.shape[2:])
    return _added(_interleaved(at_least_float32(x), stop)).astype(x.dtype)


def _lax_moment(x: jax.Array, near: jax.Array, order: int) -> jax.Array:
    return _lax_sum(lax.integer_pow(lax.sub(x, broadcast(near, x)), order))


def _cpu_moment(x: jax.Array, near: jax.Array, order: int) -> jax.Array:
    return _added([lax.integer_pow(part, order) for part in _centered(x, near)]).astype(x.dtype)


def _lax_scaled(x: jax.Array, near: jax.Array, v: jax.Array) -> jax.Array:
    return lax.mul(lax.sub(x, broadcast(near, x)), broadcast(v, x))


def _lax_scaled_sum(dy: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    return _lax_sum(lax.mul(dy, lax.sub(x, broadcast(near, x))))


def _cpu_scaled_sum(dy: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    return _added(list(map(lax.mul, _interleaved(_rows(dy)), _centered(x, near)))).astype(dy.dtype)


def _centered(x: jax.Array, near: jax.Array) -> list[jax.Array]:
    """The interleaved rows of x - near."""
    parts = _interleaved(_rows(x))
    near = lax.broadcast_in_dim(near, parts[0].shape, (1,))
    return [lax.sub(part, near) for part in parts]


def _cpu_sum(x: jax.Array) -> jax.Array:
    """The channel sum in a vectorized pass over memory."""
    return _added(_interleaved(_rows(x))).astype(x.dtype)


def _added(parts: list[jax.Array]) -> jax.Array:
    """The channel sum of several arrays of one shape.

    First it adds the arrays in one expression, because XLA does not vectorize a reduction that contains operations.
    """
    return vectorized_channel_sum(functools.reduce(lax.add, parts))


def _interleaved(x: jax.Array, stop: tuple[int, ...] | None = None) -> list[jax.Array]:
    """(positions, .., C) -> 16 arrays (positions / 16, .., C), fewer if 16 does not divide them, x if each had one row.

    Strided slices take a third of the operations of an index into a reshaped array, and of the time to compile them.
    """
    count = x.shape[0]
    step = math.gcd(count or 1, _SLICES) if isinstance(count, int) else 1  # in `export` the batch size is symbolic
    if step == count:  # XLA takes the wrong rows if slices of one row divide an array that is sharded over 4 devices
        step = 1
    rest = x.ndim - 1
    return [lax.slice(x, (i, *(0,) * rest), stop or x.shape, (step, *(1,) * rest)) for i in range(step)]


def _rows(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (positions, C), in a dtype that is accurate enough for sums."""
    return at_least_float32(x).reshape(-1, x.shape[-1])


def _lax_broadcast(v: jax.Array, x: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(v, x.shape, (x.ndim - 1,))


def _broadcast_spec(v: Any, x: Any, models: bool) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, v.dtype)


_sum = primitive("jaxcnn_channel_sum", _lax_sum, cpu=_cpu_sum, examples=(False,))
_broadcast = primitive("jaxcnn_broadcast", _lax_broadcast, spec=_broadcast_spec, examples=(False, True))
_first_row_sum = primitive("jaxcnn_first_row_sum", _lax_first_row_sum, cpu=_cpu_first_row_sum, examples=(False,))
_moment = primitive(
    "jaxcnn_channel_moment", _lax_moment, cpu=_cpu_moment, spec=lambda x, near, **_: near, examples=(False, False)
)
_scaled = primitive("jaxcnn_scale_centered", _lax_scaled, spec=lambda x, *_, models: x, examples=(True, False, False))
_scaled_sum = primitive(
    "jaxcnn_scaled_channel_sum",
    _lax_scaled_sum,
    cpu=_cpu_scaled_sum,
    spec=lambda dy, x, near, *, models: near,
    examples=(False, False, False),
)


def _moment_tangent(dx: jax.Array, x: jax.Array, near: jax.Array, *, order: int, models: bool) -> jax.Array:
    if order == 1:
        return _sum.bind(dx, models=models)
    return 2 * _scaled_sum.bind(dx, x, near, models=models)


def _sum_transposed(dv: jax.Array, x: Any, *, models: bool) -> list[jax.Array]:
    shape = x.aval.shape
    return [lax.broadcast_in_dim(dv, shape, (*range(models), len(shape) - 1))]


ad.deflinear2(_sum, _sum_transposed)
linear_in(0, _broadcast, lambda dx, x, *, models: _sum.bind(dx, models=models))
ad.defjvp(_moment, _moment_tangent, None)
# (x - near) * v, and the channel sum of dy * (x - near), are linear in v and dy, and affine in x and near.
transposed_in(2, _scaled, lambda dy, x, near, *, models: _scaled_sum.bind(dy, x, near, models=models))
transposed_in(0, _scaled_sum, lambda dv, x, near, *, models: _scaled.bind(x, near, dv, models=models))
ad.defjvp(
    _scaled,
    lambda dx, x, near, v, *, models: lax.mul(dx, _broadcast.bind(v, x, models=models)),
    lambda dnear, x, near, v, *, models: lax.neg(_broadcast.bind(lax.mul(dnear, v), x, models=models)),
    lambda dv, x, near, v, *, models: _scaled.bind(x, near, dv, models=models),
)
ad.defjvp(
    _scaled_sum,
    lambda ddy, dy, x, near, *, models: _scaled_sum.bind(ddy, x, near, models=models),
    lambda dx, dy, x, near, *, models: _sum.bind(lax.mul(dy, dx), models=models),
    lambda dnear, dy, x, near, *, models: lax.neg(lax.mul(dnear, _sum.bind(dy, models=models))),
)
