"""Adversarial examples against closed forms of a linear model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, size=(5, 2, 3, 2)).astype(np.float32)
Y = np.array([0, 1, 1, 0, 1])
BATCH = {"image": X, "label": Y}
LINEAR = cnn.serial(cnn.flatten, head=cnn.dense(2))
W = RNG.normal(size=(12, 2)).astype(np.float32)
PARAMS = {"head": {"kernel": W, "bias": np.zeros(2, np.float32)}}
LOSS = cnn.cross_entropy(LINEAR)
BENT = cnn.cross_entropy(cnn.serial(cnn.flatten, lambda x: jnp.sin(3 * x), head=cnn.dense(2)))


def loss_of(loss_fn, image, **entries):
    return float(loss_fn(PARAMS, {}, BATCH | entries | {"image": image}, train=False)[0])


def uphill():
    """The direction in which the loss of each example increases: the weights of the other class minus its own."""
    return np.stack([W[:, 1 - label] - W[:, label] for label in Y]).reshape(X.shape)


def lengths(change):
    return np.linalg.norm(np.asarray(change, np.float64).reshape(len(change), -1), axis=1)


def test_fgsm_of_a_linear_model():
    image = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1)
    np.testing.assert_allclose(image, X + 0.1 * np.sign(uphill()), 1e-6)
    several = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=4)
    np.testing.assert_allclose(several, image, 1e-5)  # the vertex of the cube with the largest loss


def test_l2_step_of_a_linear_model():
    unit = uphill() / lengths(uphill())[:, None, None, None]
    image = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, norm=2)
    np.testing.assert_allclose(image, X + 0.1 * unit, 1e-5)
    several = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=5, norm=2)
    np.testing.assert_allclose(several, image, 1e-5)
    short = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=3, step_size=0.02, norm=2)
    np.testing.assert_allclose(short, X + 0.06 * unit, 1e-5)


def test_step_size():
    short = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=3, step_size=0.02)
    np.testing.assert_allclose(short, X + 0.06 * np.sign(uphill()), 1e-5)
    default = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=10)
    same = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, steps=10, step_size=0.025)
    np.testing.assert_array_equal(default, same)


def test_bounds():
    image = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.5)
    np.testing.assert_allclose(image, np.clip(X + 0.5 * np.sign(uphill()), 0, 1), 1e-6)
    free = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.5, bounds=None)
    np.testing.assert_allclose(free, X + 0.5 * np.sign(uphill()), 1e-6)
    narrow = cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.5, bounds=(0.1, 0.9), key=KEY)
    assert 0.1 <= narrow.min() < narrow.max() <= np.float32(0.9)


@pytest.mark.parametrize("norm", [np.inf, 2])
@pytest.mark.parametrize("key", [None, KEY], ids=["fixed", "random"])
def test_pgd_stays_in_the_ball_and_raises_the_loss(norm, key):
    eps = 0.15 if norm == np.inf else 0.4
    image = cnn.pgd(BENT, PARAMS, {}, BATCH, eps=eps, steps=8, norm=norm, key=key)
    size = np.abs(image - X).max((1, 2, 3)) if norm == np.inf else lengths(image - X)
    assert (size <= eps * (1 + 1e-5)).all()
    assert (size > 0.5 * eps).all()
    one = cnn.pgd(BENT, PARAMS, {}, BATCH, eps=eps, norm=norm)
    assert loss_of(BENT, image) >= loss_of(BENT, one) * 0.999 > loss_of(BENT, X)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_random_start_is_uniform_in_the_ball(norm):
    """A step of almost no length shows the start."""
    x = jnp.zeros((2000, 2, 1, 1))
    loss_fn = lambda params, state, batch, *, train, key=None: (batch["image"].sum(), (state, {}))
    start = cnn.pgd(loss_fn, {}, {}, {"image": x}, eps=2.0, step_size=1e-7, norm=norm, bounds=None, key=KEY)
    radius = np.abs(start).max((1, 2, 3)) if norm == np.inf else lengths(start)
    assert radius.max() <= 2.00001
    np.testing.assert_allclose(np.mean(radius < 1), 0.25, atol=0.03)  # area of the half of the size
    np.testing.assert_allclose(start.mean(0), 0, atol=0.1)


@pytest.mark.parametrize("norm", [np.inf, 2])
def test_examples_without_a_gradient_do_not_change(norm):
    weight = np.array([1, 0, 1, 1, 0], np.float32)
    image = cnn.pgd(LOSS, PARAMS, {}, BATCH | {"weight": weight}, eps=0.1, norm=norm, steps=2)
    changed = np.abs(image - X).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(changed, weight > 0)
    alone = cnn.pgd(LOSS, PARAMS, {}, {"image": X[:1], "label": Y[:1]}, eps=0.1, norm=norm, steps=2)
    np.testing.assert_allclose(image[:1], alone, 1e-5)


def test_bfloat16_and_jit():
    low = jnp.asarray(X, jnp.bfloat16)
    attack = jax.jit(functools.partial(cnn.pgd, LOSS, eps=0.25, steps=2))
    with jax.numpy_dtype_promotion("strict"):
        image = attack(PARAMS, {}, BATCH | {"image": low}, key=KEY)
    assert image.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(image, np.float32), np.clip(X + 0.25 * np.sign(uphill()), 0, 1), atol=0.02)


@pytest.mark.parametrize("key", [None, KEY], ids=["fixed", "random"])
@pytest.mark.parametrize("eps", [8 / 255, 1 / 512])
def test_bfloat16_stays_in_the_ball(eps, key):
    low = jnp.asarray(np.random.default_rng(0).random((2, 9, 9, 3)), jnp.bfloat16)
    loss = cnn.mean_squared_error(cnn.as_layer(cnn.identity))
    image = cnn.pgd(loss, {}, {}, {"image": low, "label": np.zeros(low.shape)}, eps=eps, steps=3, key=key)
    distance = jnp.abs(image.astype(jnp.float32) - low.astype(jnp.float32)).max()
    assert 0.9 * eps < distance <= eps


NUMPY_OPTIONS = {"eps": np.float32(0.25), "steps": np.int64(2), "bounds": (np.float32(0), np.float32(1))}


@pytest.mark.parametrize("norm", [np.inf, 2])
@pytest.mark.parametrize("step_size", [None, np.float64(0.125)])
def test_numpy_options_do_not_change_the_dtype(norm, step_size):
    options = {"step_size": step_size, "norm": norm}
    plain = {"eps": 0.25, "steps": 2, "bounds": (0, 1), "step_size": step_size and 0.125, "norm": norm}
    batch = BATCH | {"image": jnp.asarray(X, jnp.bfloat16)}
    image = cnn.pgd(LOSS, PARAMS, {}, batch, **NUMPY_OPTIONS, **options)
    assert image.dtype == jnp.bfloat16
    np.testing.assert_array_equal(image, cnn.pgd(LOSS, PARAMS, {}, batch, **plain))
    loss, _ = cnn.adversarial(LOSS, **NUMPY_OPTIONS, **options)(PARAMS, {}, batch, train=True, key=KEY)
    assert loss == cnn.adversarial(LOSS, **plain)(PARAMS, {}, batch, train=True, key=KEY)[0]


# Training


@pytest.mark.parametrize("steps", [1, 3])
def test_adversarial_is_the_loss_of_attacked_images(steps):
    options = {"eps": 0.1, "steps": steps, "norm": 2, "step_size": 0.07, "bounds": (0, 2)}
    loss_fn = cnn.adversarial(BENT, **options)
    grad = lambda loss_fn, image: jax.value_and_grad(loss_fn, has_aux=True)(
        PARAMS, {}, BATCH | {"image": image}, train=True, key=KEY
    )
    (loss, (state, metrics)), gradient = grad(loss_fn, X)
    assert state == {}
    attack = functools.partial(cnn.pgd, BENT, PARAMS, {}, BATCH, **options)
    if steps == 1:
        (expected, (_, named)), expected_gradient = grad(BENT, attack())
        np.testing.assert_allclose(loss, expected, 1e-6)
        np.testing.assert_allclose(gradient["head"]["kernel"], expected_gradient["head"]["kernel"], 1e-4, 1e-6)
        np.testing.assert_allclose(metrics["accuracy"], named["accuracy"])
    else:
        assert loss > loss_of(BENT, X)
        other = loss_fn(PARAMS, {}, BATCH, train=True, key=jax.random.key(4))[0]
        assert other != loss  # a random start
    evaluated = loss_fn(PARAMS, {}, BATCH, train=False)[0]
    np.testing.assert_array_equal(evaluated, BENT(PARAMS, {}, BATCH, train=False)[0])


def test_attack_in_training_uses_evaluation_mode():
    """Neither dropout nor the statistics of the batch change the attack, and the state is updated once."""
    model = cnn.serial(cnn.flatten, norm=cnn.batch_norm(), drop=cnn.dropout(0.5), head=cnn.dense(2))
    params, state = model.init(KEY, X)
    loss_fn = cnn.cross_entropy(model)
    image = cnn.pgd(loss_fn, params, state, BATCH, eps=0.1)
    expected = loss_fn(params, state, BATCH | {"image": image}, train=True, key=KEY)
    loss, (after, _) = cnn.adversarial(loss_fn, 0.1)(params, state, BATCH, train=True, key=KEY)
    np.testing.assert_allclose(loss, expected[0], 1e-5)
    np.testing.assert_allclose(after["norm"]["mean"], expected[1][0]["norm"]["mean"], 1e-6)


@pytest.mark.slow
def test_adversarial_training_with_fit(tmp_path):
    """One step of fit, with the checks of the data."""
    images = (255 * X).astype(np.uint8)
    config = {"epochs": 1, "batch_size": 5, "report": False}
    loss = lambda model: cnn.adversarial(cnn.cross_entropy(model), 0.1, 2)
    fit = lambda images, labels, folder: cnn.train.fit(
        LINEAR, (images, labels), loss=loss, config=config, run=cnn.train.Run("test", {}, folder=tmp_path / folder)
    )
    assert fit(images, Y, "bytes").history[-1]["train"]["loss"] > 0
    with pytest.raises(ValueError, match=r"train_data: images have values from 2.\d+ to 7.\d+, outside of bounds=\(0"):
        fit(10 * X, Y, "large")
    with pytest.raises(ValueError, match=r"label\[4\] is 7, but the model has 2 outputs"):
        fit(X, np.array([0, 1, 1, 0, 7]), "classes")


@pytest.mark.slow
def test_adversarial_and_members():
    model = cnn.ensemble(LINEAR, 2)
    params, state = model.init(KEY, X)
    loss_fn = cnn.adversarial(cnn.per_member(cnn.cross_entropy)(model), 0.1)
    loss, _ = loss_fn(params, state, BATCH, train=True, key=KEY)
    assert loss > cnn.per_member(cnn.cross_entropy)(model)(params, state, BATCH, train=True, key=KEY)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps must be above 0, got 0"),
        ({"eps": 0.1, "steps": 0}, "steps must be at least 1, got 0"),
        ({"eps": 0.1, "step_size": -1.0}, "step_size must be at least 0 and finite, got -1.0"),
        ({"eps": 0.1, "norm": 1}, "norm must be jnp.inf or 2, got 1"),
        ({"eps": 0.1, "bounds": (1, 0)}, r"bounds must be \(smallest, largest value\) or None, got \(1, 0\)"),
        ({"eps": 0.1, "bounds": (0, 1, 2)}, r"bounds must be \(smallest, largest value\) or None, got \(0, 1, 2\)"),
        ({"eps": 0.1, "bounds": 1}, r"bounds must be \(smallest, largest value\) or None, got 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=f"adversarial: {message}"):
        cnn.adversarial(LOSS, **options)
    with pytest.raises(ValueError, match=f"pgd: {message}"):
        cnn.pgd(LOSS, PARAMS, {}, BATCH, **options)


def test_bad_input():
    with pytest.raises(TypeError, match=r"adversarial needs a loss, such as cross_entropy\(model\), got serial"):
        cnn.adversarial(LINEAR, 0.1)
    with pytest.raises(
        ValueError, match=r"pgd: images have values from 2.\d+ to 7.\d+, .* make data.normalize a layer"
    ):
        cnn.pgd(LOSS, PARAMS, {}, BATCH | {"image": 10 * X}, eps=0.1)
    with pytest.raises(TypeError, match="pgd needs floating-point input, got uint8"):
        cnn.pgd(LOSS, PARAMS, {}, BATCH | {"image": X.astype(np.uint8)}, eps=0.1)
    for key in (3, jax.random.split(KEY)):
        with pytest.raises(TypeError, match=r"key must be .*random key such as jax\.random\.key\(0\), got"):
            cnn.pgd(LOSS, PARAMS, {}, BATCH, eps=0.1, key=key)
    with pytest.raises(ValueError, match="adversarial is random in training"):
        cnn.adversarial(LOSS, 0.1, 2)(PARAMS, {}, BATCH, train=True)


def test_traced_eps_of_another_dtype():
    batch = BATCH | {"image": X.astype(jnp.bfloat16)}
    found = jax.vmap(lambda eps: cnn.pgd(LOSS, PARAMS, {}, batch, eps=eps, steps=2))(jnp.array([0.125, 0.25]))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[0], cnn.pgd(LOSS, PARAMS, {}, batch, eps=0.125, steps=2))
