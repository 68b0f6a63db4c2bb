"""Max and min pooling as three primitives: the pool, and two linear maps that follow its winners.

    y = pool(x)    dy = pick(x, dx)    dx = spread(x, dy)

pick takes from each window what stands where x is largest, spread puts it back there; each is the transpose of
the other, and neither moves when x does. Of equal values the first wins, in both modes and on every backend.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad

from jaxcnn._lowering._primitive import linear_in, primitive
from jaxcnn._lowering._taps import MOST_TAPS, padded, put_back, shifts, worth_taps


class Pool(NamedTuple):
    """A pool over (N, *spatial, C), with one entry for each spatial dimension."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    largest: bool  # or the smallest


def extreme(x: jax.Array, pool: Pool) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C): the largest or smallest value of each window."""
    return _pool.bind(x, pool=pool)


def _plain_pool(x: jax.Array, *, pool: Pool) -> jax.Array:
    return lax.reduce_window(
        x,
        _identity(x.dtype, pool),
        lax.max if pool.largest else lax.min,
        window_dimensions=(1, *pool.size, 1),
        window_strides=(1, *pool.stride, 1),
        padding=((0, 0), *pool.padding, (0, 0)),
        window_dilation=(1, *pool.dilation, 1),
    )


def _cpu_pool(x: jax.Array, *, pool: Pool) -> jax.Array:
    """The maximum of the taps, but for small windows that hang over the edge, few channels, and signals in 1-D.

    On (128, 32, 32, 32), 2x2: 0.9 ms, plain 2.2, PyTorch 1.4; 3x3 / 2: 1.5, 4.5, 1.7 ms. On (8, 56, 56, 128), 3x3 / 2:
    1.0, 5.2 ms.
    """
    if not worth_taps(x, pool):
        return _plain_pool(x, pool=pool)
    return functools.reduce(jnp.maximum if pool.largest else jnp.minimum, _taps(x, pool, _identity(x.dtype, pool)))


def _pick_taps(x: jax.Array, dx: jax.Array, *, pool: Pool) -> jax.Array:
    pairs = zip(_taps(x, pool, _identity(x.dtype, pool)), _taps(dx, pool, 0), strict=True)
    best, dy = next(pairs)
    for here, dhere in pairs:
        wins = _beats(here, best, pool)
        best, dy = jnp.where(wins, here, best), jnp.where(wins, dhere, dy)
    return dy


def _plain_spread(x: jax.Array, dy: jax.Array, *, pool: Pool) -> jax.Array:
    if set(pool.dilation) != {1}:  # lax has no gradient of a dilated maximum
        return _spread_taps(x, dy, pool=pool)
    return jax.vjp(functools.partial(_plain_pool, pool=pool), x)[1](dy)[0]


def _cpu_spread(x: jax.Array, dy: jax.Array, *, pool: Pool) -> jax.Array:
    if math.prod(pool.size) > MOST_TAPS:
        return _plain_spread(x, dy, pool=pool)
    return _spread_taps(x, dy, pool=pool)


def _spread_taps(x: jax.Array, dy: jax.Array, *, pool: Pool) -> jax.Array:
    """Find the winner of each window, then gather, for every position of x, the windows that it won.

    Forward and backward, shapes as in `_cpu_pool`: 2x2: 7 ms, plain 54 to 77, PyTorch 5 to 14 ms; 3x3 / 2: 19,
    65 to 88, 5 to 14 ms.
    """
    taps = _taps(x, pool, _identity(x.dtype, pool))
    best = next(taps)
    winner = jnp.zeros(best.shape, jnp.int32 if math.prod(pool.size) > 127 else jnp.int8)
    for number, here in enumerate(taps, 1):
        wins = _beats(here, best, pool)
        best, winner = jnp.where(wins, here, best), jnp.where(wins, number, winner)
    # Without the barrier, XLA finds the winner anew for each of the windows that a position is in.
    winner, dy = lax.optimization_barrier((winner, dy))
    zero = np.zeros((), dy.dtype)
    parts = [jnp.where(winner == number, dy, zero) for number in range(math.prod(pool.size))]
    return put_back(parts, pool, x.shape[1:-1])


def _taps(x: jax.Array, pool: Pool, identity: Any) -> Iterator[jax.Array]:
    """What each tap of the window sees at every place, first tap first."""
    return (seen for _, seen in shifts(padded(x, pool.padding, value=identity), pool.size, pool.stride, pool.dilation))


def _beats(here: jax.Array, best: jax.Array, pool: Pool) -> jax.Array:
    """Where a later tap wins: with a better value, or with a NaN."""
    better = here > best if pool.largest else here < best
    return better | (here != here)


def _identity(dtype: Any, pool: Pool) -> np.ndarray:
    """The value that loses against every other."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf if pool.largest else np.inf, dtype)
    return np.array(jnp.iinfo(dtype).min if pool.largest else jnp.iinfo(dtype).max, dtype)


_pool = primitive("jaxcnn_pool", _plain_pool, cpu=_cpu_pool, examples=(True,))
_pick = primitive("jaxcnn_pool_pick", _pick_taps, examples=(True, True))
_spread = primitive("jaxcnn_pool_spread", _plain_spread, cpu=_cpu_spread, examples=(True, True))


def _pool_jvp(primals, tangents, *, pool):
    (x,), (dx,) = primals, tangents
    y = _pool.bind(x, pool=pool)
    return y, ad.Zero(y.aval.to_tangent_aval()) if isinstance(dx, ad.Zero) else _pick.bind(x, dx, pool=pool)


ad.primitive_jvps[_pool] = _pool_jvp
linear_in(1, _pick, lambda dy, x, *, pool: _spread.bind(x, dy, pool=pool))
linear_in(1, _spread, lambda dx, x, *, pool: _pick.bind(x, dx, pool=pool))
