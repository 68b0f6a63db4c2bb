"""Losses of all tasks: values and gradients of PyTorch, weights, mixtures, and clear errors."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn

with np.load(pathlib.Path(__file__).parent / "goldens" / "tasks" / "losses.npz") as file:
    GOLDEN = dict(file)
Z, LABEL, SEVERAL, TARGET = (GOLDEN[f"x/{name}"] for name in ("z", "label", "several", "target"))
IDENTITY = cnn.as_layer(cnn.identity)
IGNORE = {"ignore_label": 255}
CASES = {
    "cross_entropy": (functools.partial(cnn.cross_entropy, **IGNORE), LABEL),
    "cross_entropy weighted": (
        functools.partial(
            cnn.cross_entropy, class_weight=GOLDEN["x/class_weight"].tolist(), label_smoothing=0.2, **IGNORE
        ),
        LABEL,
    ),
    "focal": (functools.partial(cnn.focal, **IGNORE), LABEL),
    "binary_cross_entropy": (functools.partial(cnn.binary_cross_entropy, pos_weight=3.0), SEVERAL),
    "mean_squared_error": (cnn.mean_squared_error, TARGET),
    "mean_absolute_error": (cnn.mean_absolute_error, TARGET),
    "huber": (functools.partial(cnn.huber, delta=0.7), TARGET),
}
OTHERS = {
    "dice": (functools.partial(cnn.dice, **IGNORE), LABEL),
    "dice several": (cnn.dice, SEVERAL),
    "weighted_sum": (
        cnn.weighted_sum(
            (1.0, functools.partial(cnn.cross_entropy, **IGNORE)), (0.5, functools.partial(cnn.dice, **IGNORE))
        ),
        LABEL,
    ),
    "distillation": (
        cnn.distillation(functools.partial(cnn.cross_entropy, **IGNORE), lambda x: jnp.flip(x, -1), weight=0.3),
        LABEL,
    ),
}


def value(loss, image, label, *, train=True, **batch):
    loss_fn = loss(IDENTITY)
    return loss_fn({}, {}, {"image": jnp.asarray(image), "label": jnp.asarray(label)} | batch, train=train)


@pytest.mark.parametrize("name", CASES)
def test_loss_equals_pytorch(name):
    loss, label = CASES[name]
    f = lambda z: value(loss, z, label)[0]
    result, gradient = jax.jit(jax.value_and_grad(f))(jnp.asarray(Z))
    np.testing.assert_allclose(result, GOLDEN[f"y/{name}"], rtol=1e-5)
    np.testing.assert_allclose(gradient, GOLDEN[f"dz/{name}"], rtol=1e-5, atol=1e-7)


@pytest.mark.sample(3, 1)
@pytest.mark.parametrize("name", CASES | OTHERS)
def test_examples_of_weight_0_do_not_count(name):
    loss, label = (CASES | OTHERS)[name]
    expected, (_, metrics) = value(loss, Z[:2], label[:2])
    image = np.concatenate([Z[:2], np.full_like(Z[:1], np.nan)])
    label = np.concatenate([label[:2], np.full_like(label[:1], 77)])
    weight = jnp.array([1.0, 1.0, 0.0])
    f = lambda z: value(loss, z, label, weight=weight)
    (result, (_, padded)), gradient = jax.value_and_grad(lambda z: f(z), has_aux=True)(jnp.asarray(image))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    for metric, number in metrics.items():
        np.testing.assert_allclose(padded[metric], number, rtol=1e-5)
    assert not gradient[2].any()
    assert np.isfinite(gradient).all()


@pytest.mark.sample(7)
@pytest.mark.parametrize("transform", [cnn.mixup, cnn.cutmix])
@pytest.mark.parametrize("name", CASES | OTHERS)
def test_mixtures_compose_with_every_loss(name, transform):
    loss, label = (CASES | OTHERS)[name]
    loss_fn = cnn.regularized(transform(loss(IDENTITY), 1.0), lambda params: 0.5)
    batch = {"image": jnp.asarray(Z), "label": jnp.asarray(label)}
    mixed = jax.jit(lambda key: loss_fn({}, {}, batch, train=True, key=key)[0])
    values = [float(mixed(jax.random.key(seed))) for seed in range(4)]
    assert np.isfinite(values).all()
    # A box pasted into images and label maps moves pixels between examples: their mean loss stays the same.
    assert transform is cnn.cutmix or len(set(values)) > 1


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CASES | OTHERS)
def test_strict_modes(name):
    loss, label = (CASES | OTHERS)[name]
    weight = jnp.ones(3)
    expected = value(loss, Z, label, weight=weight)[0]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        np.testing.assert_allclose(value(loss, Z, label, weight=weight)[0], expected, rtol=1e-6)
    with jax.enable_x64(True):
        assert value(loss, Z, label, weight=weight)[0].dtype == np.float32


@pytest.mark.parametrize("pos_weight", [0.5, [1.0, 2.0, 0.0, 7.0, 1.5]])
def test_pos_weight_of_each_label(pos_weight):
    loss, _ = cnn.binary_cross_entropy(IDENTITY, pos_weight=pos_weight)(
        {}, {}, {"image": Z, "label": SEVERAL}, train=True
    )
    z, q = Z.astype(float), SEVERAL.astype(float)
    expected = -(np.array(pos_weight) * q * -np.logaddexp(0, -z) + (1 - q) * -np.logaddexp(0, z)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("pos_weight", "message"),
    [
        (-1.0, r"pos_weight must be a number >= 0, or one per label, got -1"),
        ([[1.0]], r"pos_weight must be a number >= 0, or one per label, got \[\[1"),
        ([1.0, 2.0], r"binary_cross_entropy: pos_weight has 2 entries, but the logits have 5 labels"),
    ],
)
def test_wrong_pos_weight(pos_weight, message):
    with pytest.raises(ValueError, match=message):
        cnn.binary_cross_entropy(IDENTITY, pos_weight=pos_weight)({}, {}, {"image": Z, "label": SEVERAL}, train=True)


def test_labels_without_the_last_dimension_name_the_fix():
    with pytest.raises(ValueError, match=r"output has shape \(3, 1\), .* shape \(3,\); use label\[..., None\]"):
        cnn.mean_squared_error(IDENTITY)({}, {}, {"image": np.ones((3, 1)), "label": np.ones(3)}, train=True)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32])
def test_cutmix_pastes_the_box_into_label_maps(dtype):
    size = 16
    kept = []

    def spy(params, state, batch, *, train, key=None):
        kept.append((batch["image"][..., 0], batch["label"]))
        return jnp.zeros(()), (state, {})

    maps = jnp.stack([jnp.zeros((size, size), int), jnp.ones((size, size), int)])
    for seed in range(6):
        batch = {"image": maps[..., None].astype(jnp.float32), "label": maps.astype(dtype)}
        cnn.cutmix(spy)({}, {}, batch, train=True, key=jax.random.key(seed))
    for image, label in kept:
        np.testing.assert_array_equal(image, label)  # the label of each pixel is still that of its image
    assert any(0 < float(label[0].mean()) < 1 for _, label in kept)


def test_mixup_of_maps_mixes_the_loss_of_each_position():
    ce = cnn.cross_entropy(IDENTITY)
    label = np.minimum(LABEL, 4)
    mixed = cnn.mixup(lambda *args, **kw: (args[2]["label"], (args[1], {})))
    target, _ = mixed({}, {}, {"image": jnp.asarray(Z), "label": jnp.asarray(label)}, train=True, key=jax.random.key(2))
    z = jnp.zeros_like(Z).at[..., 0].set(1)
    at = lambda label: float(ce({}, {}, {"image": z, "label": label}, train=True)[0])
    lam = float(target.weight)
    assert at(target) == pytest.approx(lam * at(target.first) + (1 - lam) * at(target.second), rel=1e-6)


def test_a_weighted_sum_applies_the_model_once():
    calls = []

    def counted(x):
        calls.append(1)
        return x

    loss = cnn.weighted_sum((1.0, cnn.cross_entropy), (2.0, cnn.dice))
    batch = {"image": jnp.asarray(Z), "label": jnp.asarray(np.minimum(LABEL, 4))}
    total, (_, metrics) = loss(cnn.as_layer(counted))({}, {}, batch, train=True)
    assert len(calls) <= 2  # as_layer traces the function once more
    parts = [value(part, Z, batch["label"])[0] for part in (cnn.cross_entropy, cnn.dice)]
    assert total == pytest.approx(float(parts[0] + 2 * parts[1]), rel=1e-6)
    assert metrics.keys() == {"loss", "accuracy"}
    assert metrics["loss"] == total


def test_distillation_matches_a_teacher_in_training_only():
    teacher = lambda x: 3 * x
    label = np.zeros(3, int)
    z = Z[:, 0, 0]
    loss = functools.partial(cnn.distillation, cnn.cross_entropy, teacher, temperature=2.0)
    plain = value(cnn.cross_entropy, z, label)[0]
    assert value(loss(weight=1.0), z, label, train=False)[0] == plain
    assert value(loss(weight=0.0), z, label)[0] == pytest.approx(float(plain), rel=1e-6)
    p, q = (jax.nn.softmax(jnp.asarray(k * z / 2)) for k in (3, 1))
    divergence = 4 * (p * jnp.log(p / q)).sum(-1).mean()
    assert value(loss(weight=1.0), z, label)[0] == pytest.approx(float(divergence), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "image", "label", "message"),
    [
        (cnn.cross_entropy, (3, 6), (3, 4, 5), "label maps need a model with logits for each position"),
        (cnn.cross_entropy, (3, 4, 5, 6), (3,), r"need logits \(N, classes\): end the model with a global pool"),
        (cnn.cross_entropy, (3, 4, 5, 6), (3, 8, 10), r"maps have size \(8, 10\), the logits \(4, 5\): resize"),
        (cnn.dice, (3, 4, 5, 6), (3, 8, 10), r"dice: .*maps have size \(8, 10\), the logits \(4, 5\): resize"),
        (
            functools.partial(cnn.cross_entropy, class_weight=[1.0, 2.0]),
            (3, 6),
            (3,),
            "entropy: class_weight has 2 entries",
        ),
        (functools.partial(cnn.cross_entropy, class_weight=[1.0, -2.0]), (3, 2), (3,), "one finite number >= 0"),
        (cnn.binary_cross_entropy, (3, 6), (3,), r"labels of shape \(3,\) do not fit logits \(3, 6\)"),
        (functools.partial(cnn.huber, delta=0.0), (3, 6), (3, 6), "delta must be above 0"),
        (functools.partial(cnn.dice, smooth=0.0), (3, 6), (3, 6), "smooth must be above 0"),
        (cnn.mean_absolute_error, (3, 1), (3,), r"output has shape \(3, 1\), but the labels have shape \(3,\)"),
        (lambda m: cnn.weighted_sum(cnn.dice), (3, 6), (3,), r"weighted_sum needs pairs \(weight, loss\)"),
    ],
)
def test_mistake(loss, image, label, message):
    with pytest.raises((ValueError, TypeError), match=message):
        value(loss, np.zeros(image, np.float32), np.zeros(label, int))


def test_label_outside_0_and_1():
    with pytest.raises(ValueError, match=r"label\[1, 0\] is 2; labels must be between 0 and 1"):
        value(cnn.binary_cross_entropy, np.zeros((2, 1), np.float32), np.array([[0], [2]]))
    f = jax.jit(
        lambda label: cnn.binary_cross_entropy(IDENTITY)(
            {}, {}, {"image": jnp.zeros((2, 1)), "label": label}, train=True
        )[0]
    )
    assert np.isnan(f(jnp.array([[0], [2]])))


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 1.0, 1.5, 2, 3.3])
def test_focal_has_finite_derivatives_where_a_probability_rounds_to_0_or_1(gamma):
    z = np.array([[20.0, 0.0, -3.0], [0.0, 100.0, -3.0], [1.0, 0.0, 2.0]], np.float32)
    f = lambda z: 3 * value(functools.partial(cnn.focal, gamma=gamma), z, np.zeros(3, int))[0]
    wide = z.astype(np.float64)
    p = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    own, rest = p[:, :1], p[:, 1:].sum(1, keepdims=True)
    np.testing.assert_allclose(f(z), -(rest**gamma * np.log(own)).sum(), rtol=1e-5)
    slope = rest**gamma * (gamma * own * np.log(own) - rest)
    expected = np.concatenate([slope, -slope * p[:, 1:] / rest], 1)
    np.testing.assert_allclose(jax.grad(f)(z), expected, rtol=1e-4, atol=1e-6)
    hessian = jax.hessian(f)(z).reshape(9, 9)
    step = lambda i: np.float32(1e-2) * np.eye(9, dtype=np.float32)[i].reshape(3, 3)
    differences = [(jax.grad(f)(z + step(i)) - jax.grad(f)(z - step(i))).ravel() / 2e-2 for i in range(9)]
    np.testing.assert_allclose(hessian, np.array(differences), atol=2e-4)


MASKED = {
    "cross_entropy": cnn.cross_entropy,
    "cross_entropy weighted": functools.partial(cnn.cross_entropy, class_weight=[1.0, 2.0, 3.0]),
    "focal": functools.partial(cnn.focal, gamma=0.5),
    "distillation": cnn.distillation(cnn.cross_entropy, lambda x: 0.5 * x),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_class_that_is_no_label_does_not_count(name):
    """A logit of -inf is that of a class with probability 0."""
    masked = jnp.array([[2.0, 1.0, -jnp.inf], [0.5, 1.0, -jnp.inf]])
    f = lambda z: value(MASKED[name], z, np.array([0, 1]))[0]
    result, gradient = jax.value_and_grad(f)(masked)
    if "weighted" in name:
        expected, slope = jax.value_and_grad(f)(masked.at[:, 2].set(-1e4))
    else:
        expected, slope = jax.value_and_grad(f)(masked[:, :2])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :2], slope[:, :2], rtol=1e-5)
    assert not gradient[:, 2].any()
    if name == "cross_entropy":
        np.testing.assert_allclose(result, np.log1p(np.exp([-1.0, -0.5])).mean(), rtol=1e-6)


def test_a_masked_class_that_is_a_label_has_an_infinite_loss():
    masked = np.array([[2.0, 1.0, -np.inf]], np.float32)
    assert value(cnn.cross_entropy, masked, np.array([2]))[0] == np.inf
    assert value(functools.partial(cnn.cross_entropy, label_smoothing=0.1), masked, np.array([0]))[0] == np.inf
    binary = lambda label: value(cnn.binary_cross_entropy, np.array([[-np.inf, np.inf]], np.float32), label)
    f = lambda z: value(functools.partial(cnn.binary_cross_entropy, pos_weight=3.0), z, np.array([[0, 1, 1]]))[0]
    assert binary(np.array([[1, 1]]))[0] == np.inf
    result, gradient = jax.value_and_grad(f)(jnp.array([[-jnp.inf, jnp.inf, 0.0]]))
    assert result == pytest.approx(np.log(2), rel=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, -0.5]], atol=1e-7)


@pytest.mark.parametrize("loss", [cnn.cross_entropy, functools.partial(cnn.focal, gamma=0)])
def test_gradient_with_respect_to_class_probabilities(loss):
    """Also to those that are 0."""
    z = jnp.array([[0.5, 1.0, -2.0]])
    gradient = jax.grad(lambda q: value(loss, z, q)[0])(jnp.array([[0.25, 0.75, 0.0]]))
    np.testing.assert_allclose(gradient, -jax.nn.log_softmax(z), rtol=1e-5)


def test_nan_logits_are_not_hidden():
    for loss in (cnn.cross_entropy, cnn.focal):
        assert np.isnan(value(loss, np.array([[0.0, np.nan]], np.float32), np.array([0]))[0])
    assert np.isnan(value(cnn.binary_cross_entropy, np.array([[np.nan]], np.float32), np.array([[0]]))[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "dice", "binary_cross_entropy", "dice several"])
def test_ignored_positions_may_have_any_logits(name, bad):
    several = name in ("binary_cross_entropy", "dice several")
    loss = functools.partial(getattr(cnn, name.split()[0]), ignore_label=255)
    label = np.array([[[0, 1], [255, 255]]]) if several else np.array([[0, 255]])
    z = np.array([[[0.5, 0.25], [bad, 1.0]]], np.float32)
    kept = np.array([[True, False]])
    (result, (_, metrics)), gradient = jax.value_and_grad(lambda z: value(loss, z, label), has_aux=True)(z)
    (expected, (_, of_kept)), slope = jax.value_and_grad(lambda z: value(loss, z, label[:, :1]), has_aux=True)(z[:, :1])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[kept], slope[0], rtol=1e-5)
    assert not gradient[~kept].any()
    jax.tree.map(np.testing.assert_allclose, metrics, of_kept)


def test_large_integer_targets_do_not_wrap():
    label = np.array([[2**32], [-(2**33)]])
    z = np.zeros((2, 1), np.float32)
    assert value_of(cnn.mean_squared_error, z, label) == pytest.approx((2.0**64 + 2.0**66) / 2, rel=1e-6)
    assert value_of(cnn.mean_absolute_error, z, label) == pytest.approx((2.0**32 + 2.0**33) / 2, rel=1e-6)
    assert value_of(cnn.huber, z, label) == pytest.approx((2.0**32 + 2.0**33) / 2, rel=1e-6)


def value_of(loss, image, label):
    """The loss for a label that stays a NumPy array."""
    return float(loss(IDENTITY)({}, {}, {"image": image, "label": label}, train=True)[0])


def test_absolute_error_does_not_move_an_exact_fit():
    gradient = jax.grad(lambda y: value(cnn.mean_absolute_error, y, np.zeros((3, 1), np.float32))[0])
    np.testing.assert_allclose(gradient(jnp.array([[0.0], [2.0], [-0.5]])), [[0], [1 / 3], [-1 / 3]], rtol=1e-6)


def test_dice_of_one_logit():
    z, label = Z[..., :1], SEVERAL[..., 0].astype(int)
    p = 1 / (1 + np.exp(-z[..., 0].astype(float)))
    expected = (1 - (2 * (p * label).sum((1, 2)) + 1) / (p.sum((1, 2)) + label.sum((1, 2)) + 1)).mean()
    f = lambda z, label: value(cnn.dice, z, label)[0]
    for run in (f, jax.jit(f)):
        np.testing.assert_allclose(run(z, label), expected, rtol=1e-5)
        np.testing.assert_allclose(run(z, label[..., None]), expected, rtol=1e-5)
    loss_fn = cnn.dice(IDENTITY)
    loss_fn.check("data", {}, {}, {"image": z, "label": label})
    with pytest.raises(ValueError, match=r"label\[0, 0, 0\] is 2; labels must be between 0 and 1"):
        loss_fn.check("data", {}, {}, {"image": z, "label": label + 2 * np.ones_like(label)})


NUMPY_OPTIONS = {
    "cross_entropy": lambda a: functools.partial(cnn.cross_entropy, label_smoothing=a(0.1), auxiliary=a(0.3)),
    "focal": lambda a: functools.partial(cnn.focal, gamma=a(1.5)),
    "binary_cross_entropy": lambda a: functools.partial(cnn.binary_cross_entropy, label_smoothing=a(0.1)),
    "dice": lambda a: functools.partial(cnn.dice, smooth=a(0.5)),
    "huber": lambda a: functools.partial(cnn.huber, delta=a(0.5)),
    "weighted_sum": lambda a: cnn.weighted_sum((a(0.5), cnn.cross_entropy)),
    "distillation": lambda a: cnn.distillation(cnn.cross_entropy, lambda x: -x, temperature=a(2), weight=a(0.3)),
}


@pytest.mark.parametrize("name", NUMPY_OPTIONS)
def test_numpy_options_do_not_change_the_dtype(name):
    two_heads = cnn.Layer(lambda key, x: ({}, {}), lambda params, state, x, *, train, key=None: ((x, 2 * x), state))
    image = jnp.asarray(Z[:, 0, 0])
    label = image if name == "huber" else (image > 0).astype(int) if "binary" in name else jnp.array([0, 1, 2])
    model = two_heads if name == "cross_entropy" else IDENTITY
    losses = {}
    with jax.enable_x64(True):
        for kind in (float, np.float64, np.float32):
            batch = {"image": image, "label": label}
            losses[kind] = NUMPY_OPTIONS[name](kind)(model)({}, {}, batch, train=True)[0]
            assert losses[kind].dtype == np.float32
    assert losses[float] == losses[np.float64] == pytest.approx(float(losses[np.float32]), rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", CASES | OTHERS)
def test_a_batch_without_examples(name, weighted):
    loss, label = (CASES | OTHERS)[name]
    batch = {"weight": jnp.zeros(0)} if weighted else {}
    for train in (False, True):
        result, (_, metrics) = value(loss, Z[:0], label[:0], train=train, **batch)
        assert result == 0
        assert all(metric == 0 for metric in metrics.values())


@pytest.mark.parametrize("loss", [cnn.cross_entropy, cnn.focal])
def test_ignore_label_that_the_dtype_of_labels_does_not_hold(loss):
    """JAX would wrap 255 to -1 for int8."""
    loss_fn = loss(cnn.as_layer(cnn.identity), ignore_label=255)
    compute = jax.jit(lambda label: loss_fn({}, {}, {"image": 3 * jnp.eye(2), "label": label}, train=True)[0])
    assert jnp.isnan(compute(jnp.array([0, -1], jnp.int8)))
    assert compute(jnp.array([0, 255], jnp.uint8)) == compute(jnp.array([0, 255]))


@pytest.mark.parametrize("transform", [cnn.mixup, cnn.clip_per_example], ids=lambda f: f.__name__)
def test_labels_in_a_list(transform):
    loss_fn = transform(cnn.cross_entropy(cnn.as_layer(cnn.identity)), 1.0)
    of = lambda label: loss_fn({}, {}, {"image": 5 * jnp.eye(4), "label": label}, train=True, key=jax.random.key(3))[0]
    assert of([0, 1, 2, 3]) == of(np.arange(4))


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CASES | OTHERS)
@pytest.mark.parametrize("weight", [-1.0, np.inf])
def test_an_invalid_weight_in_a_compiled_function_makes_the_loss_nan(name, weight):
    loss, label = (CASES | OTHERS)[name]
    compiled = jax.jit(lambda weight: value(loss, Z, label, weight=weight)[0])
    assert np.isnan(compiled(np.array([1, weight, 1], np.float32)))


@pytest.mark.parametrize("label", [np.array([0, 4, 2], ">i4"), np.eye(5, dtype=">f4")[[0, 4, 2]]])
def test_a_batch_in_another_byte_order(label):
    batch = {"image": Z[:, 0, 0].astype(">f4"), "label": label, "weight": np.array([1, 2, 3], ">f4")}
    native = {name: x.astype(x.dtype.newbyteorder("=")) for name, x in batch.items()}
    swapped, expected = (cnn.cross_entropy(IDENTITY)({}, {}, b, train=True)[0] for b in (batch, native))
    assert swapped == expected
