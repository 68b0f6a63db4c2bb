"""Which algorithm computes a convolution or a pool, and why: one ordered table of rules for each operation.

    print(table("forward"))       the rules
    choose(problem)               the first rule that fits the problem and pays
    with forced("im2col"): ..     another choice, in a test or a benchmark

A CPU goes by the tables. All other backends get the last rule that fits, `lax`: nothing better was measured for them.
The choice is made when a program is lowered, for each platform by itself, so one exported program holds the right one
for each. What was measured is in `experiments/benchmarks/results/lowering-notes.json`.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jax import Primitive, Tracer
from jaxcnn._lowering import (
    _as_convolution,
    _depth_slices,
    _direct,
    _grouped,
    _lax,
    _matmul,
    _window_pooling,
    _winograd,
)
from jaxcnn._lowering._channels import abs_sum
from jaxcnn._lowering._primitive import primitive
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._path import expected_one_of

_MAX_TAPS = 64  # with more, writing out each tap takes too long to compile
_MAX_TERMS = 160  # likewise, for a sum over taps and channels

_always: Callable[[Problem], bool] = lambda p: True


class Rule(NamedTuple):
    """An algorithm, and the problems it is for."""

    name: str
    run: Callable[..., jax.Array]  # (*arrays, problem) -> array
    why: str
    fits: Callable[[Problem], bool] = _always  # whether it can compute the problem
    pays: Callable[[Problem], bool] = _always  # whether it is then faster than all rules that follow


def table(operation: str) -> str:
    """The rules for an operation as text, first choice first."""
    width = max(len(rule.name) for rule in TABLES[operation])
    return "\n".join(f"{rule.name:{width}}  {rule.why}" for rule in TABLES[operation])


def choose(problem: Problem, exclude: Collection[str] = (), backend: str = "cpu") -> Rule:
    """The rule for the problem, one that is not named in `exclude`."""
    fitting = [rule for rule in TABLES[problem.operation] if rule.name not in exclude and rule.fits(problem)]
    return next(rule for rule in fitting if rule.pays(problem)) if backend == "cpu" else fitting[-1]


_forced = jax.make_user_context(None)


@contextlib.contextmanager
def forced(name: str) -> Iterator[None]:
    """On a CPU, every operation that has a rule of this name is computed by it, whether it pays or not.

    Use it around the call of a jitted function, which is then compiled anew. Convolutions inside an algorithm, such as
    the products of Winograd's, are chosen as always.

    Raises:
        ValueError: for a name that no rule has, or when a problem is met that the rule does not fit.
        RuntimeError: inside of a function that is being traced, where it would have no effect.
    """
    names = dict.fromkeys(rule.name for rules in TABLES.values() for rule in rules)
    if name not in names:
        raise ValueError(f"unknown rule {name!r}; {expected_one_of(name, names)}")
    if isinstance(jnp.zeros(()), Tracer):
        raise RuntimeError("forced must be around the call of the jitted function, not in it")
    with _forced(name):
        yield


def by_rules(name: str, describe: Callable[..., Problem], *, examples: tuple[bool, ...]) -> Primitive:
    """A primitive that is computed by the rule for the problem that `describe(*operands, **params)` returns."""

    def by(rule_for: Callable[[Problem], Rule]) -> Callable[..., jax.Array]:
        def run(*arrays, **params):
            problem = describe(*arrays, **params)
            return rule_for(problem).run(*arrays, problem)

        return run

    elsewhere = by(functools.partial(choose, backend="other"))
    prim = primitive(name, elsewhere, cpu=by(_forced_or_chosen), examples=examples)
    vars(prim)["problem"] = describe  # for those who read programs
    return prim


def _forced_or_chosen(problem: Problem) -> Rule:
    for rule in TABLES[problem.operation]:
        if rule.name == _forced.value:
            if not rule.fits(problem):
                raise ValueError(f"the rule {rule.name!r} does not fit {problem}")
            return rule
    return choose(problem)


def _compute(a: Any, b: Any, problem: Problem, exclude: Collection[str] = ()) -> jax.Array:
    """The convolutions inside an algorithm."""
    return choose(problem, exclude).run(a, b, problem)


# Dense: without groups, and without zeros between the positions of x.
_ungrouped = lambda p: p.groups == 1
_in_groups = lambda p: p.groups > 1
_dense = lambda p: p.groups == 1 and set(p.window.input_dilation) == {1}
_dense_3d = lambda p: _dense(p) and len(p.spatial) == 3
_dense_1d_2d = lambda p: _dense(p) and len(p.spatial) <= 2
_depthwise = lambda p: p.groups == p.channels == p.features > 1 and set(p.window.input_dilation) == {1}
_strided = lambda p: set(p.window.stride) != {1}
_adds_zeros = lambda p: any(map(any, p.window.padding)) or set(p.window.input_dilation) != {1}
# With one tap, either some inputs are left out, or zeros come between and around the outputs.
_pointwise_fits = lambda p: p.groups == p.window.taps == 1 and not (_adds_zeros(p) and _strided(p))
_pointwise_gradient_fits = lambda p: p.groups == p.window.taps == 1 and not _adds_zeros(p)


def _direct_pays(problem: Problem) -> bool:
    terms = problem.window.taps * problem.channels_per_group
    if problem.groups > 1:
        return problem.channels_per_group <= 4 and terms <= _MAX_TAPS
    few = problem.channels <= 8 or problem.channels <= 16 >= problem.features
    return few and terms <= _MAX_TERMS and set(problem.window.input_dilation) == {1}


def _grouped_pays(problem: Problem) -> bool:
    return problem.channels_per_group > 1 and not _direct_pays(problem)


def _col2im_pays(problem: Problem) -> bool:
    few = problem.channels <= 8 or problem.channels <= 16 < problem.features
    return 1 < problem.window.taps <= 2 * _MAX_TAPS and (few or _strided(problem))


def _by_position_pays(problem: Problem) -> bool:
    """Few channels or features, in rows that are not too long, if all sums fit into a cache.

    There must be enough of them to make up for the rounds of the loop, and enough positions to make up for the sums of
    each example.
    """
    examples, channels, features = problem.examples, problem.channels, problem.features
    if not isinstance(examples, int) or min(channels, features) > _direct.LANES:
        return False
    output, sums = problem.output, examples * problem.window.taps * channels * max(features, _direct.LANES)
    short = len(output) == 1 or output[1] <= 256
    return short and math.prod(output) >= 2 * _direct.POSITIONS and 2**15 <= sums <= 2 * _direct.CACHED


def _tap_slices_pay(problem: Problem) -> bool:
    """Not small windows that hang over the edge, few channels, or 1-D."""
    window = problem.window
    small = window.taps <= 4 and any(map(any, window.padding))
    return window.taps <= _MAX_TAPS and not small and len(window.size) > 1 and problem.channels >= 16


def _if_finite(fast: Algorithm, slow: Algorithm) -> Algorithm:
    """The fast algorithm if the sum of all magnitudes of its first operand is finite, else the slow one."""

    def run(a, b, problem):
        options = lambda a, b: fast(a, b, problem), lambda a, b: slow(a, b, problem)
        return lax.cond(jnp.isfinite(abs_sum(a)), *options, a, b)

    return run


def _im2col_if_finite(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    y = _matmul.im2col(x, w, problem)
    return lax.cond(jnp.isfinite(abs_sum(y)), lambda x, w: y, functools.partial(_lax.forward, problem=problem), x, w)


def _winograd_if_accurate(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    products = functools.partial(_compute, exclude=("winograd",))  # cost and errors would multiply
    dim = _winograd.dimension(problem)
    fast = functools.partial(_winograd.forward, problem=problem, dim=dim, compute=products)
    return lax.cond(_winograd.accurate(x, w), fast, functools.partial(_lax.forward, problem=problem), x, w)


def _rotated(dy: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm = _compute) -> jax.Array:
    convolution, kernel = _as_convolution.rotated(dy, w, problem)
    return compute(dy, kernel, convolution)


_blocks = functools.partial(_grouped.convolution, compute=_compute)
_GROUPED = "a few dense blocks beat many small groups; lax if a value is not finite"
_SLICES = "XLA computes 2-D convolutions better than 3-D"
_TAPS = "one slice for each tap is vectorized, `reduce_window` is not"

_EXTREME = (
    Rule("tap slices", _window_pooling.window_extreme, _TAPS, pays=_tap_slices_pay),
    Rule("lax", _lax.window_extreme, "XLA's own reduce_window"),
)
_EXTREME_GRADIENT = (
    Rule(
        "tap slices",
        _window_pooling.scatter_to_winners,
        "XLA's scatter is a loop over scalars",
        pays=lambda p: p.window.taps <= _MAX_TAPS or set(p.window.dilation) != {1},
    ),
    Rule("lax", _lax.window_extreme_gradient, "XLA's own, undilated", fits=lambda p: set(p.window.dilation) == {1}),
)
TABLES = {
    "forward": (
        Rule("direct", _direct.forward, "few channels: packing them takes longer than the sums", pays=_direct_pays),
        Rule("grouped", _if_finite(_blocks, _lax.forward), _GROUPED, _in_groups, _grouped_pays),
        Rule("pointwise", _matmul.pointwise, "one tap: a product of two matrices", _pointwise_fits),
        Rule(
            "im2col",
            _im2col_if_finite,
            "most of the kernel meets padding; lax if a result is not finite",
            _dense,
            lambda p: math.prod(p.spatial) < p.window.taps,
        ),
        Rule("depth slices", functools.partial(_depth_slices.forward, compute=_compute), _SLICES, _dense_3d),
        Rule(
            "winograd",
            _winograd_if_accurate,
            "many channels: a third fewer products; lax if there are outliers",
            lambda p: _dense(p) and bool(_winograd.waste(p)),
            _winograd.pays,
        ),
        Rule("lax", _lax.forward, "XLA's own convolution"),
    ),
    "input gradient": (
        Rule("col2im", _matmul.col2im, "strided, or few channels: no zeros in dy", _dense, _col2im_pays),
        Rule(
            "phases",
            _direct.input_gradient_by_phases,
            "depthwise, strided: no zeros in dy",
            _depthwise,
            lambda p: _direct_pays(p) and _strided(p),
        ),
        Rule(
            "grouped",
            _if_finite(_blocks, functools.partial(_rotated, compute=_lax.forward)),
            _GROUPED,
            _in_groups,
            _grouped_pays,
        ),
        Rule("rotated", _rotated, "a convolution of dy, by the rules for forward"),
        Rule("lax", _lax.input_gradient, "the transpose of XLA's own convolution"),
    ),
    "kernel gradient": (
        Rule("pointwise", _matmul.pointwise_kernel_gradient, "one tap: x^T dy", _pointwise_gradient_fits),
        Rule("depth slices", functools.partial(_depth_slices.kernel_gradient, compute=_compute), _SLICES, _dense_3d),
        Rule(
            "by position",
            _direct.kernel_gradient_by_position,
            "few channels or features: the sums of an example stay in a cache",
            _dense_1d_2d,
            _by_position_pays,
        ),
        Rule(
            "over examples", _as_convolution.over_examples, "XLA's convolution, well ordered in loops, too", _ungrouped
        ),
        Rule("by tap", _direct.kernel_gradient_by_tap, "few channels: sums of products", _in_groups, _direct_pays),
        Rule(
            "grouped",
            functools.partial(_grouped.kernel_gradient, compute=_compute),
            "a few dense blocks beat many small groups",
            _in_groups,
            _grouped_pays,
        ),
        Rule("lax", _lax.kernel_gradient, "the transpose of XLA's own convolution"),
    ),
    "max pool": _EXTREME,
    "min pool": _EXTREME,
    "max pool gradient": _EXTREME_GRADIENT,
    "min pool gradient": _EXTREME_GRADIENT,
    "sum pool": (
        Rule("tap slices", _window_pooling.window_sum, _TAPS, pays=_tap_slices_pay),
        Rule("lax", _lax.window_sum, "XLA's own reduce_window"),
    ),
    "sum pool gradient": (
        Rule("tap slices", _window_pooling.window_sum_gradient, _TAPS, pays=_tap_slices_pay),
        Rule("lax", _lax.window_sum_gradient, "the transpose of XLA's own reduce_window"),
    ),
}
