"""Every formulation equals plain `lax`: in value and in derivatives of both modes, in vmap, in scan, in bfloat16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxcnn as cnn
from jaxcnn._lowering import (
    Geometry,
    Pool,
    _channels,
    _cpu_conv,
    _dense,
    _direct,
    _grouped,
    _max_pool,
    _plain_conv,
    _sum_pool,
    _taps,
    _winograd,
    convolve,
    convolve_transposed,
    deviations,
    extreme,
    resample,
    settled,
    spread,
    total,
    window_sum,
)
from jaxcnn._window import Window

small = settings(max_examples=12, deadline=None, derandomize=True)


@st.composite
def convolutions(draw):
    """(x, w, geometry): all ranks, strides, dilations, paddings and groups, depthwise more often than not."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    groups = draw(st.sampled_from([1, 2, 4, 4]))
    per_group = draw(st.sampled_from([1, 1, 2]))
    size, dilation = each(1, 3), each(1, 2)
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank))
    spatial = tuple(draw(st.integers(d * (k - 1) + 1, 8)) for k, d in zip(size, dilation, strict=True))
    lhs_dilation = each(1, 2) if draw(st.booleans()) else (1,) * rank
    geometry = Geometry(each(1, 3), padding, lhs_dilation, dilation, groups)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(draw(st.integers(1, 3)), *spatial, groups * per_group))
    w = rng.normal(size=(*size, per_group, groups * draw(st.integers(1, 2))))
    return x.astype(np.float32), w.astype(np.float32), geometry


@st.composite
def pools(draw):
    """(x, pool), with many ties."""
    rank = draw(st.integers(1, 3))
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(rank))
    size = each(1, 3)
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in size)
    pool = Pool(size, each(1, 3), (1,) * rank, padding, draw(st.booleans()))
    spatial = tuple(draw(st.integers(k, 7)) for k in size)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(-1, 2, (2, *spatial, 2)).astype(np.float32), pool


def everything(f, *args):
    """Value, vjp, jvp, second derivatives, and the value in vmap and in scan."""
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
    close(
        everything(lambda x: resample(x, sizes, method, antialias), x),
        everything(lambda x: jax.image.resize(x, (2, *sizes, 2), method, antialias), x),
    )


@small
@given(convolutions())
@pytest.mark.usefixtures("quick_compilation")
def test_convolution(case):
    x, w, geometry = case
    close(
        everything(lambda x, w: convolve(x, w, geometry), x, w),
        everything(functools.partial(_plain_conv.forward, geometry=geometry), x, w),
    )


@settings(small, max_examples=6)
@given(convolutions())
def test_convolution_in_bfloat16(case):
    x, w, geometry = case
    x, w = jnp.asarray(x, jnp.bfloat16), jnp.asarray(w, jnp.bfloat16)
    y, back = jax.vjp(lambda x, w: convolve(x, w, geometry), x, w)
    wide = lambda x, w: _plain_conv.forward(x.astype(jnp.float32), w.astype(jnp.float32), geometry=geometry)
    expected, expected_back = jax.vjp(wide, x, w)
    assert y.dtype == jnp.bfloat16
    close((y, back(y)), (expected, expected_back(expected)), 0.05)


@st.composite
def dense(draw, **fixed):
    """(x, w, geometry) without groups, with some of the geometry's fields fixed to one value for all dimensions."""
    rank = fixed.get("rank") or draw(st.integers(1, 3))
    each = lambda name, low, high: tuple(fixed.get(name) or draw(st.integers(low, high)) for _ in range(rank))
    size, dilation, stride = each("size", 1, 4), each("rhs_dilation", 1, 2), each("stride", 1, 3)
    padding = tuple((0, 0) if "padding" in fixed else (draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in size)
    spans = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    spatial = tuple(draw(st.integers(max(1, n - sum(p)), 7)) for n, p in zip(spans, padding, strict=True))
    geometry = Geometry(stride, padding, each("lhs_dilation", 1, 3), dilation, 1)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(2, *spatial, draw(st.integers(1, 3)))).astype(np.float32)
    return x, rng.normal(size=(*size, x.shape[-1], draw(st.integers(1, 3)))).astype(np.float32), geometry


