"""Sharpness-aware minimization against optax, and per-example clipping against a Python loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
BATCH = {"image": X, "label": np.array([0, 2, 1, 1, 2])}
WEIGHT = np.array([1, 2, 0, 1, 0.5], np.float32)
NET = cnn.serial(hidden=cnn.dense(6), act=jnp.tanh, drop=cnn.dropout(0.3), head=cnn.dense(3))
BETWEEN = 1.6  # some examples have larger gradients, some smaller
WITH_NORM = cnn.serial(hidden=cnn.dense(6), norm=cnn.batch_norm(), act=jnp.tanh, head=cnn.dense(3))


def assert_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance / 10), a, b)


def grad(loss_fn, params, state, batch, key=KEY):
    return jax.jit(jax.value_and_grad(lambda p: loss_fn(p, state, batch, train=True, key=key), has_aux=True))(params)


def norm(tree):
    return np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree)))


@pytest.fixture(scope="module")
def net():
    return NET.init(KEY, X)


@pytest.mark.parametrize("make", [cnn.sharpness_aware, lambda loss_fn: cnn.clip_per_example(loss_fn, 1.0)])
def test_evaluation_is_the_loss(net, make):
    loss_fn = cnn.cross_entropy(NET)
    assert_close(make(loss_fn)(*net, BATCH, train=False), loss_fn(*net, BATCH, train=False), 0)
    with pytest.raises(TypeError, match=r"needs a loss, such as cross_entropy\(model\), got serial"):
        make(NET)
    cnn.cross_entropy(NET).check("data", *net, BATCH)  # the check of the data is passed on
    with pytest.raises(ValueError, match="but the model has 3 outputs"):
        make(loss_fn).check("data", *net, BATCH | {"label": np.full(5, 7)})


def test_sharpness_aware_step_equals_optax():
    params, state = WITH_NORM.init(KEY, X)
    loss_fn = cnn.cross_entropy(WITH_NORM)
    (loss, (new_state, metrics)), gradient = grad(cnn.sharpness_aware(loss_fn, 0.2), params, state, BATCH)

    adversary = optax.chain(optax.contrib.normalize(), optax.sgd(0.2))
    sam = optax.contrib.sam(optax.sgd(1.0), adversary, opaque_mode=True)
    grad_fn = jax.grad(lambda p, _: loss_fn(p, state, BATCH, train=True)[0])
    expected, _ = sam.update(grad_fn(params, 0), sam.init(params), params, grad_fn=grad_fn)
    assert_close(gradient, jax.tree.map(jnp.negative, expected), 1e-4)

    clean, (clean_state, clean_metrics) = loss_fn(params, state, BATCH, train=True)
    assert loss > clean
    assert_close((new_state, metrics), (clean_state, clean_metrics))


def test_sharpness_aware_without_a_gradient():
    loss_fn = lambda params, state, batch, *, train, key=None: (params["w"].sum() ** 2, (state, {}))
    (loss, _), gradient = grad(cnn.sharpness_aware(loss_fn), {"w": jnp.zeros(2)}, {}, {})
    assert_close((loss, gradient), (jnp.float32(0), {"w": jnp.zeros(2)}))


@pytest.mark.slow
def test_sharpness_aware_passes_the_key(net):
    """Both gradients use the same dropout mask."""
    params, state = net
    loss_fn = cnn.cross_entropy(NET)
    (loss, _), _ = grad(cnn.sharpness_aware(loss_fn, 1e-6), params, state, BATCH)
    np.testing.assert_allclose(loss, loss_fn(params, state, BATCH, train=True, key=KEY)[0], 1e-4)


@pytest.mark.sample(3)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("max_norm", [0.3, BETWEEN, 1e3])
def test_clipping_equals_a_loop(net, weighted, max_norm):
    params, state = net
    batch = BATCH | ({"weight": WEIGHT} if weighted else {})
    loss_fn = cnn.cross_entropy(NET)
    (loss, (_, metrics)), gradient = grad(cnn.clip_per_example(loss_fn, max_norm), params, state, batch)
    grad_of_one = jax.jit(jax.value_and_grad(functools.partial(loss_fn, train=True), has_aux=True))
    weight = WEIGHT if weighted else np.ones(5)
    total, losses, right, norms = jax.tree.map(np.zeros_like, params), [], [], []
    for n in range(5):
        one = {name: value[n : n + 1] for name, value in BATCH.items()}
        (own, (_, named)), g = grad_of_one(params, state, one, key=jax.random.fold_in(KEY, n))
        norms.append(norm(g))
        factor = weight[n] * min(1, max_norm / norms[-1]) / weight.sum()
        total = jax.tree.map(lambda t, leaf, factor=factor: t + factor * np.asarray(leaf), total, g)
        losses.append(own)
        right.append(named["accuracy"])
    assert max_norm != BETWEEN or min(norms) < BETWEEN < max(norms), norms
    assert_close(gradient, total)
    assert_close(loss, jnp.float32(np.average(losses, weights=weight)))
    assert_close(metrics["accuracy"], jnp.float32(np.average(right, weights=weight)))


def test_large_max_norm_gives_the_gradient_of_the_batch():
    params, state = cnn.dense(3).init(KEY, X)
    loss_fn = cnn.cross_entropy(cnn.dense(3))
    batch = BATCH | {"weight": WEIGHT}
    assert_close(
        grad(cnn.clip_per_example(loss_fn, 1e6), params, state, batch), grad(loss_fn, params, state, batch), 1e-5
    )


def test_batch_with_weight_zero_only(net):
    (loss, _), gradient = grad(
        cnn.clip_per_example(cnn.cross_entropy(NET), 1.0), *net, BATCH | {"weight": np.zeros(5, np.float32)}
    )
    assert_close((loss, gradient), (jnp.float32(0), jax.tree.map(jnp.zeros_like, net[0])), 0)


def linear_loss(scale):
    """Its gradient with respect to both weights is scale times the image; the norm is that of [3, 4] for an image 1."""

    def loss_fn(params, state, batch, *, train, key=None):
        return scale * ((3 * params["a"] + 4 * params["b"].sum()) * batch["image"]).mean(), (state, {})

    return loss_fn, {"a": jnp.array(1.0), "b": jnp.array([1.0]), "none": jnp.zeros((0, 2))}


@pytest.mark.parametrize("scale", [1e20, 1.0, 1e-20])
def test_gradients_whose_squares_overflow_or_underflow(scale):
    loss_fn, params = linear_loss(scale)
    loss, _ = cnn.sharpness_aware(loss_fn, 0.5)(params, {}, {"image": jnp.ones(2)}, train=True)
    assert loss / scale == pytest.approx(7 + 0.5 * 5, rel=1e-5)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1)
    def gradient(limit, params, image):
        return cnn.clip_per_example(loss_fn, limit)(params, {}, {"image": image}, train=True)[0]

    image = jnp.array([1.0, 0.1])  # norms of 5 and 0.5, times the scale
    for limit, expected in (
        (scale, (scale + 0.5 * scale) / 2),
        (0.05 * scale, 0.05 * scale),
        (1e-9 * scale, 1e-9 * scale),
    ):
        clipped = gradient(limit, params, image)
        np.testing.assert_allclose(clipped["a"], expected * 0.6, 1e-5)
        np.testing.assert_allclose(clipped["b"], [expected * 0.8], 1e-5)


def test_loss_without_parameters():
    loss_fn = lambda params, state, batch, *, train, key=None: (batch["image"].mean(), (state, {}))
    for make in (cnn.sharpness_aware, lambda loss_fn: cnn.clip_per_example(loss_fn, 1.0)):
        assert make(loss_fn)({}, {}, {"image": jnp.ones(2)}, train=True)[0] == 1


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numpy_options_do_not_change_the_dtype(number):
    _, params = linear_loss(1.0)
    loss_fn = lambda params, state, batch, *, train, key=None: (params["a"] * batch["image"].mean(), (state, {}))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        for make in (cnn.sharpness_aware, cnn.clip_per_example):
            batch = {"image": jnp.ones(2, jnp.float32)}
            (loss, _), gradient = grad(make(loss_fn, number(0.5)), params, {}, batch)
            assert loss.dtype == gradient["a"].dtype == np.float32


def test_a_batch_without_examples(net):
    empty = {name: value[:0] for name, value in BATCH.items()}
    for make in (cnn.sharpness_aware, lambda loss_fn: cnn.clip_per_example(loss_fn, 1.0)):
        (loss, (_, metrics)), gradient = grad(make(cnn.cross_entropy(NET)), *net, empty)
        assert loss == metrics["accuracy"] == 0
        assert norm(gradient) == 0


@pytest.mark.slow
def test_clipping_of_mixed_examples(net):
    """The weight of mixup has no batch dimension."""
    loss_fn = cnn.mixup(cnn.clip_per_example(cnn.cross_entropy(NET), 0.1), 1.0)
    _, gradient = grad(loss_fn, *net, BATCH)
    assert 0 < norm(gradient) <= 0.1001


def test_state_that_depends_on_examples():
    clipped = cnn.clip_per_example(cnn.cross_entropy(WITH_NORM), 1.0)
    with pytest.raises(ValueError, match="clip_per_example: the new state depends on the examples, as with batch norm"):
        clipped(*WITH_NORM.init(KEY, X), BATCH, train=True, key=KEY)


@pytest.mark.slow
def test_state_that_depends_on_no_example():
    frozen = cnn.serial(body=cnn.freeze(WITH_NORM), head=cnn.dense(3))
    params, state = frozen.init(KEY, X)
    (_, (after, _)), gradient = grad(cnn.clip_per_example(cnn.cross_entropy(frozen), 1.0), params, state, BATCH)
    assert_close(after, state, 0)
    assert norm(gradient["head"]) > 0
    normed = cnn.spectral_norm(cnn.dense(3))  # its new state depends on the parameters only
    params, state = normed.init(KEY, X)
    (_, (after, _)), _ = grad(cnn.clip_per_example(cnn.cross_entropy(normed), 1.0), params, state, BATCH)
    assert_close(after, normed.apply(params, state, X, train=True)[1], 1e-4)


def test_other_errors_pass(net):
    with pytest.raises(ValueError, match="the batch has no 'label'"):
        cnn.clip_per_example(cnn.cross_entropy(NET), 1.0)(*net, {"image": X}, train=True, key=KEY)
    with pytest.raises(ValueError, match="the batch has no 'image'"):
        cnn.clip_per_example(cnn.cross_entropy(NET), 1.0)(*net, {"label": X}, train=True, key=KEY)


@pytest.mark.parametrize("value", [0, -1.0, np.nan])
def test_bad_arguments(value):
    with pytest.raises(ValueError, match="sharpness_aware: rho must be"):
        cnn.sharpness_aware(cnn.cross_entropy(NET), value)
    with pytest.raises(ValueError, match="clip_per_example: max_norm must be"):
        cnn.clip_per_example(cnn.cross_entropy(NET), value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        cnn.sharpness_aware,
        lambda loss_fn: cnn.clip_per_example(loss_fn, 0.5),
        lambda loss_fn: cnn.sharpness_aware(cnn.regularized(cnn.clip_per_example(loss_fn, 0.5), cnn.l2(1e-3))),
    ],
    ids=["sharpness_aware", "clip_per_example", "both"],
)
def test_training(make):
    model, optimizer = cnn.serial(cnn.dense(16), jnp.tanh, cnn.dense(3)), optax.adam(0.05)
    run = cnn.train.TrainState.create(model, optimizer, KEY, X)
    step = cnn.train.make_step(make(cnn.cross_entropy(model)), optimizer)
    for _ in range(60):
        run, metrics = step(run, BATCH)
    assert metrics["accuracy"] == 1
    assert metrics["loss"] < 0.2
