"""How each operation of a program moves what the elements of its arrays see: one rule for each primitive of `lax`."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._program import inner_programs, interpret
from jaxcnn.explain._span import Known, Seen, Span, known, shift_axes, union


def propagate(program: Any, args: Sequence[Seen]) -> list[Seen]:
    """What the results of a program see, from what its arguments see."""
    return interpret(program, args, _results, known)


def _results(eqn: Any, seen: list[Seen]) -> list[Seen]:
    """What the results of an operation see, from what its operands see."""
    name = eqn.primitive.name
    if name in _CALLS:
        (program,) = inner_programs(eqn)
        return propagate(program, seen)
    if name == "scan":
        return _scan(eqn, seen)
    constants = [value for value in seen if isinstance(value, Known)]
    if len(constants) == len(seen):
        return [*_computed(eqn, constants)]
    rule = _RULES.get(name, _unknown)
    moved = []
    for k, (var, span) in enumerate(zip(eqn.invars, seen, strict=True)):
        if isinstance(span, Span) and var.aval.size:
            moved.append(span if span.axis is None else rule(eqn, seen, k, span) or span.whole())
    return [union(moved) if var.aval.size else None for var in eqn.outvars]


def _computed(eqn: Any, operands: list[Known]) -> list[Known]:
    """The results of an operation on arrays that depend on nothing, computed when one asks for them."""

    @functools.cache
    def results():
        with jax.ensure_compile_time_eval():
            out = eqn.primitive.bind(*(value.value() for value in operands), **eqn.params)
        return out if eqn.primitive.multiple_results else [out]

    return [Known(functools.partial(lambda i: results()[i], i)) for i in range(len(eqn.outvars))]


def _scan(eqn: Any, seen: list[Seen]) -> list[Seen]:
    """All steps of a loop, one after the other; what it collects sees what all steps see together."""
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])
    # Constants, what is carried, and arrays of which a step sees a slice; of results, what is carried and slices.
    sliced = [out.aval.ndim > one.aval.ndim for out, one in zip(eqn.invars, body.invars, strict=True)]
    collected = [out.aval.ndim > one.aval.ndim for out, one in zip(eqn.outvars, body.outvars, strict=True)]
    carried = collected.count(False)
    carry = slice(sliced.count(False) - carried, sliced.count(False))
    args = [shift_axes(value, -1) if is_slice else value for value, is_slice in zip(seen, sliced, strict=True)]
    gathered: list[Seen] = [None] * collected.count(True)
    for _ in range(eqn.params["length"]):
        args[carry] = (union([value]) for value in args[carry])  # what is known at first is not so later
        results = propagate(eqn.params["jaxpr"], args)
        args[carry] = results[:carried]
        gathered = [union(pair) for pair in zip(gathered, results[carried:], strict=True)]
    return [*args[carry], *(shift_axes(value, 1) for value in gathered)]


def _same(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    return span


def _unknown(eqn: Any, seen: list[Seen], k: int, span: Span) -> None:
    """Each result may depend on all of the operand."""


def _unless_along(name: str) -> Callable[..., Span | None]:
    """A rule for what mixes nothing but the dimension that a parameter names."""
    return lambda eqn, seen, k, span: None if span.axis == eqn.params[name] else span


def _reduced(name: str) -> Callable[..., Span | None]:
    """A rule for what takes away the dimensions that a parameter names."""

    def rule(eqn, seen, k, span):
        gone = eqn.params[name]
        return None if span.axis in gone else span.along(span.axis - sum(axis < span.axis for axis in gone))

    return rule


def _transposed(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    return span.along(eqn.params["permutation"].index(span.axis))


def _broadcast(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
    axis = eqn.params["broadcast_dimensions"][span.axis]
    return span.along(axis) if eqn.params["shape"][axis] == span.length else None


def _reshaped(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
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


def _sliced(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    stride = (eqn.params["strides"] or (1,) * (span.axis + 1))[span.axis]
    return span.window(_length(eqn, span), stride=stride, low=-eqn.params["start_indices"][span.axis])


def _reversed(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    if span.axis not in eqn.params["dimensions"]:
        return span
    return span.window(span.length, stride=-1, low=1 - span.length)


def _padded(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    low, _, between = eqn.params["padding_config"][span.axis]
    return span.window(_length(eqn, span), low=low, base=between + 1)


def _concatenated(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
    axis = eqn.params["dimension"]
    if span.axis != axis:
        return span
    # Beyond its ends, the result goes on as the longest part does.
    parts = [part for part in seen if isinstance(part, Span) and part.axis == axis]
    main = max(parts, key=lambda part: part.length)
    length = _length(eqn, span)
    if main.period > length:
        return None
    start = sum(var.aval.shape[axis] for var in eqn.invars[:k])
    first, last = np.full(length, np.inf), np.full(length, -np.inf)
    first[start : start + span.length] = span.first[: span.length]
    last[start : start + span.length] = span.last[: span.length]
    return Span(axis, length, first, last, main.period, main.step)


def _windowed(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span:
    size, stride, (low, _), dilation, base = (
        eqn.params[name][span.axis]
        for name in ("window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation")
    )
    return span.window(_length(eqn, span), size, stride=stride, low=low, dilation=dilation, base=base)


def _convolved(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
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


def _multiplied(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
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
    if not isinstance(other, Known) or ranks[1 - k] != 2 or len(contracted[k]) != 1 or batch[k]:
        return None
    weights = np.moveaxis(np.asarray(other.value()), contracted[1 - k][0], 1)
    taps = np.broadcast_to(np.arange(span.length), weights.shape)
    return span.along(0 if k else ranks[0] - 1).table(taps, weights != 0)


def _gathered(eqn: Any, seen: list[Seen], k: int, span: Span) -> Span | None:
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
    if not batch or numbers.start_index_map != (span.axis,) or not isinstance(seen[1], Known):
        return None
    index = np.asarray(seen[1].value())
    taps = np.clip(index.reshape(len(index), -1), 0, span.length - 1)
    return span.along(batch[0]).table(taps, np.ones_like(taps, bool))


def _length(eqn: Any, span: Span) -> int:
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
