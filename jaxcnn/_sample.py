"""Sampling of feature maps at positions between the pixels."""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering import cubic_far, cubic_near

SAMPLE_METHODS = ("nearest", "linear", "cubic")
BOUNDARIES = ("zeros", "border", "reflection")
_A = -0.75  # of the cubic filter, as in PyTorch


def sample(
    x: jax.Array, at: Sequence[jax.Array], method: str, boundary: str = "zeros", align_corners: bool = True
) -> jax.Array:
    """(N, *spatial, C), rank arrays (N, P) of pixel positions -> (N, P, C).

    Outside, x is 0 ("zeros"), its nearest value ("border"), or its mirror image ("reflection"), around the centers of
    the outer pixels with align_corners, else around their edges. At a position that is NaN, the result is NaN.
    """
    spatial = x.shape[1:-1]
    wide = at_least_float32(x)
    flat = wide.reshape(x.shape[0], math.prod(spatial), x.shape[-1])

    def inside(position, n):
        if boundary == "reflection":
            position = _reflect(position, n, align_corners)
        return position if boundary == "zeros" else _clip(position, n)

    taps = []  # per dimension: (position, weight) of each tap
    for position, n in zip(at, spatial, strict=True):
        position = position.astype(wide.dtype)
        if method == "cubic":  # the filter has its full width, and each tap is mapped to the inside
            taps.append([(inside(tap, n), weight) for tap, weight in _taps(position, method)])
        else:
            taps.append(_taps(inside(position, n), method))

    y = jnp.zeros((*at[0].shape, x.shape[-1]), wide.dtype)
    for corner in itertools.product(*taps):
        index, weight = jnp.zeros(at[0].shape, jnp.int32), jnp.ones(at[0].shape, wide.dtype)
        for (position, part), n in zip(corner, spatial, strict=True):
            weight = weight * jnp.where((position < 0) | (position > n - 1), 0, part)  # NaN keeps its weight, NaN
            index = index * n + _clip(position, n).astype(jnp.int32)
        values = jax.vmap(lambda values, index: jnp.take(values, index, 0, mode="clip"))(flat, index)
        weight = weight[..., None]
        values = jnp.where((weight == 0) & ~jnp.isfinite(values), 0, values)  # 0 * NaN would be NaN
        y = y + weight * values
    return y.astype(x.dtype)


def _taps(at: jax.Array, method: str) -> list[tuple[jax.Array, jax.Array]]:
    """Integer positions and their weights."""
    if method == "nearest":
        return [(jnp.round(at), jnp.where(jnp.isnan(at), at, 1))]
    low = jnp.floor(at)
    t = at - low
    if method == "linear":
        return [(low, 1 - t), (low + 1, t)]
    near, far = functools.partial(cubic_near, a=_A), functools.partial(cubic_far, a=_A)
    return [(low - 1, far(1 + t)), (low, near(t)), (low + 1, near(1 - t)), (low + 2, far(2 - t))]


def _clip(at: jax.Array, n: int) -> jax.Array:
    return lax.clamp(jnp.zeros((), at.dtype), at, jnp.asarray(n - 1, at.dtype))


def _reflect(at: jax.Array, n: int, align_corners: bool) -> jax.Array:
    low, span = (0.0, n - 1) if align_corners else (-0.5, n)
    if span == 0:
        return jnp.where(jnp.isnan(at), at, 0)
    distance = jnp.where(at < low, low - at, at - low)
    distance = jnp.where(jnp.isinf(distance), 0, distance)  # as in PyTorch; the remainder of infinity would be NaN
    distance = lax.rem(distance, jnp.full_like(distance, 2 * span))
    return jnp.where(distance > span, 2 * span - distance, distance) + low
