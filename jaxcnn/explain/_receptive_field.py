"""Which part of the input a unit of a network sees.

Along one dimension, a window of k positions over units that see r positions of the input, j apart, sees

    r' = r + (k - 1) * j,    j' = j * s

with s its stride (Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019).
Here this is not added up from a list of layers, but read off the program that the network is: for each array in it,
how the first and the last position of the input that an element sees move with its index.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._layer import Layer, as_floating, as_layer, spatial_rank
from jaxcnn._probe import SLOT, Probe, record
from jaxcnn._program import plain
from jaxcnn.explain._span import Seen, Span, shift_axes, union
from jaxcnn.explain._span_rules import propagate
from jaxcnn.explain._summary import Line, html_table, indented, shapes, specs, table


class Field(NamedTuple):
    """What units see of one dimension of the input: unit i, `size` positions from start + stride * i on.

    With a stride of 0 all see the same. Where it is a fraction, as after `upsample`, units differ: the size is that of
    the largest, the start that of the first. A size of 0 stands for units that do not depend on the input.
    """

    size: int
    stride: float
    start: int  # negative in the padding

    @property
    def center(self) -> float:
        """The middle of what unit 0 sees."""
        return self.start + (self.size - 1) / 2


class LayerFields(NamedTuple):
    """What the units of one layer see, for each spatial dimension of the input."""

    path: str
    output: Any  # a jax.ShapeDtypeStruct, or a tree of them
    fields: tuple[Field, ...]


class ReceptiveFields(NamedTuple):
    """What the units of all layers see, each layer after the one that it is in; as text, a tree."""

    input: jax.ShapeDtypeStruct
    layers: tuple[LayerFields, ...]

    def __str__(self) -> str:
        return table(self._lines(), "<<>>>")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return html_table(self._lines(), "<<>>>")

    def _lines(self) -> list[Line]:
        lines: list[Line] = [
            ("layer", "output", "size", "stride", "start"),
            None,
            ("(input)", shapes(self.input), "", "", ""),
        ]
        for path, output, fields in self.layers:
            figures = [
                ("all" if field == (n, 0, 0) else f"{field.size}", f"{field.stride:g}", f"{field.start}")
                for field, n in zip(fields, self.input.shape[1:-1], strict=True)
            ]
            # One figure, if it is the same in all dimensions.
            columns = (each[:1] if len(set(each)) == 1 else each for each in zip(*figures, strict=True))
            lines.append((indented(path), shapes(output), *map(" x ".join, columns)))
        return lines


def receptive_field(model: Layer, x: Any) -> ReceptiveFields:
    """What the units of each layer of `model` see of an input like `x`: size, stride and start along each dimension.

    Unit i sees nothing but the positions start + stride * i to start + stride * i + size - 1, if the stride is whole.
    Fields are those of an input without ends: they reach into the padding, and may be larger than the input.

    Of the network in evaluation, from shapes alone. Exact for convolutions (strided, dilated, transposed), pools,
    resizing, and branches that come together again. What mixes all positions, such as a global pool or a dense layer
    after `flatten`, sees all that its input sees; so does any operation that is not known here. Where units at the
    border see something else (padding that is not zeros), the field is that of those in the middle. A layer in
    `repeat` has the field of all repetitions together.

    Args:
        model: a layer.
        x: an input (N, *spatial, C), or a `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: for an input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> layers = {"conv1": jaxcnn.conv(8), "pool": jaxcnn.max_pool(2), "conv2": jaxcnn.conv(8)}
        >>> net = jaxcnn.serial(**layers, flat=jaxcnn.flatten)
        >>> print(jaxcnn.explain.receptive_field(net, jnp.zeros((1, 16, 16, 3))))
        layer    output          size  stride  start
        --------------------------------------------
        (input)  (1, 16, 16, 3)
        conv1    (1, 16, 16, 8)     3       1     -1
        pool     (1, 8, 8, 8)       4       2     -1
        conv2    (1, 8, 8, 8)       8       2     -3
        flat     (1, 512)         all       0      0

    Source: Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", 2019.
    """
    model = as_layer(model)
    spatial_rank(as_floating(x, "receptive_field"), "receptive_field")
    x, params, state = specs(model, x, "receptive_field")

    def forward(x, params, state):
        y, after = model.apply(params, state | {SLOT: Probe(".*")}, x, train=False)
        probe = after.get(SLOT, Probe())
        records = probe.records or (record("", params, x, y),)
        return [probe.activations.get(r.path, y) for r in records], Probe(records=records)

    program, (outputs, probe) = jax.make_jaxpr(plain(forward), return_shape=True)(x, params, state)
    fields: list[list[Field]] = [[] for _ in outputs]
    for axis, n in enumerate(x.shape[1:-1], 1):
        pixels = Span(axis, n, np.arange(n), np.arange(n), 1, 1)
        seen = iter(propagate(program, [pixels, *[None] * (len(program.in_avals) - 1)]))
        for found, output, r in zip(fields, outputs, probe.records, strict=True):
            leaves = zip(jax.tree.leaves(output), jax.tree.leaves(r.output), strict=True)
            spans = [_in_place(next(seen), len(all_.shape), len(one.shape), len(x.shape)) for all_, one in leaves]
            found.append(_field(union(spans), n))
    layers = (LayerFields(r.path, r.output, tuple(found)) for r, found in zip(probe.records, fields, strict=True))
    return ReceptiveFields(x, tuple(layers))


def _in_place(seen: Seen, rank: int, once: int, wanted: int) -> Span | None:
    """What an output sees, without the dimensions of repetitions; all together where it has no positions."""
    span = shift_axes(seen, once - rank)
    return span if span is None or once == wanted else span.whole()


def _field(span: Span | None, n: int) -> Field:
    """The field of the units in the middle, of an input of n positions."""
    if span is None or not np.isfinite(span.first).any():
        return Field(0, 0, 0)
    periods = max(span.length - span.period, 0) // 2 // span.period
    middle = slice(periods * span.period, (periods + 1) * span.period)
    if not np.isfinite(span.first[middle]).any():
        span = span.whole()
    if span.axis is None:
        first, last = max(span.first[0], 0), min(span.last[0], n - 1)
        return Field(max(int(last - first) + 1, 0), 0, int(first))
    first, last = span.first[middle] - periods * span.step, span.last[middle] - periods * span.step
    if span.step % span.period:
        return Field(int((last - first).max()) + 1, span.step / span.period, int(first.min()))
    stride = span.step // span.period
    line = stride * np.arange(span.period)
    start = int((first - line).min())
    return Field(int((last - line).max()) - start + 1, stride, start)
