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
from jaxcnn._lowering import Geometry, Pool, _cpu_conv, _max_pool, _plain_conv, convolve, extreme

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


@pytest.mark.parametrize("height", [5, 32, 33, 70])
def test_gradient_of_a_depthwise_kernel_over_several_bands(height):
    rng = np.random.default_rng(0)
    geometry = Geometry((2, 1), ((1, 0), (1, 1)), (1, 1), (1, 2), 3)
    x = rng.normal(size=(2, 2 * height, 6, 3)).astype(np.float32)
    w = rng.normal(size=(3, 2, 1, 6)).astype(np.float32)
    dy = jnp.ones_like(_plain_conv.forward(x, w, geometry=geometry))
    a = _cpu_conv.backward_w(x, dy, geometry=geometry, size=(3, 2))
    close(a, _plain_conv.backward_w(x, dy, geometry=geometry, size=(3, 2)))


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
        cnn.max_pool(2),
        cnn.flatten,
    )
    x = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
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
