"""Selects the algorithm for a convolution or a pool, with one ordered table of rules per operation.

    print(table("forward"))       the rules
    choose(problem)               the first rule that fits the problem and is faster than the following ones
    with forced("im2col"): ..     forces another rule, in a test or a benchmark

A CPU uses the tables; other backends use the last rule that fits, which is `lax` for all but gradients of dilated max
pools. Each platform of an exported program gets its own choice.
"""

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._jax import Tracer
from jaxcnn._lowering import (
    _as_convolution,
    _depth_slices,
    _direct,
    _grouped,
    _lax,
    _matmul,
    _onednn,
    _window_pooling,
    _winograd,
    _winograd_gradient,
)
from jaxcnn._lowering._if_finite import if_finite, im2col_if_finite, run_if
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._path import expected_one_of

_MAX_TAPS = 64  # with more, unrolling the taps takes too long to compile
_MAX_TERMS = 160  # likewise for sums over taps and channels
_CACHED = 2**21  # values that fit into a cache
_MIN_POSITIONS = 96  # of an output, for sums of each example
_always: Callable[[Problem], bool] = lambda p: True
_never: Callable[[Problem], bool] = lambda p: False


class Rule(NamedTuple):
    """An algorithm, and the problems that it is used for."""

    name: str
    run: Callable[..., jax.Array]  # (*arrays, problem) -> array
    why: str
    fits: Callable[[Problem], bool] = _always  # whether it can compute the problem
    faster: Callable[[Problem], bool] = _always  # whether it is faster than all following rules
    # whether `vmap` of it computes several models faster than a loop over them. It is false for library calls, which
    # take one model, for `lax.cond`, because `vmap` computes both branches, and for large buffers.
    vmapped: Callable[[Problem], bool] = _never


def table(operation: str) -> str:
    """The rules for an operation as text, in order of preference."""
    width = max(len(rule.name) for rule in TABLES[operation])
    return "\n".join(f"{rule.name:{width}}  {rule.why}" for rule in TABLES[operation])


def choose(problem: Problem, exclude: Collection[str] = (), backend: str = "cpu") -> Rule:
    """The rule for the problem, without those in `exclude`: the first that fits and is faster; off a CPU, the last."""
    rules = [rule for rule in TABLES[problem.operation] if rule.name not in exclude]
    if backend != "cpu":
        return next(rule for rule in reversed(rules) if rule.fits(problem))
    return next(rule for rule in rules if rule.fits(problem) and rule.faster(problem))


_forced = jax.make_user_context(None)


@contextlib.contextmanager
def forced(name: str) -> Iterator[None]:
    """On a CPU, forces the rule of this name for each operation that has one, even if it is slower.

    Other operations, and convolutions inside an algorithm, keep theirs. Use it around the call of a jitted function.

    Raises:
        ValueError: if no rule has this name, or the rule does not fit a problem.
        RuntimeError: inside a function that is being traced, where it would have no effect.
    """
    names = dict.fromkeys(rule.name for rules in TABLES.values() for rule in rules)
    if name not in names:
        raise ValueError(f"unknown rule {name!r}; {expected_one_of(name, names)}")
    if isinstance(jnp.zeros(()), Tracer):
        raise RuntimeError("forced must be around the call of the jitted function, not inside it")
    with _forced(name):
        yield


def selected(problem: Problem, backend: str = "cpu") -> Rule:
    """The rule that computes the problem: the forced one if it has such a rule, else that of `choose`."""
    for rule in TABLES[problem.operation] if backend == "cpu" else ():
        if rule.name == _forced.value:
            if not rule.fits(problem):
                raise ValueError(f"the rule {rule.name!r} does not fit {problem}")
            return rule
    return choose(problem, backend=backend)


def _compute(a: Any, b: Any, problem: Problem, exclude: Collection[str] = ()) -> jax.Array:
    """Run a convolution inside an algorithm."""
    return choose(problem, exclude).run(a, b, problem)


