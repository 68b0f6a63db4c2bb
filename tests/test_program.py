"""`plain` computes the same by `lax` alone, and the reader of programs finds what is in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn as cnn
from jaxcnn._program import equations, inputs_used, interpret, listing
from tests.layers import BY_NAME, example

X = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)


QUICKLY = {"xla_backend_optimization_level": "0"}


def library_names(program):
    """The primitives of this library in a program."""
    names = (equation.primitive.name for equation in equations(program))
    return {name for name in names if name.startswith("jaxcnn")}


def of_library(fn, *args):
    return library_names(jax.make_jaxpr(fn)(*args))


def training(layer):
    """(params, state, x) -> a number that depends on all outputs."""

    def fn(params, state, x):
        y, after = layer.apply(params, state, x, train=True, key=jax.random.key(1))
        return sum(jnp.sin(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves((y, after)))

    return fn


@pytest.mark.sample(8)
@pytest.mark.parametrize("name", BY_NAME)
def test_layers(name):
    case = BY_NAME[name]
    fn, args = training(case.layer), example(case)
    gradient = jax.value_and_grad(fn, (0, 2))
    before, after = (jax.jit(way).trace(*args) for way in (gradient, cnn.plain(gradient)))
    assert not library_names(after.jaxpr)
    if not library_names(before.jaxpr):
        assert listing(after.jaxpr) == listing(before.jaxpr)
        return
    expected, found = (traced.lower().compile(QUICKLY)(*args) for traced in (before, after))
    tolerance = max(10 * case.tolerance, 1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), found, expected)


def applied(layer):
    params, state = layer.init(jax.random.key(0), X)
    return lambda x: layer.apply(params, state, x, train=False)[0]


convolved = applied(cnn.conv(3))
resized = applied(cnn.serial(cnn.resize((4, 5), "cubic"), cnn.resize((6, 6), "linear")))  # its program has constants
INSIDE = {
    "jit": lambda x: jax.jit(lambda x: resized(convolved(x)))(x),
    "remat": lambda x: jax.checkpoint(lambda x: jnp.sin(resized(convolved(x))))(x),
    "scan": lambda x: lax.scan(lambda c, _: (resized(convolved(c)), c.sum()), x, None, length=2),
    "scan in remat": lambda x: jax.checkpoint(lambda x: lax.scan(lambda c, _: (resized(c), None), x, None, 2)[0])(x),
    "while": lambda x: lax.while_loop(lambda x: jnp.abs(convolved(x)).max() > 0.1, lambda x: resized(x) / 2, x),
    "cond": lambda x: lax.cond(x[0, 0, 0, 0] > 0, resized, convolved, x),
    "map": lambda x: lax.map(lambda image: convolved(image[None])[0], x),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", INSIDE)
def test_inside(name):
    fn = INSIDE[name]
    assert of_library(fn, X)
    assert not of_library(cnn.plain(fn), X)
    check = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    jax.tree.map(check, cnn.plain(fn)(X), fn(X))
    batch = np.stack([X, X[:, ::-1]])
    jax.tree.map(check, jax.jit(jax.vmap(cnn.plain(fn)))(batch), jax.vmap(fn)(batch))
    if name != "while":  # it has no gradient
        loss = lambda fn: jax.grad(lambda x: sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(fn(x))))
        check(loss(cnn.plain(fn))(X), loss(fn)(X))
        check(cnn.plain(loss(fn))(X), loss(fn)(X))
        assert not of_library(loss(cnn.plain(fn)), X)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
def test_derivative_rules_are_kept(mode):
    """Of a function that has a gradient of its own, which is not that of what it computes."""
    if mode == "jvp":
        rounded = jax.custom_jvp(lambda x: jnp.round(resized(convolved(x))))
        rounded.defjvp(lambda primals, tangents: (rounded(*primals), convolved(*tangents)))
    else:
        rounded = jax.custom_vjp(lambda x: jnp.round(resized(convolved(x))))
        rounded.defvjp(lambda x: (rounded(x), x), lambda x, dy: (convolved(dy) + x,))
    assert not of_library(cnn.plain(rounded), X)
    loss = lambda fn: jax.grad(lambda x: jnp.sin(fn(x)).sum())
    expected = loss(rounded)(X)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(loss(cnn.plain(rounded))(X), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(cnn.plain(loss(rounded))(X), expected, rtol=1e-4, atol=1e-4)
    assert not of_library(cnn.plain(loss(rounded)), X)


def test_second_derivatives():
    pool = cnn.plain(lambda x: jnp.sin(applied(cnn.max_pool(2))(x)).sum())
    direction = np.ones_like(X)
    along = lambda fn: jax.jvp(jax.grad(fn), (X,), (direction,))[1]
    np.testing.assert_allclose(along(pool), along(lambda x: jnp.sin(applied(cnn.max_pool(2))(x)).sum()), rtol=1e-5)


def test_arguments_and_results_are_trees():
    fn = lambda pair, *, scale: {"sum": pair[0] + scale * pair[1], "none": None}
    result = cnn.plain(fn)((1, np.float32(2)), scale=3.0)
    assert result == {"sum": 7.0, "none": None}
    assert cnn.plain(jnp.add)(1, 2).dtype == jnp.int32
    assert cnn.plain(functools.partial(jnp.add, 1))(2.0).weak_type
    assert cnn.plain(jax.random.normal)(jax.random.key(0)) == jax.random.normal(jax.random.key(0))


def test_arrays_around_it():
    """Values that a function holds may belong to a transformation around it."""
    loss = lambda w: cnn.plain(lambda x: jnp.sin(w * convolved(x)).sum())(X)
    expected = jax.grad(lambda w: jnp.sin(w * convolved(X)).sum())(2.0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0), expected, rtol=1e-4)


def test_a_whole_network():
    model, x = cnn.models.lenet5(), np.ones((2, 28, 28, 1), np.float32)
    params, state = model.init(jax.random.key(0), x)
    fn = functools.partial(model.apply, train=False)
    y, after = jax.jit(cnn.plain(fn))(params, state, x)
    np.testing.assert_allclose(y, jax.jit(fn)(params, state, x)[0], rtol=1e-4, atol=1e-4)
    assert after == {}
    assert not of_library(cnn.plain(fn), params, state, x)


def test_what_is_not_a_function():
    with pytest.raises(TypeError, match="plain needs a function of arrays, got Layer; for a layer, pass its apply"):
        cnn.plain(cnn.conv(3))


def test_equations_are_found_at_any_depth():
    fn = lambda x: lax.cond(x > 0, lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.sin(x), x), jnp.cos, x)
    assert {"sin", "cos"} <= {equation.primitive.name for equation in equations(jax.make_jaxpr(fn)(1.0))}


def test_inputs_used():
    program = jax.make_jaxpr(lambda a, b, c: (a + 1, lax.stop_gradient(c)))(1.0, 2.0, 3.0)
    assert inputs_used(program) == [True, False, True]


def test_listing_has_constants_and_depth():
    twice = listing(jax.make_jaxpr(lambda x: jax.jit(lambda x: 2 * x)(x) + 1)(1.0))
    assert len(twice) == 7  # inputs, two operations and outputs, of which one is a program with three lines
    assert listing(jax.make_jaxpr(lambda x: jax.jit(lambda x: 3 * x)(x) + 1)(1.0)) != twice


def test_another_meaning_of_operations():
    """How many operations lie between each result and the inputs."""
    program = jax.make_jaxpr(lambda x: (x, jnp.sin(jnp.cos(x)) + x, 3.0))(1.0)
    rule = lambda equation, depths: [1 + max(depths)] * len(equation.outvars)
    assert interpret(program, [0], rule, lambda value: 0) == [0, 3, 0]
