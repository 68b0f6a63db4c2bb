"""The primitives under transformations of jax that have rules of their own for each, and inputs that are unusual."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from tests import conftest, layers

KEY = jax.random.key(0)

# Prints whether gradients are the same on one device and with the batch, or the models, divided between two.
SHARDED = """
import functools, sys
import jax, numpy as np
import jaxcnn as cnn
from jax.sharding import AxisType, PartitionSpec as P

net = cnn.serial(
    cnn.conv(3), cnn.max_pool(2), cnn.prelu(), cnn.upsample(3, "linear"), cnn.batch_norm(), cnn.avg_pool(2),
    cnn.flatten, cnn.dense(2),
)
x = jax.random.normal(jax.random.key(1), (4, 4, 4, 2))
params, state = net.init(jax.random.key(0), x)
two = jax.tree.map(lambda leaf: np.stack([leaf, 2 * leaf]), params)
rows = np.cos(np.arange(4 * 27, dtype=np.float32)).reshape(4, 27)
direction = jax.tree.map(np.cos, params)

loss = lambda params, x: (net.apply(params, state, x, train=False)[0] ** 2).sum()
summed = lambda params, x: jax.lax.psum(loss(params, x), "i")
of_examples = lambda params, x: jax.vmap(lambda x: loss(params, x[None]))(x).sum()
of_models = lambda params, x: jax.vmap(loss, (0, None))(params, x).sum()
of_dense = lambda params, x: (cnn.dense(2).apply(params["7"], {}, x, train=False)[0] ** 2).sum()

mesh = jax.make_mesh((2,), ("i",), axis_types=(AxisType.Auto,))
of_params = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("i")), out_specs=(P(), P("i")))
of_x = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P("i"), P()), out_specs=P())
both = functools.partial(jax.grad, argnums=(0, 1))
second = lambda params, x: jax.jvp(lambda params: both(loss)(params, x), (params,), (direction,))[1]