def plain_convolution(x, w, geometry):
    return _plain_conv.forward(x, w, geometry=geometry)


def plain_gradient(size):
    return lambda x, dy, geometry: _plain_conv.backward_w(x, dy, geometry=geometry, size=size)


def same_as_plain(formulation, case):
    x, w, geometry = case
    close(jax.jit(lambda x, w: formulation(x, w, geometry))(x, w), plain_convolution(*case))


def same_gradient_as_plain(formulation, case):
    x, w, geometry = case
    y = jax.eval_shape(functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dw = jax.jit(lambda x, dy: formulation(x, dy, geometry))(x, dy)
    close(dw, plain_gradient(w.shape[:-2])(x, dy, geometry))


@small
@given(dense(lhs_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_patches(case):
    same_as_plain(_dense.patches, case)


@settings(small, max_examples=25)
@given(dense(lhs_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_products_put_back(case):
    x, w, geometry = case
    y = jax.eval_shape(functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    spatial = {"geometry": geometry, "spatial": x.shape[1:-1]}
    close(_dense.put_back_products(dy, w, **spatial), _plain_conv.backward_x(dy, w, **spatial))


@settings(small, max_examples=25)
@given(dense(lhs_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_phases_of_a_depthwise_gradient(case):
    x, w, geometry = case
    x, w = np.resize(x, (*x.shape[:-1], 3)), np.resize(w, (*w.shape[:-2], 1, 3))
    geometry = geometry._replace(groups=3)
    y = jax.eval_shape(functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    spatial = {"geometry": geometry, "spatial": x.shape[1:-1]}
    close(_direct.backward_x(dy, w, **spatial), _plain_conv.backward_x(dy, w, **spatial))


@small
@given(st.one_of(dense(size=1, stride=1), dense(size=1, lhs_dilation=1, padding=True)))
@pytest.mark.usefixtures("quick_compilation")
def test_points(case):
    assert _cpu_conv._by_points(case[1], case[2])
    same_as_plain(_dense.points, case)
    if _cpu_conv._adds_nothing(case[2]):
        same_gradient_as_plain(_dense.points_gradient, case)


@small
@given(dense(rank=3, lhs_dilation=1))
@pytest.mark.usefixtures("quick_compilation")
def test_slices(case):
    size = case[1].shape[:-2]
    same_as_plain(lambda *case: _dense.slices(*case, plain_convolution), case)
    gradient = lambda *args: _dense.slices_gradient(*args, size[0], plain_gradient(size[1:]))
    same_gradient_as_plain(gradient, case)


@small
@given(dense(), st.integers(1, 40))
@pytest.mark.usefixtures("quick_compilation")
def test_direct(case, features):
    x, w, geometry = case
    case = x, np.resize(w, (*w.shape[:-1], features)), geometry
    same_as_plain(_direct.forward, case)


@small
@given(dense(lhs_dilation=1).filter(lambda case: case[0].ndim < 5), st.integers(1, 40))
@pytest.mark.usefixtures("quick_compilation")
def test_direct_gradient_of_a_dense_kernel(case, features):
    x, w, geometry = case
    case = x, np.resize(w, (*w.shape[:-1], features)), geometry
    same_gradient_as_plain(lambda *args: _direct.outer(*args, w.shape[:-2]), case)


@pytest.mark.parametrize(("size", "stride", "dilation"), [((5, 5), (1, 1), (1, 1)), ((3, 4), (2, 3), (2, 1))])
def test_direct_in_several_loops(size, stride, dilation):
    """More terms than one loop has, and more rows than one round, the last of which is not full."""
    rng = np.random.default_rng(0)
    geometry = Geometry(stride, ((2, 1), (0, 2)), (1, 1), dilation, 1)
    x = rng.normal(size=(3, 45, 44, 6)).astype(np.float32)
    w = rng.normal(size=(*size, 6, 7)).astype(np.float32)
    same_as_plain(_direct.forward, (x, w, geometry))
    same_gradient_as_plain(lambda *args: _direct.outer(*args, size), (x, w, geometry))


@pytest.mark.parametrize(
    ("groups", "channels", "features"), [(4, 24, 8), (6, 6, 12), (2, 80, 4), (8, 64, 64), (9, 180, 18)]
)  # the last in a loop
def test_blocks_of_groups(groups, channels, features):
    rng = np.random.default_rng(0)
    geometry = Geometry((2, 1), ((1, 0), (1, 1)), (1, 1), (1, 2), groups)
    x = rng.normal(size=(2, 9, 8, channels)).astype(np.float32)
    w = rng.normal(size=(3, 2, channels // groups, features)).astype(np.float32)
    same_as_plain(lambda *case: _grouped.blocks(*case, plain_convolution), (x, w, geometry))
    same_gradient_as_plain(lambda *args: _grouped.backward_w(*args, w, plain_gradient((3, 2))), (x, w, geometry))
    dy = np.asarray(plain_convolution(x, w, geometry))
    plain = lambda dy, w, geometry: _plain_conv.backward_x(dy, w, geometry=geometry, spatial=(9, 8))
    close(_grouped.blocks(dy, w, geometry, plain), plain(dy, w, geometry))


@settings(small, max_examples=25)
@given(dense(size=3, stride=1, lhs_dilation=1), st.data())
@pytest.mark.usefixtures("quick_compilation")
def test_winograd(case, data):
    x, w, geometry = case
    out = jax.eval_shape(functools.partial(_plain_conv.forward, geometry=geometry), x, w).shape
    wide = jax.ShapeDtypeStruct((*w.shape[:-2], 256, 256), jnp.float32)
    best = _winograd.dimension(wide, geometry, (256, *out[1:]))
    if best is not None:
        block = 2 * geometry.rhs_dilation[best]
        assert -(-out[best + 1] // block) * block <= 6 / 5 * out[best + 1]
    dim = data.draw(st.integers(0, x.ndim - 3))
    same_as_plain(lambda *case: _winograd.forward(*case, dim, plain_convolution), case)


def test_winograd_is_as_exact_as_a_sum():
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, 16, 16, 256)), 0)
    w = rng.normal(size=(3, 3, 256, 256)) / 48
    geometry = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1)
    with jax.enable_x64(True):
        exact = np.asarray(_plain_conv.forward(jnp.asarray(x), jnp.asarray(w), geometry=geometry))
    assert _winograd.dimension(w, geometry, exact.shape) == 0
    y = _cpu_conv.forward(jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32), geometry=geometry)
    error = lambda y: np.abs(np.asarray(y) - exact).max() / np.abs(exact).max()
    assert error(y) < 1e-6
    with jax.default_matmul_precision("highest"):
        assert _winograd.dimension(w, geometry, exact.shape) is None
        y = jax.jit(lambda x, w: convolve(x, w, geometry))(x.astype(np.float32), w.astype(np.float32))
    assert error(y) < 6e-7


def test_rules_choose_what_they_are_for():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    one = Geometry((1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1)
    picture = shape(8, 32, 32, 16)
    assert _direct.worth(shape(3, 3, 3, 64), one)
    assert _direct.worth(shape(3, 3, 16, 16), one)
    assert not _direct.worth(shape(3, 3, 16, 64), one)
    assert not _direct.worth(shape(11, 11, 3, 64), one)
    assert _direct.worth(shape(7, 7, 1, 96), one._replace(groups=96))
    assert not _direct.worth(shape(3, 3, 8, 64), one._replace(groups=8))
    assert _direct.worth_outer(picture, shape(8, 32, 32, 64), one, (3, 3))
    assert not _direct.worth_outer(shape(8, 32, 32, 64), shape(8, 32, 32, 64), one, (3, 3))
    assert not _direct.worth_outer(shape(8, 7, 7, 8), shape(8, 7, 7, 6), one, (7, 7))
    assert not _direct.worth_outer(shape(8, 32, 32, 1), shape(8, 32, 32, 32), one, (3, 3))
    assert not _direct.worth_outer(shape(2048, 32, 32, 16), shape(2048, 32, 32, 64), one, (3, 3))
    wide = shape(3, 3, 256, 256)
    assert _winograd.dimension(wide, one, (32, 7, 8, 256)) == 1
    assert _winograd.dimension(shape(3, 3, 128, 256), one, (32, 7, 8, 256)) is None
    assert _winograd.dimension(wide, one, (1, 7, 8, 256)) is None
    assert _winograd.dimension(wide, one, (64, 3, 7, 256)) == 1
    assert _winograd.dimension(wide, one, (128, 3, 3, 256)) is None
    assert _winograd.dimension(wide, one._replace(rhs_dilation=(3, 2)), (16, 11, 10, 256)) == 0
    assert _winograd.dimension(wide, one._replace(rhs_dilation=(2, 2)), (64, 5, 5, 256)) is None
    assert _winograd.dimension(shape(3, 5, 256, 256), one._replace(stride=(2, 1)), (32, 8, 8, 256)) is None
    assert _cpu_conv._by_products(shape(3, 3, 256, 256), one._replace(stride=(2, 2)))
    assert _cpu_conv._by_products(shape(3, 3, 3, 64), one)
    assert not _cpu_conv._by_products(shape(3, 3, 64, 64), one)
    assert _direct.worth_phases(shape(3, 3, 1, 64), one._replace(stride=(2, 2), groups=64))
    assert not _direct.worth_phases(shape(3, 3, 1, 64), one._replace(groups=64))


@small
@given(convolutions())
@pytest.mark.usefixtures("quick_compilation")
def test_transposed_convolution(case):
    x, w, geometry = case
    geometry = geometry._replace(lhs_dilation=(1,) * len(geometry.stride))
    y = jax.eval_shape(functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    groups, (*size, per_group, features) = geometry.groups, w.shape
    w = w.reshape(*size, per_group, groups, features // groups)
    flipped = np.swapaxes(w, -1, -3).reshape(*size, features // groups, per_group * groups)
    x, y = np.ones(x.shape, np.float32), np.random.default_rng(0).normal(size=y.shape).astype(np.float32)
    apply = lambda y, w: convolve_transposed(y, w, geometry, x.shape[1:-1])

    def by_definition(y, w):
        w = jnp.swapaxes(w.reshape(*size, -1, groups, per_group), -1, -3).reshape(*size, per_group, features)
        return jax.vjp(lambda x: _plain_conv.forward(x, w, geometry=geometry), x)[1](y)[0]

    close(everything(apply, y, flipped), everything(by_definition, y, flipped))


@pytest.mark.parametrize("shape", [(1, 5), (3, 4), (64, 33, 24), (16, 17, 8, 24), (7, 4, 8, 8, 32)])
def test_totals(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    v = np.random.default_rng(1).normal(size=shape[-1:]).astype(np.float32)
    axes = tuple(range(len(shape) - 1))
    near, count = 1.5 * x.reshape(-1, shape[-1])[0], x.size // shape[-1]
    moments = lambda x: jnp.stack([(x - near).mean(axes), ((x - near) ** 2).mean(axes)])
    close(_channels.total_on_cpu(x) / count, x.mean(axes))
    close(everything(lambda x: total(x) / count, x), everything(lambda x: x.mean(axes), x))
    close(everything(lambda x: deviations(x, near) / count, x), everything(moments, x))
    close(everything(lambda v: spread(v, x) * x, v), everything(lambda v: v * x, v))
    half = jnp.full((4096, 16), 0.1, jnp.bfloat16)
    np.testing.assert_allclose(np.asarray(_channels.total_on_cpu(half), np.float32), 410, rtol=0.01)


def test_totals_of_any_number_of_examples():
    (batch,) = jax.export.symbolic_shape("batch")
    f = jax.jit(lambda x: (total(x), deviations(x, jnp.ones(3))))
    program = jax.export.export(f)(jax.ShapeDtypeStruct((batch, 5, 3), jnp.float32))
    x = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.float32)
    for a, b in zip(program.call(x), f(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_is_settled_is_the_identity():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    close(everything(lambda x: jnp.tanh(settled(x)), x), everything(jnp.tanh, x))


def test_a_barrier_outlives_fusion():
    f = lambda x: lax.optimization_barrier(jnp.maximum(2 * x + 1, 0)).T
    x = jnp.ones((64, 64))
    assert "opt-barrier" in cnn.jit(f).lower(x).compile().as_text()
    assert "opt-barrier" not in jax.jit(f).lower(x).compile().as_text()


@pytest.mark.parametrize("size", [4, 400])
def test_a_barrier_in_a_loop_compiles(size):
    body = lambda x, _: (sum(lax.optimization_barrier((jnp.sin(x), jnp.cos(x)))), None)
    loop = lambda x: lax.scan(body, x, None, 5)[0]
    close(cnn.jit(loop)(jnp.ones(size)), jax.jit(loop)(jnp.ones(size)))


@pytest.mark.parametrize(("width", "examples", "groups"), [(5, 4, 6), (32, 2, 6), (33, 8, 3), (70, 3, 2)])
def test_gradient_of_a_kernel_in_groups(width, examples, groups, monkeypatch):
    """Over several bands of columns, and over a few examples at a time."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(_direct, "_CACHED", 700)
    geometry = Geometry((1, 2), ((1, 0), (1, 1)), (1, 1), (2, 1), groups)
    x = rng.normal(size=(examples, 6, 2 * width, 6)).astype(np.float32)
    w = rng.normal(size=(2, 3, 6 // groups, 12)).astype(np.float32)
    same_gradient_as_plain(lambda x, dy, geometry: _direct.backward_w(x, dy, geometry, w), (x, w, geometry))


@small
@given(pools())
@pytest.mark.usefixtures("quick_compilation")
def test_pool(case):
    x, pool = case
    y, back = jax.vjp(lambda x: extreme(x, pool), x)
    expected, expected_back = jax.vjp(functools.partial(_max_pool._plain_pool, pool=pool), x)
    dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    close((y, back(dy)), (expected, expected_back(dy)))


@small
@given(pools(), st.integers(1, 2), st.sampled_from([2, 16]))
@pytest.mark.usefixtures("quick_compilation")
def test_sums_of_windows(case, dilation, channels):
    x, pool = case
    spans = [dilation * (k - 1) + 1 for k in pool.size]
    x = np.resize(x, (2, *(max(n, span) for n, span in zip(x.shape[1:-1], spans, strict=True)), channels))
    window = Window(pool.size, pool.stride, (dilation,) * len(pool.size), pool.padding)
    plain = functools.partial(_sum_pool._plain_sum, window=window)
    close(everything(lambda x: window_sum(x, window), x), everything(plain, x))
    dy = np.random.default_rng(0).normal(size=plain(x).shape).astype(np.float32)
    spatial = {"window": window, "spatial": x.shape[1:-1]}
    parts = [dy] * int(np.prod(window.size))
    close(_taps.put_back(parts, window, x.shape[1:-1]), _sum_pool._plain_back(dy, **spatial))


@small
@given(pools())
@pytest.mark.usefixtures("quick_compilation")
def test_modes_agree_where_values_tie(case):
    x, pool = case
    f = lambda x: extreme(x, pool)
    np.testing.assert_array_equal(jax.jacfwd(f)(x), jax.jacrev(f)(x))


@pytest.mark.parametrize("size", [9, 12])
def test_large_windows(size):
    x = np.random.default_rng(0).integers(0, 50, (2, 14, 13, 2)).astype(np.float32)
    pool = Pool((size, size), (1, 2), (1, 1), ((0, 1), (2, 0)), True)
    y, back = jax.vjp(lambda x: extreme(x, pool), x)
    expected, expected_back = jax.vjp(functools.partial(_max_pool._plain_pool, pool=pool), x)
    close((y, back(y)), (expected, expected_back(y)))


def test_a_training_step_has_no_slow_path():
    """No scatter from a pool, no full kernel between all channels of a depthwise one, in a loop as outside of it."""
    net = cnn.serial(
        cnn.conv(8),
        cnn.max_pool(3, stride=2, padding=1),
        cnn.depthwise_conv(3, stride=2),
        cnn.conv(16, stride=2),
        cnn.conv_transpose(16, 4, stride=2),
        cnn.conv_transpose(16, 4, stride=2, groups=16),
        cnn.max_pool(2),
        cnn.conv(16),  # on 2 x 2 and 1 x 1, less than the window
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
        convolutions = [line for line in text.splitlines() if " convolution(" in line]
        assert "scatter(" not in text
        assert "batch_group_count" not in text
        assert "feature_group_count" not in text
        assert convolutions
        assert all("dim_labels=b01f_01io->b01f" in line for line in convolutions)