# Dense: without groups and without input dilation.
_ungrouped = lambda p: p.groups == 1
_in_groups = lambda p: p.groups > 1
_dense = lambda p: p.groups == 1 and set(p.window.input_dilation) == {1}
_dense_3d = lambda p: _dense(p) and len(p.spatial) == 3
_dense_1d_2d = lambda p: _dense(p) and len(p.spatial) <= 2
_depthwise = lambda p: p.groups == p.channels == p.features > 1 and set(p.window.input_dilation) == {1}
_strided = lambda p: set(p.window.stride) != {1}
_adds_zeros = lambda p: p.window.is_padded or set(p.window.input_dilation) != {1}
# With one tap, the algorithm can skip inputs (stride) or insert zeros (padding, input dilation), but not both.
_pointwise_fits = lambda p: p.groups == p.window.taps == 1 and not (_adds_zeros(p) and _strided(p))
_pointwise_without_zeros = lambda p: p.groups == p.window.taps == 1 and not _adds_zeros(p)
_undilated = lambda p: _dense(p) and set(p.window.dilation) == {1}
_patches = lambda p: _undilated(p) and not p.window.is_padded and p.window.size == p.window.stride
_mostly_padding = lambda p: math.prod(p.spatial) < p.window.taps


def _onednn_faster(problem: Problem) -> bool:
    """Not for sums of few products, a single matrix product, or if most taps read padding."""
    if problem.models != 1 and _direct_faster(problem):
        return False  # one program for all models is faster
    if problem.groups > 1:
        same_width = problem.channels == problem.features and len(problem.spatial) > 1
        return problem.channels_per_group > 1 or same_width
    return problem.channels > 1 and not _pointwise_without_zeros(problem) and not _mostly_padding(problem)


def _im2col_faster(problem: Problem) -> bool:
    """If most taps read padding, or if outputs are so few that oneDNN mainly reorders the kernel."""
    if _direct_faster(problem) or problem.window.taps == 1:
        return False
    few_for_onednn = _onednn.fits(problem) and 2 * problem.examples * math.prod(problem.output) <= problem.features
    return _mostly_padding(problem) or few_for_onednn


def _direct_faster(problem: Problem) -> bool:
    terms = problem.window.taps * problem.channels_per_group
    if problem.groups > 1:
        return problem.channels_per_group <= 4 and terms <= _MAX_TAPS
    # For 16 to 16 channels, XLA takes 0.9 (Intel) to 1.3 times (Zen 5) as long, but compiles ten times faster.
    few_channels = problem.channels <= 8 or (problem.channels < 16 and problem.features <= 16)
    return few_channels and terms <= _MAX_TERMS and set(problem.window.input_dilation) == {1}


def _by_row_faster(problem: Problem) -> bool:
    """Few channels per group, and not too many rows to compile.

    Without groups: one channel, taps that overlap, and a dy that fits into a cache, as each row of taps reads it again.
    """
    channels, (*rows, columns) = problem.channels_per_group, problem.window.size
    if problem.groups > 1:
        few_channels = channels <= 4
    else:
        overlap = problem.window.stride[-1] < columns
        few_channels = channels == 1 and overlap and not (_by_position_faster(problem) and _is_large(problem))
    return few_channels and channels * math.prod(rows) <= _MAX_TAPS


def _is_large(problem: Problem) -> bool:
    """Whether dy has more features than a vector register, and does not fit into a cache."""
    values = problem.examples * math.prod(problem.output) * problem.features
    return problem.features > _direct.LANES and values > 1.5 * _CACHED


def _grouped_faster(problem: Problem) -> bool:
    return problem.channels_per_group > 1 and not _direct_faster(problem)


def _grouped_gradient_faster(problem: Problem) -> bool:
    return _grouped_faster(problem) and not _onednn.fits(_as_convolution.rotated(problem))


def _has_phases(problem: Problem) -> bool:
    """Strided without dilation, and each position of x is read by a tap."""
    size, stride, *_ = problem.window
    return _undilated(problem) and _strided(problem) and all(map(operator.ge, size, stride))


def _phases_faster(problem: Problem) -> bool:
    """If oneDNN computes all phases and each has several taps, which col2im would add. Not for few channels."""
    size, stride, *_ = problem.window
    several_taps = all(s == 1 or k >= 2 * s for k, s in zip(size, stride, strict=True))
    phases = _as_convolution.phases(problem)
    return problem.channels >= 8 and several_taps and all(_onednn.fits(convolution) for _, convolution in phases)


