"""Sliding windows: the size, stride, dilation and padding of convolutions and pools.

Along one dimension, a window has `size` taps with a step of `dilation` positions, so it spans dilation * (size - 1) + 1
positions. It moves in steps of `stride` over an input of length n, padded by `low` and `high` positions:

    out = floor((n + low + high - span) / stride) + 1

The transpose of a strided convolution inserts zeros between its inputs; `input_dilation` is the resulting step.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._arguments import check_choice, check_integer

Padding = str | int | Sequence[int | tuple[int, int]]

# PyTorch's names of padding modes, and NumPy's.
PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class Window(NamedTuple):
    """The window of a convolution or a pool. Each field has one entry per spatial dimension."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    input_dilation: tuple[int, ...]

    @property
    def taps(self) -> int:
        """The number of elements of the window."""
        return math.prod(self.size)

    @property
    def span(self) -> tuple[int, ...]:
        """The number of positions from the first to the last tap, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def is_padded(self) -> bool:
        """Whether any dimension has padding."""
        return any(map(any, self.padding))

    def output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """The number of output positions, by the formula above for an input with input_dilation - 1 zeros inserted."""
        return tuple(
            ((n - 1) * step + 1 + low + high - span) // s + 1
            for n, step, (low, high), span, s in zip(
                spatial, self.input_dilation, self.padding, self.span, self.stride, strict=True
            )
        )

    def transposed_output(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """The number of output positions of the transposed convolution, for `spatial` input positions."""
        return tuple(
            (n - 1) * s + span - low - high
            for n, s, span, (low, high) in zip(spatial, self.stride, self.span, self.padding, strict=True)
        )

    def positions_along(self, spatial: Sequence[int]) -> list[np.ndarray]:
        """Per dimension d (outputs_d, size_d): the position that each output reads at each tap; it may be outside."""
        return [
            stride * np.arange(outputs)[:, None] + dilation * np.arange(size) - low
            for outputs, size, stride, dilation, (low, _) in zip(
                self.output(spatial), self.size, self.stride, self.dilation, self.padding, strict=True
            )
        ]

    def tap_positions(self, spatial: Sequence[int]) -> list[np.ndarray]:
        """Per dimension (outputs, taps), both in row-major order: the position of each tap, which may be outside."""
        shape, rank, positions = (*self.output(spatial), *self.size), len(spatial), []
        for dim, along in enumerate(self.positions_along(spatial)):
            along = np.expand_dims(along, [axis for axis in range(2 * rank) if axis % rank != dim])
            positions.append(np.broadcast_to(along, shape).reshape(-1, self.taps))
        return positions

    def with_ceil_mode(self, spatial: Sequence[int]) -> "Window":
        """The window padded for one more position at the end, if that starts inside the input or the low padding."""
        pads = []
        for n, (low, high), span, s in zip(spatial, self.padding, self.span, self.stride, strict=True):
            last = -(-(n + low + high - span) // s) * s
            if last >= n + low:
                last -= s
            pads.append((low, max(last + span - n - low, 0)))
        return self._replace(padding=tuple(pads))

    def check_fits(self, layer: str, shape: Sequence[int]) -> "Window":
        """Return the window if it fits into an input of `shape` (N, *spatial, C), else raise ValueError."""
        if any(out < 1 for out in self.output(shape[1:-1])):
            dilated = f" (size {self.size} dilated by {self.dilation})" if self.span != self.size else ""
            raise ValueError(
                f"{layer}: the window {self.span}{dilated} is larger than the input with its padding {self.padding}; "
                f"the input has shape {tuple(shape)}, read as (N, *spatial, C): are the channels last, and is it "
                "large enough for this network?"
            )
        return self


def make_window(
    layer: str,
    shape: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: Padding,
) -> Window:
    """The window for an input of `shape` (N, *spatial, C)."""
    spatial = tuple(shape[1:-1])
    window = _window(layer, len(spatial), size, stride, dilation)
    # "SAME" gives ceil(n / stride) output positions.
    same = (
        max((-(-n // s) - 1) * s + span - n, 0) for n, s, span in zip(spatial, window.stride, window.span, strict=True)
    )
    causal = tuple((span - 1, 0) for span in window.span)
    return window._replace(padding=resolve_padding(layer, padding, len(spatial), tuple(same), causal))


def make_transposed_window(
    layer: str,
    shape: Sequence[int],
    size: int | Sequence[int],
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    padding: Padding,
    output_padding: int | Sequence[int],
) -> Window:
    """The window of a transposed convolution. Its padding is cut from the output, or added where negative."""
    window = _window(layer, len(shape) - 2, size, stride, dilation)
    # "SAME" gives stride * n output positions.
    same_total = tuple(span - s for span, s in zip(window.span, window.stride, strict=True))
    causal = tuple((0, cut) for cut in same_total)
    window = window._replace(padding=resolve_padding(layer, padding, len(same_total), same_total, causal))
    added = per_dimension(layer, "output_padding", output_padding, len(same_total), 0)
    pads = tuple((low, high - extra) for (low, high), extra in zip(window.padding, added, strict=True))
    final = window._replace(padding=pads)
    if any(n < 1 for n in final.transposed_output(shape[1:-1])):
        raise ValueError(f"{layer}: padding {window.padding} removes the whole output for input {tuple(shape)}")
    return final


def resolve_padding(
    layer: str, padding: Padding, rank: int, same: tuple[int, ...] = (), causal: tuple[tuple[int, int], ...] = ()
) -> tuple[tuple[int, int], ...]:
    """`padding` as a pair (low, high) per dimension; `same` is the total that "SAME" needs."""
    if isinstance(padding, str):
        name = padding.upper()
        if name == "VALID":
            return ((0, 0),) * rank
        if name == "CAUSAL":
            if rank != 1:
                raise ValueError(
                    f"{layer}: CAUSAL padding is for 1-D signals (N, L, C), the input has {rank} dimensions"
                )
            return causal
        # An odd total adds one more at the end, for SAME_LOWER at the start.
        extra = 1 if name == "SAME_LOWER" else 0
        lows = ((max(total, 0) + extra) // 2 for total in same)
        return tuple((low, total - low) for low, total in zip(lows, same, strict=True))
    if not isinstance(padding, Sequence):
        return (_pair(layer, padding, padding),) * rank
    if rank == 1 and len(padding) == 2 and not any(isinstance(entry, Sequence) for entry in padding):
        return (_pair(layer, padding, padding),)
    if len(padding) != rank:
        raise ValueError(f"{layer}: padding={padding!r} has {len(padding)} entries for {rank} spatial dimensions")
    return tuple(_pair(layer, padding, entry) for entry in padding)


def per_dimension(layer: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """`value`, an int or one int per spatial dimension, as a tuple of `rank` ints."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    if len(values) != rank:
        raise ValueError(f"{layer}: {name}={value!r} has {len(values)} entries for {rank} spatial dimensions")
    return tuple(check_integer(layer, name, entry, least, "an int or one int per dimension") for entry in values)


