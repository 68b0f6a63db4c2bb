"""How each operation of a program transforms spans: one rule per `lax` primitive."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._jax import scan_counts
from jaxcnn._program import inner_programs, interpret
from jaxcnn.explain._span import Constant, Dependence, Span, constant, shift_axes, union


def propagate(program: Any, args: Sequence[Dependence]) -> list[Dependence]:
    """The dependence of a program's results on the input, given that of its arguments."""
    return interpret(program, args, _results, constant)


def _results(eqn: Any, operands: list[Dependence]) -> list[Dependence]:
    """The dependence of an operation's results on the input, given that of its operands."""
    name = eqn.primitive.name
    if name in _CALLS:
        (program,) = inner_programs(eqn)
        return propagate(program, operands)
    if name == "scan":
        return _scan(eqn, operands)
    constants = [value for value in operands if isinstance(value, Constant)]
    if len(constants) == len(operands):
        return [*_constant_results(eqn, constants)]
    rule = _RULES.get(name, _unknown)
    spans = []
    for k, (var, span) in enumerate(zip(eqn.invars, operands, strict=True)):
        if isinstance(span, Span) and var.aval.size:
            spans.append(span if span.axis is None else rule(eqn, operands, k, span) or span.whole())
    return [union(spans) if var.aval.size else None for var in eqn.outvars]


def _constant_results(eqn: Any, operands: list[Constant]) -> list[Constant]:
    """The results of an operation on constants, computed on first use."""

    @functools.cache
    def results():
        with jax.ensure_compile_time_eval():
            out = eqn.primitive.bind(*(value.value() for value in operands), **eqn.params)
        return out if eqn.primitive.multiple_results else [out]

    return [Constant(functools.partial(lambda i: results()[i], i)) for i in range(len(eqn.outvars))]


def _scan(eqn: Any, operands: list[Dependence]) -> list[Dependence]:
    """Run all steps of a scan in sequence. Each stacked output depends on the union over all steps."""
    # Operands are constants, the carry and scanned arrays. Results are the carry and stacked outputs.
    constants, n_carry = scan_counts(eqn.params)
    carry = slice(constants, constants + n_carry)
    args = [*operands[: carry.stop], *(shift_axes(value, -1) for value in operands[carry.stop :])]
    outputs: list[Dependence] = [None] * (len(eqn.outvars) - n_carry)
    for _ in range(eqn.params["length"]):
        args[carry] = (union([value]) for value in args[carry])  # an initial constant changes in later steps
        results = propagate(eqn.params["jaxpr"], args)
        args[carry] = results[:n_carry]
        outputs = [union(pair) for pair in zip(outputs, results[n_carry:], strict=True)]
    return [*args[carry], *(shift_axes(value, 1) for value in outputs)]


