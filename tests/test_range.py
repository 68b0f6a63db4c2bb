"""Values far from 1: large means in norms, and large and small ones in lp_pool."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn

NORMS = {
    "layer": (cnn.layer_norm(axis=1), (1, 2)),
    "layer_last": (cnn.layer_norm(), 2),
    "group": (cnn.group_norm(1), (1, 2)),
    "instance": (cnn.instance_norm(), 1),
    "batch": (cnn.batch_norm(), (0, 1)),
}


@pytest.mark.parametrize("mean", [1e4, -1e4, 1e6])
@pytest.mark.parametrize("name", NORMS)
def test_norms_at_a_large_mean(name, mean):
    layer, axes = NORMS[name]
    x = (mean + np.random.default_rng(0).normal(size=(4, 30, 16))).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    y, _ = layer.apply(*layer.init(jax.random.key(0), x), x, train=True)
    np.testing.assert_allclose(y, expected, atol=2e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 16, 100])
@pytest.mark.parametrize("size", [255.0, 1e-25, 1e25, 1.0, 0.0])
def test_lp_pool_neither_overflows_nor_underflows(p, size):
    x = size * np.random.default_rng(0).uniform(0.1, 1, (2, 4, 4, 3)).astype(np.float32)
    windows = x.astype(np.float64).reshape(2, 2, 2, 2, 2, 3)
    largest = windows.max((2, 4), keepdims=True)
    unit = windows / np.where(largest > 0, largest, 1)
    total = (unit**p).sum((2, 4), keepdims=True)
    y = lambda x: cnn.lp_pool(p, 2).apply({}, {}, x, train=False)[0]
    np.testing.assert_allclose(y(x), (largest * total ** (1 / p))[:, :, 0, :, 0], 2e-5)
    slope = np.where(total > 0, (unit ** (p - 1)) * np.where(total > 0, total, 1) ** (1 / p - 1), 0)
    gradient = jax.grad(lambda x: y(x).sum())(jnp.asarray(x))
    np.testing.assert_allclose(gradient, slope.reshape(x.shape) if size else np.zeros(x.shape), 1e-4, 1e-6)


def test_lp_pool_of_what_is_not_finite():
    x = jnp.array([jnp.inf, 1.0, jnp.nan, 1.0, 2.0, 1.0]).reshape(1, 6, 1)
    y = cnn.lp_pool(2, 2).apply({}, {}, x, train=False)[0].ravel()
    np.testing.assert_allclose(y, [np.inf, np.nan, 5**0.5], 1e-6)
