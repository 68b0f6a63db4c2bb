"""Activations keep their input for the way back where that is less, and compute the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxcnn as cnn

X = jnp.linspace(-3, 3, 24).reshape(2, 12)
exact_gelu = functools.partial(jax.nn.gelu, approximate=False)


def kept(f):
    """How many numbers JAX keeps between the way there and the way back."""
    backward = jax.eval_shape(lambda x: jax.vjp(f, x)[1], X)
    return sum(leaf.size for leaf in jax.tree.leaves(backward))


def as_layer(f):
    return lambda x: cnn.as_layer(f).apply({}, {}, x, train=True)[0]


@pytest.mark.parametrize("f", [exact_gelu, jax.nn.gelu, jax.nn.silu, jax.nn.mish, lambda x: x * jnp.exp(x)])
def test_keeps_its_input_alone(f):
    assert kept(f) > X.size
    assert kept(as_layer(f)) == X.size


@pytest.mark.parametrize("f", [jax.nn.relu, jax.nn.tanh, jax.nn.sigmoid, jax.nn.leaky_relu])
def test_what_is_cheap_is_left_alone(f):
    assert kept(as_layer(f)) == kept(f)
    assert "remat" not in str(jax.make_jaxpr(as_layer(f))(X))


def test_what_is_no_activation_is_kept():
    kernel = jnp.ones((12, 12))
    f = lambda x: jnp.exp(x) @ kernel * x
    program = str(jax.make_jaxpr(jax.grad(lambda x: as_layer(f)(x).sum()))(X))
    assert program.count("dot_general") == 2  # there and back, not there once more


@pytest.mark.parametrize("f", [exact_gelu, jax.nn.silu])
def test_computes_the_same(f):
    np.testing.assert_array_equal(as_layer(f)(X), f(X))
    np.testing.assert_allclose(jax.jit(as_layer(f))(X), f(X), 1e-6)
    check_grads(as_layer(f), (X,), 2, eps=1e-2, atol=1e-2, rtol=1e-2)


def test_a_function_may_look_at_values():
    seen = []
    as_layer(lambda x: seen.append(float(x.sum())) or jnp.exp(x) + 1)(jnp.ones(3))
    assert seen == [3.0]
