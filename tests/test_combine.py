"""Combinators: names, keys, shapes, errors."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from tests.layers import block

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)


def structure(layer, x=X):
    return jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(layer.init, KEY, x))


def test_names_and_pruning():
    params, state = structure(cnn.serial(cnn.conv(4), jax.nn.relu, norm=cnn.batch_norm(), flat=cnn.flatten))
    assert params == {"0": {"kernel": (3, 3, 3, 4), "bias": (4,)}, "norm": {"scale": (4,), "bias": (4,)}}
    assert state == {"norm": {"mean": (4,), "var": (4,)}}


@pytest.mark.slow
def test_new_siblings_change_no_initial_values():
    one = cnn.serial(a=cnn.conv(4), b=cnn.conv(4))
    two = cnn.serial(a=cnn.conv(4), between=block(4), b=cnn.conv(4), after=cnn.conv(2))
    first, second = (jax.jit(layer.init)(KEY, X)[0] for layer in (one, two))
    for name in ("a", "b"):
        assert (first[name]["kernel"] == second[name]["kernel"]).all()
    assert (first["a"]["kernel"][..., :3, :] != first["b"]["kernel"][..., :3, :]).any()


def test_children_draw_from_keys_of_their_own():
    noise = cnn.serial(cnn.parallel(lambda a, b: jnp.stack([a, b]), cnn.dropout(0.5), cnn.dropout(0.5)))
    y, _ = noise.apply({}, {}, jnp.ones(200), train=True, key=KEY)
    assert (y[0] != y[1]).any()


def test_init_of_shapes_makes_no_arrays():
    big = jax.ShapeDtypeStruct((1, 8192, 8192, 512), jnp.float32)
    params, _ = jax.eval_shape(cnn.serial(cnn.conv(8192), cnn.flatten, cnn.dense(10)).init, KEY, big)
    assert params["2"]["kernel"].shape == (8192**3, 10)


@pytest.mark.filterwarnings("error")
def test_init_takes_numpy_arrays_of_64_bits():
    """Without jax_enable_x64 they become 32 bits, as in all of JAX; newer releases warn about wider specs."""
    seen = set()

    def note_dtype(x):
        seen.add(x.dtype)
        return x

    for dtype in (np.float64, np.int64):
        cnn.serial(note_dtype, lambda x: x.astype("float32"), cnn.conv(4)).init(KEY, X.astype(dtype))
    assert seen == {jnp.dtype("float32"), jnp.dtype("int32")}


@pytest.mark.parametrize("x", ["image", 1.0, [[1.0, 2.0]], (1, 28, 28, 1), {"image": 3}], ids=str)
def test_init_without_an_array(x):
    with pytest.raises(TypeError) as error:
        cnn.models.lenet5().init(KEY, x)
    hint = f"; for this shape, pass jax.ShapeDtypeStruct({x}, jnp.float32)" if isinstance(x, tuple) else ""
    assert str(error.value) == f"init needs an array or a jax.ShapeDtypeStruct, got {x!r}{hint}"


def test_init_may_use_numpy_and_conditions():
    """An `init` that cannot be traced works, also inside a transform; under `jit` it raises JAX's error."""

    def init(key, x):
        kernel = np.asarray(jax.random.normal(key, (x.shape[-1], 3)))
        return {"kernel": jnp.asarray(np.linalg.qr(kernel)[0])} if kernel[0, 0] < 9 else {}, {}

    def apply(params, state, x, *, train, key=None):
        return x @ params["kernel"], state

    own = cnn.Layer(init, apply)
    for layer in (own, cnn.drop_connect(own, 0.5), cnn.serial(own), cnn.remat(cnn.serial(own))):
        net = cnn.serial(cnn.dense(4), layer, cnn.dense(2))
        params, state = net.init(KEY, X)
        kernel = params["1"].get("0", params["1"])["kernel"]
        np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-6)
        assert net.apply(params, state, X, train=False)[0].shape == (*X.shape[:-1], 2)
        with pytest.raises(jax.errors.TracerArrayConversionError):
            jax.jit(net.init)(KEY, X)


