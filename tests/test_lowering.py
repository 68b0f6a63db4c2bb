"""Every algorithm equals plain `lax`: values, forward- and reverse-mode derivatives, vmap, scan and bfloat16."""

import functools
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

import jaxcnn as cnn
from jaxcnn._lowering import (
    Axis,
    Filter,
    _as_convolution,
    _channels,
    _depth_slices,
    _direct,
    _grouped,
    _lax,
    _matmul,
    _problem,
    _rules,
    _window_pooling,
    _winograd,
    convolve,
    convolve_transposed,
    resample,
    window_max,
    window_min,
    window_sum,
)
from jaxcnn._lowering._channels import affine, broadcast, channel_moments, channel_sum, first_row_sum
from jaxcnn._lowering._materialize import materialized, stored_gradient
from jaxcnn._program import equations
from jaxcnn._window import Window

small = settings(max_examples=8, deadline=None, derandomize=True)


@st.composite
def convolutions(draw):
    """(x, w, problem) with random rank, stride, dilation, padding and groups, often depthwise."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    groups = draw(st.sampled_from([1, 2, 4, 4]))
    per_group = draw(st.sampled_from([1, 1, 2]))
    size, dilation = each(1, 3), each(1, 2)
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    spatial = tuple(draw(st.integers(d * (k - 1) + 1, 8)) for k, d in zip(size, dilation, strict=True))
    lhs_dilation = each(1, 2) if draw(st.booleans()) else (1,) * rank
    window = Window(size, each(1, 3), dilation, padding, lhs_dilation)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(draw(st.integers(1, 3)), *spatial, groups * per_group))
    w = rng.normal(size=(*size, per_group, groups * draw(st.integers(1, 2))))
    return x.astype(np.float32), w.astype(np.float32), _problem.forward(x, w, window, groups)


@st.composite
def pools(draw):
    """(x, window, window_max or window_min). x has many equal values."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    size = each(1, 3)
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in size)
    window = Window(size, each(1, 3), (1,) * rank, padding, (1,) * rank)
    pool = draw(st.sampled_from([window_max, window_min]))
    spatial = tuple(draw(st.integers(k, 7)) for k in size)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(-1, 2, (2, *spatial, 2)).astype(np.float32), window, pool


def everything(f, *args):
    """Value, vjp, jvp, second derivatives, the value under vmap, and the gradient in a scan."""
    bend = lambda *args: jnp.sin(f(*args)).sum()
    gradient = jax.grad(bend, range(len(args)))
    return jax.jit(
        lambda *args: {
            "value": f(*args),
            "vjp": gradient(*args),
            "jvp": jax.jvp(f, args, args)[1],
            "forward over reverse": jax.jvp(gradient, args, args)[1],
            "reverse over reverse": jax.grad(lambda *a: sum(jnp.sin(g).sum() for g in gradient(*a)))(*args),
            "vmap": jax.vmap(f, (0, *(None,) * (len(args) - 1)))(jnp.stack([args[0], 2 * args[0]]), *args[1:]),
            "scan": lax.scan(lambda x, _: (x - 0.1 * gradient(x, *args[1:])[0], None), args[0], None, 2)[0],
        }
    )(*args)


def close(a, b, tolerance=1e-4):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(x, y, tolerance, tolerance * max(1, np.abs(y).max(initial=0)), err_msg=str(path))


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("method", "sizes", "antialias"),
    [
        ("linear", (18, 3), True),
        ("linear", (4, 15), False),
        ("cubic", (4, 9), True),
        ("lanczos3", (20, 7), True),
        ("lanczos5", (2, 7), False),
    ],
)
@pytest.mark.usefixtures("quick_compilation")
def test_resample(method, sizes, antialias):
    x = np.random.default_rng(0).normal(size=(2, 9, 7, 2)).astype(np.float32)
    axes = [Axis(n, size) for n, size in zip((9, 7), sizes, strict=True)]
    close(
        everything(lambda x: resample(x, axes, Filter(method, antialias=antialias)), x),
        everything(lambda x: jax.image.resize(x, (2, *sizes, 2), method, antialias), x),
    )