def check_window_options(layer: str, *, padding: Padding = 0, least: int = 1, **options: int | Sequence[int]) -> None:
    """Check options at construction, as far as this is possible without an input."""
    for name, value in options.items():
        per_dimension(layer, name, value, len(value) if isinstance(value, Sequence) else 1, least)
    if isinstance(padding, str):
        check_choice(layer, "padding", padding.upper(), ("SAME", "SAME_LOWER", "VALID", "CAUSAL"))
    elif isinstance(padding, Sequence):
        for entry in padding:
            _pair(layer, padding, entry)
    else:
        check_integer(layer, "padding", padding, 0)


def _window(layer: str, rank: int, size: Any, stride: Any, dilation: Any) -> Window:
    sizes = per_dimension(layer, "size", size, rank)
    strides = per_dimension(layer, "stride", stride, rank)
    dilations = per_dimension(layer, "dilation", dilation, rank)
    return Window(sizes, strides, dilations, ((0, 0),) * rank, (1,) * rank)


def _pair(layer: str, padding: Padding, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, Sequence):
        entry = (entry, entry)
    if isinstance(entry, str) or len(entry) != 2:
        raise ValueError(f"{layer}: padding must be a name, an int or (low, high) pairs, got {padding!r}")
    low, high = (check_integer(layer, "padding", side, 0) for side in entry)
    return low, high
