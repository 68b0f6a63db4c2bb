"""The receptive fields of the units of a network.

Along one dimension, a layer with window size k and stride s has the receptive field size r' and the total stride j'

    r' = r + (k - 1) * j,    j' = j * s

if its input has r and j (Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
Distill 2019). This module does not need a list of layers. It traces the network to a JAX program and follows, for each
array, the first and the last input position that an element depends on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._array import as_floating, spatial_rank
from jaxcnn._combine import AnyLayer
from jaxcnn._layer import as_layer
from jaxcnn._probe import SLOT, Probe, record
from jaxcnn._program import plain
from jaxcnn.explain._span import Dependence, Span, shift_axes, union
from jaxcnn.explain._span_rules import propagate
from jaxcnn.explain._summary import Line, html_table, indented, shapes, specs, table


class Field(NamedTuple):
    """The receptive field along one dimension: unit i covers `size` positions from start + stride * i.

    With stride 0, all units cover the same positions. With a fractional stride, as after `upsample`, units differ: size
    is the largest size and start the smallest start. Size 0 means that the units do not depend on the input.
    """

    size: int
    stride: float
    start: int  # negative in the padding

    @property
    def center(self) -> float:
        """The center of the receptive field of unit 0."""
        return self.start + (self.size - 1) / 2


class LayerFields(NamedTuple):
    """The receptive field of one layer for each spatial dimension of the input."""

    path: str
    output: Any  # a jax.ShapeDtypeStruct, or a tree of them
    fields: tuple[Field, ...]


class ReceptiveFields(NamedTuple):
    """The receptive fields of all layers. An outer layer precedes the layers inside it; `print` shows a tree."""

    input: jax.ShapeDtypeStruct
    layers: tuple[LayerFields, ...]

    def __str__(self) -> str:
        return table(self._lines(), "<<>>>")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return html_table(self._lines(), "<<>>>")

    def _lines(self) -> list[Line]:
        lines: list[Line] = [
            ("layer", "output", "size", "stride", "start"),
            None,
            ("(input)", shapes(self.input), "", "", ""),
        ]
        for path, output, fields in self.layers:
            cells = [
                ("all" if field == (n, 0, 0) else f"{field.size}", f"{field.stride:g}", f"{field.start}")
                for field, n in zip(fields, self.input.shape[1:-1], strict=True)
            ]
            # One value if all dimensions are equal.
            columns = (column[:1] if len(set(column)) == 1 else column for column in zip(*cells, strict=True))
            lines.append((indented(path), shapes(output), *map(" x ".join, columns)))
        return lines


def receptive_field(model: AnyLayer, x: Any) -> ReceptiveFields:
    """Return the receptive field of each layer of `model`: size, stride and start along each spatial dimension.

    For an integer stride, unit i depends only on the positions start + stride * i to start + stride * i + size - 1.
    Fields include the padding, so they may be larger than the input.

    The result is for evaluation mode and needs only shapes. It is exact for convolutions (strided, dilated,
    transposed), pools, resizing and parallel branches. An operation that mixes all positions (a global pool, a dense
    layer after `flatten`) has the union of its inputs' fields. So has an unknown operation. If units at the
    border differ (padding other than zeros), the field is that of the central units. A layer in `repeat` has the
    combined field of all repetitions. Auxiliary heads, which have no output in evaluation, are left out. Of an output
    with several arrays, the floating-point ones count: `max_pool_with_indices` has the field of its values. If no layer
    inside returns the output of the model, as in `residual`, the first row is the model itself, with the path "".

    Args:
        model: a layer.
        x: an input (N, *spatial, C), or a `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: if x is not floating-point.
        ValueError: if x has the wrong rank.

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
        records = [r for r in probe.records if jax.tree.leaves(r.output)] or [record("", params, x, y)]
        outputs = [probe.activations.get(r.path, y) for r in records]
        if not any(_is_same(output, y) for output in outputs):
            records, outputs = [record("", params, x, y), *records], [y, *outputs]
        return [*map(_values, outputs)], Probe(records=tuple(records))

    program, (outputs, probe) = jax.make_jaxpr(plain(forward), return_shape=True)(x, params, state)
    fields: list[list[Field]] = [[] for _ in outputs]
    for axis, n in enumerate(x.shape[1:-1], 1):
        pixels = Span(axis, n, np.arange(n), np.arange(n), 1, 1)
        spans = iter(propagate(program, [pixels, *[None] * (len(program.in_avals) - 1)]))
        for layer_fields, output, r in zip(fields, outputs, probe.records, strict=True):
            leaves = zip(output, _values(r.output), strict=True)
            layer_spans = [
                _without_repeats(next(spans), len(stacked.shape), len(single.shape), len(x.shape))
                for stacked, single in leaves
            ]
            layer_fields.append(_field(union(layer_spans), n))
    layers = (
        LayerFields(r.path, r.output, tuple(layer_fields))
        for r, layer_fields in zip(probe.records, fields, strict=True)
    )
    return ReceptiveFields(x, tuple(layers))


def _is_same(a: Any, b: Any) -> bool:
    """Whether two outputs consist of the same arrays."""
    return [*map(id, jax.tree.leaves(a))] == [*map(id, jax.tree.leaves(b))]


def _values(output: Any) -> list[Any]:
    """The arrays of an output whose fields count: the floating-point ones, or all if it has none."""
    leaves = jax.tree.leaves(output)
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)] or leaves


def _without_repeats(span: Dependence, stacked_rank: int, rank: int, input_rank: int) -> Span | None:
    """The span of an output without the leading `repeat` dimensions; merged if the output has no spatial positions."""
    moved = shift_axes(span, rank - stacked_rank)
    return moved if moved is None or rank == input_rank else moved.whole()


def _field(span: Span | None, n: int) -> Field:
    """The receptive field of the central units for an input of n positions."""
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
