"""The laws of transforms: what they leave alone, and what they change."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from tests.layers import RANDOM_LAYERS, block

KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype(np.float32)
BASE = cnn.serial(body=block(4), head=cnn.conv(5, 1))

DROPPING = {
    "with_dropout": cnn.with_dropout,
    "with_spatial_dropout": cnn.with_spatial_dropout,
    "drop_path": cnn.drop_path,
    "drop_connect": cnn.drop_connect,
}
WRAPPING = {name: functools.partial(f, rate=0.5) for name, f in DROPPING.items()} | {
    "freeze": cnn.freeze,
    "remat": cnn.remat,
}


@functools.cache
def made():
    return jax.jit(BASE.init)(KEY, X)


def run(layer, train, x=X, key=KEY):
    return layer.apply(*made(), x, train=train, key=key)


def same(a, b, tolerance=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, tolerance, tolerance)


@pytest.mark.sample(3)
@pytest.mark.parametrize("wrap", WRAPPING.values(), ids=WRAPPING)
def test_init_is_unchanged_and_evaluation_is_that_of_the_bare_layer(wrap):
    same(jax.jit(wrap(BASE).init)(KEY, X), made())
    same(run(wrap(BASE), False), run(BASE, False), 1e-6)


@pytest.mark.parametrize("drop", DROPPING.values(), ids=DROPPING)
def test_rate_zero_is_the_identity(drop):
    assert drop(BASE, 0.0) is BASE
    same(run(drop(BASE, 0), True, key=None), run(BASE, True, key=None))


@pytest.mark.parametrize(
    "layer",
    [cnn.dropout(0), cnn.spatial_dropout(0), cnn.drop_block(0), cnn.gaussian_dropout(0), cnn.gaussian_noise(0.0)],
)
def test_no_noise_is_the_identity_without_a_key(layer):
    same(layer.apply({}, {}, X, train=True)[0], X)


@pytest.mark.parametrize(
    ("drop", "shape"),
    [
        (cnn.with_dropout, (4, 6, 6, 5)),
        (cnn.with_spatial_dropout, (4, 1, 1, 5)),
        (cnn.drop_path, (4, 1, 1, 1)),
    ],
)
def test_output_is_dropped_whole_or_scaled(drop, shape):
    y, _ = run(drop(BASE, 0.25), True)
    bare, _ = run(BASE, True)
    kept = np.asarray(y != 0)
    np.testing.assert_allclose(y, np.where(kept, bare / 0.75, 0), 1e-5)
    pattern = kept[tuple(slice(0, n) for n in shape)]
    assert (kept == pattern).all()
    assert 0 < pattern.mean() < 1
    for axis, length in enumerate(shape):
        assert length == 1 or (pattern != pattern.take([0], axis)).any(), "it does not vary along this axis"


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_standard_deviation_of_gaussian_dropout(rate):
    y = cnn.gaussian_dropout(rate).apply({}, {}, jnp.full(100_000, 2.0), train=True, key=KEY)[0]
    assert float(y.std()) == pytest.approx(2 * (rate / (1 - rate)) ** 0.5, rel=0.02)


def test_nested_dropping_draws_twice():
    twice = cnn.with_dropout(cnn.with_dropout(lambda x: x, 0.5), 0.5)
    y, _ = twice.apply({}, {}, jnp.ones(4000), train=True, key=KEY)
    assert set(np.unique(y)) == {0.0, 4.0}
    assert 0.2 < float((y > 0).mean()) < 0.3


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "layer",
    [
        cnn.dropout(0.3),
        cnn.spatial_dropout(0.3),
        cnn.drop_block(0.3, 2),
        cnn.gaussian_dropout(0.3),
        cnn.gaussian_noise(0.5),
        cnn.drop_path(cnn.identity, 0.3),
    ],
)
def test_noise_keeps_the_mean(layer):
    x = jnp.full((256, 6, 6, 8), 2.0)
    y, _ = layer.apply({}, {}, x, train=True, key=KEY)
    assert abs(float(y.mean()) - 2) < 0.15


def test_alpha_dropout_keeps_mean_and_variance():
    x = jax.nn.selu(jax.random.normal(KEY, (200_000,)))
    y, _ = cnn.alpha_dropout(0.2).apply({}, {}, x, train=True, key=jax.random.key(1))
    assert abs(float(y.mean() - x.mean())) < 0.01
    assert abs(float(y.var() - x.var())) < 0.02


def test_drop_block_drops_blocks():
    y, _ = cnn.drop_block(0.1, 3).apply({}, {}, jnp.ones((8, 12, 12, 4)), train=True, key=KEY)
    dropped = np.asarray(y == 0)
    inside = np.lib.stride_tricks.sliding_window_view(dropped, (3, 3), (1, 2)).all((-1, -2))
    covered = np.zeros_like(dropped)
    for n, i, j, c in np.argwhere(inside):
        covered[n, i : i + 3, j : j + 3, c] = True
    assert dropped.any()
    assert (covered == dropped).all()
    assert 0.05 < dropped.mean() < 0.15


def test_drop_connect_drops_weights_not_outputs():
    layer = cnn.drop_connect(cnn.dense(50, bias=False), 0.5)
    kernel = np.eye(50, dtype=np.float32)
    y, _ = layer.apply({"kernel": kernel}, {}, np.ones((3, 50), np.float32), train=True, key=KEY)
    assert set(np.unique(y)) == {0.0, 2.0}
    assert (y == y[:1]).all()


def test_drop_connect_where():
    layer = cnn.drop_connect(BASE, 0.5, where="head/kernel")
    gradient = jax.grad(lambda params: layer.apply(params, made()[1], X, train=True, key=KEY)[0].sum())(made()[0])
    assert (gradient["head"]["kernel"] == 0).any()
    assert (gradient["body"]["conv"]["kernel"] != 0).all()


def test_freeze_gives_no_gradient_and_keeps_state():
    layer = cnn.freeze(cnn.with_dropout(BASE, 0.5))
    params, state = made()

    def loss(params, x):
        y, new = layer.apply(params, state, x, train=True)
        return jnp.square(y).sum(), new

    (for_params, for_x), new = jax.grad(loss, (0, 1), has_aux=True)(params, jnp.asarray(X))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(for_params))
    assert (for_x != 0).any()
    same(new, state)


def test_order_of_composition():
    frozen_outside, frozen_inside = cnn.freeze(cnn.with_dropout(BASE, 0.5)), cnn.with_dropout(cnn.freeze(BASE), 0.5)
    same(run(frozen_outside, True)[0], run(BASE, False)[0])
    assert (run(frozen_inside, True)[0] == 0).any()


def test_weight_norm_starts_as_the_bare_layer_and_splits_length_from_direction():
    layer = cnn.weight_norm(BASE)
    params, state = jax.jit(layer.init)(KEY, X)
    same(layer.apply(params, state, X, train=False)[0], run(BASE, False)[0], 1e-5)
    longer = jax.tree_util.tree_map_with_path(lambda p, w: 3 * w if p[-1].key == "kernel" else w, params)
    same(layer.apply(longer, state, X, train=False)[0], run(BASE, False)[0], 1e-5)
    norms = np.linalg.norm(np.asarray(params["head"]["kernel"]).reshape(-1, 5), axis=0)
    np.testing.assert_allclose(params["head"]["scale"], norms, 1e-5)


def test_weight_standardized_filters():
    kernel = np.random.default_rng(1).normal(3, 2, size=(2, 2, 3, 4)).astype(np.float32)
    layer = cnn.weight_standardized(cnn.conv(4, 2, padding="VALID", bias=False), eps=0)
    basis = np.eye(12, dtype=np.float32).reshape(12, 2, 2, 3)
    rows = np.asarray(layer.apply({"kernel": kernel}, {}, basis, train=False)[0]).reshape(12, 4)
    flat = kernel.reshape(12, 4).astype(np.float64)
    np.testing.assert_allclose(rows, (flat - flat.mean(0)) / flat.std(0), 1e-4, 1e-4)


def test_spectral_norm_finds_the_largest_singular_value():
    layer = cnn.spectral_norm(cnn.conv(4, 2, padding="VALID", bias=False))
    params, state = jax.jit(layer.init)(KEY, X)
    for _ in range(30):
        _, state = layer.apply(params, state, X, train=True)
    basis = np.eye(12, dtype=np.float32).reshape(12, 2, 2, 3)
    rows = np.asarray(layer.apply(params, state, basis, train=False)[0]).reshape(12, 4)
    np.testing.assert_allclose(np.linalg.svd(rows, compute_uv=False)[0], 1, 1e-4)
    sigma = np.linalg.svd(np.asarray(params["kernel"]).reshape(12, 4), compute_uv=False)[0]
    np.testing.assert_allclose(rows, np.asarray(params["kernel"]).reshape(12, 4) / sigma, 1e-3, 1e-3)


def test_spectral_norm_keeps_the_dtype_of_its_state():
    layer = cnn.spectral_norm(cnn.dense(2))
    with jax.enable_x64(True):
        params, state = layer.init(KEY, jnp.ones((1, 3)))
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        _, after = layer.apply(wide, state, jnp.ones((1, 3)), train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {np.dtype("float32")}


def test_cast_computes_in_the_other_precision_and_gives_back_the_first():
    seen = []
    layer = cnn.cast(cnn.serial(conv=cnn.conv(3), look=lambda x: seen.append(x.dtype) or x), jnp.bfloat16)
    params, _ = jax.eval_shape(layer.init, KEY, X)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    y, _ = jax.eval_shape(functools.partial(layer.apply, train=False), params, {}, X)
    assert y.dtype == jnp.float32
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}


def test_remat_recomputes():
    calls = []
    layer = cnn.remat(lambda x: calls.append(1) or jnp.sin(jnp.sin(x)))
    program = str(jax.make_jaxpr(jax.grad(lambda x: layer.apply({}, {}, x, train=True)[0]))(1.0))
    assert "remat" in program or "checkpoint" in program
    np.testing.assert_allclose(
        jax.grad(lambda x: layer.apply({}, {}, x, train=True)[0])(0.5), np.cos(np.sin(0.5)) * np.cos(0.5), 1e-6
    )


NET = cnn.serial(
    stem=cnn.conv(4),
    stage=cnn.repeat(cnn.residual(cnn.serial(conv=cnn.conv(4), act=jnp.tanh)), 2),
    wrapped=cnn.remat(cnn.with_dropout(cnn.serial(norm=cnn.batch_norm(), act=jax.nn.relu), 0.5)),
    pool=cnn.global_avg_pool,
    head=cnn.dense(3),
)


@functools.cache
def net():
    return jax.jit(NET.init)(KEY, X)


@pytest.mark.slow
def test_capture_by_path():
    (y, seen), state = cnn.capture(NET, ".*").apply(*net(), X, train=False)
    same(y, NET.apply(*net(), X, train=False)[0])
    same(state, net()[1])
    assert {path: leaf.shape for path, leaf in seen.items()} == {
        "stem": (4, 6, 6, 4),
        "stage": (4, 6, 6, 4),
        "stage/layer": (2, 4, 6, 6, 4),
        "stage/layer/conv": (2, 4, 6, 6, 4),
        "stage/layer/act": (2, 4, 6, 6, 4),
        "stage/shortcut": (2, 4, 6, 6, 4),
        "wrapped": (4, 6, 6, 4),
        "wrapped/norm": (4, 6, 6, 4),
        "wrapped/act": (4, 6, 6, 4),
        "pool": (4, 4),
        "head": (4, 3),
    }
    same(seen["head"], y)
    same(seen["stem"], cnn.conv(4).apply(net()[0]["stem"], {}, X, train=False)[0])
    same(seen["stage"], seen["stage/layer"][-1] + seen["stage/shortcut"][-1], 1e-6)


def test_capture_in_training_under_jit_gives_the_same_state_and_output():
    probe = cnn.capture(NET, "wrapped/.*")
    (y, seen), state = jax.jit(functools.partial(probe.apply, train=True))(*net(), X, key=KEY)
    expected, new = jax.jit(functools.partial(NET.apply, train=True))(*net(), X, key=KEY)
    same(y, expected, 1e-6)
    same(state, new, 1e-6)
    assert set(seen) == {"wrapped/norm", "wrapped/act"}


def test_gradient_for_a_captured_activation():
    probe = cnn.capture(NET, "stage|pool|stage/layer/conv")
    params, state = net()
    (_, seen), _ = probe.apply(params, state, X, train=False)

    def score(offsets):
        (y, _), _ = probe.apply(params, state, X, train=False, offsets=offsets)
        return y[:, 1].sum()

    gradients = jax.jit(jax.grad(score))(jax.tree.map(jnp.zeros_like, seen))
    np.testing.assert_allclose(gradients["pool"], np.broadcast_to(params["head"]["kernel"][:, 1], (4, 4)), 1e-6)

    def rest(a):
        tail = cnn.serial(norm=cnn.batch_norm(), act=jax.nn.relu)
        h, _ = tail.apply(params["wrapped"], state["wrapped"], a, train=False)
        return cnn.dense(3).apply(params["head"], {}, h.mean((1, 2)), train=False)[0][:, 1].sum()

    same(gradients["stage"], jax.grad(rest)(seen["stage"]), 1e-6)
    moved = {path: jnp.zeros_like(leaf) for path, leaf in seen.items()}
    moved["stage/layer/conv"] = moved["stage/layer/conv"].at[1, 0, 2, 3, 1].add(1e-2)
    numeric = (score(moved) - score(jax.tree.map(jnp.zeros_like, seen))) / 1e-2
    np.testing.assert_allclose(numeric, gradients["stage/layer/conv"][1, 0, 2, 3, 1], 0.05, 1e-4)


def test_a_jitted_layer_in_two_places_has_two_paths():
    inner = cnn.serial(act=jnp.sin)
    jitted = cnn.Layer(inner.init, jax.jit(inner.apply, static_argnames="train"))
    net = cnn.capture(cnn.serial(first=jitted, second=jitted), ".*")
    (y, activations), _ = net.apply({}, {}, jnp.ones(2), train=False)
    assert [*activations] == ["first/act", "first", "second/act", "second"]
    np.testing.assert_array_equal(activations["second/act"], y)


def test_capture_of_nothing_names_the_layers():
    with pytest.raises(ValueError, match=re.escape("did you mean 'stem'?")):
        cnn.capture(NET, "stm").apply(*net(), X, train=False)
    with pytest.raises(ValueError, match="no activation for offset 'haed'; expected one of: head; did you mean 'head'"):
        cnn.capture(NET, "head").apply(*net(), X, train=False, offsets={"haed": jnp.zeros(())})


@pytest.mark.parametrize("make", RANDOM_LAYERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("amount", [0.1, np.float64(0.1), jnp.float32], ids=["float", "float64", "traced"])
def test_random_layers_keep_the_dtype(make, amount):
    x = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
    apply = lambda amount: make(amount).apply({}, {}, x, train=True, key=KEY)[0]
    y = jax.eval_shape(apply, jnp.float32(0.1)) if amount is jnp.float32 else apply(amount)
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("transform", [cnn.with_dropout, cnn.with_spatial_dropout, cnn.drop_path])
def test_dropout_of_an_output_of_two_arrays(transform):
    layer, x = transform(cnn.max_pool_with_indices(2), 0.5), jnp.ones((1, 4, 4, 1))
    assert len(layer.apply({}, {}, x, train=False)[0]) == 2
    with pytest.raises(TypeError, match=rf"{transform.__name__} needs a layer that returns an array, got \(Array"):
        layer.apply({}, {}, x, train=True, key=KEY)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
@pytest.mark.parametrize("transform", [cnn.with_dropout, cnn.with_spatial_dropout, cnn.drop_path])
def test_dropout_of_an_output_that_is_not_floating_point(transform, dtype):
    """Division by 1 - rate would be rounded."""
    layer, x = transform(lambda x: x.astype(dtype), 0.3), jnp.ones((1, 4, 4, 1))
    assert layer.apply({}, {}, x, train=False)[0].dtype == dtype
    with pytest.raises(TypeError, match=rf"{transform.__name__} needs a layer with floating-point output, got {dtype}"):
        layer.apply({}, {}, x, train=True, key=KEY)


@pytest.mark.parametrize("train", ["no", 1, None])
@pytest.mark.parametrize(
    "layer",
    [cnn.batch_norm(), cnn.dropout(0.5), cnn.drop_path(cnn.identity, 0.5), cnn.spectral_norm(cnn.dense(1))],
    ids=str,
)
def test_train_is_a_bool(layer, train):
    x = jnp.ones((2, 3, 1))
    with pytest.raises(TypeError, match=rf"train must be True or False .*got {train!r}"):
        layer.apply(*layer.init(KEY, x), x, train=train, key=KEY)
