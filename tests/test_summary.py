"""The summary of a network: counts by hand, the tree, what is frozen, memory, text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn as cnn
from jaxcnn.explain import summary
from jaxcnn.models import MODELS


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def block(channels):
    return cnn.residual(cnn.serial(conv=cnn.conv(channels, bias=False), norm=cnn.batch_norm(), act=jax.nn.relu))


NET = cnn.serial(
    stem=cnn.conv(4, 3, stride=2),
    stage=cnn.serial(cnn.freeze(block(4)), block(4)),
    pool=cnn.global_avg_pool,
    head=cnn.dense(5),
)
X = spec(2, 8, 8, 3)
STEM, BLOCK, HEAD = 3 * 3 * 3 * 4 + 4, 3 * 3 * 4 * 4 + 2 * 4, 4 * 5 + 5
MAP = 2 * 4 * 4 * 4 * 4  # bytes of a map after the stem


def test_tree_has_the_sums_of_what_is_inside():
    table = summary(NET, X)
    rows = {row.path: tuple(row[2:]) for row in table.tree}
    multiply_adds = 16 * 3 * 3 * 4 * 4  # of a block
    assert rows == {
        "stem": (STEM, STEM, 16 * 3 * 3 * 3 * 4, MAP),
        "stage": (2 * BLOCK, BLOCK, 2 * multiply_adds, 6 * MAP),
        "stage/0": (BLOCK, 0, multiply_adds, 3 * MAP),
        "stage/0/layer": (BLOCK, 0, multiply_adds, 3 * MAP),
        "stage/0/layer/conv": (BLOCK - 8, 0, multiply_adds, MAP),
        "stage/0/layer/norm": (8, 0, 0, MAP),
        "stage/0/layer/act": (0, 0, 0, MAP),
        "stage/0/shortcut": (0, 0, 0, 0),
        "stage/1": (BLOCK, BLOCK, multiply_adds, 3 * MAP),
        "stage/1/layer": (BLOCK, BLOCK, multiply_adds, 3 * MAP),
        "stage/1/layer/conv": (BLOCK - 8, BLOCK - 8, multiply_adds, MAP),
        "stage/1/layer/norm": (8, 8, 0, MAP),
        "stage/1/layer/act": (0, 0, 0, MAP),
        "stage/1/shortcut": (0, 0, 0, 0),
        "pool": (0, 0, 0, 2 * 4 * 4),
        "head": (HEAD, HEAD, 20, 2 * 5 * 4),
    }
    assert list(rows) == [row.path for row in table.tree]
    assert {row.output.shape for row in table.tree if row.path.startswith("stage")} == {(2, 4, 4, 4)}
    containers = {"stage", "stage/0", "stage/0/layer", "stage/1", "stage/1/layer"}
    assert [row.path for row in table.layers] == [path for path in rows if path not in containers]
    for i, total in enumerate((table.params, table.trainable, table.multiply_adds, table.activation_bytes), 2):
        assert total == sum(row[i] for row in table.layers)
    assert (table.params, table.trainable) == (STEM + 2 * BLOCK + HEAD, STEM + BLOCK + HEAD)
    assert table.param_bytes == 4 * table.params


def test_a_name_that_starts_like_another():
    rows = summary(cnn.serial(a=cnn.dense(2), ab=cnn.dense(3)), spec(1, 4)).tree
    assert [(row.path, row.params) for row in rows] == [("a", 10), ("ab", 9)]


def test_depth_folds_the_tree_and_nothing_else():
    whole, table = summary(NET, X), summary(NET, X, depth=2)
    assert [row.path for row in table.tree] == ["stem", "stage", "stage/0", "stage/1", "pool", "head"]
    assert table.tree == tuple(row for row in whole.tree if row.path.count("/") < 2)
    assert table[:-1] == whole[:-1]


def test_text():
    assert (
        str(summary(NET, X, depth=2))
        == """\
layer    output        parameters  multiply-adds  activations
----------------------------------------------------------------------------
(input)  (2, 8, 8, 3)
stem     (2, 4, 4, 4)         112          1,728        512 B
stage    (2, 4, 4, 4)         304          4,608      3.07 kB  partly frozen
  0      (2, 4, 4, 4)         152          2,304      1.54 kB  frozen
  1      (2, 4, 4, 4)         152          2,304      1.54 kB
