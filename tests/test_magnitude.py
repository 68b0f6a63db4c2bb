"""Layers at unusual magnitudes: zeros, values whose squares vanish or overflow, and means far from zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)
RNG = np.random.default_rng(7)
ZEROS = jax.nn.initializers.zeros
X = RNG.normal(size=(3, 6, 4)).astype(np.float32)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def gradient(layer, params, state, x=X, train=True):
    def loss(params, x):
        y = layer.apply(params, state, x, train=train)[0].astype(jnp.float32)
        return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum()

    return jax.jit(jax.grad(loss, (0, 1)))(params, jnp.asarray(x))


TRANSFORMS = [cnn.weight_norm, cnn.weight_standardized, cnn.spectral_norm]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("make", [cnn.dense, functools.partial(cnn.conv, size=2)])
def test_a_kernel_of_zeros_has_a_finite_gradient(transform, make):
    layer = transform(make(5, kernel_init=ZEROS))
    params, state = layer.init(KEY, X)
    y, state = layer.apply(params, state, X, train=True)
    assert (y == 0).all()
    assert finite(state)
    assert finite(gradient(layer, params, state))


@pytest.mark.sample(4)
@pytest.mark.parametrize("value", [0.0, 1e-42, 1.3e-38, 2e-30, 1e-25])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_single_tiny_filter_has_a_finite_gradient(transform, value):
    layer = transform(cnn.dense(5, bias=False))
    params, state = layer.init(KEY, X)
    params["kernel"] = params["kernel"].at[:, 2].set(value)
    y, state = layer.apply(params, state, X, train=True)
    assert finite((y, state, gradient(layer, params, state, 100 * X)))
    assert (np.abs(y[..., :2]) > 1e-3).any()


@pytest.mark.parametrize("magnitude", [1e-25, 1e-20, 1e20, 1e30])
def test_weight_norm_is_the_same_at_any_magnitude(magnitude):
    layer = cnn.weight_norm(cnn.dense(5, bias=False))
    kernel = RNG.normal(size=(4, 5))
    params = {"kernel": (magnitude * kernel).astype(np.float32), "scale": np.arange(1, 6, dtype=np.float32)}
    want = X.astype(np.float64) @ (kernel / np.linalg.norm(kernel, axis=0) * params["scale"])
    np.testing.assert_allclose(layer.apply(params, {}, X, train=False)[0], want, 1e-5, 1e-5)
    (found, _), (expected, _) = (gradient(layer, params | {"kernel": k}, {}) for k in (params["kernel"], kernel))
    np.testing.assert_allclose(magnitude * found["kernel"], expected["kernel"], 1e-4, 1e-5)
    np.testing.assert_allclose(found["scale"], expected["scale"], 1e-4, 1e-5)


@pytest.mark.parametrize("magnitude", [1e-25, 1e-20, 1e20, 1e38])
def test_spectral_norm_is_the_same_at_any_magnitude(magnitude):
    layer = cnn.spectral_norm(cnn.dense(2, bias=False), steps=20)
    _, state = layer.init(KEY, X)
    kernel = np.diag([3.0, 1.0, 0.5, 0.0])[:, :2]
    y, _ = layer.apply({"kernel": (magnitude * kernel).astype(np.float32)}, state, X, train=True)
    np.testing.assert_allclose(y, X @ (kernel / 3), 1e-5, 1e-6)


def test_spectral_norm_recovers_from_a_kernel_of_zeros():
    layer = cnn.spectral_norm(cnn.dense(2, bias=False, kernel_init=ZEROS))
    params, state = layer.init(KEY, X)
    _, state = layer.apply(params, state, X, train=True)
    y, _ = layer.apply({"kernel": jnp.ones((4, 2))}, state, X, train=True)
    np.testing.assert_allclose(y, X @ np.full((4, 2), 1 / np.sqrt(8)), 1e-4, 1e-5)


@pytest.mark.parametrize("value", [100.1, 1e4 + 0.1, -3.3e5, 1e-20])
@pytest.mark.parametrize("shape", [(300, 1), (3, 3, 50, 2)])
def test_weight_standardized_constant_filters_are_zero(value, shape):
    make = cnn.dense(1, bias=False) if len(shape) == 2 else cnn.conv(2, 3, bias=False)
    x = np.ones((1, *(5,) * (len(shape) - 2), shape[-2]), np.float32)
    layer = cnn.weight_standardized(make)
    y, _ = layer.apply({"kernel": np.full(shape, value, np.float32)}, {}, x, train=False)
    np.testing.assert_array_equal(y, 0)


@pytest.mark.parametrize("mean", [100.0, 1e4, -1e5])
def test_weight_standardized_filters_keep_their_digits(mean):
    kernel = (mean + RNG.normal(size=(30, 7))).astype(np.float32)
    layer = cnn.weight_standardized(cnn.dense(7, bias=False))
    rows, _ = layer.apply({"kernel": kernel}, {}, np.eye(30, dtype=np.float32), train=False)
    wide = kernel.astype(np.float64)
    np.testing.assert_allclose(rows, (wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5), 1e-5, 2e-6)


NORMS = {
    "layer_norm": (cnn.layer_norm(), 1, (4,)),
    "layer_norm of examples": (cnn.layer_norm(axis=1), 1, (1, 2, 4)),
    "layer_norm of two": (cnn.layer_norm(axis=-2), 1, (2, 4)),
    "group_norm of pairs": (cnn.group_norm(4), 4, (1, 2, 4)),
    "group_norm": (cnn.group_norm(2), 2, (1, 2, 4)),
    "instance_norm": (cnn.instance_norm(), 8, (1, 2, 4)),
    "batch_norm": (cnn.batch_norm(), 8, (0, 1, 2, 4)),
}


def normalized(x, groups, axes):
    wide = np.asarray(x, np.float64).reshape(*x.shape[:-1], groups, -1)
    rest = wide - wide.mean(axes, keepdims=True)
    return (rest / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)).reshape(x.shape)


@pytest.mark.sample(3)
@pytest.mark.parametrize("mean", [1e4, -1e4, 1e6, -1e6])
@pytest.mark.parametrize("name", NORMS)
def test_norms_far_from_zero(name, mean):
    layer, groups, axes = NORMS[name]
    x = (mean + RNG.normal(size=(3, 9, 8, 8))).astype(np.float32)
    y, _ = jax.jit(functools.partial(layer.apply, train=True))(*layer.init(KEY, x), x)
    np.testing.assert_allclose(y, normalized(x, groups, axes), 1e-6, 2e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", NORMS)
def test_norms_of_short_floats_far_from_zero(name, dtype):
    layer, groups, axes = NORMS[name]
    x = jnp.asarray(1e4 + 300 * RNG.normal(size=(3, 9, 8, 8)), dtype)
    y, _ = jax.jit(functools.partial(layer.apply, train=True))(*layer.init(KEY, x), x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float64), normalized(x, groups, axes), 2.0**-8, 1e-5)


@pytest.mark.parametrize("mean", [1e4, -1e6])
@pytest.mark.parametrize("name", ["layer_norm", "group_norm", "instance_norm"])
def test_gradients_of_norms_far_from_zero(name, mean):
    """The gradient depends on x less its mean alone."""
    layer, _, _ = NORMS[name]
    near = np.round(16 * RNG.normal(size=(2, 4, 4, 8))).astype(np.float32) / 16  # exact on top of the mean
    params, state = layer.init(KEY, near)
    (_, far), (_, want) = (gradient(layer, params, state, near + shift) for shift in (np.float32(mean), 0))
    np.testing.assert_allclose(far, want, 1e-4, 1e-5)


def test_batch_norm_in_evaluation_far_from_zero():
    state = {"mean": np.array([1e4, -1e6, 3e5], np.float32), "var": np.array([1.0, 4.0, 0.25], np.float32)}
    layer = cnn.batch_norm(scale=False, center=False)
    x = state["mean"] + RNG.normal(size=(5, 3)).astype(np.float32)
    want = (x.astype(np.float64) - state["mean"]) / np.sqrt(state["var"].astype(np.float64) + 1e-5)
    np.testing.assert_allclose(layer.apply({}, state, x, train=False)[0], want, 1e-6)


@pytest.mark.parametrize("mean", [1e4, -1e6])
def test_norms_that_keep_the_mean_far_from_zero(mean):
    x = (mean + RNG.normal(size=(3, 5, 6))).astype(np.float32)
    wide = x.astype(np.float64)
    y, _ = cnn.rms_norm().apply({"scale": np.ones(6, np.float32)}, {}, x, train=False)
    np.testing.assert_allclose(y, wide / np.sqrt((wide**2).mean(-1, keepdims=True)), 1e-6)
    y, _ = cnn.local_response_norm(1).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y, wide / (1 + 1e-4 * wide**2) ** 0.75, 1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-42, 1e-25, 1e25])
def test_global_response_norm_at_any_magnitude(value):
    layer, params = cnn.global_response_norm(), {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    x = X.copy()
    x[0] = value * X[0]
    y, _ = layer.apply(params, {}, x, train=False)
    wide = x.astype(np.float64)
    strength = np.sqrt((wide**2).sum(1, keepdims=True))
    np.testing.assert_allclose(y, wide + wide * strength / (strength.mean(-1, keepdims=True) + 1e-6), 1e-5, 1e-30)
    assert finite(gradient(layer, params, {}, x))


def pooled(x, p, size):
    wide = np.abs(np.asarray(x, np.longdouble)).reshape(x.shape[0], -1, size, x.shape[-1])
    largest = np.maximum(wide.max(2, keepdims=True), np.longdouble(1e-300))
    return (largest * ((wide / largest) ** p).sum(2, keepdims=True) ** (1 / np.longdouble(p)))[:, :, 0]


@pytest.mark.parametrize("p", [1, 2, 2.5, 16, 64, 1000])
@pytest.mark.parametrize("magnitude", [1e-30, 1e-25, 1.0, 255.0, 1e15, 1e37])
def test_lp_pool_at_any_magnitude(p, magnitude):
    x = (magnitude * RNG.uniform(-1, 1, size=(2, 6, 3))).astype(np.float32)
    x[:, :2, 0] = 0
    y, _ = cnn.lp_pool(p, 2).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y, pooled(x, p, 2).astype(np.float64), 5e-6)


def test_lp_pool_near_the_largest_float():
    x = np.full((1, 2, 1), 2e38, np.float32)
    y, _ = cnn.lp_pool(16, 2).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y, 2e38 * 2 ** (1 / 16), 1e-5)


def test_lp_pool_of_a_large_window_compiles_quickly():
    """No operation for each of its 9,216 positions."""
    layer = cnn.lp_pool(3, 96)
    program = jax.make_jaxpr(lambda x: layer.apply({}, {}, x, train=False)[0])(np.ones((1, 96, 96, 2), np.float32))
    assert len(program.eqns) < 60


def test_lp_pool_windows_are_scaled_one_by_one():
    x = np.array([1e-25, 1e-25, 0, 0, 255, 255, 1e30, -1e30], np.float32).reshape(1, 8, 1)
    y, _ = cnn.lp_pool(2, 2).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y.ravel(), np.sqrt(2) * np.array([1e-25, 0, 255, 1e30]), 1e-6)
    y, _ = cnn.lp_pool(16, 2).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y.ravel()[2], 266.29, 1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("p", [2, 16])
def test_lp_pool_of_short_floats(dtype, p):
    x = jnp.asarray(RNG.uniform(100, 255, size=(2, 6, 3)), dtype)
    y, _ = cnn.lp_pool(p, 3).apply({}, {}, x, train=False)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.asarray(y, np.float64), pooled(x, p, 3).astype(np.float64), 2.0**-8)


@pytest.mark.sample(3)
@pytest.mark.parametrize("p", [1, 2, 16, 1000])
@pytest.mark.parametrize("magnitude", [1e-25, 1.0, 255.0, 1e30])
def test_gradient_of_lp_pool_at_any_magnitude(p, magnitude):
    """sign(x) (|x| / y)^(p - 1), and zero where the window holds only zeros."""
    x = (magnitude * RNG.uniform(-1, 1, size=(1, 6, 2))).astype(np.float32)
    x[:, 2:4] = 0
    gradient = jax.grad(lambda x: cnn.lp_pool(p, 2).apply({}, {}, x, train=False)[0].sum())(x)
    y = np.repeat(pooled(x, p, 2), 2, 1)
    wide = np.asarray(x, np.longdouble)
    want = np.sign(wide) * (np.abs(wide) / np.where(y == 0, 1, y)) ** (p - 1)
    np.testing.assert_allclose(gradient, want.astype(np.float64), 1e-3, 1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_lp_pool_of_one_infinite_value(value):
    x = np.ones((1, 6, 1), np.float32)
    x[0, 2] = value
    y, _ = cnn.lp_pool(3, 2).apply({}, {}, x, train=False)
    np.testing.assert_allclose(y.ravel(), [2 ** (1 / 3), np.abs(value), 2 ** (1 / 3)], 1e-6)


@pytest.mark.parametrize("p", [2, 3, 100])
def test_lp_pool_of_the_largest_float(p):
    x = jnp.array([3.4e38, 0]).reshape(1, 2, 1)
    y, back = jax.vjp(jax.jit(lambda x: cnn.lp_pool(p, 2).apply({}, {}, x, train=False)[0]), x)
    np.testing.assert_allclose(y.ravel(), [3.4e38], 1e-6)
    np.testing.assert_allclose(back(jnp.ones_like(y))[0].ravel(), [1, 0], 1e-6)


WITHOUT_EPS = {
    "batch_norm": cnn.batch_norm(eps=0.0),
    "layer_norm": cnn.layer_norm(axis=1, eps=0.0),
    "group_norm": cnn.group_norm(2, eps=0.0),
    "instance_norm": cnn.instance_norm(eps=0.0),
    "rms_norm": cnn.rms_norm(eps=0.0),
    "global_response_norm": cnn.global_response_norm(eps=0.0),
    "local_response_norm": cnn.local_response_norm(k=0.0),
}


@pytest.mark.parametrize("magnitude", [0, 1e-38, 1e-25])
@pytest.mark.parametrize("name", WITHOUT_EPS)
def test_norms_without_eps_of_values_whose_squares_underflow(name, magnitude):
    layer, x = WITHOUT_EPS[name], (magnitude * X).astype(np.float32)
    params, state = layer.init(KEY, X)
    y, new = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(y, x if name == "global_response_norm" else 0 * x, 1e-6, 1e-37)  # subnormals become 0
    assert finite((new, gradient(layer, params, state, x)))


@pytest.mark.parametrize("name", [name for name in WITHOUT_EPS if name != "local_response_norm"])
def test_norms_without_eps_are_the_same_at_small_magnitudes(name):
    """f(c x) = f(x), so the gradient at c x is 1 / c of that at x; the global response norm scales with x."""
    layer, c = WITHOUT_EPS[name], np.float32(2.0**-50)
    params, state = jax.tree.map(lambda leaf: leaf + 0.5, layer.init(KEY, X))
    params = {name: leaf if name == "scale" else 0 * leaf for name, leaf in params.items()}
    scale = c if name == "global_response_norm" else 1
    run = jax.jit(lambda x: layer.apply(params, state, x, train=True)[0])
    np.testing.assert_allclose(run(c * X), scale * run(X), 1e-5, 1e-5 * scale)
    want = gradient(layer, params, state, X)[1]
    np.testing.assert_allclose(gradient(layer, params, state, c * X)[1] * c / scale, want, 1e-3, 1e-4)


def test_an_infinite_value_gives_prelu_no_gradient_of_its_slope():
    x = jnp.array([[jnp.inf, 1.0, -1.0, jnp.nan]])
    layer = cnn.prelu()
    params, state = layer.init(KEY, x)
    y, pullback = jax.vjp(lambda params: layer.apply(params, state, x, train=True)[0], params)
    np.testing.assert_array_equal(y, [[jnp.inf, 1, -0.25, jnp.nan]])
    (slope,) = pullback(jnp.array([[0.0, 1, 1, 0]]))
    np.testing.assert_array_equal(slope["scale"][:3], [0, 0, -1])


LOSSES = {
    "cross_entropy": cnn.cross_entropy,
    "binary_cross_entropy": cnn.binary_cross_entropy,
    "dice": cnn.dice,
    "mean_squared_error": cnn.mean_squared_error,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("magnitude", [1e-37, 1e37])
def test_losses_do_not_depend_on_the_magnitude_of_weights(name, magnitude):
    logits, label = np.array([[1.0, 0], [0, 2], [0, 0]], np.float32), np.array([[1.0, 0], [1, 0], [0, 1]], np.float32)

    def loss(logits, scale):
        weight = np.float32(scale) * np.array([1, 9, 0], np.float32)
        batch = {"image": logits, "label": label, "weight": weight}
        value, (_, metrics) = LOSSES[name](cnn.as_layer(cnn.identity))({}, {}, batch, train=True)
        return value, metrics

    expected, found = (jax.value_and_grad(loss, has_aux=True)(logits, scale) for scale in (1, magnitude))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


@pytest.mark.parametrize("magnitude", [1e-39, 3e37])
def test_cross_entropy_does_not_depend_on_the_magnitude_of_class_weights(magnitude):
    batch = {"image": np.array([[1.0, 0], [0, 2]], np.float32), "label": np.array([0, 1])}
    loss = lambda weights: cnn.cross_entropy(cnn.as_layer(cnn.identity), class_weight=weights)(
        {}, {}, batch, train=True
    )
    np.testing.assert_allclose(loss([magnitude, 10 * magnitude])[0], loss([1, 10])[0], rtol=1e-6)
