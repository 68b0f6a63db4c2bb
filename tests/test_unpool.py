"""Max pooling with indices and its inverse, against PyTorch and loops."""

from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn
from tests import goldens, oracle

CASES = goldens.operators("unpool.npz")


def run(layer, x):
    return jax.jit(lambda x: layer.apply({}, {}, x, train=False)[0])(x)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("options", "case"), CASES, ids=lambda value: str(value) if "size" in value else "case")
def test_pytorch(options, case):
    layer = jaxcnn.max_pool_with_indices(**options)
    y, pull, indices = jax.vjp(lambda x: layer.apply({}, {}, x, train=False)[0], case["x"], has_aux=True)
    np.testing.assert_array_equal(y, case["y"])
    np.testing.assert_array_equal(indices, case["indices"])
    assert indices.dtype == jnp.int32
    oracle.assert_close(pull(case["dy"])[0], case["dx"])
    if "values" in case:
        options = {name: options[name] for name in ("size", "stride") if name in options}
        layer = jaxcnn.max_unpool(**options, output_size=case["x"].shape[1:-1])
        z, pull = jax.vjp(lambda y: layer.apply({}, {}, (y, indices), train=False)[0], case["values"])
        np.testing.assert_array_equal(z, case["z"])
        np.testing.assert_array_equal(pull(case["dz"])[0], case["dvalues"])


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_windows_of_minus_infinity_and_nan(bad):
    """An index is never in the padding."""
    x = np.full((1, 4, 4, 1), bad, np.float32)
    y, indices = run(jaxcnn.max_pool_with_indices(3, stride=2, padding=1), x)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), bad))
    np.testing.assert_array_equal(indices.ravel(), [0, 1, 4, 5])


def test_values_are_those_of_max_pool():
    x = np.random.default_rng(0).integers(-3, 4, (2, 7, 6, 3))
    options = {"size": 3, "stride": 2, "padding": "SAME"}
    y, indices = run(jaxcnn.max_pool_with_indices(**options), x)
    np.testing.assert_array_equal(y, run(jaxcnn.max_pool(**options), x))
    np.testing.assert_array_equal(
        np.take_along_axis(x.reshape(2, 42, 3), indices.reshape(2, -1, 3), 1), y.reshape(2, -1, 3)
    )


@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
def test_default_size(padding):
    x = np.random.default_rng(0).permutation(8).astype(np.float32).reshape(1, 8, 1)
    y, indices = run(jaxcnn.max_pool_with_indices(2, padding=padding), x)
    z = run(jaxcnn.max_unpool(2, padding=padding), (y, indices))
    low, high = (padding, padding) if isinstance(padding, int) else padding
    assert z.shape == (1, 2 * y.shape[1] - low - high, 1)
    expected = np.zeros(z.shape)
    np.put_along_axis(expected, np.asarray(indices), np.asarray(y), 1)
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("outside", [4, 9, -1, -4])
@pytest.mark.parametrize("dtype", [jnp.int8, jnp.int32])
def test_indices_outside_are_ignored(outside, dtype):
    y, indices = jnp.ones((1, 2, 1)), jnp.array([0, outside], dtype).reshape(1, 2, 1)
    x, pull = jax.vjp(lambda y: run(jaxcnn.max_unpool(2), (y, indices)), y)
    np.testing.assert_array_equal(x.ravel(), [1, 0, 0, 0])
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0].ravel(), [1, 0])


def segnet(depth, channels):
    """Two halves: pools pass their indices around the inner levels."""
    inside = segnet(depth - 1, channels) if depth else jaxcnn.conv(channels)
    values = jaxcnn.serial(first=itemgetter(0), inside=inside)
    return jaxcnn.serial(
        encoder=jaxcnn.conv(channels),
        act=jnp.tanh,
        pool=jaxcnn.max_pool_with_indices(2),
        pair=jaxcnn.parallel(lambda *pair: pair, values=values, indices=itemgetter(1)),
        unpool=jaxcnn.max_unpool(2),
        decoder=jaxcnn.conv(channels),
    )


def test_a_network_of_pools_and_unpools():
    net, x = segnet(1, 2), np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)

    @jax.jit
    def gradients(key):
        params, state = net.init(key, x)
        return jax.grad(lambda params: jnp.square(net.apply(params, state, x, train=True)[0]).sum())(params)

    assert all((leaf != 0).any() and np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients(jax.random.key(0))))
    lines = jaxcnn.explain.summary(net, x).layers
    assert lines[-1].output.shape == (2, 4, 4, 2)
    assert "pair/values/inside/pool" in {line.path for line in lines}


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_derivatives_where_windows_overlap():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 5, 2)))
        net = jaxcnn.serial(jaxcnn.max_pool_with_indices(3, stride=1), jaxcnn.max_unpool(3, stride=1))
        check_grads(lambda x: jnp.sin(net.apply({}, {}, x, train=False)[0]), (x,), 2, atol=1e-5, rtol=1e-5)


PAIR = jnp.ones((1, 2, 1)), jnp.zeros((1, 2, 1), jnp.int32)
MISTAKES = [
    (
        lambda: run(jaxcnn.max_unpool(2), PAIR[0]),
        TypeError,
        r"needs a pair \(values, indices\), got float32",
    ),
    (lambda: run(jaxcnn.max_unpool(2), (*PAIR, 1)), TypeError, r"max_unpool needs a pair"),
    (
        lambda: run(jaxcnn.max_unpool(2), PAIR[:1] * 2),
        TypeError,
        r"integer indices, .* got float32 of shape",
    ),
    (lambda: run(jaxcnn.max_unpool(2), (PAIR[0], PAIR[1][:, :1])), ValueError, r"shape \(1, 2, 1\), but .*\(1, 1, 1\)"),
    (lambda: run(jaxcnn.max_unpool(2, output_size=(4, 4)), PAIR), ValueError, r"output_size=\(4, 4\) has 2 entries"),
    (lambda: jaxcnn.max_unpool(2, output_size=0), ValueError, r"max_unpool: output_size must be at least 1, got 0"),
    (lambda: run(jaxcnn.max_pool_with_indices(3), PAIR[0]), ValueError, r"max_pool_with_indices: the window \(3,\)"),
]


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES)
def test_mistakes(mistake, error, message):
    with pytest.raises(error, match=message):
        mistake()
