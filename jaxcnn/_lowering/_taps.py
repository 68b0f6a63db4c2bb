"""A window tap by tap: what each tap sees, as one strided slice of the input, and the transpose of that."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._window import Window

Phases = dict[tuple[int, ...], jax.Array]


def padded(
    x: jax.Array, padding: tuple[tuple[int, int], ...], dilation: tuple[int, ...] | None = None, value: Any = 0
) -> jax.Array:
    """(N, *spatial, C) with `value` around its spatial dimensions, and dilation - 1 times between their positions."""
    around = ((*ends, d - 1) for ends, d in zip(padding, dilation or (1,) * len(padding), strict=True))
    return lax.pad(x, np.array(value, x.dtype), ((0, 0, 0), *around, (0, 0, 0)))


def tap_slices(xp: jax.Array, window: Window) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """(tap, what it sees at every place) for each tap of the window over the padded input, first tap first."""
    stride, dilation = window.stride, window.dilation
    out = [(n - span) // s + 1 for n, span, s in zip(xp.shape[1:-1], window.span, stride, strict=True)]
    for tap in np.ndindex(*window.size):
        start = [d * k for k, d in zip(tap, dilation, strict=True)]
        stop = [a + s * (o - 1) + 1 for a, s, o in zip(start, stride, out, strict=True)]
        yield tap, lax.slice(xp, (0, *start, 0), (xp.shape[0], *stop, xp.shape[-1]), (1, *stride, 1))


def interleave(phases: list[jax.Array], stride: tuple[int, ...]) -> jax.Array:
    """Arrays in the order of their remainders, last dimension fastest, as one with `stride` times as many positions."""
    _, *spatial, _ = phases[0].shape
    for axis in range(len(stride), 0, -1):
        step = stride[axis - 1]
        phases = [jnp.stack(phases[i : i + step], axis + 1) for i in range(0, len(phases), step)]
    # One reshape at the end: in between, it would keep the stacks from becoming one pass over memory.
    longer = (n * step for n, step in zip(spatial, stride, strict=True))
    return phases[0].reshape(phases[0].shape[0], *longer, phases[0].shape[-1])


def overlap_add(parts: list[jax.Array], window: Window, spatial: tuple[int, ...]) -> jax.Array:
    """(N, *spatial, C): the transpose of `padded` and `tap_slices`, given a part for each tap.

    Positions with the same remainder by the stride are seen by the same taps, so each such phase is a sum of whole
    arrays, and the phases are interleaved at the end.
    """
    return interleave_phases(add_to_phases({}, parts, np.ndindex(*window.size), window, spatial), window, spatial)


def add_to_phases(
    sums: Phases, parts: Iterable[jax.Array], taps: Iterable[tuple[int, ...]], window: Window, spatial: tuple[int, ...]
) -> Phases:
    """The phases with the parts of some of the taps added."""
    sums = dict(sums)
    lengths = [n + low + high for n, (low, high) in zip(spatial, window.padding, strict=True)]
    lengths = [-(-n // s) for n, s in zip(lengths, window.stride, strict=True)]
    for part, tap in zip(parts, taps, strict=True):
        at = [d * k for d, k in zip(window.dilation, tap, strict=True)]
        low = [a // s for a, s in zip(at, window.stride, strict=True)]
        around = tuple((a, n - o - a) for a, n, o in zip(low, lengths, part.shape[1:-1], strict=True))
        phase = tuple(a % s for a, s in zip(at, window.stride, strict=True))
        whole = padded(part, around)
        sums[phase] = sums[phase] + whole if phase in sums else whole
    return sums


def interleave_phases(sums: Phases, window: Window, spatial: tuple[int, ...]) -> jax.Array:
    """The phases as one array, without the padding."""
    nothing = jnp.zeros_like(next(iter(sums.values())))
    x = interleave([sums.get(phase, nothing) for phase in np.ndindex(*window.stride)], window.stride)
    start = [low for low, _ in window.padding]
    stop = [low + n for low, n in zip(start, spatial, strict=True)]
    x = padded(x, tuple((0, max(b - n, 0)) for b, n in zip(stop, x.shape[1:-1], strict=True)))
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]))
