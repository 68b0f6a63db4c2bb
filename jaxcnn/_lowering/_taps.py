"""A window taken apart: what each of its taps sees, as one strided slice of the input, and slices put together."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def padded(x: jax.Array, padding: tuple[tuple[int, int], ...], value: np.ndarray) -> jax.Array:
    """(N, *spatial, C) with `value` around its spatial dimensions."""
    return lax.pad(x, value, ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def shifts(
    xp: jax.Array, size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """(tap, what it sees at every place) for each tap of the window over the padded input, first tap first."""
    options = zip(xp.shape[1:-1], size, stride, dilation, strict=True)
    out = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in options]
    for tap in np.ndindex(*size):
        start = [d * k for k, d in zip(tap, dilation, strict=True)]
        stop = [a + s * (o - 1) + 1 for a, s, o in zip(start, stride, out, strict=True)]
        yield tap, lax.slice(xp, (0, *start, 0), (xp.shape[0], *stop, xp.shape[-1]), (1, *stride, 1))


def interleaved(phases: list[jax.Array], stride: tuple[int, ...]) -> jax.Array:
    """Arrays in the order of their remainders, last dimension fastest, as one with `stride` times as many positions."""
    _, *spatial, _ = phases[0].shape
    for axis in range(len(stride), 0, -1):
        step = stride[axis - 1]
        phases = [jnp.stack(phases[i : i + step], axis + 1) for i in range(0, len(phases), step)]
    # One reshape at the end: in between, it would keep the stacks from becoming one pass over memory.
    longer = (n * step for n, step in zip(spatial, stride, strict=True))
    return phases[0].reshape(phases[0].shape[0], *longer, phases[0].shape[-1])
