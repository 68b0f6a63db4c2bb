"""Kernel transforms and penalties over `repeat`: each of the stacked kernels by itself."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import jaxcnn as cnn

KEY = jax.random.key(3)
X = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
LAYERS = {
    "dense": (lambda: cnn.dense(3, bias=False), X),
    "dense_bias": (lambda: cnn.dense(3), X),
    "conv1d": (lambda: cnn.conv(3, bias=False), X[:, 0]),
    "conv2d": (lambda: cnn.conv(3), X),
    "block": (
        lambda: cnn.residual(cnn.serial(conv=cnn.conv(3, bias=False), norm=cnn.layer_norm(), head=cnn.dense(3))),
        X,
    ),
}
TRANSFORMS = {
    "weight_norm": cnn.weight_norm,
    "weight_standardized": cnn.weight_standardized,
    "spectral_norm": functools.partial(cnn.spectral_norm, steps=2),
}
# (of the layer: the stack of its kernels, and one block); the block has the same parameters at the same paths
STACKS = {
    "repeat": lambda layer: (cnn.repeat(layer, 2), lambda wrap: cnn.repeat(wrap(layer), 2)),
    "nested": lambda layer: (
        cnn.repeat(cnn.repeat(layer, 2), 3),
        lambda wrap: cnn.repeat(cnn.repeat(wrap(layer), 2), 3),
    ),
    "deep": lambda layer: (
        cnn.residual(cnn.remat(cnn.serial(a=cnn.repeat(cnn.with_dropout(layer, 0.0), 2)))),
        lambda wrap: cnn.residual(cnn.remat(cnn.serial(a=cnn.repeat(wrap(layer), 2)))),
    ),
}


def plain(tree):
    return {str(name): plain(child) if isinstance(child, dict) else child for name, child in tree.items()}


def same(a, b):
    assert [leaf.shape for leaf in jax.tree.leaves(a)] == [leaf.shape for leaf in jax.tree.leaves(b)]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, 2e-4, 2e-5)


@pytest.mark.sample(20, 10)
@pytest.mark.parametrize(
    ("name", "stack"), [*((name, "repeat") for name in LAYERS), ("conv1d", "nested"), ("dense", "deep")]
)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.usefixtures("quick_compilation")
def test_transform_of_a_repeat_is_a_repeat_of_the_transform(transform, name, stack):
    make, x = LAYERS[name]
    wrap = TRANSFORMS[transform]
    whole, per_block = STACKS[stack](make())
    outside, inside = wrap(whole), per_block(wrap)
    params, state = outside.init(KEY, x)
    other_params, other_state = inside.init(KEY, x)
    same(params, other_params)
    leaves = jax.tree.leaves(state)
    assert [leaf.shape for leaf in leaves] == [leaf.shape for leaf in jax.tree.leaves(other_state)]
    other_state = jax.tree.unflatten(jax.tree.structure(other_state), leaves)  # the same first vectors for both

    def loss(layer, params, state):
        y, new = layer.apply(params, state, x, train=True)
        return jnp.sin(y).sum(), new

    gradients = [
        jax.jit(jax.value_and_grad(functools.partial(loss, layer), has_aux=True))(plain(params), state)
        for layer, state in ((outside, state), (inside, other_state))
    ]
    same(*gradients)
    same(*(layer.apply(params, s, x, train=False)[0] for layer, s in ((outside, state), (inside, other_state))))


def test_spectral_norm_of_a_plain_dict():
    layer = cnn.spectral_norm(cnn.repeat(cnn.dense(2, bias=False), 2))
    x = jnp.ones((1, 2))
    _, state = layer.init(KEY, x)
    params = {"kernel": jnp.stack([8 * jnp.eye(2), 2 * jnp.eye(2)])}
    for _ in range(3):
        y, state = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, [[1, 1]], 1e-5)
    assert state["spectral_norm"]["kernel"].shape == (2, 2)


def gram(w):
    w = w.reshape(-1, w.shape[-1])
    w = w if w.shape[0] >= w.shape[1] else w.T
    return ((w.T @ w - np.eye(w.shape[1])) ** 2).sum()


PENALTIES = {
    "l1": (cnn.l1(0.3), lambda w: 0.3 * np.abs(w).sum()),
    "l2": (cnn.l2(0.3), lambda w: 0.3 * (w**2).sum()),
    "elastic_net": (cnn.elastic_net(0.3, 0.2), lambda w: (0.3 * np.abs(w) + 0.2 * w**2).sum()),
    "orthogonal": (cnn.orthogonal(0.3), lambda w: 0.3 * gram(w)),
}


@pytest.mark.sample(4, 1)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_are_sums_over_blocks(penalty):
    penalty, formula = PENALTIES[penalty]
    layer = cnn.serial(
        stem=cnn.conv(3, bias=False),
        stage=cnn.repeat(cnn.serial(cnn.repeat(cnn.conv(3), 2), cnn.dense(3, bias=False)), 2),
    )
    params, _ = layer.init(KEY, X)
    convs = np.asarray(params["stage"]["0"]["kernel"]).reshape(4, 3, 3, 3, 3)
    expected = sum(
        map(formula, [np.asarray(params["stem"]["kernel"]), *convs, *np.asarray(params["stage"]["1"]["kernel"])])
    )
    np.testing.assert_allclose(penalty(params), expected, 1e-5)
    np.testing.assert_allclose(jax.jit(penalty)(params), expected, 1e-5)


EYES = jnp.stack([jnp.eye(2)] * 3)


@pytest.mark.parametrize(
    "through",
    [
        lambda params: params,
        lambda params: jax.tree.map(lambda w: w + 0, params),
        jax.grad(lambda params: jnp.square(params["kernel"]).sum() / 2),
        jax.jit(lambda params: params),
        lambda params: params | {"kernel": EYES},
        lambda params: {**params, "kernel": EYES},
        lambda params: {name: w for name, w in params.items()},  # noqa: C416
        copy.deepcopy,
        lambda params: jax.tree.map(lambda _, w: w, params, {"kernel": EYES}),
    ],
)
def test_orthogonal_blocks_cost_nothing(through):
    params, _ = cnn.repeat(cnn.dense(2, bias=False), 3).init(KEY, jnp.ones((1, 2)))
    params = through(jax.tree.map(lambda _: EYES, params))
    assert float(cnn.orthogonal(1.0)(params)) == 0
    assert float(cnn.orthogonal(1.0)({"kernel": EYES})) == 8  # a 1-D convolution with three taps


def test_params_of_repeat_are_like_any_other_dict():
    params, _ = cnn.repeat(cnn.dense(2), 3).init(KEY, jnp.ones((1, 2)))
    assert jax.tree.structure(params) == jax.tree.structure(plain(params))
    assert cnn.paths(params) == ["bias", "kernel"]
    assert repr(list(params)) == repr(list(plain(params)))
    jax.tree.map(np.testing.assert_array_equal, params, plain(params))
    jax.tree.map(np.testing.assert_array_equal, plain(params), params)


@pytest.mark.sample(3)
@pytest.mark.parametrize("wrap", [cnn.weight_norm, cnn.spectral_norm, cnn.weight_standardized])
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-25])
def test_gradients_of_kernels_near_zero_are_finite(wrap, size):
    layer = wrap(cnn.repeat(cnn.dense(3), 2))
    params, state = layer.init(KEY, X)
    params = jax.tree.map(lambda w: w.at[:, ..., 0].set(size) if w.ndim > 2 else w + 1, params)
    gradient = jax.grad(lambda params: jnp.sin(layer.apply(params, state, X, train=True)[0]).sum())(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("size", "value"), [((300, 1), 100.1), ((3, 3, 8, 2), -1e4), ((50, 4), 1e-3)])
def test_constant_kernels_standardize_to_zero(size, value):
    layer = cnn.weight_standardized(cnn.conv(size[-1], size[:-2] or 1, bias=False, padding="VALID"))
    kernel = jnp.full(size if len(size) > 2 else (1, 1, *size), value)
    x = jnp.ones((1, *kernel.shape[:-1]))
    np.testing.assert_allclose(layer.apply({"kernel": kernel}, {}, x, train=False)[0], 0, atol=1e-3)


def test_a_file_of_weights_says_what_is_stacked(tmp_path):
    model = cnn.serial(cnn.dense(4), cnn.repeat(cnn.repeat(cnn.dense(4), 2), 3))
    params, state = model.init(jax.random.key(0), jnp.ones((1, 4)))
    cnn.weights.save(tmp_path / "net.safetensors", params, state)
    loaded, _ = cnn.weights.load(tmp_path / "net.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    penalty = cnn.orthogonal(1.0)
    assert float(penalty(loaded)) == float(penalty(params)) != float(penalty(json_like(params)))


def json_like(tree):
    return {str.__str__(name): json_like(child) for name, child in tree.items()} if isinstance(tree, dict) else tree


@pytest.mark.parametrize("said", ["5", "[]", "{", '{"params/kernel": 3}', '{"params/kernel": 0.5}', '{"a": 1}'])
def test_a_file_with_other_notes_is_damaged(tmp_path, said):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file({"params/kernel": np.ones((2, 2))}, path, {"format": "jaxcnn", "stacked": said})
    with pytest.raises(cnn.weights.WeightsError, match="the metadata 'stacked' do not match"):
        cnn.weights.load(path)
