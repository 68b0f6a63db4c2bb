"""Channel sums and their transpose, for normalization and biases.

    channel_sum(x)[c] = sum of x[n, i, c] over n and i          broadcast(v, x)[n, i, c] = v[c]
    channel_moments(x, near) = channel_sum((x - near)^2), channel_sum(x - near)
    affine(x, near, (factor, offset)) = (x - broadcast(near)) * broadcast(factor) + broadcast(offset)

The gradient of `broadcast` is a channel sum, so biases and scales use the fast channel sum in the backward pass. The
gradients of `affine` for factor and offset are the channel sums of (x - near) * dy and dy, and the gradient of
`channel_moments` for x is an `affine` function of x. Each pair of sums is computed in one loop.

XLA vectorizes a sum over several dimensions, or a long one, only if it reads an array from memory. So a first loop adds
blocks of 16 neighboring positions, and may contain other operations; a second sum adds the results.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._jax import ad
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._primitive import linear_in, primitive, transposed_in

_MAX_BLOCK = 16  # positions


def channel_sum(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (C,)."""
    return _sum.bind(x, models=False)


def broadcast(v: jax.Array, x: jax.Array) -> jax.Array:
    """(C,), (N, *spatial, C) -> (N, *spatial, C) in v's dtype: v at each position of x. Of x (C,), it is v."""
    return _broadcast.bind(v, x, models=False) if x.ndim > 1 else v


def first_row_sum(x: jax.Array) -> jax.Array:
    """(N, rows, *spatial, C) -> (C,): the channel sum of the first row of each image, a constant."""
    return channel_sum(lax.index_in_dim(lax.stop_gradient(x), 0, 1, keepdims=False))


def channel_moments(x: jax.Array, near: jax.Array) -> jax.Array:
    """(N, *spatial, C), (C,) -> (2, C): the sums of (x - near)^2 and of x - near. `near` is a constant."""
    return _moments.bind(x, lax.stop_gradient(near), models=False)


def affine(x: jax.Array, near: jax.Array, v: jax.Array) -> jax.Array:
    """(N, *spatial, C), (C,), (2, C) -> (N, *spatial, C): (x - near) * v[0] + v[1], all of the same dtype."""
    return _affine.bind(x, near, v, models=False)


def vectorized_channel_sum(x: jax.Array) -> jax.Array:
    """The channel sum of a small array, without blocks."""
    rows = materialized(at_least_float32(x).reshape(-1, x.shape[-1]))
    return materialized(rows.sum(0).astype(x.dtype))


def abs_sum(x: jax.Array) -> jax.Array:
    """The sum of |x|. It is finite only if all values are."""
    return vectorized_channel_sum(partial_abs_sums(x)).sum()


def partial_abs_sums(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (positions / 16, C): the sums of |x| over blocks of positions."""
    (sums,) = _block_sums(jnp.abs(_blocks(x)))
    return sums


def _lax_sum(x: jax.Array) -> jax.Array:
    return x.sum(tuple(range(x.ndim - 1)))


def _lax_moments(x: jax.Array, near: jax.Array) -> jax.Array:
    return _lax_affine_sums(lax.sub(x, broadcast(near, x)), x, near)


def _cpu_moments(x: jax.Array, near: jax.Array) -> jax.Array:
    centered = _centered_blocks(x, near)
    return _pair_of_sums(lax.square(centered), centered).astype(x.dtype)


def _lax_affine(x: jax.Array, near: jax.Array, v: jax.Array) -> jax.Array:
    return lax.add(lax.mul(lax.sub(x, broadcast(near, x)), broadcast(v[0], x)), broadcast(v[1], x))


def _lax_affine_sums(dy: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    return jnp.stack([_lax_sum(lax.mul(dy, lax.sub(x, broadcast(near, x)))), _lax_sum(dy)])


def _cpu_affine_sums(dy: jax.Array, x: jax.Array, near: jax.Array) -> jax.Array:
    blocks = _blocks(dy)
    return _pair_of_sums(lax.mul(blocks, _centered_blocks(x, near)), blocks).astype(dy.dtype)


def _cpu_sum(x: jax.Array) -> jax.Array:
    (sums,) = _block_sums(_blocks(x))
    return vectorized_channel_sum(sums).astype(x.dtype)


def _pair_of_sums(first: jax.Array, second: jax.Array) -> jax.Array:
    """(2, C): the channel sums of two arrays of blocks."""
    return jnp.stack([vectorized_channel_sum(sums) for sums in _block_sums(first, second)])


def _centered_blocks(x: jax.Array, near: jax.Array) -> jax.Array:
    blocks = _blocks(x)
    return lax.sub(blocks, lax.broadcast_in_dim(near, blocks.shape, (2,)))


def _blocks(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (positions / 16, 16, C), in a dtype that is accurate enough for sums.

    If 16 does not divide the positions, the blocks are smaller. x is stored: XLA would not vectorize all expressions.
    """
    positions = math.prod(x.shape[:-1])
    size = max(size for size in range(1, _MAX_BLOCK + 1) if positions % size == 0)
    return at_least_float32(materialized(x.reshape(-1, size, x.shape[-1])))


def _block_sums(*arrays: jax.Array) -> list[jax.Array]:
    """(blocks, size, C) -> (blocks, C) for each of the arrays, in one loop."""
    zeros = [np.zeros((), x.dtype) for x in arrays]
    return materialized(lax.reduce(list(arrays), zeros, lambda a, b: list(map(lax.add, a, b)), (1,)))


def _lax_broadcast(v: jax.Array, x: jax.Array) -> jax.Array:
    return lax.broadcast_in_dim(v, x.shape, (x.ndim - 1,))


def _broadcast_spec(v: Any, x: Any, models: bool) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, v.dtype)


