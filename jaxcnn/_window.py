"""Sliding windows: what size, stride, dilation and padding mean, for convolutions and pools alike.

Along one dimension, a window of `size` taps, `dilation` apart, spans `dilation * (size - 1) + 1` positions.
It moves over an input of length n, with `low` and `high` positions added around it, in steps of `stride`:

    out = floor((n + low + high - span) / stride) + 1
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxcnn._path import nearest

Padding = str | int | Sequence[int | tuple[int, int]]

# What stands in the padding, by PyTorch's names, and what NumPy calls it.
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Window(NamedTuple):
    """A window with all its options given for each spatial dimension."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def span(self) -> tuple[int, ...]:
        """The number of positions from the first tap to the last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """The number of places the window can stand in, by the formula above."""
        return tuple(
            (n + low + high - span) // s + 1
            for n, (low, high), span, s in zip(spatial, self.padding, self.span, self.stride, strict=True)
        )


def place(
    layer: str,
    shape: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: Padding,
) -> Window:
    """The window of these options on an input of `shape` (N, *spatial, C), or an error that says why not."""
    spatial = tuple(shape[1:-1])
    rank = len(spatial)
    size, stride, dilation = (
        per_dimension(layer, name, value, rank)
        for name, value in (("size", size), ("stride", stride), ("dilation", dilation))
    )
    window = Window(size, stride, dilation, ((0, 0),) * rank)
    same = tuple(
        max((-(-n // s) - 1) * s + span - n, 0) for n, s, span in zip(spatial, stride, window.span, strict=True)
    )
    window = window._replace(padding=resolve(layer, padding, rank, same, window.span))
    if any(out < 1 for out in window.output(spatial)):
        dilated = f" (size {size} dilated by {dilation})" if window.span != size else ""
        raise ValueError(
            f"{layer}: the window {window.span}{dilated} is larger than the input with its padding "
            f"{window.padding}; the input has shape {tuple(shape)}, read as (N, *spatial, C): are the channels last?"
        )
    return window


def per_dimension(layer: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """`value`, an int or one int for each spatial dimension, as a tuple of `rank` ints."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise ValueError(f"{layer}: {name}={value!r} has {len(values)} entries for {rank} spatial dimensions")
    return tuple(integer(layer, name, entry, least) for entry in values)


def integer(layer: str, name: str, value: Any, least: int = 1) -> int:
    """`value` as an int, or an error that says which argument of which layer is wrong."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{layer}: {name} must be made of ints, got {value!r}") from error
    if number < least:
        raise ValueError(f"{layer}: {name} must be at least {least}, got {value!r}")
    return number


def one_of(layer: str, name: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a `value` that is none of `choices`."""
    if value not in choices:
        raise ValueError(f"{layer}: {name} must be one of {', '.join(choices)}, got {value!r}{nearest(value, choices)}")


def check(layer: str, *, padding: Padding = 0, **options: int | Sequence[int]) -> None:
    """Refuse at construction what no input could make right."""
    for name, value in options.items():
        per_dimension(layer, name, value, len(value) if isinstance(value, Sequence) else 1)
    if isinstance(padding, str):
        one_of(layer, "padding (or an int or pairs)", padding.upper(), _NAMED)
    elif isinstance(padding, Sequence):
        for entry in padding:
            _pair(layer, padding, entry)
    else:
        integer(layer, "padding", padding, 0)


def place_transposed(
    layer: str,
    shape: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: Padding,
) -> Window:
    """The window of a transposed convolution; its padding is what is cut off the output, at either end.

    A negative figure adds zeros: "SAME" makes the output `stride` times as long as the input.
    """
    rank = len(shape) - 2
    size, stride, dilation = (
        per_dimension(layer, name, value, rank)
        for name, value in (("size", size), ("stride", stride), ("dilation", dilation))
    )
    window = Window(size, stride, dilation, ((0, 0),) * rank)
    surplus = tuple(span - s for span, s in zip(window.span, stride, strict=True))
    return window._replace(padding=resolve(layer, padding, rank, surplus, window.span))


def resolve(
    layer: str, padding: Padding, rank: int, same: tuple[int, ...] = (), span: tuple[int, ...] = ()
) -> tuple[tuple[int, int], ...]:
    """`padding` as (low, high) for each dimension; a name stands for `same` positions or follows from the `span`."""
    check(layer, padding=padding)
    if isinstance(padding, str):
        name = padding.upper()
        if name == "CAUSAL" and rank != 1:
            raise ValueError(f"{layer}: CAUSAL padding is for 1-D signals (N, L, C), the input has {rank} dimensions")
        return tuple(_NAMED[name](total, width) for total, width in zip(same, span, strict=True))
    if not isinstance(padding, Sequence):
        return (_pair(layer, padding, padding),) * rank
    if len(padding) != rank:
        raise ValueError(f"{layer}: padding={padding!r} has {len(padding)} entries for {rank} spatial dimensions")
    return tuple(_pair(layer, padding, entry) for entry in padding)


# (positions that "SAME" needs, span) -> (low, high); where they cannot be halved, "SAME" adds one more at the end
_NAMED = {
    "SAME": lambda total, span: (max(total // 2, 0), total - max(total // 2, 0)),
    "SAME_LOWER": lambda total, span: (total - max(total // 2, 0), max(total // 2, 0)),
    "VALID": lambda total, span: (0, 0),
    "CAUSAL": lambda total, span: (span - 1, 0),
}


def _pair(layer: str, padding: Padding, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, Sequence):
        entry = (entry, entry)
    if isinstance(entry, str) or len(entry) != 2:
        raise ValueError(f"{layer}: padding must be a name, an int or (low, high) pairs, got {padding!r}")
    low, high = (integer(layer, "padding", side, 0) for side in entry)
    return low, high