def _col2im_faster(problem: Problem) -> bool:
    channels, features = problem.channels, problem.features
    if _onednn.fits(_as_convolution.rotated(problem)):  # which computes at least 8 channels
        few_channels = channels < 8 and features >= 4 * channels
    else:
        few_channels = channels <= 8 or channels <= 16 < features
    return 1 < problem.window.taps <= 2 * _MAX_TAPS and (few_channels or _strided(problem))


def _by_position_faster(problem: Problem) -> bool:
    """Few channels or features, short rows, and sums that fit into a cache.

    The sums must be large enough for the overhead of the loop, and the positions numerous enough for the sums of each
    example. Also for several models with one example each, as in gradients per example.
    """
    examples, channels, features = problem.examples, problem.channels, problem.features
    if problem.models != 1 and examples == 1:
        return problem.window.taps <= _MAX_TAPS
    if not isinstance(examples, int) or min(channels, features) > _direct.LANES:
        return False
    output, sums = problem.output, examples * problem.window.taps * channels * max(features, _direct.LANES)
    short = len(output) == 1 or output[1] <= 256
    return short and math.prod(output) >= _MIN_POSITIONS and 2**15 <= sums <= 2 * _CACHED


def _sum_slices_faster(problem: Problem) -> bool:
    """Not for large windows with padding: XLA does not vectorize a sum of many padded slices."""
    window = problem.window
    return _tap_slices_faster(problem) and (window.taps <= 16 or not window.is_padded)


def _tap_slices_faster(problem: Problem) -> bool:
    """Not for small windows with padding, few channels, or 1-D."""
    window = problem.window
    small = window.taps <= 4 and window.is_padded
    return window.taps <= _MAX_TAPS and not small and len(window.size) > 1 and problem.channels >= 16


# Nested use would multiply overhead and rounding errors.
_without_winograd = functools.partial(_compute, exclude=("winograd",))