pool     (2, 4)                                          32 B
head     (2, 5)                25             20         40 B
----------------------------------------------------------------------------
total                         441          6,356      3.66 kB
parameters take 1.76 kB; 289 are trainable"""
    )
    lines = str(summary(cnn.dense(1000), spec(1000, 1000))).splitlines()
    assert lines[3].split() == ["(model)", "(1000,", "1000)", "1,001,000", "1,000,000", "4", "MB"]
    assert lines[-1] == "parameters take 4 MB; all are trainable"
    assert "281 TB" in str(summary(jnp.sin, spec(1 << 23, 1 << 23)))


@pytest.mark.parametrize(
    ("layer", "trainable"),
    [
        (cnn.freeze(cnn.dense(3)), 0),
        (lambda x: lax.stop_gradient(x), 0),
        (cnn.repeat(cnn.serial(cnn.freeze(cnn.dense(4)), cnn.dense(4)), 3), 3 * 20),
        (cnn.remat(cnn.serial(cnn.freeze(cnn.dense(4)), cnn.dense(4))), 20),
        (cnn.drop_connect(cnn.freeze(cnn.weight_norm(cnn.dense(4))), 0.5), 0),
        (cnn.weight_norm(cnn.freeze(cnn.dense(3))), 0),
        (cnn.serial(cnn.dense(3), jnp.argmax), 0),
        (cnn.serial(cnn.dense(3), lax.stop_gradient, cnn.dense(2)), 8),
        (cnn.serial(cnn.dense(3), cnn.freeze(cnn.dense(2))), 15),
    ],
)
def test_trainable_is_what_a_gradient_reaches(layer, trainable):
    layer = cnn.as_layer(layer)
    assert summary(layer, spec(2, 4)).trainable == trainable
    params, state = layer.init(jax.random.key(0), spec(2, 4))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    loss = lambda params: (layer.apply(params, state, jnp.ones((2, 4)), train=False)[0] * 1.0).sum()
    gradient = jax.jit(jax.grad(loss))(params)
    assert sum(leaf.size for leaf in jax.tree.leaves(gradient) if np.any(leaf)) == trainable


def test_auxiliary_heads_are_trained():
    net = MODELS["googlenet"](classes=10, auxiliary=True)
    table = summary(net, spec(1, *MODELS["googlenet"].input_shape))
    assert table.trainable == table.params


def test_a_gradient_without_forward_mode():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, dy: (2 * dy,))
    assert summary(cnn.serial(cnn.dense(3), doubled), spec(2, 4)).trainable == 15


def test_parameters_outside_of_combinators_are_in_the_layer_around_them():
    """A layer that hides others from the probe, and one with parameters beside those of its layers."""
    inner = cnn.serial(a=cnn.dense(3), b=cnn.dense(2))

    def hidden(params, state, x, *, train, key=None):
        return inner.apply(params, {}, x, train=train)[0], state

    def init(key, x):
        params, state = inner.init(key, x)
        return params | {"scale": jnp.ones(2)}, state

    def scaled(params, state, x, *, train, key=None):
        y, state = inner.apply({name: params[name] for name in "ab"}, state, x, train=train)
        return y * params["scale"], state

    net = cnn.serial(hidden=cnn.Layer(inner.init, hidden), scaled=cnn.Layer(init, scaled))
    table = summary(net, spec(2, 4))
    assert {row.path: row.params for row in table.layers} == {
        "hidden": 15 + 8,
        "scaled": 2,
        "scaled/a": 9,
        "scaled/b": 8,
    }
    assert {row.path: row.params for row in table.tree}["scaled"] == 19
    table = summary(cnn.Layer(init, scaled), spec(2, 4))
    assert [(row.path, row.params) for row in table.layers] == [("", 2), ("a", 15), ("b", 8)]
    assert [(row.path, row.params) for row in table.tree] == [("", 25), ("a", 15), ("b", 8)]


def test_activations():
    """Repetitions count each time, what gives back its input not at all, half precision half."""
    bytes_of = lambda layer: summary(layer, spec(2, 4)).activation_bytes
    assert bytes_of(cnn.serial(cnn.dense(3), jax.nn.relu)) == 2 * (2 * 3 * 4)
    assert bytes_of(cnn.serial(cnn.identity, cnn.dropout(0.5), cnn.dense(3))) == 2 * 3 * 4
    assert bytes_of(cnn.repeat(cnn.serial(cnn.dense(4), jax.nn.relu), 5)) == 5 * 2 * (2 * 4 * 4)
    half = cnn.cast(cnn.serial(cnn.dense(3), jax.nn.relu), jnp.bfloat16)
    assert bytes_of(cnn.serial(half, cnn.dense(3))) == 2 * (2 * 3 * 2) + 2 * 3 * 4
    assert bytes_of(lambda x: (x + 1, {"two": x[:, :1] + 1})) == 2 * 4 * 4 + 2 * 1 * 4


def test_a_deep_network():
    table = summary(MODELS["resnet50"](), spec(64, 224, 224, 3))
    assert table.params == 25_557_032
    assert sum("conv" in row.path.rpartition("/")[2] for row in table.layers) == 53


def test_bad_depth():
    with pytest.raises(ValueError, match="summary: depth must be at least 1, got 0"):
        summary(NET, X, depth=0)
    with pytest.raises(TypeError, match="summary: depth"):
        summary(NET, X, depth=1.5)


def test_inputs_without_examples_or_shape():
    for shape in ((0, 8, 8, 3), ()):
        with pytest.raises(
            ValueError, match=r"summary needs an input with a batch dimension of at least 1, got shape \("
        ):
            summary(cnn.identity, spec(*shape))
    hint = r"; for this shape, pass jax.ShapeDtypeStruct\(\(1, 8, 8, 3\), jnp.float32\)"
    with pytest.raises(TypeError, match=r"summary needs an input, .*got \(1, 8, 8, 3\)" + hint):
        summary(NET, (1, 8, 8, 3))
    with pytest.raises(TypeError, match=r"summary needs an input, or a jax.ShapeDtypeStruct, got \(\)$"):
        summary(NET, ())


def test_layers_with_several_inputs():
    inputs = cnn.parallel(lambda *xs: xs, cnn.identity, cnn.conv(18))
    net = cnn.serial(inputs=inputs, deformed=cnn.deform_conv(5), head=cnn.conv(2, 1))
    rows = {row.path: row for row in summary(net, spec(1, 6, 6, 3)).layers}
    assert rows["deformed"].multiply_adds == 9 * 3 * 5 * 36


def test_layers_that_are_named_like_parameters():
    net = cnn.serial(kernel=cnn.dense(3), scale=cnn.dense(2))
    assert summary(net, spec(1, 4)).multiply_adds == 4 * 3 + 3 * 2
    params, _ = cnn.weight_norm(net).init(jax.random.key(0), jnp.zeros((1, 4)))
    assert params["kernel"]["scale"].shape == (3,)