cases = {
    "loss": lambda: (jax.jit(of_params(both(loss)))(params, x), jax.jit(both(loss))(params, x)),
    "sum of losses": lambda: (jax.jit(of_params(both(summed)))(params, x), jax.jit(both(loss))(params, x)),
    "per example": lambda: (jax.jit(of_params(both(of_examples)))(params, x), jax.jit(both(loss))(params, x)),
    "of models": lambda: (jax.jit(of_params(both(of_models)))(two, x), jax.jit(both(of_models))(two, x)),
    "second order": lambda: (jax.jit(of_params(second))(params, x), jax.jit(second)(params, x)),
    "models divided": lambda: (jax.jit(of_x(jax.grad(of_models, 1)))(two, x), jax.jit(jax.grad(of_models, 1))(two, x)),
    "without jit": lambda: (of_params(both(of_dense))(params, rows), both(of_dense)(params, rows)),
}
for name in sys.argv[1:]:
    for got, want in zip(*map(jax.tree.leaves, cases[name]()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * abs(want).max(), err_msg=name)
print("equal")
"""
MORE = ["per example", "of models", "second order", "models divided", "without jit"]


@pytest.mark.parametrize("cases", [["loss", "sum of losses"], pytest.param(MORE, marks=pytest.mark.slow)])
def test_shard_map_on_two_devices(cases):
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(conftest.CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", SHARDED, *cases]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert result.stdout == "equal\n", result.stderr


@pytest.mark.parametrize("name", ["conv_strided", "dense", "max_pool", "avg_pool", "upsample_linear", "batch_norm"])
def test_without_jit(name):
    case = layers.BY_NAME[name]
    params, state, x = layers.example(case)

    def loss(params, x):
        return jnp.square(case.layer.apply(params, state, x, train=True)[0]).sum()

    expected = jax.value_and_grad(loss, (0, 1))(params, x)
    with jax.disable_jit():
        got = jax.value_and_grad(loss, (0, 1))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), got, expected)


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", layers.CASES, ids=[case.name for case in layers.CASES])
def test_gradient_of_an_empty_batch_is_zero(case):
    params, state, x = layers.example(case)

    def loss(params, x, train):
        y, after = case.layer.apply(params, state, x, train=train, key=KEY)
        return y.sum(), after

    for train in (False, True):
        gradients, after = jax.grad(loss, (0, 1), has_aux=True)(params, x[:0], train)
        for leaf in jax.tree.leaves(gradients):
            np.testing.assert_array_equal(leaf, 0)
        for leaf in jax.tree.leaves(after):
            assert np.isfinite(leaf).all()


RANDOM = [
    cnn.dropout,
    cnn.spatial_dropout,
    cnn.drop_block,
    cnn.gaussian_dropout,
    cnn.gaussian_noise,
    cnn.alpha_dropout,
]


@pytest.mark.parametrize("make", RANDOM, ids=lambda make: make.__name__)
@pytest.mark.parametrize("amount", [0.1, np.float64(0.1), jnp.float32], ids=["float", "float64", "traced"])
def test_random_layers_keep_the_dtype(make, amount):
    x = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
    apply = lambda amount: make(amount).apply({}, {}, x, train=True, key=KEY)[0]
    y = jax.eval_shape(apply, jnp.float32(0.1)) if amount is jnp.float32 else apply(amount)
    assert y.dtype == jnp.bfloat16


LAYERS = {
    "pad": cnn.pad(1),
    "pad_reflect": cnn.pad(1, mode="reflect"),
    "pixel_shuffle": cnn.pixel_shuffle(2),
    "pixel_unshuffle": cnn.pixel_unshuffle(2),
    "flatten": cnn.as_layer(cnn.flatten),
    "dropout": cnn.dropout(0.5),
    "gaussian_noise": cnn.gaussian_noise(0.5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_float64_from_numpy_becomes_float32(name):
    y, _ = LAYERS[name].apply({}, {}, np.ones((1, 4, 4, 4)), train=False)
    assert isinstance(y, jax.Array)
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("transform", [cnn.with_dropout, cnn.with_spatial_dropout, cnn.drop_path])
def test_dropout_of_an_output_of_two_arrays(transform):
    layer, x = transform(cnn.max_pool_with_indices(2), 0.5), jnp.ones((1, 4, 4, 1))
    assert len(layer.apply({}, {}, x, train=False)[0]) == 2
    with pytest.raises(TypeError, match=rf"{transform.__name__} needs a layer that returns an array, got \(Array"):
        layer.apply({}, {}, x, train=True, key=KEY)


def mixed_with(mix, alpha, seed=0):
    """The images and the shares of the labels that `mix` passes to its loss."""
    seen = lambda params, state, batch, *, train, key=None: (batch["image"], batch["label"].weight)
    batch = {"image": jax.random.normal(KEY, (4, 5, 5, 2)), "label": jnp.arange(4)}
    image, lam = mix(seen, alpha)({}, {}, batch, train=True, key=jax.random.key(seed))
    return batch["image"], image, lam


@pytest.mark.parametrize("mix", [cnn.mixup, cnn.cutmix])
def test_a_traced_alpha_of_0_mixes_nothing(mix):
    traced = jax.jit(lambda alpha: mixed_with(mix, alpha))
    original, image, lam = traced(0.0)
    np.testing.assert_array_equal(image, original)
    assert lam == 1
    for got, expected in zip(traced(0.7), jax.jit(lambda: mixed_with(mix, 0.7))(), strict=True):
        np.testing.assert_allclose(got, expected, 1e-6)


def test_cutmix_without_spatial_dimensions():
    loss_fn = cnn.cutmix(cnn.cross_entropy(cnn.dense(2)))
    with pytest.raises(ValueError, match=r"cutmix needs \(N, \*spatial, C\) .*got shape \(4, 3\)"):
        loss_fn({}, {}, {"image": jnp.ones((4, 3)), "label": jnp.zeros(4, int)}, train=True, key=KEY)