@pytest.mark.slow
@settings(small, max_examples=5)
@given(convolutions())
@pytest.mark.usefixtures("quick_compilation")
def test_convolution(case):
    same_derivatives_as_lax(case)


def same_derivatives_as_lax(case):
    x, w, problem = case
    close(
        everything(lambda x, w: convolve(x, w, problem.window, problem.groups), x, w),
        everything(functools.partial(_lax.forward, problem=problem), x, w),
    )


@pytest.mark.slow
@settings(small, max_examples=6)
@given(convolutions())
def test_convolution_in_bfloat16(case):
    x, w, problem = case
    x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    y, back = jax.vjp(lambda x, w: convolve(x, w, problem.window, problem.groups), x, w)
    wide = lambda x, w: _lax.forward(x.astype(jnp.float32), w.astype(jnp.float32), problem)
    expected, expected_back = jax.vjp(wide, x, w)
    assert y.dtype == jnp.bfloat16
    close((y, back(y)), (expected, expected_back(expected)), 0.05)


@st.composite
def dense(draw, **fixed):
    """(x, w, problem) without groups. `fixed` sets the rank or fields of the window, equal in all dimensions."""
    rank = fixed.get("rank") or draw(st.integers(1, 3))
    each = lambda name, low, high: tuple(fixed.get(name) or draw(st.integers(low, high)) for _ in range(rank))
    size, dilation, stride = each("size", 1, 4), each("dilation", 1, 2), each("stride", 1, 3)
    padding = tuple((0, 0) if "padding" in fixed else (draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in size)
    spans = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    spatial = tuple(draw(st.integers(max(1, n - sum(p)), 7)) for n, p in zip(spans, padding, strict=True))
    window = Window(size, stride, dilation, padding, each("input_dilation", 1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(2, *spatial, draw(st.integers(1, 3)))).astype(np.float32)
    w = rng.normal(size=(*size, x.shape[-1], draw(st.integers(1, 3)))).astype(np.float32)
    return x, w, _problem.forward(x, w, window, 1)


def with_features(case, features):
    x, w, problem = case
    w = np.resize(w, (*w.shape[:-1], features))
    return x, w, _problem.forward(x, w, problem.window, 1)


def same_as_lax(algorithm, case):
    x, w, problem = case
    close(jax.jit(lambda x, w: algorithm(x, w, problem))(x, w), _lax.forward(*case))


def cotangent(problem):
    shape = (problem.examples, *problem.output, problem.features)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def same_input_gradient_as_lax(algorithm, case):
    _, w, problem = case
    dy = cotangent(problem)
    close(algorithm(dy, w, problem), _lax.input_gradient(dy, w, problem))


def same_kernel_gradient_as_lax(algorithm, case):
    x, _, problem = case
    dy = cotangent(problem)
    close(jax.jit(lambda x, dy: algorithm(x, dy, problem))(x, dy), _lax.kernel_gradient(x, dy, problem))


@small
@given(dense(input_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_im2col(case):
    same_as_lax(_matmul.im2col, case)


@pytest.mark.slow
@settings(small, max_examples=16)
@given(dense(input_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_col2im(case):
    same_input_gradient_as_lax(_matmul.col2im, case)


@settings(small, max_examples=16)
@given(dense(input_dilation=1, dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_convolutions_of_phases(case):
    assume(_rules._has_phases(case[2]))
    algorithm = functools.partial(_as_convolution.input_gradient_by_phases, compute=_rules._compute)
    same_input_gradient_as_lax(algorithm, case)


@pytest.mark.slow
@settings(small, max_examples=16)
@given(dense(input_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_phases_of_a_depthwise_gradient(case):
    x, w, problem = case
    x, w = np.resize(x, (*x.shape[:-1], 3)), np.resize(w, (*w.shape[:-2], 1, 3))
    same_input_gradient_as_lax(_direct.input_gradient_by_phases, (x, w, _problem.forward(x, w, problem.window, 3)))


@small
@given(st.one_of(dense(size=1, stride=1), dense(size=1, input_dilation=1, padding=True)))
@pytest.mark.usefixtures("quick_compilation")
def test_pointwise(case):
    assert _rules._pointwise_fits(case[2])
    same_as_lax(_matmul.pointwise, case)
    if _rules._pointwise_without_zeros(case[2]):
        same_kernel_gradient_as_lax(_matmul.pointwise_kernel_gradient, case)


@settings(small, max_examples=16)
@given(dense(input_dilation=1, dilation=1, stride=1, padding=True))
@pytest.mark.usefixtures("quick_compilation")
def test_kernel_gradients_of_patches(case):
    x, w, problem = case
    problem = problem._replace(window=problem.window._replace(stride=problem.window.size))
    assert _rules._patches(problem)
    same_kernel_gradient_as_lax(_matmul.kernel_gradient_of_patches, (x, w, problem))


@pytest.mark.parametrize("few_channels", [0, 16])
@small
@given(case=dense(rank=3, input_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_depth_slices(few_channels, case):
    with mock.patch.object(_depth_slices, "_FEW_CHANNELS", few_channels):
        same_as_lax(functools.partial(_depth_slices.forward, compute=_lax.forward), case)
        gradient = functools.partial(_depth_slices.kernel_gradient, compute=_lax.kernel_gradient)
        same_kernel_gradient_as_lax(gradient, case)


@small
@given(dense(), st.integers(1, 40))
@pytest.mark.usefixtures("quick_compilation")
def test_direct(case, features):
    same_as_lax(_direct.forward, with_features(case, features))


@small
@given(dense(input_dilation=1).filter(lambda case: case[0].ndim < 5), st.integers(1, 40))
@pytest.mark.usefixtures("quick_compilation")
def test_direct_gradient_of_a_dense_kernel(case, features):
    same_kernel_gradient_as_lax(_direct.kernel_gradient_by_position, with_features(case, features))


IN_SEVERAL_LOOPS = pytest.mark.parametrize(
    ("size", "stride", "dilation"), [((5, 5), (1, 1), (1, 1)), ((3, 4), (2, 3), (2, 1))]
)


@IN_SEVERAL_LOOPS
def test_direct_in_several_loops(size, stride, dilation):
    """More terms than in one loop, and more rows than in one iteration."""
    case = padded_case((45, 44), 6, 7, size, stride, dilation)
    same_as_lax(_direct.forward, case)
    same_kernel_gradient_as_lax(_direct.kernel_gradient_by_position, case)


@pytest.mark.parametrize(
    ("spatial", "channels", "features"),
    [((45, 13), 6, 7), ((10, 60), 6, 7), ((21, 13), 20, 3)],
    ids=["partial last iteration", "wide rows", "channels in the lanes"],
)
@IN_SEVERAL_LOOPS
def test_kernel_gradient_by_position_in_several_iterations(size, stride, dilation, spatial, channels, features):
    case = padded_case(spatial, channels, features, size, stride, dilation)
    same_kernel_gradient_as_lax(_direct.kernel_gradient_by_position, case)


def padded_case(spatial, channels, features, size, stride, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *spatial, channels)).astype(np.float32)
    w = rng.normal(size=(*size, channels, features)).astype(np.float32)
    return x, w, _problem.forward(x, w, Window(size, stride, dilation, ((2, 1), (0, 2)), (1, 1)), 1)


@pytest.mark.sample(5, 1)
@pytest.mark.parametrize(
    ("groups", "channels", "features"), [(4, 24, 8), (6, 6, 12), (2, 80, 4), (8, 64, 64), (9, 180, 18)]
)  # the last case runs in a loop
def test_grouped_as_dense_blocks(groups, channels, features):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, 8, channels)).astype(np.float32)
    w = rng.normal(size=(3, 2, channels // groups, features)).astype(np.float32)
    problem = _problem.forward(x, w, Window((3, 2), (2, 1), (1, 2), ((1, 0), (1, 1)), (1, 1)), groups)
    same_as_lax(functools.partial(_grouped.convolution, compute=_lax.forward), (x, w, problem))
    gradient = functools.partial(_grouped.kernel_gradient, compute=_lax.kernel_gradient)
    same_kernel_gradient_as_lax(gradient, (x, w, problem))
    gradient = functools.partial(_grouped.convolution, compute=_lax.input_gradient)
    same_input_gradient_as_lax(gradient, (x, w, problem))


@settings(small, max_examples=16)
@given(dense(size=3, stride=1, input_dilation=1), st.data())
@pytest.mark.usefixtures("quick_compilation")
def test_winograd(case, data):
    x, _, problem = case
    wide = problem._replace(examples=256, channels=256, features=256)
    if _winograd.waste(wide) and _winograd.is_faster(wide):
        best = _winograd.dimension(wide)
        block = 2 * problem.window.dilation[best]
        assert -(-problem.output[best] // block) * block <= 6 / 5 * problem.output[best]
    dim = data.draw(st.integers(0, x.ndim - 3))
    same_as_lax(functools.partial(_winograd.forward, dim=dim, compute=_lax.forward), case)


def test_winograd_is_as_accurate_as_direct_summation():
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, 16, 16, 256)), 0)
    w = rng.normal(size=(3, 3, 256, 256)) / 48
    window = Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (1, 1))
    problem = _problem.forward(x, w, window, 1)
    with jax.enable_x64(True):
        exact = np.asarray(_lax.forward(jnp.asarray(x), jnp.asarray(w), problem))
    x, w = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
    error = lambda y: np.abs(np.asarray(y) - exact).max() / np.abs(exact).max()
    # The order of sums depends on the processor: with AVX2 1.3e-6 and 1.0e-6 (PyTorch 1.2e-6), with AVX-512 less.
    rule = _rules.choose(problem)
    assert rule.name == "winograd"
    assert error(rule.run(x, w, problem)) < 2e-6
    with jax.default_matmul_precision("highest"):
        assert _rules.choose(problem).name == "lax"
        y = jax.jit(lambda x, w: convolve(x, w, window, 1))(x, w)
    assert error(y) < 1.5e-6


@pytest.mark.slow
@settings(small, max_examples=5)
@given(convolutions())
@pytest.mark.usefixtures("quick_compilation")
def test_transposed_convolution(case):
    x, w, problem = case
    window = problem.window._replace(input_dilation=(1,) * (x.ndim - 2))
    problem = problem._replace(window=window)
    groups, (*size, per_group, features) = problem.groups, w.shape
    w = w.reshape(*size, per_group, groups, features // groups)
    flipped = np.swapaxes(w, -1, -3).reshape(*size, features // groups, per_group * groups)
    x, y = np.ones(x.shape, np.float32), cotangent(problem)
    apply = lambda y, w: convolve_transposed(y, w, window, groups, x.shape[1:-1])

    def by_definition(y, w):
        w = jnp.swapaxes(w.reshape(*size, -1, groups, per_group), -1, -3).reshape(*size, per_group, features)
        return jax.vjp(lambda x: _lax.forward(x, w, problem), x)[1](y)[0]

    close(everything(apply, y, flipped), everything(by_definition, y, flipped))


@pytest.mark.sample(3)
@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (5, 7, 5, 4), (64, 33, 24), (16, 17, 8, 24), (7, 4, 8, 8, 32)])
def test_channel_sums(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    v = np.random.default_rng(1).normal(size=shape[-1:]).astype(np.float32)
    pair = np.random.default_rng(2).normal(size=(2, *shape[-1:])).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    near, count = 1.5 * x.reshape(-1, shape[-1])[0], x.size // shape[-1]
    close(_channels.vectorized_channel_sum(x) / count, x.mean(axes))
    close(everything(lambda x: channel_sum(x) / count, x), everything(lambda x: x.mean(axes), x))
    moments = lambda x: jnp.stack([((x - near) ** order).mean(axes) for order in (2, 1)])
    close(everything(lambda x: channel_moments(x, near) / count, x), everything(moments, x))
    if len(shape) > 2:
        close(first_row_sum(x), x[:, 0].sum(axes[:-1]))
        assert not np.any(jax.grad(lambda x: jnp.sum(first_row_sum(x)))(x))
    close(everything(lambda v: broadcast(v, x) * x, v), everything(lambda v: v * x, v))
    few = x.reshape(-1, shape[-1])[:48]  # `everything` takes sines of sums over the positions
    by_definition = lambda x, near, v: (x - near) * v[0] + v[1]
    close(everything(affine, few, near, pair), everything(by_definition, few, near, pair))
    of_pair = jax.grad(lambda v: jnp.sum(x * affine(x, near, v)))
    close(of_pair(pair) / count, jnp.stack([(x * (x - near)).mean(axes), x.mean(axes)]))
    half = jnp.full((4096, 16), 0.1, jnp.bfloat16)
    np.testing.assert_allclose(np.asarray(_channels.vectorized_channel_sum(half), np.float32), 410, rtol=0.01)


def test_channel_sums_with_symbolic_batch_size():
    (batch,) = jax.export.symbolic_shape("batch")
    f = jax.jit(lambda x: (channel_sum(x), first_row_sum(x), channel_moments(x, jnp.ones(3))))
    program = jax.export.export(f)(jax.ShapeDtypeStruct((batch, 5, 3), jnp.float32))
    x = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    for a, b in zip(program.call(x), f(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_stored_gradient_is_the_identity():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    close(everything(lambda x: jnp.tanh(stored_gradient(x)), x), everything(jnp.tanh, x))


def test_barrier_remains_after_fusion():
    f = lambda x: materialized(jnp.maximum(2 * x + 1, 0)).T
    x = jnp.ones((64, 64))
    assert "opt-barrier" in cnn.jit(f).lower(x).compile().as_text()
    assert "opt-barrier" not in jax.jit(f).lower(x).compile().as_text()


@pytest.mark.parametrize("size", [4, 400])
def test_barrier_compiles_in_a_loop(size):
    body = lambda x, _: (sum(materialized((jnp.sin(x), jnp.cos(x)))), None)
    loop = lambda x: lax.scan(body, x, None, 5)[0]
    close(cnn.jit(loop)(jnp.ones(size)), jax.jit(loop)(jnp.ones(size)))


@pytest.mark.parametrize(("width", "examples", "groups"), [(5, 4, 6), (32, 2, 6), (35, 8, 3), (71, 3, 2)])
def test_grouped_kernel_gradient(width, examples, groups, monkeypatch):
    """In one band of columns, in several, and with a narrower band of the remaining columns."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(_direct, "_BAND", 16)
    x = rng.normal(size=(examples, 6, 2 * width, 6)).astype(np.float32)
    w = rng.normal(size=(2, 3, 6 // groups, 12)).astype(np.float32)
    problem = _problem.forward(x, w, Window((2, 3), (1, 2), (2, 1), ((1, 0), (1, 1)), (1, 1)), groups)
    same_kernel_gradient_as_lax(_direct.kernel_gradient_by_row, (x, w, problem))


def pool_problem(x, window, pool):
    return _problem.pool("max pool" if pool is window_max else "min pool", x, window)


@small
@given(pools())
@pytest.mark.usefixtures("quick_compilation")
def test_pool(case):
    x, window, pool = case
    y, back = jax.vjp(lambda x: pool(x, window), x)
    expected, expected_back = jax.vjp(lambda x: _lax.window_extreme(x, pool_problem(*case)), x)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    close((y, back(dy)), (expected, expected_back(dy)))


@pytest.mark.slow
@settings(small, max_examples=5)
@given(pools(), st.integers(1, 2), st.sampled_from([2, 16]))
@pytest.mark.usefixtures("quick_compilation")
def test_sums_of_windows(case, dilation, channels):
    x, window, _ = case
    window = window._replace(dilation=(dilation,) * len(window.size))
    x = np.resize(x, (2, *(max(n, span) for n, span in zip(x.shape[1:-1], window.span, strict=True)), channels))
    problem = _problem.pool("sum pool", x, window)
    plain = lambda x: _lax.window_sum(x, problem)
    close(everything(lambda x: window_sum(x, window), x), everything(plain, x))
    dy = cotangent(problem)
    close(_window_pooling.window_sum_gradient(dy, problem), _lax.window_sum_gradient(dy, problem))


@pytest.mark.slow
@small
@given(pools())
@pytest.mark.usefixtures("quick_compilation")
def test_modes_agree_where_values_tie(case):
    x, window, pool = case
    f = lambda x: pool(x, window)
    np.testing.assert_array_equal(jax.jacfwd(f)(x), jax.jacrev(f)(x))


@pytest.mark.parametrize("size", [9, 12])
def test_large_windows(size):
    x = np.random.default_rng(0).integers(0, 50, (2, 14, 13, 2)).astype(np.float32)
    window = Window((size, size), (1, 2), (1, 1), ((0, 1), (2, 0)), (1, 1))
    y, back = jax.vjp(lambda x: window_max(x, window), x)
    expected, expected_back = jax.vjp(lambda x: _lax.window_extreme(x, pool_problem(x, window, window_max)), x)
    close((y, back(y)), (expected, expected_back(y)))


@pytest.mark.slow
def test_training_step_has_no_slow_path():
    """No scatter for pooling and no expanded kernel for depthwise convolutions, with and without a loop."""
    net = cnn.serial(
        cnn.conv(8),
        cnn.max_pool(3, stride=2, padding=1),
        cnn.depthwise_conv(3, stride=2),
        cnn.conv(16, stride=2),
        cnn.conv_transpose(16, 4, stride=2),
        cnn.conv_transpose(16, 4, stride=2, groups=16),
        cnn.max_pool(2),
        cnn.conv(16),  # the inputs of the last two are 2 x 2 and 1 x 1, smaller than the window
        cnn.max_pool(2),
        cnn.conv(16),
        cnn.flatten,
    )
    x = jax.ShapeDtypeStruct((4, 16, 16, 3), jnp.float32)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    loss_fn, optimizer = cnn.cross_entropy(net), optax.sgd(0.1)
    label = jax.ShapeDtypeStruct((4,), jnp.int32)

    def step(params, batch):
        gradient = jax.grad(lambda params: loss_fn(params, state, batch, train=True)[0])(params)
        return optax.apply_updates(params, optimizer.update(gradient, optimizer.init(params))[0])

    def loop(params, batch):
        return lax.scan(lambda params, _: (step(params, batch), None), params, None, 2)[0]

    for program in (step, loop):
        text = cnn.jit(program).lower(params, {"image": x, "label": label}).compile().as_text()
        # Without the branch for values that are not finite, which may be slow.
        convolutions = [line for line in text.splitlines() if " convolution(" in line and "branch_0_fun" not in line]
        assert "scatter(" not in text
        assert "batch_group_count" not in text
        assert "feature_group_count" not in text
        assert convolutions
        assert all("dim_labels=b01f_01io->b01f" in line for line in convolutions)


def test_an_activation_before_a_dense_layer_is_not_transposed_while_it_is_computed():
    """XLA would compute it in the copy that transposes it for the kernel gradient, without vectorization."""
    net = cnn.serial(cnn.dense(48), functools.partial(jax.nn.gelu, approximate=False), cnn.dense(64))
    x = jnp.ones((8, 6, 6, 32))
    params, state = net.init(jax.random.key(0), x)
    loss = lambda params: jnp.square(net.apply(params, state, x, train=True)[0]).sum()
    program = cnn.jit(jax.grad(loss)).lower(params).compile().as_text()
    transpositions = [part for part in program.split("\n\n") if re.search(r" (transpose|copy)\(", part)]
    assert transpositions
    assert not [part for part in transpositions if " multiply(" in part]


@pytest.mark.parametrize("models", [False, True], ids=["one model", "several"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shapes_of_results(dtype, models):
    """Some primitives compute the shape of their result: it is that of their definition."""
    net = cnn.serial(
        cnn.conv(8, 3, stride=2),
        cnn.batch_norm(),
        jax.nn.relu,
        cnn.max_pool(2),
        cnn.avg_pool(3, stride=1),
        cnn.conv_transpose(4, 3, stride=2),
        cnn.conv(4, 3, groups=4, dilation=2),
        cnn.flatten,
        cnn.dense(3),
    )
    x = jnp.ones((2, 16, 16, 3), dtype)
    params, state = jax.tree.map(lambda leaf: leaf.astype(dtype), net.init(jax.random.key(0), x))
    grads = jax.grad(lambda params, x: net.apply(params, state, x, train=True)[0].sum(), argnums=(0, 1))
    hessian = lambda params, x: jax.jvp(grads, (params, x), (params, x))
    if models:
        params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
        hessian = jax.vmap(hessian, (0, None))
    seen = set()
    for eqn in equations(jax.make_jaxpr(hessian)(params, x)):
        if plain := vars(eqn.primitive).get("plain"):
            operands = [jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in eqn.invars]
            expected = jax.eval_shape(functools.partial(plain, **eqn.params), *operands)
            (y,) = eqn.outvars
            assert (y.aval.shape, y.aval.dtype) == (expected.shape, expected.dtype), eqn
            seen.add(eqn.primitive.name)
    assert broadcast(jnp.ones(3), jnp.ones((2, 3), dtype)).dtype == jnp.float32
    assert {"jaxcnn_conv", "jaxcnn_conv_input_gradient", "jaxcnn_conv_kernel_gradient", "jaxcnn_broadcast"} <= seen
    assert {"jaxcnn_pool", "jaxcnn_pool_scatter", "jaxcnn_window_sum", "jaxcnn_window_sum_gradient"} <= seen


@pytest.mark.parametrize("combinator", [cnn.residual, cnn.concatenate])
def test_the_input_of_several_layers_is_computed_once(combinator):
    net = cnn.serial(cnn.conv(4, 1), jnp.abs, combinator(cnn.conv(4), cnn.identity), cnn.conv(4))
    x = jnp.ones((2, 8, 8, 4))
    params, state = net.init(jax.random.key(0), x)
    program = cnn.jit(lambda params, x: net.apply(params, state, x, train=False)[0]).lower(params, x).compile()
    assert len(re.findall(r" abs\(", program.as_text())) == 1


@pytest.mark.parametrize(
    ("layer", "params"),
    [
        (cnn.batch_norm(), 2),
        (cnn.layer_norm(), 2),
        (cnn.rms_norm(), 1),
        (cnn.group_norm(2), 2),
        (cnn.global_response_norm(), 2),
        (cnn.prelu(), 1),
        (cnn.conv(3), 1),  # the bias
        (cnn.dense(3), 1),
    ],
    ids=str,
)
def test_gradients_of_parameters_per_channel_are_channel_sums(layer, params):
    """XLA does not vectorize a sum over several dimensions: the gradient of layer norm takes four times as long."""
    x = jnp.ones((2, 4, 4, 4))
    variables, state = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda variables: layer.apply(variables, state, x, train=False)[0].sum())
    names = [eqn.primitive.name for eqn in equations(jax.make_jaxpr(gradient)(variables))]
    assert names.count("jaxcnn_channel_sum") + 2 * names.count("jaxcnn_affine_sums") == params