def test_serial_is_composition():
    layer = cnn.serial(lambda x: x + 1, lambda x: 2 * x)
    assert float(layer.apply({}, {}, jnp.array(3.0), train=False)[0]) == 8
    assert float(cnn.serial().apply({}, {}, jnp.array(3.0), train=False)[0]) == 3


def test_serial_without_layers_is_the_identity():
    net = cnn.serial(cnn.serial(), cnn.dense(2), cnn.serial())
    params, state = net.init(KEY, X)
    assert cnn.paths(params) == ["1/bias", "1/kernel"]
    np.testing.assert_array_equal(cnn.serial().apply({}, {}, X, train=False)[0], X)
    assert net.apply(params, state, X, train=False)[0].shape == (2, 6, 6, 2)


@pytest.mark.parametrize("train", [True, False])
def test_the_gradient_of_a_common_input_is_stored_once_and_in_inference_the_input_too(train):
    model = cnn.residual(jnp.sin)
    loss = lambda x: model.apply({}, {}, x, train=train)[0].sum()
    names = [equation.primitive.name for equation in jax.make_jaxpr(jax.grad(loss))(X).eqns]
    assert names.index("add_any") + 1 == len(names) - 1 == names.index("jaxcnn_stored", 1)
    assert names[0] == ("jaxcnn_stored_gradient" if train else "jaxcnn_stored")


def test_parallel_gives_all_the_same_input():
    layer = cnn.parallel(operator.sub, lambda x: 3 * x, lambda x: x)
    assert float(layer.apply({}, {}, jnp.array(5.0), train=False)[0]) == 10


def test_repeat_equals_the_layers_one_after_the_other():
    layer = cnn.repeat(block(3), 3)
    params, state = jax.jit(layer.init)(KEY, X)
    y, new = layer.apply(params, state, X, train=True)
    h, states = X, []
    for i in range(3):
        h, after = block(3).apply(*jax.tree.map(operator.itemgetter(i), (params, state)), h, train=True)
        states.append(after)
    np.testing.assert_allclose(y, h, 1e-5, 1e-6)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(jax.tree.map(lambda *s: jnp.stack(s), *states)), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    kernels = params["conv"]["kernel"]
    assert (kernels[0] != kernels[1]).any()


def test_a_longer_repeat_starts_as_the_shorter():
    short, long = (jax.jit(cnn.repeat(cnn.conv(3), n).init)(KEY, X)[0]["kernel"] for n in (2, 4))
    assert (short == long[:2]).all()


def test_squeeze_excite_against_numpy():
    layer = cnn.squeeze_excite(2)
    params, _ = jax.jit(layer.init)(KEY, np.ones((1, 4, 4, 8), np.float32))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    w = params["weights"]
    hidden = np.maximum(x.mean((1, 2)) @ w["squeeze"]["kernel"] + w["squeeze"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ w["expand"]["kernel"] + w["expand"]["bias"])))
    np.testing.assert_allclose(layer.apply(params, {}, x, train=False)[0], x * gate[:, None, None], 1e-5, 1e-6)


def test_errors_carry_the_whole_path():
    net = cnn.serial(stage=cnn.serial(block1=cnn.residual(cnn.serial(conv=cnn.conv(3, 9, padding="VALID")))))
    with pytest.raises(ValueError, match="larger than the input") as caught:
        jax.eval_shape(cnn.serial(net, jax.nn.relu).init, KEY, X)
    assert [note for note in caught.value.__notes__ if "layer" in note] == ["in layer '0/stage/block1/layer/conv'"]


def test_errors_in_plain_functions_carry_the_path():
    with pytest.raises(TypeError) as caught:
        cnn.serial(bad=lambda x: jnp.dot(x, "no")).apply({}, {}, X, train=False)
    assert "in layer 'bad'" in caught.value.__notes__


def test_layers_are_pairs():
    init, apply = cnn.conv(4)
    params, state = init(KEY, X)
    y, _ = apply(params, state, X, train=False)
    assert y.shape == (2, 6, 6, 4)


def test_profiler_names_follow_paths():
    net = cnn.serial(stage=cnn.serial(conv=cnn.conv(4)))
    params, state = jax.eval_shape(net.init, KEY, X)
    text = jax.jit(functools.partial(net.apply, train=False)).lower(params, state, X).as_text(debug_info=True)
    assert "stage/conv" in text
