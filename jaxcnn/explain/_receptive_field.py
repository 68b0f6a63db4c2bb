"""Which part of the input a unit of a network sees.

Along one dimension, a window of k positions over units that see r positions of the input, j apart, sees

    r' = r + (k - 1) * j,    j' = j * s

with s its stride (Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks", Distill 2019).
Here this is not added up from a list of layers, but read off the program that the network is: for each array in it,
how the first and the last position of the input that an element sees move with its index.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._layer import Layer, as_layer, floating, spatial_rank
from jaxcnn._probe import SLOT, Probe, record
from jaxcnn._program import inner_programs, interpret, plain
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
    def centre(self) -> float:
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
    spatial_rank(floating(x, "receptive_field"), "receptive_field")
    x, params, state = specs(model, x, "receptive_field")

    def forward(x, params, state):
        y, after = model.apply(params, state | {SLOT: Probe(".*")}, x, train=False)
        probe = after.get(SLOT, Probe())
        records = probe.records or (record("", params, x, y),)
        return [probe.activations.get(r.path, y) for r in records], Probe(records=records)

    program, (outputs, probe) = jax.make_jaxpr(plain(forward), return_shape=True)(x, params, state)
    fields: list[list[Field]] = [[] for _ in outputs]
    for axis, n in enumerate(x.shape[1:-1], 1):
        pixels = _Span(axis, n, np.arange(n), np.arange(n), 1, 1)
        seen = iter(_through(program, [pixels, *[None] * (len(program.in_avals) - 1)]))
        for found, output, r in zip(fields, outputs, probe.records, strict=True):
            leaves = zip(jax.tree.leaves(output), jax.tree.leaves(r.output), strict=True)
            spans = [_in_place(next(seen), len(all_.shape), len(one.shape), len(x.shape)) for all_, one in leaves]
            found.append(_field(_together(spans), n))
    layers = (LayerFields(r.path, r.output, tuple(found)) for r, found in zip(probe.records, fields, strict=True))
    return ReceptiveFields(x, tuple(layers))


class _Span(NamedTuple):
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

    def whole(self) -> "_Span":
        """What all elements see together, seen by each."""
        first, last = self.first[: self.length], self.last[: self.length]
        return _Span(None, 1, first.min(keepdims=True), last.max(keepdims=True), 1, 0)

    def along(self, axis: int) -> "_Span":
        """The same along another axis."""
        return self._replace(axis=axis)

    def window(
        self, length: int, size: int = 1, *, stride: int = 1, low: int = 0, dilation: int = 1, base: int = 1
    ) -> "_Span":
        """y[i] sees what x[(stride * i + dilation * k - low) / base] does, for the k that give a whole number."""
        period = base * self.period // math.gcd(base * self.period, stride)
        begin = stride * np.arange(max(length, period))[:, None] - low
        step = self.step * period * stride // (base * self.period)
        if dilation == 1:  # one in `base` of the taps, of which `flatten` has thousands
            at = -(-begin // base) + np.arange(-(-size // base))
            return self._seeing(length, at, base * at < begin + size, period, step)
        at = begin + dilation * np.arange(size)
        return self._seeing(length, at // base, at % base == 0, period, step)

    def table(self, taps: np.ndarray, used: np.ndarray) -> "_Span":
        """y[i] sees what x[taps[i, k]] does, where used[i, k]; after all of y, as if all of x came once more."""
        repeats = math.lcm(self.length, self.period) // self.length
        at = np.concatenate([taps + i * self.length for i in range(repeats)])
        step = self.step * repeats * self.length // self.period
        return self._seeing(len(taps), at, np.tile(used, (repeats, 1)), len(at), step)

    def _seeing(self, length: int, at: np.ndarray, used: np.ndarray, period: int, step: int) -> "_Span":
        first, last = self.at(at)
        first, last = np.where(used, first, np.inf).min(1), np.where(used, last, -np.inf).max(1)
        return _Span(self.axis, length, first, last, period, step)


class _Known(NamedTuple):
    """An array that depends on nothing, such as the indices of a selection."""

    value: Callable[[], Any]


def _known(value: Any) -> _Known:
    return _Known(lambda: value)


_Seen = _Span | _Known | None  # None: an array that does not depend on the input


def _in_place(seen: _Seen, rank: int, once: int, wanted: int) -> _Span | None:
    """What an output sees, without the dimensions of repetitions; all together where it has no positions."""
    span = _shifted(seen, once - rank)
    return span if span is None or once == wanted else span.whole()


def _field(span: _Span | None, n: int) -> Field:
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


def _together(seen: Sequence[_Seen]) -> _Span | None:
    """What an element sees that is made of those in the same place."""
    spans = [value for value in seen if isinstance(value, _Span)]
    return functools.reduce(_both, spans) if spans else None


def _both(one: _Span, other: _Span) -> _Span:
    if (one.axis, one.length) != (other.axis, other.length) or one.step * other.period != other.step * one.period:
        one, other = one.whole(), other.whole()
    period = math.lcm(one.period, other.period)
    i = np.arange(max(one.length, period))
    (first, last), (other_first, other_last) = one.at(i), other.at(i)
    first, last = np.minimum(first, other_first), np.maximum(last, other_last)
    return _Span(one.axis, one.length, first, last, period, one.step * period // one.period)


def _through(program: Any, args: Sequence[_Seen]) -> list[_Seen]:
    """What the results of a program see, from what its arguments see."""
    return interpret(program, args, _results, _known)


def _results(eqn: Any, seen: list[_Seen]) -> list[_Seen]:
    """What the results of an operation see, from what its operands see."""
    name = eqn.primitive.name
    if name in _CALLS:
        return _through(*inner_programs(eqn), seen)
    if name == "scan":
        return _scan(eqn, seen)
    known = [value for value in seen if isinstance(value, _Known)]
    if len(known) == len(seen):
        return [*_computed(eqn, known)]
    rule = _RULES.get(name, _unknown)
    moved = []
    for k, (var, span) in enumerate(zip(eqn.invars, seen, strict=True)):
        if isinstance(span, _Span) and var.aval.size:
            moved.append(span if span.axis is None else rule(eqn, seen, k, span) or span.whole())
    return [_together(moved) if var.aval.size else None for var in eqn.outvars]


def _computed(eqn: Any, known: list[_Known]) -> list[_Known]:
    """The results of an operation on arrays that depend on nothing, computed when one asks for them."""

    @functools.cache
    def results():
        with jax.ensure_compile_time_eval():
            out = eqn.primitive.bind(*(value.value() for value in known), **eqn.params)
        return out if eqn.primitive.multiple_results else [out]

    return [_Known(functools.partial(lambda i: results()[i], i)) for i in range(len(eqn.outvars))]


def _scan(eqn: Any, seen: list[_Seen]) -> list[_Seen]:
    """All steps of a loop, one after the other; what it collects sees what all steps see together."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    # Constants, what is carried, and arrays of which a step sees a slice; of results, what is carried and slices.
    sliced = [out.aval.ndim > one.aval.ndim for out, one in zip(eqn.invars, body.invars, strict=True)]
    collected = [out.aval.ndim > one.aval.ndim for out, one in zip(eqn.outvars, body.outvars, strict=True)]
    carried = collected.count(False)
    carry = slice(sliced.count(False) - carried, sliced.count(False))
    args = [_shifted(value, -1) if is_slice else value for value, is_slice in zip(seen, sliced, strict=True)]
    together: list[_Seen] = [None] * collected.count(True)
    for _ in range(eqn.params["length"]):
        args[carry] = (_together([value]) for value in args[carry])  # what is known at first is not so later
        results = _through(eqn.params["jaxpr"], args)
        args[carry] = results[:carried]
        together = [_together(pair) for pair in zip(together, results[carried:], strict=True)]
    return [*args[carry], *(_shifted(value, 1) for value in together)]


