"""Normalizations against their formulas in NumPy float64."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import oracle

EPS = 1e-3


def run(layer, params, x, state=None, train=False):
    return jax.jit(functools.partial(layer.apply, train=train))(params, state or {}, x)


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def affine(*shape):
    return {"scale": 1 + draw(*shape), "bias": draw(*shape, seed=1)}


def normalized(x, axes, eps=EPS):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def grouped(x, groups):
    y = np.empty_like(x)
    for channels in np.split(np.arange(x.shape[-1]), groups):
        for n in range(len(x)):
            part = x[n, ..., channels]
            y[n, ..., channels] = (part - part.mean()) / np.sqrt(part.var() + EPS)
    return y


def local_response(x, size, alpha, beta, k):
    y, channels = np.empty_like(x), x.shape[-1]
    for c in range(channels):
        near = [j for j in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= j < channels]
        y[..., c] = x[..., c] / (k + alpha / size * (x[..., near] ** 2).sum(-1)) ** beta
    return y


def global_response(x, eps):
    strength = np.sqrt((x**2).sum(tuple(range(1, x.ndim - 1)), keepdims=True))
    return x * strength / (strength.mean(-1, keepdims=True) + eps)


SPATIAL = {0: (), 1: (5,), 2: (3, 4), 3: (2, 3, 2)}


class Norm(NamedTuple):
    make: Callable  # (eps=..) -> Layer
    formula: Callable  # x -> y without scale and bias
    axis: int = -1  # scale and bias have the dimensions from here on
    ranks: tuple[int, ...] = (0, 1, 2, 3)


NORMS = {
    "batch": Norm(jaxcnn.batch_norm, lambda x: normalized(x, tuple(range(x.ndim - 1)))),
    "layer": Norm(jaxcnn.layer_norm, lambda x: normalized(x, -1)),
    "layer-1": Norm(functools.partial(jaxcnn.layer_norm, axis=1), lambda x: normalized(x, tuple(range(1, x.ndim))), 1),
    "layer--2": Norm(functools.partial(jaxcnn.layer_norm, axis=-2), lambda x: normalized(x, (-2, -1)), -2, (1, 2)),
    "group-1": Norm(functools.partial(jaxcnn.group_norm, 1), lambda x: grouped(x, 1)),
    "group-3": Norm(functools.partial(jaxcnn.group_norm, 3), lambda x: grouped(x, 3)),
    "instance": Norm(jaxcnn.instance_norm, lambda x: normalized(x, tuple(range(1, x.ndim - 1))), ranks=(1, 2, 3)),
    "rms": Norm(jaxcnn.rms_norm, lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)),
    "rms-1": Norm(
        functools.partial(jaxcnn.rms_norm, axis=1),
        lambda x: x / np.sqrt((x**2).mean(tuple(range(1, x.ndim)), keepdims=True) + EPS),
        1,
    ),
}
STATE = {"mean": np.zeros(6, np.float32), "var": np.ones(6, np.float32)}
OPTIONS = [{}, {"scale": False}, {"center": False}, {"center": False, "scale": False}]


@pytest.mark.parametrize(("name", "rank"), [(name, rank) for name, norm in NORMS.items() for rank in norm.ranks])
def test_norm_is_its_formula(name, rank):
    norm, x = NORMS[name], 2 * draw(4, *SPATIAL[rank], 6) + 3
    params, state = affine(*x.shape[norm.axis :]), STATE if name == "batch" else {}
    want = norm.formula(x.astype(np.float64)) * params["scale"]
    if "rms" in name:
        del params["bias"]
    else:
        want = want + params["bias"]
    layer = norm.make(eps=EPS)
    y, new = run(layer, params, x, state, train=True)
    oracle.assert_close(y, want)
    if name != "batch":
        assert new == {}
        if rank == 2:
            oracle.assert_close(run(layer, params, x)[0], want)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["batch", "layer", "group-3", "instance"])
def test_scale_and_bias_are_options(name, options):
    norm, x, params = NORMS[name], draw(4, 5, 6) + 1, affine(6)
    want = norm.formula(x.astype(np.float64))
    if options.get("scale", True):
        want = want * params["scale"]
    if options.get("center", True):
        want = want + params["bias"]
    layer = norm.make(eps=EPS, **options)
    initial = layer.init(jax.random.key(0), x)[0]
    assert set(initial) == {leaf for leaf, flag in (("scale", "scale"), ("bias", "center")) if options.get(flag, True)}
    params = {leaf: params[leaf] for leaf in initial}
    oracle.assert_close(run(layer, params, x, STATE if name == "batch" else {}, train=True)[0], want)


def test_rms_norm_without_scale():
    x = draw(2, 3, 6)
    layer = jaxcnn.rms_norm(eps=EPS, scale=False)
    assert layer.init(jax.random.key(0), x) == ({}, {})
    oracle.assert_close(run(layer, {}, x)[0], NORMS["rms"].formula(x.astype(np.float64)))


@pytest.mark.parametrize("axis", [(1, 2), (2,), (-1, 1), [1, 2, 3], (3, -3)])
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norm_over_given_axes(name, axis):
    x = 2 * draw(2, 3, 4, 5) + 1
    axes = tuple(sorted(d % 4 for d in axis))
    params = affine(*(x.shape[d] for d in axes))
    wide = x.astype(np.float64)
    if name == "rms_norm":
        del params["bias"]
        want = wide / np.sqrt((wide**2).mean(axes, keepdims=True) + EPS)
    else:
        want = normalized(wide, axes)
    leaves = {leaf: np.expand_dims(v, tuple(d for d in range(4) if d not in axes)) for leaf, v in params.items()}
    layer = getattr(jaxcnn, name)(axis=axis, eps=EPS)
    assert {leaf: v.shape for leaf, v in layer.init(jax.random.key(0), x)[0].items()} == {
        leaf: v.shape for leaf, v in params.items()
    }
    oracle.assert_close(run(layer, params, x)[0], want * leaves["scale"] + leaves.get("bias", 0))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_local_response_norm_with_one_more_neighbor_after(size):
    x = draw(2, 3, 7)
    y, _ = run(jaxcnn.local_response_norm(size, alpha=0.5, beta=0.75, k=2.0, padding="SAME"), {}, x)
    oracle.assert_close(y, local_response(x[..., ::-1], size, 0.5, 0.75, 2.0)[..., ::-1])


@pytest.mark.parametrize("decay", [0.9, 0.5, 0.0, 1.0])
def test_running_statistics(decay):
    layer, params, state = jaxcnn.batch_norm(decay=decay, eps=EPS), affine(6), STATE
    mean, var = np.zeros(6), np.ones(6)
    for step in range(3):
        x = (1 + step) * draw(4, 3, 2, 6, seed=step) - step
        batch = x.astype(np.float64)
        mean = decay * mean + (1 - decay) * batch.mean((0, 1, 2))
        var = decay * var + (1 - decay) * batch.var((0, 1, 2))
        state = run(layer, params, x, state, train=True)[1]
    oracle.assert_close(state["mean"], mean)
    oracle.assert_close(state["var"], var)
    y, same = run(layer, params, x, state)
    oracle.assert_close(y, (batch - mean) / np.sqrt(var + EPS) * params["scale"] + params["bias"])
    jax.tree.map(np.testing.assert_array_equal, same, state)


def test_running_statistics_take_no_gradient():
    """In evaluation y is linear in x; in training it does not depend on the running statistics."""
    layer, x = jaxcnn.batch_norm(eps=EPS), draw(4, 3, 6)
    loss = lambda state, train: layer.apply(affine(6), state, x, train=train)[0].sum()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(jax.grad(loss)(STATE, True)))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(jax.grad(loss)(STATE, False)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
def test_local_response_norm(size):
    x = 3 * draw(2, 3, 4, 7)
    layer = jaxcnn.local_response_norm(size, alpha=0.5, beta=0.75, k=2.0)
    oracle.assert_close(run(layer, {}, x)[0], local_response(x.astype(np.float64), size, 0.5, 0.75, 2.0))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_local_response_norm_defaults(rank):
    x = 30 * draw(2, *SPATIAL[rank], 7)
    want = local_response(x.astype(np.float64), 5, 1e-4, 0.75, 1.0)
    oracle.assert_close(run(jaxcnn.local_response_norm(), {}, x)[0], want)
    assert np.abs(want - x).max() > 0.1


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_response_norm(rank):
    x, params = draw(2, *SPATIAL[rank], 6), affine(6)
    x[1, ..., 2] = 0
    want = x + params["scale"] * global_response(x.astype(np.float64), EPS) + params["bias"]
    layer = jaxcnn.global_response_norm(eps=EPS)
    oracle.assert_close(run(layer, params, x)[0], want)
    np.testing.assert_array_equal(run(layer, layer.init(jax.random.key(0), x)[0], x)[0], x)


def test_global_response_norm_of_zeros_has_a_finite_gradient():
    layer, x = jaxcnn.global_response_norm(), draw(2, 3, 6)
    x[0], x[1, :, 2] = 0, 0
    gradient = jax.grad(lambda x: jnp.square(layer.apply(affine(6), {}, x, train=False)[0]).sum())(x)
    assert np.isfinite(gradient).all()


def test_variance_of_constant_channels_is_not_negative():
    x = np.broadcast_to(np.random.default_rng(0).uniform(0.1, 3, 64).astype(np.float32), (13, 11, 64))
    state = {"mean": np.zeros(64, np.float32), "var": np.ones(64, np.float32)}
    _, state = run(jaxcnn.batch_norm(decay=0.0, scale=False, center=False), {}, x, state, train=True)
    assert (state["var"] >= 0).all()
    np.testing.assert_allclose(state["var"], 0, atol=1e-12)


@pytest.mark.parametrize("name", ["batch", "layer", "layer-1", "group-1", "group-3", "instance"])
def test_large_mean_keeps_its_digits(name):
    norm, x = NORMS[name], 1e4 + draw(8, 6, 6, 12)
    # the axes that the formula normalizes over are those over which its result has no mean
    groups, axes = {
        "batch": (1, (0, 1, 2)),
        "layer": (1, (3, 4)),
        "layer-1": (1, (1, 2, 3, 4)),
        "group-1": (1, (1, 2, 4)),
        "group-3": (3, (1, 2, 4)),
        "instance": (1, (1, 2)),
    }[name]
    layer = norm.make(scale=False, center=False)
    state = {"mean": np.zeros(12, np.float32), "var": np.ones(12, np.float32)} if name == "batch" else {}
    y, state = run(layer, {}, x.astype(np.float32), state, train=True)
    y = np.asarray(y, np.float64).reshape(8, 6, 6, groups, -1)
    np.testing.assert_allclose(y.std(axes), 1, atol=1e-3)
    np.testing.assert_allclose(y.mean(axes), 0, atol=2e-3)
    if name == "batch":
        np.testing.assert_allclose(
            state["var"], 0.9 + 0.1 * x.astype(np.float32).var((0, 1, 2), dtype=np.float64), rtol=1e-4
        )


@pytest.mark.parametrize("name", NORMS)
def test_statistics_of_bfloat16_are_float32(name):
    """Rounded to bfloat16, a mean of 100 would be off by up to 1/4 and all outputs with it."""
    norm = NORMS[name]
    x = jnp.asarray(100 + 4 * draw(4, 5, 6), jnp.bfloat16)
    params, state = {"scale": np.ones(x.shape[norm.axis :], np.float32)}, STATE if name == "batch" else {}
    layer = norm.make(eps=EPS) if "rms" in name else norm.make(eps=EPS, center=False)
    y, state = run(layer, params, x, state, train=True)
    assert y.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64)
    want = norm.formula(wide)
    np.testing.assert_allclose(np.asarray(y, np.float64), want, rtol=2**-8, atol=1e-4)
    if name == "batch":
        assert state["mean"].dtype == state["var"].dtype == jnp.float32
        np.testing.assert_allclose(state["mean"], 0.1 * wide.mean((0, 1)), rtol=1e-5)
        np.testing.assert_allclose(state["var"], 0.9 + 0.1 * wide.var((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("name", NORMS)
def test_eps_may_be_zero_or_traced(name):
    norm, x = NORMS[name], draw(4, 3, 6)
    params, state = {"scale": np.ones(x.shape[norm.axis :], np.float32)}, STATE if name == "batch" else {}
    make = norm.make if "rms" in name else functools.partial(norm.make, center=False)
    y = jax.jit(lambda eps: make(eps=eps).apply(params, state, x, train=True)[0])(EPS)
    oracle.assert_close(y, norm.formula(x.astype(np.float64)))
    assert np.isfinite(run(make(eps=0), params, x, state, train=True)[0]).all()


@pytest.mark.parametrize("name", ["layer", "layer-1", "group-3", "instance", "rms"])
def test_examples_do_not_see_each_other(name):
    norm, x = NORMS[name], draw(5, 3, 6)
    params = {leaf: draw(*x.shape[norm.axis :], seed=2) for leaf in ("scale", "bias")}
    layer = norm.make()
    y = run(layer, params, x)[0]
    oracle.assert_close(run(layer, params, x[3:4])[0], y[3:4], 1e-6)
    assert run(layer, params, x[:0])[0].shape == (0, 3, 6)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("shape", [(0, 6), (0, 3, 6), (2, 0, 6)])
def test_batch_norm_of_an_empty_batch(shape, train):
    """It has no statistics: the running statistics stay as they are."""
    layer, x, state = jaxcnn.batch_norm(), np.zeros(shape, np.float32), {"mean": draw(6), "var": 1 + draw(6) ** 2}
    y, after = run(layer, affine(6), x, state, train)
    assert y.shape == shape
    jax.tree.map(np.testing.assert_array_equal, after, state)
    for leaf in jax.tree.leaves(jax.grad(lambda params: run(layer, params, x, state, train)[0].sum())(affine(6))):
        np.testing.assert_array_equal(leaf, 0)


GRADIENTS = {
    "batch": (jaxcnn.batch_norm(eps=0.1), True, 1),
    "batch-eval": (jaxcnn.batch_norm(eps=0.1), False, 1),
    "layer-1": (jaxcnn.layer_norm(axis=1, eps=0.1), True, 2),
    "group": (jaxcnn.group_norm(2, eps=0.1), True, 1),
    "rms": (jaxcnn.rms_norm(eps=0.1), True, 1),
    "local-response": (jaxcnn.local_response_norm(3, alpha=0.5), True, 1),
    "global-response": (jaxcnn.global_response_norm(eps=0.1), True, 1),
}


@pytest.mark.sample(7)
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.usefixtures("quick_compilation")
def test_gradients(name):
    layer, train, dimensions = GRADIENTS[name]
    x = draw(2, 3, 4).astype(np.float64)
    with jax.enable_x64(True):
        params = {leaf: v.astype(np.float64) for leaf, v in affine(*x.shape[-dimensions:]).items()}
        state = {"mean": draw(4).astype(np.float64), "var": 1 + draw(4).astype(np.float64) ** 2}
        f = jax.jit(lambda params, x: layer.apply(params, state if "batch" in name else {}, x, train=train)[0])
        check_grads(f, (params, x), order=2, modes=("fwd", "rev"))


def test_weight_standardized_without_eps_makes_constant_filters_zero():
    layer = jaxcnn.weight_standardized(jaxcnn.dense(2, bias=False), eps=0.0)
    kernel = jnp.array([[1.0, 3.0], [1.0, 5.0]])  # the first filter is constant
    apply = lambda kernel: layer.apply({"kernel": kernel}, {}, jnp.array([[1.0, 0.0]]), train=False)[0]
    np.testing.assert_allclose(apply(kernel), [[0.0, -1.0]])
    assert np.isfinite(jax.grad(lambda kernel: apply(kernel).sum())(kernel)).all()


def test_running_statistics_keep_their_dtype_with_a_traced_decay():
    with jax.enable_x64(True):
        x = jnp.ones((4, 2), jnp.float32)

        def step(decay):
            layer = jaxcnn.batch_norm(decay=decay)
            return layer.apply(*layer.init(jax.random.key(0), x), x, train=True)[1]

        assert jax.jit(step)(jnp.float64(0.9))["mean"].dtype == jnp.float32
