"""Selection of algorithms: choices by problem, forced algorithms, and equality of all algorithms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._rules import TABLES, choose, forced, table
from jaxcnn._window import Window


def problem(examples, spatial, channels, features, size, stride=1, pad=0, groups=1, dilation=1, input_dilation=1):
    """A `Problem` whose scalar options apply to all dimensions. `pad` is (low, high) or one value for both ends."""
    rank = len(spatial)
    ends = pad if isinstance(pad, tuple) else (pad, pad)
    window = Window(
        size if isinstance(size, tuple) else (size,) * rank,
        stride if isinstance(stride, tuple) else (stride,) * rank,
        dilation if isinstance(dilation, tuple) else (dilation,) * rank,
        (ends,) * rank,
        (input_dilation,) * rank,
    )
    return Problem("forward", examples, spatial, channels, features, window, groups, "float32")


# (problem, rules for forward, input gradient, kernel gradient), without oneDNN, which is not available with the
# compilation cache of the tests; test_onednn.py tests its choices.
CHOICES = [
    (problem(128, (32, 32), 3, 16, 3, pad=1), "direct", "col2im", "by position"),
    (problem(128, (32, 32), 15, 16, 3, pad=1), "direct", "rotated", "by position"),
    (problem(128, (32, 32), 16, 16, 3, pad=1), "lax", "rotated", "by position"),
    (problem(128, (32, 32), 16, 64, 3, pad=1), "lax", "col2im", "by position"),
    (problem(128, (16, 16), 32, 32, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(128, (16, 16), 64, 64, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(128, (16, 16), 32, 64, 3, 2, pad=1), "lax", "col2im", "over examples"),
    (problem(64, (32, 32), 3, 64, 3, pad=1), "direct", "col2im", "by position"),
    (problem(64, (32, 32), 8, 64, 3, pad=1), "direct", "col2im", "by position"),
    (problem(64, (32, 32), 9, 64, 3, pad=1), "lax", "col2im", "by position"),
    (problem(64, (32, 32), 16, 17, 3, pad=1), "lax", "col2im", "by position"),
    (problem(2048, (32, 32), 16, 64, 3, pad=1), "lax", "col2im", "over examples"),
    (problem(128, (28, 28), 1, 6, 5, pad=2), "direct", "col2im", "by row"),
    (problem(128, (14, 14), 6, 16, 5), "direct", "col2im", "by position"),
    (problem(16, (224, 224), 3, 64, 7, 2, pad=3), "direct", "col2im", "by position"),
    (problem(16, (224, 224), 3, 64, 11, 4), "lax", "col2im", "by position"),
    (problem(4, (300, 300), 3, 16, 3, pad=1), "direct", "col2im", "over examples"),
    (problem(64, (16, 16), 128, 128, 1), "pointwise", "rotated", "pointwise"),
    (problem(64, (16, 16), 128, 256, 1, 2), "pointwise", "rotated", "pointwise"),
    (problem(64, (16, 16), 4, 4, 1), "direct", "rotated", "pointwise"),
    (problem(8, (16, 16), 32, 64, 1, pad=1), "pointwise", "rotated", "over examples"),
    (problem(8, (16, 16), 32, 64, 1, 2, pad=1), "lax", "rotated", "over examples"),
    (problem(8, (16, 16), 32, 64, 1, input_dilation=2), "pointwise", "rotated", "over examples"),
    (problem(16, (2, 2), 512, 512, 3, pad=1), "im2col", "rotated", "over examples"),
    (problem(16, (1, 1), 512, 512, 3, pad=1), "im2col", "rotated", "over examples"),
    (problem(16, (3, 3), 512, 512, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(16, (2, 2), 16, 6, 5, pad=2), "im2col", "rotated", "over examples"),
    (problem(32, (14, 14), 256, 256, 3, pad=1), "winograd", "rotated", "over examples"),
    (problem(32, (14, 14), 255, 256, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(32, (14, 14), 256, 512, 3, pad=1), "winograd", "rotated", "over examples"),
    (problem(32, (14, 14), 256, 256, 3, 2, pad=1), "lax", "col2im", "over examples"),
    (problem(32, (14, 14), 256, 256, 5, pad=2), "lax", "rotated", "over examples"),
    (problem(1, (7, 8), 256, 256, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(32, (7, 8), 256, 256, 3, pad=1), "winograd", "rotated", "over examples"),
    (problem(64, (3, 7), 256, 256, 3, pad=1), "winograd", "rotated", "over examples"),
    (problem(128, (3, 3), 256, 256, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(8, (11, 10), 256, 256, 3, pad=1, dilation=(3, 2)), "lax", "rotated", "over examples"),
    (problem(64, (5, 5), 256, 256, 3, pad=2, dilation=2), "lax", "rotated", "over examples"),
    (problem(32, (8, 8), 256, 256, (3, 5), (2, 1), pad=1), "lax", "col2im", "over examples"),
    (problem(22, (24,), 256, 256, 3, pad=1), "winograd", "rotated", "over examples"),
    (problem(21, (24,), 256, 256, 3, pad=1), "lax", "rotated", "over examples"),
    (problem(32, (1000,), 1, 32, 9, pad=4), "direct", "col2im", "by row"),
    (problem(32, (1000,), 64, 64, 9, 2, pad=4), "lax", "col2im", "over examples"),
    (problem(512, (1000,), 1, 32, 9, pad=4), "direct", "col2im", "by position"),
    (problem(128, (28, 28), 1, 32, 3, pad=1), "direct", "col2im", "by position"),
    (problem(128, (28, 28), 1, 16, 3, pad=1), "direct", "col2im", "by row"),
    (problem(32, (28, 28), 1, 64, 3, pad=1), "direct", "col2im", "by row"),
    (problem(4, (16, 16, 16), 16, 16, 3, pad=1), "depth slices", "rotated", "depth slices"),
    (problem(4, (16, 16, 16), 3, 16, 3, pad=1), "direct", "col2im", "depth slices"),
    (problem(4, (16, 16, 16), 64, 64, 3, 2, pad=1), "depth slices", "col2im", "depth slices"),
    (problem(4, (16, 16, 16), 31, 64, 3, pad=1), "depth slices", "rotated", "depth slices"),
    (problem(4, (16, 16, 16), 32, 32, 3, pad=1), "winograd", "rotated", "depth slices"),
    (problem(4, (1, 16, 16), 128, 128, 3, pad=1), "depth slices", "rotated", "depth slices"),
    (problem(4, (16, 16, 16), 64, 64, 1), "pointwise", "rotated", "pointwise"),
    (problem(4, (2, 2, 2), 64, 64, 3, pad=1), "im2col", "rotated", "depth slices"),
    (problem(8, (8, 8), 16, 16, 4, 1, pad=2, input_dilation=2), "lax", "rotated", "over examples"),
    (problem(8, (8, 8), 16, 16, 4, 2, pad=1, groups=16), "direct", "phases", "by row"),
    (problem(16, (28, 28), 128, 128, 3, pad=1, groups=128), "direct", "rotated", "by row"),
    (problem(16, (28, 28), 128, 128, 3, 2, pad=1, groups=128), "direct", "phases", "by row"),
    (problem(16, (28, 28), 96, 96, 7, pad=3, groups=96), "direct", "rotated", "by row"),
    (problem(16, (28, 28), 96, 96, 5, 2, pad=2, groups=96), "direct", "phases", "by row"),
    (problem(16, (28, 28), 96, 96, 9, pad=4, groups=96), "lax", "rotated", "by row"),
    (problem(4, (70, 70), 16, 16, (65, 3), pad=1, groups=16), "lax", "rotated", "lax"),
    (problem(4, (28, 28), 64, 64, (17, 3), pad=1, groups=16), "grouped", "grouped", "grouped"),
    (problem(8, (64, 64), 1, 16, 8, 8), "direct", "col2im", "patches"),
    (problem(64, (32, 33), 3, 96, 4, 4), "direct", "col2im", "patches"),
    (problem(64, (32, 32), 3, 96, 4, 4, pad=1), "direct", "col2im", "over examples"),
    (problem(8, (56, 56), 96, 192, 2, 2), "lax", "col2im", "patches"),
    (problem(8, (56, 56), 96, 192, 2, 2, dilation=2), "lax", "col2im", "over examples"),
    (problem(4, (8, 8, 8), 32, 64, 2, 2), "depth slices", "col2im", "patches"),
    (problem(16, (28, 28), 32, 64, 3, pad=1, groups=32), "direct", "rotated", "by row"),
    (problem(16, (28, 28), 128, 128, 3, pad=1, groups=4), "grouped", "grouped", "grouped"),
    (problem(16, (28, 28), 128, 128, 3, pad=1, groups=32), "direct", "rotated", "by row"),
    (problem(16, (28, 28), 128, 128, 3, 2, pad=1, groups=32), "direct", "rotated", "by row"),
    (problem(16, (28, 28), 128, 128, 3, 2, pad=1, groups=16), "grouped", "grouped", "grouped"),
    (problem(4, (8, 8), 400, 400, 3, 2, pad=1, groups=25), "grouped", "grouped", "grouped"),
    (problem(16, (28, 28), 512, 512, 3, pad=1, groups=2), "grouped", "grouped", "grouped"),
    (problem(4, (8, 8, 8), 16, 16, 3, pad=1, groups=4), "grouped", "grouped", "by row"),
    (problem(32, (100,), 16, 16, 3, pad=1, groups=4), "direct", "rotated", "by row"),
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: str(choice[0][1:6]))
def test_choices(choice):
    convolution, *names = choice
    for operation, name in zip(("forward", "input gradient", "kernel gradient"), names, strict=True):
        assert choose(convolution._replace(operation=operation)).name == name
        assert choose(convolution._replace(operation=operation), backend="gpu").name == "lax"


NEED_ONEDNN = {"onednn", "convolutions of phases", "winograd gradient"}  # see test_onednn and test_winograd_gradient


def test_choices_cover_all_rules_of_convolutions():
    for number, operation in enumerate(("forward", "input gradient", "kernel gradient"), 1):
        names = {rule.name for rule in TABLES[operation]} - NEED_ONEDNN
        unused = {"lax"} if operation == "input gradient" else set()  # only for other backends and with `exclude`
        assert {choice[number] for choice in CHOICES} == names - unused


@pytest.mark.parametrize(
    ("spatial", "channels", "size", "pad", "dilation", "forward", "gradient"),
    [
        ((16, 16), 32, 2, 0, 1, "tap slices", "tap slices"),
        ((16, 16), 32, 2, 1, 1, "lax", "tap slices"),
        ((16, 16), 32, 3, 1, 1, "tap slices", "tap slices"),
        ((16, 16), 15, 3, 1, 1, "lax", "tap slices"),
        ((16,), 32, 3, 1, 1, "lax", "tap slices"),
        ((16, 16), 32, 9, 0, 1, "lax", "lax"),
        ((24, 24), 32, 9, 0, 2, "lax", "tap slices"),
        ((8, 8, 8), 16, 2, 0, 1, "tap slices", "tap slices"),
    ],
)
def test_choices_of_pools(spatial, channels, size, pad, dilation, forward, gradient):
    pool = problem(8, spatial, channels, channels, size, size, pad, channels, dilation)
    rule_name = lambda operation, **options: choose(pool._replace(operation=operation), **options).name
    assert {rule_name(name) for name in ("max pool", "min pool", "sum pool", "sum pool gradient")} == {forward}
    assert {rule_name(name) for name in ("max pool gradient", "min pool gradient")} == {gradient}
    assert rule_name("max pool", backend="gpu") == "lax"
    assert rule_name("max pool gradient", backend="gpu") == ("tap slices" if dilation > 1 else "lax")


def test_choices_of_sums_of_large_windows():
    choices = {
        (size, pad): choose(problem(8, (16, 16), 32, 32, size, size, pad, 32)._replace(operation="sum pool")).name
        for size, pad in ((4, 1), (5, 1), (5, 0))
    }
    assert choices == {(4, 1): "tap slices", (5, 1): "lax", (5, 0): "tap slices"}


def test_exclude_rule():
    wide = problem(32, (14, 14), 256, 256, 3, pad=1)
    assert [choose(wide, exclude).name for exclude in ((), ("winograd",))] == ["winograd", "lax"]


def test_problems_are_hashable_and_allow_symbolic_batch_sizes():
    (batch,) = jax.export.symbolic_shape("batch")
    symbolic = problem(batch, (14, 14), 256, 256, 3, pad=1)
    assert choose(symbolic).name == "winograd"
    assert choose(symbolic._replace(operation="kernel gradient")).name == "over examples"
    assert len({symbolic, problem(batch, (14, 14), 256, 256, 3, pad=1), problem(1, (14, 14), 256, 256, 3)}) == 2
    assert "channels=256" in str(symbolic)


LAYERS = [problem for problem, *_ in CHOICES if max(problem.window.input_dilation) == 1]  # what `conv` can do


@pytest.mark.parametrize("problem", LAYERS, ids=lambda problem: str(problem[1:6]))
def test_convolutions_and_gradients_of_any_number_of_examples(problem):
    """The rules for a symbolic batch size differ from those for a small one."""
    spatial, channels, features, window, groups = problem[2:7]
    options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation, "groups": groups}
    layer = cnn.conv(features, window.size, bias=False, **options)
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *spatial, channels), jnp.float32)
    params, _ = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((2, *x.shape[1:]), jnp.float32))

    def gradients(params, x):
        y, gradient = jax.vjp(lambda params, x: layer.apply(params, {}, x, train=True)[0], params, x)
        return gradient(y)

    exported = jax.export.export(jax.jit(gradients), platforms=["cpu"])(params, x)
    assert exported.out_avals[-1].shape == x.shape


def test_multiply_adds():
    assert problem(2, (5, 5), 3, 8, 3).multiply_adds == 2 * 9 * (3 * 3 * 3 * 8)
    assert problem(2, (5, 5), 4, 8, 3, 2, pad=1, groups=2).multiply_adds == 2 * 9 * (3 * 3 * 2 * 8)


def test_tables_print():
    lines = table("forward").splitlines()
    assert [line.split("  ")[0] for line in lines] == [rule.name for rule in TABLES["forward"]]
    assert all(rule.why for rules in TABLES.values() for rule in rules)


@pytest.mark.sample(4, 1)
@pytest.mark.parametrize(
    ("name", "shape", "features", "options"),
    [
        ("direct", (2, 6, 5, 20), 17, {}),
        ("im2col", (2, 6, 5, 20), 17, {"stride": 2}),
        ("winograd", (2, 6, 5, 8), 7, {}),
        ("pointwise", (2, 6, 5, 8), 7, {"size": 1, "stride": 2}),
        ("depth slices", (1, 4, 5, 3, 2), 7, {}),
        ("grouped", (2, 6, 5, 8), 16, {"groups": 8}),
        ("col2im", (2, 6, 5, 20), 24, {}),
        ("phases", (2, 6, 5, 8), 8, {"groups": 8}),
        ("by position", (2, 6, 5, 20), 24, {}),
        ("by row", (2, 6, 5, 20), 8, {"groups": 4}),
        ("over examples", (2, 6, 5, 3), 4, {}),
        ("lax", (2, 6, 5, 3), 4, {}),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_forced_algorithms_agree(name, shape, features, options):
    rng = np.random.default_rng(0)
    layer = cnn.conv(features, **options)
    x = rng.normal(size=shape).astype(np.float32)
    params, _ = layer.init(jax.random.key(0), x)
    f = jax.jit(lambda params, x: layer.apply(params, {}, x, train=False)[0])
    value_and_vjp = jax.jit(lambda params, x, dy: (f(params, x), jax.vjp(f, params, x)[1](dy)))
    dy = rng.normal(size=jax.eval_shape(f, params, x).shape).astype(np.float32)
    expected = value_and_vjp(params, x, dy)
    with forced(name):
        program = value_and_vjp.lower(params, x, dy).as_text()
        ours = value_and_vjp(params, x, dy)
    if name not in ("over examples", "grouped"):  # these are the default choice
        assert program != value_and_vjp.lower(params, x, dy).as_text()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), ours, expected)


def test_invalid_forced_rules():
    with pytest.raises(ValueError, match=r"unknown rule 'wino'; expected one of: .*did you mean 'winograd'"):
        forced("wino").__enter__()
    x = jnp.ones((1, 5, 5, 3))
    layer = cnn.conv(4, 5)
    params, _ = layer.init(jax.random.key(0), x)
    apply = functools.partial(layer.apply, params, {}, train=False)
    with (
        forced("winograd"),
        pytest.raises(ValueError, match=r"rule 'winograd' does not fit Problem.*size=\(5, 5\)"),
    ):
        apply(x)

    @jax.jit
    def traced(x):
        with forced("direct"):
            return apply(x)

    with pytest.raises(RuntimeError, match="forced must be around the call"):
        traced(x)
