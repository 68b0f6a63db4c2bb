"""Default initial values: distribution, the same numbers in every transformation, and no program for each shape."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxcnn as cnn
from jaxcnn import _initial
from jaxcnn._initial import truncated_normal
from jaxcnn._layer import from_input_shape

KEY = jax.random.key(0)


@pytest.mark.parametrize("gain", [1, 2])
@pytest.mark.parametrize("shape", [(400, 120), (3, 3, 64, 200)], ids=str)
def test_distribution(shape, gain):
    values = np.asarray(truncated_normal(gain)(KEY, shape, jnp.float32)).ravel()
    std = (gain / np.prod(shape[:-1])) ** 0.5 / 0.8796256610342398
    assert stats.kstest(values, stats.truncnorm(-2, 2, scale=std).cdf).pvalue > 0.01
    np.testing.assert_allclose(values.var(), gain / np.prod(shape[:-1]), rtol=0.03)
    assert len(np.unique(values)) > 0.99 * values.size  # blocks have different numbers
    reference = jax.nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")(KEY, shape)
    assert stats.ks_2samp(values, np.asarray(reference).ravel()).pvalue > 0.01


@pytest.mark.parametrize("shape", [(5,), (4, 5), (0, 3), (100, 200), (3, 3, 64, 64)], ids=str)
def test_same_numbers_in_jit_and_vmap(shape):
    """Bit by bit, so that the networks of a sweep start as those of `fit` with the same seeds."""
    draw = lambda key: truncated_normal(2)(key, shape, jnp.float32)
    expected = draw(KEY)
    assert expected.shape == shape == jax.eval_shape(draw, KEY).shape
    np.testing.assert_array_equal(jax.jit(draw)(KEY), expected)
    np.testing.assert_array_equal(jax.jit(lambda: draw(KEY))(), expected)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    np.testing.assert_array_equal(jax.jit(jax.vmap(draw))(keys), np.stack([draw(key) for key in keys]))


@pytest.mark.parametrize("number", [0, 8, 10**6])
def test_blocks_are_those_of_jax_random(number):
    """Bit by bit, for typed keys and those of older code."""
    expected = [
        jax.random.truncated_normal(jax.random.fold_in(KEY, number + i), -2, 2, (_initial._BLOCK,))
        for i in range(_initial._BLOCKS)
    ]
    for key in (KEY, jax.random.PRNGKey(0), jax.random.key(0, impl="rbg")):
        np.testing.assert_array_equal(_initial._blocks(key, number), np.stack(expected))


@pytest.mark.parametrize("size", [1, 15, 16, 10**5])
def test_memory_of_values_is_not_copied(size):
    values = _initial._aligned_empty(size)
    assert values.shape == (size,)
    assert jax.device_put(values, jax.devices("cpu")[0]).unsafe_buffer_pointer() == values.ctypes.data


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_and_device(dtype):
    """As for other functions, the result is committed to a device if the key is."""
    draw = lambda key: truncated_normal(1)(key, (4, 3), dtype)
    assert draw(KEY).dtype == dtype
    assert not draw(KEY).committed
    assert draw(jax.device_put(KEY, jax.devices()[0])).committed


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "densenet121"])
def test_init_compiles_no_program_for_a_shape(name, caplog):
    x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    cnn.conv(1).init(KEY, x)
    model = cnn.models.MODELS[name]()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        model.init(KEY, x)
    assert not [record for record in caplog.records if record.getMessage().startswith("Compiling")]


def test_init_traces_each_layer_once():
    calls = []

    def counted(x):
        calls.append(x)
        return x

    block = lambda: cnn.serial(cnn.dense(3), cnn.residual(cnn.serial(counted, cnn.dense(3))), cnn.identity)
    net = cnn.serial(block(), cnn.serial(block(), cnn.serial(block(), cnn.dense(2))), cnn.dense(1))
    net.init(KEY, jnp.ones((2, 4)))
    assert len(calls) == 3


def test_init_of_nested_transforms_traces_in_proportion_to_their_depth():
    """Not twice as often with each transform, which calls `init` of its layer for shapes and for values."""
    calls, depth = [], 6

    def counted(x):
        calls.append(x)
        return x

    net = cnn.serial(counted, cnn.dense(3))
    for _ in range(depth):
        net = cnn.serial(cnn.remat(net))
    net.init(KEY, jnp.ones((2, 4)))
    assert len(calls) <= depth + 1


def test_jitted_initializers_are_not_replaced_by_zeros():
    """`init` traces a network for shapes before it computes values; JAX must not use that trace for the values."""
    kernel_init = jax.jit(truncated_normal(2), static_argnums=(1, 2))
    dense = cnn.dense(3)
    jitted = jax.jit(lambda key: dense.init(key, jax.ShapeDtypeStruct((1, 4), jnp.float32)))
    net = cnn.serial(cnn.dense(4, kernel_init=kernel_init), cnn.Layer(lambda key, x: jitted(key), dense.apply))
    params, _ = net.init(KEY, jnp.ones((1, 5)))
    for layer in params.values():
        assert np.count_nonzero(layer["kernel"]) == layer["kernel"].size


def test_layers_for_an_input_shape_are_built_once():
    built = []

    def build(shape):
        built.append(shape)
        return cnn.as_layer(lambda x: x["a"])

    split = cnn.as_layer(lambda x: {"a": x, "b": x[:1]})
    net = cnn.serial(split, from_input_shape(build))
    net.init(KEY, jnp.ones((2, 4)))
    assert built == [{"a": (2, 4), "b": (1, 4)}]
