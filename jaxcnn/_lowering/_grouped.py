"""Grouped convolution as a few dense ones: they beat many small ones, though most of their weights are zero.

Groups that share at most 32 channels make a block. Zeros keep the groups of a block apart only if all values are
finite: zero times infinity is NaN. The times, in ms, are of 3x3, 128 channels in 4 groups, 28 x 28,
batch 16, on 2 cores of an AMD EPYC (Zen 5), jaxlib 0.10.2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering._plain_conv import Geometry

_CHANNELS = 32  # of a block, where a dense convolution is at its best
# Blocks in a program one after the other; more are a loop. RegNet X 400MF, with up to 25, 64 x 64, batch 4: inference
# compiled in 2.3 s with 0.5 GB, 102 s with 18 GB otherwise, and takes 3.2 ms, 4.4 otherwise. 3x3, 1024 channels in 32
# groups, 7 x 7, batch 16: with gradients 11-15 ms, 17-21 otherwise.
_UNROLLED = 8


def blocks(x: jax.Array, w: jax.Array, geometry: Geometry, convolve: Callable[..., jax.Array]) -> jax.Array:
    """`convolve` is for each block: (x, w, geometry) without groups, or (dy, w, geometry) for the input's gradient.

    Forward 3.8, plain 24, PyTorch 2.7.
    """
    kernels = _kernels(w, geometry.groups)
    dense = geometry._replace(groups=1)
    return _beside(_each(lambda part, kernel: convolve(part, kernel, dense), _apart(x, len(kernels)), kernels))


def backward_w(
    x: jax.Array, dy: jax.Array, geometry: Geometry, w: jax.ShapeDtypeStruct, gradient: Callable[..., jax.Array]
) -> jax.Array:
    """`gradient` is for each block: (x, dy, geometry) without groups, of which only the own parts are kept.

    5.6, plain 371, PyTorch 2.8.
    """
    merged, size = _merged(w, geometry.groups), w.shape[:-2]
    count = geometry.groups // merged
    dense = geometry._replace(groups=1)

    def own(part, dpart):
        full = gradient(part, dpart, dense).reshape(*size, merged, w.shape[-2], merged, -1)
        return jnp.diagonal(full, axis1=-4, axis2=-2).swapaxes(-1, -2)  # (*size, c, group, f): each group with itself

    kernels = _each(own, _apart(x, count), _apart(dy, count))
    return jnp.moveaxis(kernels, 0, -3).reshape(w.shape)


def _each(function: Callable[..., jax.Array], *blocks: jax.Array) -> jax.Array:
    """The results for all blocks, (blocks, ..), each by itself; of many blocks in a loop, which is compiled once."""
    if len(blocks[0]) > _UNROLLED:
        return lax.map(lambda block: function(*block), blocks)
    return jnp.stack([function(*block) for block in zip(*blocks, strict=True)])


def _apart(x: jax.Array, count: int) -> jax.Array:
    """(.., C) -> (blocks, .., C / blocks)."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, x.shape[-1] // count), -2, 0)


def _beside(parts: jax.Array) -> jax.Array:
    """(blocks, .., C) -> (.., blocks * C)."""
    parts = jnp.moveaxis(parts, 0, -2)
    return parts.reshape(*parts.shape[:-2], parts.shape[-2] * parts.shape[-1])


def _merged(w: jax.Array | jax.ShapeDtypeStruct, groups: int) -> int:
    """How many groups make a block."""
    return max(m for m in range(1, groups + 1) if groups % m == 0 and (m == 1 or m * w.shape[-2] <= _CHANNELS))


def _kernels(w: jax.Array, groups: int) -> jax.Array:
    """(blocks, *size, ..): dense kernels, zero between channels of different groups."""
    merged, per_group = _merged(w, groups), w.shape[-2]
    parts = jnp.moveaxis(w.reshape(*w.shape[:-1], groups // merged, merged, -1), -3, 0)  # (block, *size, c, group, f)
    parts = jnp.moveaxis(parts, -2, -3)[..., None, :]
    own = jnp.eye(merged, dtype=bool)[:, None, :, None]
    parts = jnp.where(own.reshape((1,) * (parts.ndim - 4) + own.shape), parts, 0)
    return parts.reshape(*parts.shape[:-4], merged * per_group, -1)
