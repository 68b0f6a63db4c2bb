"""The input positions, along one dimension, on which the elements of an array depend."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Span(NamedTuple):
    """The first and the last input position on which each element of an array depends, by its index along `axis`.

    With axis=None all elements depend on the same positions. Beyond the ends of the array, the positions continue
    periodically: `period` elements further, they are larger by `step`.
    """

    axis: Any  # an int, or None
    length: int  # of that axis
    first: np.ndarray  # per index, at least one period; inf if independent of the input
    last: np.ndarray  # -inf if independent of the input
    period: int
    step: int

    def at(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first and last positions for indices that may be outside the array."""
        n = len(self.first)
        periods = np.where(i < 0, i // self.period, np.where(i < n, 0, (i - n) // self.period + 1))
        inside = i - periods * self.period
        return self.first[inside] + periods * self.step, self.last[inside] + periods * self.step

    def whole(self) -> "Span":
        """The span in which each element depends on the positions of all elements."""
        first, last = self.first[: self.length], self.last[: self.length]
        return Span(None, 1, first.min(keepdims=True), last.max(keepdims=True), 1, 0)

    def along(self, axis: int) -> "Span":
        """The same span along another axis."""
        return self._replace(axis=axis)

    def window(
        self, length: int, size: int = 1, *, stride: int = 1, low: int = 0, dilation: int = 1, base: int = 1
    ) -> "Span":
        """y[i] depends on x[(stride * i + dilation * k - low) / base], for all k that give an integer index."""
        period = base * self.period // math.gcd(base * self.period, stride)
        begin = stride * np.arange(max(length, period))[:, None] - low
        step = self.step * period * stride // (base * self.period)
        if dilation == 1:  # skip the taps that give no integer index; `flatten` has thousands
            at = -(-begin // base) + np.arange(-(-size // base))
            return self._combined(length, at, base * at < begin + size, period, step)
        at = begin + dilation * np.arange(size)
        return self._combined(length, at // base, at % base == 0, period, step)

    def table(self, taps: np.ndarray, used: np.ndarray) -> "Span":
        """y[i] depends on x[taps[i, k]] where used[i, k]. Beyond its end, y continues with a repetition of x."""
        repeats = math.lcm(self.length, self.period) // self.length
        at = np.concatenate([taps + i * self.length for i in range(repeats)])
        step = self.step * repeats * self.length // self.period
        return self._combined(len(taps), at, np.tile(used, (repeats, 1)), len(at), step)

    def _combined(self, length: int, at: np.ndarray, used: np.ndarray, period: int, step: int) -> "Span":
        first, last = self.at(at)
        first, last = np.where(used, first, np.inf).min(1), np.where(used, last, -np.inf).max(1)
        return Span(self.axis, length, first, last, period, step)


class Constant(NamedTuple):
    """An array of constants, for example the indices of a selection."""

    value: Callable[[], Any]


def constant(value: Any) -> Constant:
    return Constant(lambda: value)


Dependence = Span | Constant | None  # None: independent of the input, with unknown values


def union(values: Sequence[Dependence]) -> Span | None:
    """The span of elements computed from the elements at the same position."""
    spans = [value for value in values if isinstance(value, Span)]
    return functools.reduce(_union_of_two, spans) if spans else None


def _union_of_two(a: Span, b: Span) -> Span:
    if (a.axis, a.length) != (b.axis, b.length) or a.step * b.period != b.step * a.period:
        a, b = a.whole(), b.whole()
    period = math.lcm(a.period, b.period)
    i = np.arange(max(a.length, period))
    (a_first, a_last), (b_first, b_last) = a.at(i), b.at(i)
    first, last = np.minimum(a_first, b_first), np.maximum(a_last, b_last)
    return Span(a.axis, a.length, first, last, period, a.step * period // a.period)


def shift_axes(value: Dependence, by: int) -> Span | None:
    """The span in an array with `by` more leading dimensions."""
    span = union([value])
    if span is None or span.axis is None:
        return span
    return span.along(span.axis + by) if span.axis + by >= 0 else span.whole()
