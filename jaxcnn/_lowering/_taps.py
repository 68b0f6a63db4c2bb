"""A window taken apart: what each of its taps sees, as one strided slice of the input."""

from collections.abc import Iterator

import jax
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
