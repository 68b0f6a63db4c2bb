"""Layers that reshape or pad, against loops and NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracle

SPATIAL = {1: (3,), 2: (2, 3), 3: (2, 1, 3)}


def run(layer, x):
    return jax.jit(lambda x: jaxcnn.as_layer(layer).apply({}, {}, x, train=False)[0])(x)


def draw(*shape):
    return np.random.default_rng([*shape]).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rank", SPATIAL)
def test_pixel_shuffle_orders(rank):
    scale, features, spatial = 2, 3, SPATIAL[rank]
    block, x = scale**rank, draw(2, *spatial, 3 * scale**rank)
    for order in ("CRD", "DCR"):
        y = np.zeros((2, *(scale * n for n in spatial), features), np.float32)
        for at, c in itertools.product(np.ndindex(*spatial), range(features)):
            for k, offset in enumerate(np.ndindex(*(scale,) * rank)):
                place = [scale * i + o for i, o in zip(at, offset, strict=True)]
                y[:, *place, c] = x[:, *at, c * block + k if order == "CRD" else k * features + c]
        np.testing.assert_array_equal(run(jaxcnn.pixel_shuffle(scale, order=order), x), y)
        np.testing.assert_array_equal(run(jaxcnn.pixel_unshuffle(scale, order=order), y), x)


def test_orders_are_equal_for_one_feature():
    x = draw(1, 2, 3, 9)
    shuffled = [run(jaxcnn.pixel_shuffle(3, order=order), x) for order in ("CRD", "DCR")]
    np.testing.assert_array_equal(*shuffled)


@pytest.mark.parametrize("value", [0.0, 1.5, -np.inf, 7])
def test_pad_with_a_value(value):
    x = draw(1, 2, 3, 2)
    y = run(jaxcnn.pad(((1, 0), (2, 3)), value=value), x)
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (1, 0), (2, 3), (0, 0)), constant_values=value))
    assert run(jaxcnn.pad(1, value=value), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert run(jaxcnn.pad(1, value=3), x.astype(jnp.int8)).dtype == jnp.int8


@pytest.mark.parametrize("pair", [(1, 2), [3, 0], (254, 254)])
def test_a_pair_in_one_dimension(pair):
    x, kernel = draw(1, 6, 2), {"kernel": draw(3, 2, 4)}
    np.testing.assert_array_equal(run(jaxcnn.pad(pair), x), np.pad(x, ((0, 0), pair, (0, 0))))
    conv = lambda padding: jaxcnn.conv(4, padding=padding, bias=False).apply(kernel, {}, x, train=False)[0]
    oracle.assert_close(conv(pair), oracle.conv(x, kernel["kernel"], (1,), (pair,), (1,)))
    np.testing.assert_array_equal(conv(pair), conv((tuple(pair),)))


def test_a_pair_in_one_dimension_of_other_layers():
    x = draw(1, 9, 2)
    for make in (
        lambda padding: jaxcnn.max_pool(3, padding=padding),
        lambda padding: jaxcnn.avg_pool(3, padding=padding, count_include_pad=True),
    ):
        np.testing.assert_array_equal(run(make((1, 2)), x), run(make(((1, 2),)), x))
    kernel = {"kernel": draw(3, 2, 4)}
    transposed = lambda padding: jaxcnn.conv_transpose(4, padding=padding, bias=False).apply(kernel, {}, x, train=False)
    np.testing.assert_array_equal(transposed((1, 2))[0], transposed(((1, 2),))[0])


def test_two_ints_are_both_ends_of_each_dimension_in_2d():
    x = draw(1, 3, 4, 2)
    np.testing.assert_array_equal(run(jaxcnn.pad((1, 2)), x), np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0))))
    with pytest.raises(ValueError, match=r"pad: padding=\(1, 2\) has 2 entries for 3"):
        run(jaxcnn.pad((1, 2)), draw(1, 2, 2, 2, 1))
    with pytest.raises(ValueError, match=r"padding=\(1, 2, 3\) has 3 entries for 1"):
        run(jaxcnn.pad((1, 2, 3)), draw(1, 2, 1))


def test_flatten():
    x = draw(2, 3, 4, 5)
    for dims, shape in {
        (): (2, 60),
        (2,): (2, 3, 20),
        (-2,): (2, 3, 20),
        (3,): (2, 3, 4, 5),
        (0,): (120,),
        (1, 2): (2, 12, 5),
        (0, 1): (6, 4, 5),
        (0, -2): (24, 5),
    }.items():
        np.testing.assert_array_equal(jaxcnn.flatten(x, *dims), x.reshape(shape))
    assert jaxcnn.flatten(jnp.ones(3)).shape == (3, 1)
    for dims in ((4,), (2, 1), (1, 4), (-5,)):
        with pytest.raises(ValueError, match=rf"flatten: input \(2, 3, 4, 5\) has no .*start_dim={dims[0]}"):
            jaxcnn.flatten(x, *dims)


MISTAKES = [
    (lambda: jaxcnn.pad(1, mode="reflect", value=1.0), ValueError, r'value=1\.0 is .*mode="zeros", but mode is .refl'),
    (lambda: jaxcnn.pad(1, value="1"), TypeError, r"pad: value must be a number, got '1'"),
    (lambda: jaxcnn.pixel_shuffle(2, order="RCD"), ValueError, r"pixel_shuffle: unknown order 'RCD'.*CRD, DCR"),
    (lambda: jaxcnn.pixel_unshuffle(2, order="crd"), ValueError, r"pixel_unshuffle: unknown order 'crd'"),
    (lambda: jaxcnn.local_response_norm(2, padding="VALID"), ValueError, r"unknown padding 'VALID'"),
    (lambda: run(jaxcnn.layer_norm(axis=(1, 3)), draw(2, 3, 4)), ValueError, r"layer_norm: axis=\(1, 3\) .*\(2, 3, 4"),
    (lambda: run(jaxcnn.layer_norm(axis=(0, 1)), draw(2, 3)), ValueError, r"layer_norm: axis=\(0, 1\) is the batch"),
    (lambda: run(jaxcnn.layer_norm(axis=()), draw(2, 3)), ValueError, r"layer_norm: axis=\(\)"),
    (lambda: run(jaxcnn.rms_norm(axis=(1, -1)), draw(2, 3)), ValueError, r"rms_norm: axis=\(1, -1\) names .* twice"),
    (lambda: jaxcnn.with_precision(jaxcnn.dense(1), "full"), ValueError, r"with_precision: unknown precision 'full'"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()


def precisions(wrap, x):
    """(operation, whether its precision is the highest) of each product in a gradient compiled for a GPU."""
    net = jaxcnn.serial(wrap(jaxcnn.conv(4)), wrap(jaxcnn.conv_transpose(4)), wrap(jaxcnn.dense(2)))
    params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    loss = lambda params, x: jnp.sin(net.apply(params, {}, x, train=False)[0]).sum()
    text = jax.jit(jax.grad(loss, (0, 1))).trace(params, x).lower(lowering_platforms=("cuda",)).as_text()
    kinds = ("stablehlo.dot_general", "stablehlo.convolution")
    return {(kind, "HIGHEST" in line) for line in text.splitlines() for kind in kinds if kind in line}


def test_precision_holds_for_values_and_gradients():
    x = draw(1, 6, 5, 3)
    low, precise = ({("stablehlo.dot_general", high), ("stablehlo.convolution", high)} for high in (False, True))
    assert precisions(lambda layer: layer, x) == low
    assert precisions(lambda layer: jaxcnn.with_precision(layer, "highest"), x) == precise
    with jax.default_matmul_precision("highest"):  # an inner precision overrides that of the surroundings
        assert precisions(lambda layer: jaxcnn.with_precision(layer, "default"), x) == low


LAYERS = {
    "pad": jaxcnn.pad(1),
    "pad_reflect": jaxcnn.pad(1, mode="reflect"),
    "pixel_shuffle": jaxcnn.pixel_shuffle(2),
    "pixel_unshuffle": jaxcnn.pixel_unshuffle(2),
    "flatten": jaxcnn.as_layer(jaxcnn.flatten),
    "dropout": jaxcnn.dropout(0.5),
    "gaussian_noise": jaxcnn.gaussian_noise(0.5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_float64_from_numpy_becomes_float32(name):
    y, _ = LAYERS[name].apply({}, {}, np.ones((1, 4, 4, 4)), train=False)
    assert isinstance(y, jax.Array)
    assert y.dtype == jnp.float32


def test_pad_with_a_traced_value():
    y = jax.jit(lambda value: jaxcnn.pad(1, value=value).apply({}, {}, jnp.zeros((1, 1, 1)), train=False)[0])(2.0)
    assert y.ravel().tolist() == [2.0, 0.0, 2.0]


def test_options_may_be_jax_scalars():
    for rate in jnp.linspace(0.0, 0.5, 3):
        jaxcnn.dropout(rate)
