"""Windows as one strided slice of the input per tap, and the transpose of these slices."""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._window import Window

_MAX_SELECTED = 16  # phases; each position computes all of them

Phases = dict[tuple[int, ...], jax.Array]


def padded(
    x: jax.Array, padding: tuple[tuple[int, int], ...], dilation: tuple[int, ...] | None = None, value: Any = 0
) -> jax.Array:
    """(N, *spatial, C) padded with `value`, and with dilation - 1 of them between neighboring positions."""
    around = ((*ends, d - 1) for ends, d in zip(padding, dilation or (1,) * len(padding), strict=True))
    return lax.pad(x, np.array(value, x.dtype), ((0, 0, 0), *around, (0, 0, 0)))


def tap_slices(xp: jax.Array, window: Window) -> Iterator[tuple[tuple[int, ...], jax.Array]]:
    """(tap, the inputs it reads for all outputs) for each tap of the window, in order. `xp` is the padded input."""
    stride, dilation = window.stride, window.dilation
    out = [(n - span) // s + 1 for n, span, s in zip(xp.shape[1:-1], window.span, stride, strict=True)]
    for tap in np.ndindex(*window.size):
        start = [d * k for k, d in zip(tap, dilation, strict=True)]
        stop = [a + s * (o - 1) + 1 for a, s, o in zip(start, stride, out, strict=True)]
        yield tap, lax.slice(xp, (0, *start, 0), (xp.shape[0], *stop, xp.shape[-1]), (1, *stride, 1))


def padded_tap_slices(x: jax.Array, window: Window, value: Any = 0) -> list[jax.Array]:
    """The values that each tap reads for all outputs, where `x` is padded with `value`. Taps without padding are first.

    XLA vectorizes a sum of padded slices, but not a sum of slices of a padded array, and is fastest if the first slice
    has no padding.
    """
    out = window.output(x.shape[1:-1])
    unpadded, others = [], []
    for tap in np.ndindex(*window.size):
        begin, end, around = [], [], []
        for k, n, o, s, d, (low, _) in zip(
            tap, x.shape[1:-1], out, window.stride, window.dilation, window.padding, strict=True
        ):
            offset = d * k - low  # output i reads x[offset + s * i]
            first = min(max(0, -(offset // s)), o)  # outputs from `first` to before `last` read x, not padding
            last = max(first, min(o, (n - 1 - offset) // s + 1))
            begin.append(offset + s * first if last > first else 0)
            end.append(begin[-1] + s * (last - first - 1) + 1 if last > first else 0)
            around.append((first, o - last))
        part = lax.slice(x, (0, *begin, 0), (x.shape[0], *end, x.shape[-1]), (1, *window.stride, 1))
        if any(map(any, around)):
            others.append(padded(part, tuple(around), value=value))
        else:
            unpadded.append(part)
    return unpadded + others


def interleave(phases: list[jax.Array], stride: tuple[int, ...]) -> jax.Array:
    """Interleave one array per phase (last dimension fastest) into an array that is `stride` times as large."""
    _, *spatial, _ = phases[0].shape
    for axis in range(len(stride), 0, -1):
        step = stride[axis - 1]
        phases = [jnp.stack(phases[i : i + step], axis + 1) for i in range(0, len(phases), step)]
    # Only one reshape, at the end, so that XLA fuses the stacks into one pass over memory.
    lengths = (n * step for n, step in zip(spatial, stride, strict=True))
    return phases[0].reshape(phases[0].shape[0], *lengths, phases[0].shape[-1])


def _select(phases: list[jax.Array], stride: tuple[int, ...]) -> jax.Array:
    """Equal to `interleave`, but without copies: computes all phases for each position and selects one of them."""
    examples, *counts, channels = phases[0].shape
    blocks = (length for pair in zip(counts, stride, strict=True) for length in pair)
    shape = (examples, *blocks, channels)  # (N, count, stride, .., C)
    kept = (0, *range(1, len(shape), 2))
    number = np.arange(len(phases)).reshape(1, *(length for step in stride for length in (1, step)), 1)
    x, *others = (lax.broadcast_in_dim(phase, shape, kept) for phase in phases)
    for phase, values in enumerate(others, 1):
        x = jnp.where(number == phase, values, x)
    return x.reshape(examples, *map(operator.mul, counts, stride), channels)


def overlap_add(parts: list[jax.Array], window: Window, spatial: tuple[int, ...]) -> jax.Array:
    """(N, *spatial, C): the transpose of `padded` and `tap_slices`, for one part per tap.

    A phase is all positions with the same remainder modulo the stride. They are read by the same taps, so each phase is
    a sum of whole arrays. The phases are interleaved at the end.
    """
    phases = add_to_phases({}, parts, np.ndindex(*window.size), window, spatial)
    # Without overlap, a phase is a single part, which is cheap to compute.
    select = len(phases) == window.taps and math.prod(window.stride) <= _MAX_SELECTED
    return interleave_phases(phases, window, spatial, _select if select else interleave)


def add_to_phases(
    sums: Phases, parts: Iterable[jax.Array], taps: Iterable[tuple[int, ...]], window: Window, spatial: tuple[int, ...]
) -> Phases:
    """The phases plus the parts of the given taps."""
    sums = dict(sums)
    lengths = [n + low + high for n, (low, high) in zip(spatial, window.padding, strict=True)]
    lengths = [-(-n // s) for n, s in zip(lengths, window.stride, strict=True)]
    for part, tap in zip(parts, taps, strict=True):
        at = [d * k for d, k in zip(window.dilation, tap, strict=True)]
        low = [a // s for a, s in zip(at, window.stride, strict=True)]
        around = tuple((a, n - o - a) for a, n, o in zip(low, lengths, part.shape[1:-1], strict=True))
        phase = tuple(a % s for a, s in zip(at, window.stride, strict=True))
        part = padded(part, around)
        sums[phase] = sums[phase] + part if phase in sums else part
    return sums


def interleave_phases(
    sums: Phases,
    window: Window,
    spatial: tuple[int, ...],
    combine: Callable[[list[jax.Array], tuple[int, ...]], jax.Array] = interleave,
) -> jax.Array:
    """The interleaved phases, without the padding."""
    zeros = jnp.zeros_like(next(iter(sums.values())))
    x = combine([sums.get(phase, zeros) for phase in np.ndindex(*window.stride)], window.stride)
    start = [low for low, _ in window.padding]
    stop = [low + n for low, n in zip(start, spatial, strict=True)]
    x = padded(x, tuple((0, max(b - n, 0)) for b, n in zip(stop, x.shape[1:-1], strict=True)))
    return lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]))
