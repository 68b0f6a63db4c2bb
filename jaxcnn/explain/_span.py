"""What the elements of an array see of one dimension of the input, as a value."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Span(NamedTuple):
    """The first and the last position of the input that each element of an array sees, by its index along `axis`.

    With axis=None all elements see the same. Beyond the array, each `period` of elements sees `step` positions further.
    """

    axis: Any  # an int, or None
    length: int  # of that axis
    first: np.ndarray  # for each index, and at least for a period; inf where nothing is seen
    last: np.ndarray  # -inf where nothing is seen
    period: int
    step: int

    def at(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What elements see that may lie beyond the array."""
        n = len(self.first)
        away = np.where(i < 0, i // self.period, np.where(i < n, 0, (i - n) // self.period + 1))
        inside = i - away * self.period
        return self.first[inside] + away * self.step, self.last[inside] + away * self.step

    def whole(self) -> "Span":
        """What all elements see together, seen by each."""
        first, last = self.first[: self.length], self.last[: self.length]
        return Span(None, 1, first.min(keepdims=True), last.max(keepdims=True), 1, 0)

    def along(self, axis: int) -> "Span":
        """The same along another axis."""
        return self._replace(axis=axis)

    def window(
        self, length: int, size: int = 1, *, stride: int = 1, low: int = 0, dilation: int = 1, base: int = 1
    ) -> "Span":
        """y[i] sees what x[(stride * i + dilation * k - low) / base] does, for the k that give a whole number."""
        period = base * self.period // math.gcd(base * self.period, stride)
        begin = stride * np.arange(max(length, period))[:, None] - low
        step = self.step * period * stride // (base * self.period)
        if dilation == 1:  # one in `base` of the taps, of which `flatten` has thousands
            at = -(-begin // base) + np.arange(-(-size // base))
            return self._seeing(length, at, base * at < begin + size, period, step)
        at = begin + dilation * np.arange(size)
        return self._seeing(length, at // base, at % base == 0, period, step)

    def table(self, taps: np.ndarray, used: np.ndarray) -> "Span":
        """y[i] sees what x[taps[i, k]] does, where used[i, k]; after all of y, as if all of x came once more."""
        repeats = math.lcm(self.length, self.period) // self.length
        at = np.concatenate([taps + i * self.length for i in range(repeats)])
        step = self.step * repeats * self.length // self.period
        return self._seeing(len(taps), at, np.tile(used, (repeats, 1)), len(at), step)

    def _seeing(self, length: int, at: np.ndarray, used: np.ndarray, period: int, step: int) -> "Span":
        first, last = self.at(at)
        first, last = np.where(used, first, np.inf).min(1), np.where(used, last, -np.inf).max(1)
        return Span(self.axis, length, first, last, period, step)


class Known(NamedTuple):
    """An array that depends on nothing, such as the indices of a selection."""

    value: Callable[[], Any]


def known(value: Any) -> Known:
    return Known(lambda: value)


Seen = Span | Known | None  # None: an array that does not depend on the input


def union(seen: Sequence[Seen]) -> Span | None:
    """What an element sees that is computed from those at the same position."""
    spans = [value for value in seen if isinstance(value, Span)]
    return functools.reduce(_both, spans) if spans else None


def _both(one: Span, other: Span) -> Span:
    if (one.axis, one.length) != (other.axis, other.length) or one.step * other.period != other.step * one.period:
        one, other = one.whole(), other.whole()
    period = math.lcm(one.period, other.period)
    i = np.arange(max(one.length, period))
    (first, last), (other_first, other_last) = one.at(i), other.at(i)
    first, last = np.minimum(first, other_first), np.maximum(last, other_last)
    return Span(one.axis, one.length, first, last, period, one.step * period // one.period)


def shift_axes(seen: Seen, by: int) -> Span | None:
    """The same in an array with `by` more dimensions in front."""
    span = union([seen])
    if span is None or span.axis is None:
        return span
    return span.along(span.axis + by) if span.axis + by >= 0 else span.whole()
