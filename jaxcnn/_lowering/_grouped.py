"""Grouped convolution as a few dense convolutions with block-diagonal kernels, which are faster than many small ones.

A block merges groups with up to 32 channels in total. Its zero weights turn an infinite input into NaN in the outputs
of the other groups, so `_rules` uses the convolution only for finite inputs. The kernel gradient is exact for all
values.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering._problem import Algorithm, Problem

_CHANNELS = 32  # per block, where a dense convolution is fastest
_UNROLLED = 8  # maximum number of unrolled blocks; a loop compiles faster


def convolution(x: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """The convolution, block by block; `compute` computes each block."""
    kernels = _block_diagonal(w, problem)
    block = _block_problem(problem)
    parts = _map_blocks(lambda part, kernel: compute(part, kernel, block), _split(x, len(kernels)), kernels)
    return _join(parts)


def kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """The kernel gradient; `compute` computes each block. Only the diagonal groups of a block are kept."""
    merged, block = _merged(problem), _block_problem(problem)
    count = problem.groups // merged

    def diagonal_groups(x, dy):
        full = compute(x, dy, block)
        full = full.reshape(*problem.window.size, merged, problem.channels_per_group, merged, -1)
        return jnp.diagonal(full, axis1=-4, axis2=-2).swapaxes(-1, -2)  # (*size, c, group, f)

    kernels = _map_blocks(diagonal_groups, _split(x, count), _split(dy, count))
    return jnp.moveaxis(kernels, 0, -3).reshape(problem.kernel_shape)


def _block_problem(problem: Problem) -> Problem:
    """The problem of one block, without groups."""
    blocks = problem.groups // _merged(problem)
    return problem._replace(channels=problem.channels // blocks, features=problem.features // blocks, groups=1)


def _merged(problem: Problem) -> int:
    """The number of groups per block."""
    groups, channels = problem.groups, problem.channels_per_group
    return max(m for m in range(1, groups + 1) if groups % m == 0 and (m == 1 or m * channels <= _CHANNELS))


def _map_blocks(function: Callable[..., jax.Array], *blocks: jax.Array) -> jax.Array:
    """(blocks, ..): the function of each block. A loop computes many blocks, so that it is compiled once."""
    if len(blocks[0]) > _UNROLLED:
        return lax.map(lambda block: function(*block), blocks)
    return jnp.stack([function(*block) for block in zip(*blocks, strict=True)])


def _split(x: jax.Array, count: int) -> jax.Array:
    """(.., C) -> (blocks, .., C / blocks)."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], count, x.shape[-1] // count), -2, 0)


def _join(parts: jax.Array) -> jax.Array:
    """(blocks, .., C) -> (.., blocks * C)."""
    parts = jnp.moveaxis(parts, 0, -2)
    return parts.reshape(*parts.shape[:-2], parts.shape[-2] * parts.shape[-1])


def _block_diagonal(w: jax.Array, problem: Problem) -> jax.Array:
    """(blocks, *size, ..): dense kernels with zeros between different groups."""
    merged, per_group = _merged(problem), problem.channels_per_group
    parts = w.reshape(*w.shape[:-1], problem.groups // merged, merged, -1)
    parts = jnp.moveaxis(parts, -3, 0)  # (block, *size, c, group, f)
    parts = jnp.moveaxis(parts, -2, -3)[..., None, :]
    diagonal = jnp.eye(merged, dtype=bool)[:, None, :, None]
    parts = jnp.where(diagonal.reshape((1,) * (parts.ndim - 4) + diagonal.shape), parts, 0)
    return parts.reshape(*parts.shape[:-4], merged * per_group, -1)