def _winograd_forward(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    return _winograd.forward(x, w, problem, _winograd.dimension(problem), _without_winograd)


def _rotated(dy: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm = _compute) -> jax.Array:
    dy, w = _as_convolution.in_order(dy, w)
    return compute(dy, _as_convolution.rotated_kernel(w, problem), _as_convolution.rotated(problem))


def _rotated_vmapped(problem: Problem) -> bool:
    convolution = _as_convolution.rotated(problem)
    return choose(convolution).vmapped(convolution)


_grouped_convolution = functools.partial(_grouped.convolution, compute=_compute)
_GROUPED = "a few dense blocks are faster than many small groups; lax if a value is not finite"
_SLICES = "XLA's 2-D convolutions are faster than its 3-D ones"
_TAPS = "one slice per tap is vectorized, `reduce_window` is not"

_EXTREME = (
    Rule("tap slices", _window_pooling.window_extreme, _TAPS, faster=_tap_slices_faster),
    Rule("lax", _lax.window_extreme, "XLA's reduce_window"),
)
_EXTREME_GRADIENT = (
    Rule(
        "tap slices",
        _window_pooling.scatter_to_winners,
        "XLA's scatter is a loop over scalars",
        faster=lambda p: p.window.taps <= _MAX_TAPS or set(p.window.dilation) != {1},
    ),
    Rule(
        "lax",
        _lax.window_extreme_gradient,
        "XLA's gradient, undilated only",
        fits=lambda p: set(p.window.dilation) == {1},
    ),
)
TABLES = {
    "forward": (
        Rule(
            "im2col",
            im2col_if_finite,
            "most taps read padding, or few outputs; lax if a result is not finite",
            fits=_dense,
            faster=_im2col_faster,
        ),
        Rule(
            "onednn",
            _onednn.forward,
            "the library of PyTorch's convolutions; float32, x86",
            fits=_onednn.fits,
            faster=_onednn_faster,
        ),
        Rule(
            "direct",
            _direct.forward,
            "few channels: packing them takes longer than the sums",
            faster=_direct_faster,
            vmapped=_always,
        ),
        Rule(
            "grouped", if_finite(_grouped_convolution, _lax.forward), _GROUPED, fits=_in_groups, faster=_grouped_faster
        ),
        Rule(
            "pointwise", _matmul.pointwise, "one tap: a product of two matrices", fits=_pointwise_fits, vmapped=_always
        ),
        Rule(
            "winograd",
            run_if(_winograd.is_accurate, _winograd_forward, _without_winograd),
            "many channels: a third fewer products; the next rule for outliers",
            fits=lambda p: _dense(p) and bool(_winograd.waste(p)),
            faster=_winograd.is_faster,
        ),
        Rule("depth slices", functools.partial(_depth_slices.forward, compute=_compute), _SLICES, fits=_dense_3d),
        Rule("lax", _lax.forward, "XLA's convolution"),
    ),
    "input gradient": (
        Rule(
            "convolutions of phases",
            functools.partial(_as_convolution.input_gradient_by_phases, compute=_compute),
            "strided, large windows: one convolution by oneDNN for each phase of x, without zeros in dy",
            fits=_has_phases,
            faster=_phases_faster,
        ),
        Rule(
            "col2im",
            _matmul.col2im,
            "strided, or few channels: inserts no zeros into dy",
            fits=_dense,
            faster=_col2im_faster,
        ),
        Rule(
            "phases",
            _direct.input_gradient_by_phases,
            "depthwise, strided: inserts no zeros into dy",
            fits=_depthwise,
            faster=lambda p: _direct_faster(p) and _strided(p),
            vmapped=_always,
        ),
        Rule(
            "grouped",
            if_finite(_grouped_convolution, functools.partial(_rotated, compute=_lax.forward)),
            _GROUPED,
            fits=_in_groups,
            faster=_grouped_gradient_faster,
        ),
        Rule("rotated", _rotated, "a convolution of dy, computed by the forward rules", vmapped=_rotated_vmapped),
        Rule("lax", _lax.input_gradient, "the transpose of XLA's convolution"),
    ),
    "kernel gradient": (
        Rule(
            "pointwise",
            _matmul.pointwise_kernel_gradient,
            "one tap: x^T dy",
            fits=_pointwise_without_zeros,
            vmapped=_always,
        ),
        Rule(
            "patches",
            _matmul.kernel_gradient_of_patches,
            "the stride is the size: x^T dy of patches",
            fits=_patches,
            vmapped=_always,
        ),
        Rule(
            "depth slices", functools.partial(_depth_slices.kernel_gradient, compute=_compute), _SLICES, fits=_dense_3d
        ),
        Rule(
            "by row",
            _direct.kernel_gradient_by_row,
            "one channel, or few per group: sums of products, for all taps of a row",
            faster=_by_row_faster,
            vmapped=_always,
        ),
        Rule(
            "by position",
            _direct.kernel_gradient_by_position,
            "few channels or features, or several models of one example: the sums of an example fit into a cache",
            fits=_dense_1d_2d,
            faster=_by_position_faster,
            vmapped=_always,
        ),
        Rule(
            "winograd gradient",
            run_if(
                functools.partial(_winograd.is_accurate, growth=_winograd_gradient.GROWTH),
                _winograd_gradient.kernel_gradient,
                functools.partial(_compute, exclude=("winograd gradient",)),
            ),
            "3x3, many channels: a quarter of the products, by oneDNN; the next rule for outliers",
            fits=_winograd_gradient.fits,
            faster=_winograd_gradient.is_faster,
        ),
        Rule(
            "over examples",
            _as_convolution.over_examples,
            "XLA's convolution, in a layout that is fast inside loops",
            fits=_ungrouped,
        ),
        Rule(
            "grouped",
            functools.partial(_grouped.kernel_gradient, compute=_compute),
            "a few dense blocks are faster than many small groups",
            fits=_in_groups,
            faster=_grouped_faster,
        ),
        Rule("lax", _lax.kernel_gradient, "the transpose of XLA's convolution"),
    ),
    "max pool": _EXTREME,
    "min pool": _EXTREME,
    "max pool gradient": _EXTREME_GRADIENT,
    "min pool gradient": _EXTREME_GRADIENT,
    "sum pool": (
        Rule("tap slices", _window_pooling.window_sum, _TAPS, faster=_sum_slices_faster),
        Rule("lax", _lax.window_sum, "XLA's reduce_window"),
    ),
    "sum pool gradient": (
        Rule("tap slices", _window_pooling.window_sum_gradient, _TAPS, faster=_tap_slices_faster),
        Rule("lax", _lax.window_sum_gradient, "the transpose of XLA's reduce_window"),
    ),
}