_sum = primitive("jaxcnn_channel_sum", _lax_sum, cpu=_cpu_sum, examples=(False,))
_broadcast = primitive("jaxcnn_broadcast", _lax_broadcast, spec=_broadcast_spec, examples=(False, True))
_moments = primitive(
    "jaxcnn_channel_moments",
    _lax_moments,
    cpu=_cpu_moments,
    spec=lambda x, near, models: _pair_spec(near),
    examples=(False, False),
)
_affine = primitive("jaxcnn_affine", _lax_affine, spec=lambda x, *_, models: x, examples=(True, False, False))
_affine_sums = primitive(
    "jaxcnn_affine_sums",
    _lax_affine_sums,
    cpu=_cpu_affine_sums,
    spec=lambda dy, x, near, models: _pair_spec(near),
    examples=(False, False, False),
)


def _moments_tangent(dx: jax.Array, x: jax.Array, near: jax.Array, *, models: bool) -> jax.Array:
    sums = _affine_sums.bind(dx, x, near, models=models)
    return sums * np.array([2, 1], near.dtype).reshape(*(1,) * (sums.ndim - 2), 2, 1)


def _pair_spec(near: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*near.shape[:-1], 2, near.shape[-1]), near.dtype)


def _only_first(row: jax.Array) -> jax.Array:
    """(.., C) -> (.., 2, C): the row and zeros."""
    return jnp.stack([row, jnp.zeros_like(row)], -2)


def _sum_transposed(dv: jax.Array, x: Any, *, models: bool) -> list[jax.Array]:
    shape = x.aval.shape
    return [lax.broadcast_in_dim(dv, shape, (*range(models), len(shape) - 1))]


ad.deflinear2(_sum, _sum_transposed)
linear_in(0, _broadcast, lambda dx, x, *, models: _sum.bind(dx, models=models))
ad.defjvp(_moments, _moments_tangent, None)
# `affine` is linear in v, and its sums in dy; both are affine functions of x and near.
transposed_in(2, _affine, lambda dy, x, near, *, models: _affine_sums.bind(dy, x, near, models=models))
transposed_in(0, _affine_sums, lambda dv, x, near, *, models: _affine.bind(x, near, dv, models=models))
ad.defjvp(
    _affine,
    lambda dx, x, near, v, *, models: lax.mul(dx, _broadcast.bind(v[..., 0, :], x, models=models)),
    lambda dnear, x, near, v, *, models: lax.neg(_broadcast.bind(lax.mul(dnear, v[..., 0, :]), x, models=models)),
    lambda dv, x, near, v, *, models: _affine.bind(x, near, dv, models=models),
)
ad.defjvp(
    _affine_sums,
    lambda ddy, dy, x, near, *, models: _affine_sums.bind(ddy, x, near, models=models),
    lambda dx, dy, x, near, *, models: _only_first(_sum.bind(lax.mul(dy, dx), models=models)),
    lambda dnear, dy, x, near, *, models: _only_first(lax.neg(lax.mul(dnear, _sum.bind(dy, models=models)))),
)