def _same(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    return span


def _unknown(eqn: Any, operands: list[Dependence], k: int, span: Span) -> None:
    """Each result may depend on the whole operand."""


def _unless_along(name: str) -> Callable[..., Span | None]:
    """A rule for operations that mix elements only along the dimension in the parameter `name`."""
    return lambda eqn, operands, k, span: None if span.axis == eqn.params[name] else span


def _removes(name: str) -> Callable[..., Span | None]:
    """A rule for operations that remove the dimensions in the parameter `name`."""

    def rule(eqn, operands, k, span):
        removed = eqn.params[name]
        return None if span.axis in removed else span.along(span.axis - sum(axis < span.axis for axis in removed))

    return rule


def _transpose(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    return span.along(eqn.params["permutation"].index(span.axis))


def _broadcast(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
    axis = eqn.params["broadcast_dimensions"][span.axis]
    return span.along(axis) if eqn.params["shape"][axis] == span.length else None


def _reshape(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
    """Supported if the dimension is kept, split, or merged with the dimensions after it."""
    before, after = eqn.invars[0].aval.shape, eqn.params["new_sizes"]
    outer, inner = math.prod(before[: span.axis]), math.prod(before[span.axis + 1 :])
    candidates = [axis for axis in range(len(after)) if math.prod(after[:axis]) == outer]
    kept = [axis for axis in candidates if (after[axis] == span.length if span.length > 1 else axis == span.axis)]
    for axis in kept[:1] or candidates[-1:]:
        span, now = span.along(axis), math.prod(after[axis + 1 :])
        if now % inner == 0:
            return span.window(after[axis], now // inner, stride=now // inner)
        if inner % now == 0:
            return span.window(after[axis], inner // now, low=inner // now - 1, base=inner // now)
    return None


def _slice(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    stride = (eqn.params["strides"] or (1,) * (span.axis + 1))[span.axis]
    return span.window(_length(eqn, span), stride=stride, low=-eqn.params["start_indices"][span.axis])


def _reverse(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    if span.axis not in eqn.params["dimensions"]:
        return span
    return span.window(span.length, stride=-1, low=1 - span.length)


def _pad(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    low, _, between = eqn.params["padding_config"][span.axis]
    return span.window(_length(eqn, span), low=low, base=between + 1)


def _concatenate(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
    axis = eqn.params["dimension"]
    if span.axis != axis:
        return span
    # Beyond its ends, the result continues like its longest part.
    parts = [part for part in operands if isinstance(part, Span) and part.axis == axis]
    main = max(parts, key=lambda part: part.length)
    length = _length(eqn, span)
    if main.period > length:
        return None
    start = sum(var.aval.shape[axis] for var in eqn.invars[:k])
    first, last = np.full(length, np.inf), np.full(length, -np.inf)
    first[start : start + span.length] = span.first[: span.length]
    last[start : start + span.length] = span.last[: span.length]
    return Span(axis, length, first, last, main.period, main.step)


def _reduce_window(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span:
    size, stride, (low, _), dilation, base = (
        eqn.params[name][span.axis]
        for name in ("window_dimensions", "window_strides", "padding", "window_dilation", "base_dilation")
    )
    return span.window(_length(eqn, span), size, stride=stride, low=low, dilation=dilation, base=base)


def _convolution(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
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


def _dot_general(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
    """A product. If the other operand is a constant matrix, its zeros remove dependences."""
    contracted, batch = ((pair[0], pair[1]) for pair in eqn.params["dimension_numbers"])
    ranks = [var.aval.ndim for var in eqn.invars]
    if span.axis in batch[k]:
        return span.along(batch[k].index(span.axis))
    offset = len(batch[0]) + (ranks[0] - len(batch[0]) - len(contracted[0]) if k else 0)
    if span.axis not in contracted[k]:
        free = [axis for axis in range(ranks[k]) if axis not in (*contracted[k], *batch[k])]
        return span.along(offset + free.index(span.axis))
    other = operands[1 - k]
    if not isinstance(other, Constant) or ranks[1 - k] != 2 or len(contracted[k]) != 1 or batch[k]:
        return None
    weights = np.moveaxis(np.asarray(other.value()), contracted[1 - k][0], 1)
    taps = np.broadcast_to(np.arange(span.length), weights.shape)
    return span.along(0 if k else ranks[0] - 1).table(taps, weights != 0)


def _gather(eqn: Any, operands: list[Dependence], k: int, span: Span) -> Span | None:
    """Supported for constant indices, slices over the whole dimension, and batch dimensions."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    batch = [axis for axis in range(eqn.outvars[0].aval.ndim) if axis not in numbers.offset_dims]
    if k == 1:
        return span.along(batch[span.axis]) if span.axis < len(batch) else None
    if span.axis in numbers.operand_batching_dims:
        at = numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(span.axis)]
        return span.along(batch[at])
    if span.axis not in numbers.collapsed_slice_dims:
        removed = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [axis for axis in range(len(sizes)) if axis not in removed]
        return span.along(numbers.offset_dims[kept.index(span.axis)]) if sizes[span.axis] == span.length else None
    if not batch or numbers.start_index_map != (span.axis,) or not isinstance(operands[1], Constant):
        return None
    index = np.asarray(operands[1].value())
    span, taps = span.along(batch[0]), np.clip(index.reshape(len(index), -1), 0, span.length - 1)
    rows, size = taps.shape
    if rows > 1:  # one row has no stride
        stride, dilation = int(taps[1, 0] - taps[0, 0]), int(taps[0, -1] - taps[0, 0]) // max(size - 1, 1)
        windows = taps[0, 0] + stride * np.arange(rows)[:, None] + dilation * np.arange(size)
        if stride and (taps == windows).all():
            return span.window(rows, size, stride=stride, low=-int(taps[0, 0]), dilation=dilation)
    return span.table(taps, np.ones_like(taps, bool))


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

# A rule maps (equation, operands, index of one operand, its span with an axis) to the part of the results' span that
# comes from this operand. None means that each result may depend on the whole operand.
_RULES = {
    **dict.fromkeys(_ELEMENTWISE.split(), _same),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "split"), _unless_along("axis")),
    **dict.fromkeys(("reduce_window", "reduce_window_sum", "reduce_window_max", "reduce_window_min"), _reduce_window),
    **{f"reduce_{how}": _removes("axes") for how in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **dict.fromkeys(("argmax", "argmin"), _removes("axes")),
    "squeeze": _removes("dimensions"),
    "sort": _unless_along("dimension"),
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "gather": _gather,
}