def _shifted(seen: _Seen, by: int) -> _Span | None:
    """The same in an array with so many more dimensions in front."""
    span = _together([seen])
    if span is None or span.axis is None:
        return span
    return span.along(span.axis + by) if span.axis + by >= 0 else span.whole()


def _same(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    return span


def _unknown(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> None:
    """Each result may depend on all of the operand."""


def _unless_along(name: str) -> Callable[..., _Span | None]:
    """A rule for what mixes nothing but the dimension that a parameter names."""
    return lambda eqn, seen, k, span: None if span.axis == eqn.params[name] else span


def _reduced(name: str) -> Callable[..., _Span | None]:
    """A rule for what takes away the dimensions that a parameter names."""

    def rule(eqn, seen, k, span):
        gone = eqn.params[name]
        return None if span.axis in gone else span.along(span.axis - sum(axis < span.axis for axis in gone))

    return rule


def _transposed(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    return span.along(eqn.params["permutation"].index(span.axis))


def _broadcast(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    axis = eqn.params["broadcast_dimensions"][span.axis]
    return span.along(axis) if eqn.params["shape"][axis] == span.length else None


def _reshaped(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    """Followed where the dimension is kept, split, or merged with those after it."""
    before, after = eqn.invars[0].aval.shape, eqn.params["new_sizes"]
    outer, inner = math.prod(before[: span.axis]), math.prod(before[span.axis + 1 :])
    places = [axis for axis in range(len(after)) if math.prod(after[:axis]) == outer]
    kept = [axis for axis in places if (after[axis] == span.length if span.length > 1 else axis == span.axis)]
    for axis in kept[:1] or places[-1:]:
        span, now = span.along(axis), math.prod(after[axis + 1 :])
        if now % inner == 0:
            return span.window(after[axis], now // inner, stride=now // inner)
        if inner % now == 0:
            return span.window(after[axis], inner // now, low=inner // now - 1, base=inner // now)
    return None


def _sliced(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    stride = (eqn.params["strides"] or (1,) * (span.axis + 1))[span.axis]
    return span.window(_length(eqn, span), stride=stride, low=-eqn.params["start_indices"][span.axis])


def _reversed(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    if span.axis not in eqn.params["dimensions"]:
        return span
    return span.window(span.length, stride=-1, low=1 - span.length)


def _padded(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    low, _, between = eqn.params["padding_config"][span.axis]
    return span.window(_length(eqn, span), low=low, base=between + 1)


def _concatenated(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    axis = eqn.params["dimension"]
    if span.axis != axis:
        return span
    # Beyond its ends, the result goes on as the longest part does.
    parts = [part for part in seen if isinstance(part, _Span) and part.axis == axis]
    main = max(parts, key=lambda part: part.length)
    length = _length(eqn, span)
    if main.period > length:
        return None
    start = sum(var.aval.shape[axis] for var in eqn.invars[:k])
    first, last = np.full(length, np.inf), np.full(length, -np.inf)
    first[start : start + span.length] = span.first[: span.length]
    last[start : start + span.length] = span.last[: span.length]
    return _Span(axis, length, first, last, main.period, main.step)


def _windowed(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span:
    size, stride, (low, _), dilation, base = (
        eqn.params[name][span.axis]
        for name in ("window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation")
    )
    return span.window(_length(eqn, span), size, stride=stride, low=low, dilation=dilation, base=base)


def _convolved(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    lhs, rhs, out = eqn.params["dimension_numbers"]
    if k == 1 or span.axis == lhs[1] or eqn.params["batch_group_count"] > 1:
        return None
    at = lhs.index(span.axis)
    span = span.along(out[at])
    if at == 0:
        return span
    stride, (low, _), dilation, base = (
        eqn.params[name][at - 2] for name in ("window_strides", "padding", "rhs_dilation", "lhs_dilation")
    )
    size = eqn.invars[1].aval.shape[rhs[at]]
    return span.window(_length(eqn, span), size, stride=stride, low=low, dilation=dilation, base=base)


def _multiplied(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    """A product, of which the other operand may be a known matrix: what its zeros leave out is not seen."""
    contracted, batch = ((both[0], both[1]) for both in eqn.params["dimension_numbers"])
    ranks = [var.aval.ndim for var in eqn.invars]
    if span.axis in batch[k]:
        return span.along(batch[k].index(span.axis))
    before = len(batch[0]) + (ranks[0] - len(batch[0]) - len(contracted[0]) if k else 0)
    if span.axis not in contracted[k]:
        free = [axis for axis in range(ranks[k]) if axis not in (*contracted[k], *batch[k])]
        return span.along(before + free.index(span.axis))
    other = seen[1 - k]
    if not isinstance(other, _Known) or ranks[1 - k] != 2 or len(contracted[k]) != 1 or batch[k]:
        return None
    weights = np.moveaxis(np.asarray(other.value()), contracted[1 - k][0], 1)
    taps = np.broadcast_to(np.arange(span.length), weights.shape)
    return span.along(0 if k else ranks[0] - 1).table(taps, weights != 0)


def _gathered(eqn: Any, seen: list[_Seen], k: int, span: _Span) -> _Span | None:
    """Followed where indices are known, where whole slices are taken, and through the dimensions of a batch."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    batch = [axis for axis in range(eqn.outvars[0].aval.ndim) if axis not in numbers.offset_dims]
    if k == 1:
        return span.along(batch[span.axis]) if span.axis < len(batch) else None
    if span.axis in numbers.operand_batching_dims:
        at = numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(span.axis)]
        return span.along(batch[at])
    if span.axis not in numbers.collapsed_slice_dims:
        gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [axis for axis in range(len(sizes)) if axis not in gone]
        return span.along(numbers.offset_dims[kept.index(span.axis)]) if sizes[span.axis] == span.length else None
    if not batch or numbers.start_index_map != (span.axis,) or not isinstance(seen[1], _Known):
        return None
    index = np.asarray(seen[1].value())
    taps = np.clip(index.reshape(len(index), -1), 0, span.length - 1)
    return span.along(batch[0]).table(taps, np.ones_like(taps, bool))


def _length(eqn: Any, span: _Span) -> int:
    return eqn.outvars[0].aval.shape[span.axis]


_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}

_ELEMENTWISE = """
    abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp conj convert_element_type
    copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite
    le lgamma log log1p logistic lt max min mul name ne neg nextafter not or population_count pow real
    reduce_precision rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt
    square stop_gradient sub tan tanh xor
"""

# (equation, what its operands see, the number of one of them, its span, which has an axis) -> span of the results, as
# far as they depend on that operand; None if they may depend on all of it.
_RULES = {
    **dict.fromkeys(_ELEMENTWISE.split(), _same),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split"), _unless_along("axis")),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"), _windowed),
    **{f"reduce_{how}": _reduced("axes") for how in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **dict.fromkeys(("argmax", "argmin"), _reduced("axes")),
    "squeeze": _reduced("dimensions"),
    "sort": _unless_along("dimension"),
    "transpose": _transposed,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "slice": _sliced,
    "rev": _reversed,
    "pad": _padded,
    "concatenate": _concatenated,
    "conv_general_dilated": _convolved,
    "dot_general": _multiplied,
    "gather": _gathered,
}
