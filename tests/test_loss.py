"""Losses, penalties and their transforms against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn._arguments import check_number, check_positive
from jaxcnn._loss import MixedLabel
from jaxcnn._path import paths

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])
AS_IS = cnn.as_layer(cnn.identity)


def reference(logits, fractions):
    logits = logits.astype(np.float64)
    return -(fractions * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1)


def call(loss_fn, batch, train=True, params=None, key=KEY):
    loss, (state, metrics) = loss_fn(params or {}, {}, batch, train=train, key=key)
    assert state == {}
    return float(loss), {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing):
    batch = {"image": LOGITS, "label": LABELS}
    loss_fn = cnn.cross_entropy(AS_IS, label_smoothing=smoothing)
    hot = np.eye(4)[LABELS]
    loss, metrics = call(loss_fn, batch)
    np.testing.assert_allclose(loss, reference(LOGITS, (1 - smoothing) * hot + smoothing / 4).mean(), 1e-5)
    np.testing.assert_allclose(metrics["accuracy"], (LOGITS.argmax(1) == LABELS).mean(), 1e-6)
    unsmoothed, _ = call(loss_fn, batch, train=False)
    np.testing.assert_allclose(unsmoothed, reference(LOGITS, hot).mean(), 1e-5)


def with_heads(*factors):
    """A model that gives its input as logits, and multiples of it as those of auxiliary heads in training."""

    def apply(params, state, x, *, train, key=None):
        return ((x, *(factor * x for factor in factors)) if train else x), state

    return cnn.Layer(lambda key, x: ({}, {}), apply)


@pytest.mark.parametrize(("options", "factor"), [({}, 0.3), ({"auxiliary": 0.4}, 0.4), ({"auxiliary": 0}, 0)])
def test_auxiliary_heads(options, factor):
    weight = np.array([1, 0, 2, 1, 0, 0.5], np.float32)
    batch = {"image": LOGITS, "label": LABELS, "weight": weight}
    loss_fn = cnn.cross_entropy(with_heads(-1, 2), label_smoothing=0.1, **options)
    smooth = 0.9 * np.eye(4)[LABELS] + 0.1 / 4
    own, one, two = ((reference(factor * LOGITS, smooth) * weight).sum() / weight.sum() for factor in (1, -1, 2))
    loss, metrics = call(loss_fn, batch)
    np.testing.assert_allclose(loss, own + factor * (one + two), 1e-5)
    right = LOGITS.argmax(1) == LABELS
    assert metrics == {"loss": loss, "accuracy": pytest.approx((right * weight).sum() / weight.sum())}
    assert call(loss_fn, batch, train=False) == call(cnn.cross_entropy(AS_IS), batch, train=False)


@pytest.mark.parametrize(
    ("model", "gives"),
    [
        (lambda x: x[:, 0], r"float32 of shape \(6,\)"),
        (lambda x: (x, x[:, :3]), r"shape \(6, 4\), float32 of shape \(6, 3\)"),
        (lambda x: (x, {"hidden": x}), r"shape \(6, 4\), \{'hidden'"),
        (lambda x: (), r"gives \(\);"),
    ],
)
def test_what_is_no_logits_is_refused(model, gives):
    loss_fn = cnn.cross_entropy(cnn.as_layer(model))
    with pytest.raises(ValueError, match=rf"needs logits \(N, \*spatial, classes\), or a tuple .*{gives}"):
        call(loss_fn, {"image": LOGITS, "label": LABELS})


def test_weight_of_auxiliary_heads_below_zero():
    with pytest.raises(ValueError, match="auxiliary, the weight of auxiliary heads, must be at least 0"):
        cnn.cross_entropy(AS_IS, auxiliary=-0.3)


def test_soft_labels_and_weights():
    fractions = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
    weight = np.array([1, 0, 2, 1, 0, 0.5], np.float32)
    loss, metrics = call(cnn.cross_entropy(AS_IS), {"image": LOGITS, "label": fractions, "weight": weight})
    np.testing.assert_allclose(loss, (reference(LOGITS, fractions) * weight).sum() / weight.sum(), 1e-5)
    right = LOGITS.argmax(1) == fractions.argmax(1)
    np.testing.assert_allclose(metrics["accuracy"], (right * weight).sum() / weight.sum(), 1e-6)


def test_large_and_bfloat16_logits():
    loss, _ = call(cnn.cross_entropy(AS_IS), {"image": 1e4 * np.eye(4, dtype=np.float32), "label": np.arange(4)})
    assert loss == 0
    low = jnp.asarray(LOGITS, jnp.bfloat16)
    loss, _ = cnn.cross_entropy(AS_IS)({}, {}, {"image": low, "label": LABELS}, train=True)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(np.asarray(low, np.float32), np.eye(4)[LABELS]).mean(), 1e-5)


COMPILED = jax.jit(lambda batch: cnn.cross_entropy(AS_IS)({}, {}, batch, train=True)[0])


@pytest.mark.parametrize("label", [4, -1, 255, 2**31 - 1, 2**32, -(2**32)])
def test_a_class_that_does_not_exist_is_no_zero_loss(label):
    batch = {"image": LOGITS[:2], "label": np.array([1, label])}
    with pytest.raises(ValueError, match=rf"cross_entropy: label\[1\] is {label}, but the model has 4 outputs"):
        call(cnn.cross_entropy(AS_IS), batch)
    if abs(label) < 2**31:  # jax has int32 only, and wraps what is larger before the loss sees it
        assert np.isnan(COMPILED(batch))


@pytest.mark.sample(3)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64])
def test_labels_of_all_integer_types(dtype):
    """More classes than a small dtype can count, whose number must not wrap."""
    for classes in (4, 128, 256, 257, 300, 65_537):
        batch = {"image": np.zeros((2, classes), np.float32), "label": np.array([1, 3], dtype)}
        assert call(cnn.cross_entropy(AS_IS), batch)[0] == pytest.approx(np.log(classes), rel=1e-5)
        assert float(COMPILED(batch)) == pytest.approx(np.log(classes), rel=1e-5)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([1, 1, 1, 0], r"\[1, 1, 1, 0\], with sum 3"),
        ([0, 0, 0, 0], r"\[0, 0, 0, 0\], with sum 0"),
        ([-0.5, 0.5, 0.5, 0.5], r"\[-0.5, 0.5, 0.5, 0.5\], with sum 1"),
        ([np.nan, 1, 0, 0], "with sum nan"),
        ([0.9, 0, 0, 0], "with sum 0.9"),
    ],
)
def test_class_fractions_are_non_negative_and_sum_to_one(row, shown):
    batch = {"image": LOGITS[:2], "label": np.array([[0.25] * 4, row], np.float32)}
    with pytest.raises(ValueError, match=rf"label\[1\] is .*{shown}.*; class probabilities must be non-negative"):
        call(cnn.cross_entropy(AS_IS), batch)
    assert np.isnan(COMPILED(batch))
    mixed = jax.jit(lambda batch: cnn.mixup(cnn.cross_entropy(AS_IS))({}, {}, batch, train=True, key=KEY)[0])
    assert np.isnan(mixed(batch))


def test_low_precision_class_fractions():
    fractions = jax.nn.softmax(3 * LOGITS).astype(jnp.bfloat16)
    expected = reference(LOGITS, np.asarray(fractions, np.float64)).mean()
    loss, _ = call(cnn.cross_entropy(AS_IS), {"image": LOGITS, "label": fractions})
    np.testing.assert_allclose(loss, expected, 1e-5)
    np.testing.assert_allclose(COMPILED({"image": LOGITS, "label": fractions}), expected, 1e-5)


def test_softmax_over_one_class_is_refused():
    """Its loss would be 0 and its accuracy 1, whatever the labels."""
    for label in (np.array([[0.3]] * 6, np.float32), np.ones((6, 1), np.float32), np.zeros(6, int)):
        with pytest.raises(ValueError, match=r"at least 2 classes, but the model gives \(6, 1\).*mean_squared_error"):
            call(cnn.cross_entropy(AS_IS), {"image": LOGITS[:, :1], "label": label})


SPOILT = {
    "label": np.array([0, 1, -1]),
    "label far out": np.array([0, 1, 2**31 - 1]),
    "fractions": np.array([[1, 0, 0, 0], [0, 1, 0, 0], [np.nan, 5, 0, 0]], np.float32),
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("bad_image", [False, True])
@pytest.mark.parametrize("name", SPOILT)
def test_an_example_of_weight_0_has_no_effect(name, bad_image, compiled):
    """Nor on the gradient, where 0 times NaN would be NaN."""
    model = cnn.serial(cnn.dense(5), jax.nn.gelu, cnn.dense(4))
    image = RNG.normal(size=(3, 6)).astype(np.float32)
    params, _ = model.init(KEY, image)
    batch = {"image": image, "label": SPOILT[name], "weight": np.array([1, 1, 0], np.float32)}
    two = {"image": image[:2], "label": SPOILT[name][:2]}
    if bad_image:
        batch["image"] = image.copy()
        batch["image"][2] = np.inf
    loss = lambda params, batch: cnn.cross_entropy(model, label_smoothing=0.1)(params, {}, batch, train=True)[0]
    run = jax.value_and_grad(loss)
    values, expected = (jax.jit(run) if compiled else run)(params, batch), run(params, two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), values, expected)


def test_weight_0_in_mixup_and_in_mean_squared_error():
    batch = {
        "image": LOGITS,
        "label": np.array([0, 3, 1, 1, 2, 99]),
        "weight": np.array([1, 1, 1, 1, 1, 0], np.float32),
    }
    for seed in range(5):
        loss, _ = cnn.mixup(cnn.cross_entropy(AS_IS), 1.0)({}, {}, batch, train=True, key=jax.random.key(seed))
        assert np.isfinite(loss)
    label = LOGITS + np.array([[1], [1], [1], [1], [1], [np.nan]], np.float32)
    loss, _ = call(cnn.mean_squared_error(AS_IS), batch | {"label": label})
    assert loss == pytest.approx(1, rel=1e-5)
    nothing = batch | {"label": LABELS, "weight": np.zeros(6, np.float32)}
    assert call(cnn.cross_entropy(AS_IS), nothing)[0] == 0


def test_mean_squared_error():
    label = RNG.normal(size=(6, 4)).astype(np.float32)
    weight = np.array([1, 2, 0, 0, 1, 1], np.float32)
    loss, metrics = call(cnn.mean_squared_error(AS_IS), {"image": LOGITS, "label": label, "weight": weight})
    np.testing.assert_allclose(loss, (((LOGITS - label) ** 2).mean(1) * weight).sum() / weight.sum(), 1e-5)
    assert metrics == {"loss": pytest.approx(loss)}


PARAMS = {
    "conv": {"kernel": RNG.normal(size=(3, 3, 2, 4)).astype(np.float32), "bias": np.ones(4, np.float32)},
    "norm": {"scale": np.full(4, 2, np.float32)},
    "head": {"kernel": RNG.normal(size=(5, 3)).astype(np.float32)},
}
KERNELS = [PARAMS["conv"]["kernel"], PARAMS["head"]["kernel"]]


def gram(w):
    w = w.reshape(-1, w.shape[-1])
    w = w if w.shape[0] >= w.shape[1] else w.T
    return ((w.T @ w - np.eye(w.shape[1])) ** 2).sum()


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (cnn.l1(0.3), 0.3 * sum(np.abs(w).sum() for w in KERNELS)),
        (cnn.l2(0.3), 0.3 * sum((w**2).sum() for w in KERNELS)),
        (cnn.elastic_net(0.3, 0.2), sum(0.3 * np.abs(w).sum() + 0.2 * (w**2).sum() for w in KERNELS)),
        (cnn.orthogonal(0.3), 0.3 * sum(gram(w) for w in KERNELS)),
        (cnn.l2(1.0, where=".*/bias"), 4.0),
        (cnn.l1(1.0, where="norm/scale|conv/bias"), 12.0),
        (cnn.l2(0.0), 0.0),
    ],
)
def test_penalties(penalty, expected):
    np.testing.assert_allclose(penalty(PARAMS), expected, 1e-5)


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numpy_strengths_do_not_change_the_dtype(number):
    half = number(0.5)
    with jax.enable_x64(True):
        for penalty in (cnn.l1(half), cnn.l2(half), cnn.orthogonal(half), cnn.elastic_net(half, half)):
            assert penalty(PARAMS).dtype == np.float32


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2, int), (0.5, float), (np.int64(2), int), (np.float64(0.5), float), (np.float32(0.5), float)],
)
def test_checked_numbers_are_python_numbers(value, kind):
    for check in (check_number, check_positive):
        assert type(check("f", "x", value)) is kind
        assert check("f", "x", value) == value
    doubled = jax.jit(lambda x: 2 * check_positive("f", "x", x))
    assert doubled(value) == 2 * value  # a traced number


@pytest.mark.parametrize("make", [cnn.l1, cnn.l2, cnn.orthogonal])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_penalties_of_half_precision_are_sums_in_float32(make, dtype):
    """The sum of 2000 magnitudes of 60 does not fit into float16, and in bfloat16 it stops to grow."""
    kernel = jnp.full((2000, 2), 60, dtype)
    found, expected = (make(1.0)({"kernel": w}) for w in (kernel, kernel.astype(jnp.float32)))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_l1_does_not_move_zeros():
    kernel = {"kernel": jnp.array([0.0, -2.0, 3.0])}
    for penalty in (cnn.l1(0.5), cnn.elastic_net(0.5, 0.0)):
        np.testing.assert_allclose(jax.grad(penalty)(kernel)["kernel"], [0, -0.5, 0.5])


def test_a_bare_layer_has_a_kernel_too():
    np.testing.assert_allclose(cnn.l2(1.0)({"kernel": np.array([3.0])}), 9.0)


def test_wide_orthogonal_kernels_cost_nothing():
    q, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    assert float(cnn.orthogonal(1.0)({"kernel": q[:, :3].astype(np.float32)})) < 1e-9
    assert float(cnn.orthogonal(1.0)({"kernel": q[:3].astype(np.float32)})) < 1e-9


@pytest.mark.slow
def test_law_of_regularized_gradients():
    model = cnn.serial(conv=cnn.conv(4), flat=cnn.flatten, head=cnn.dense(3))
    x = RNG.normal(size=(5, 4, 4, 2)).astype(np.float32)
    batch = {"image": x, "label": np.array([0, 1, 2, 0, 1])}
    params, state = jax.jit(model.init)(KEY, x)
    bare = cnn.cross_entropy(model)
    s, t = 0.1, 0.05
    both = cnn.regularized(bare, cnn.l2(s, where=".*/kernel"), cnn.l1(t, where="head/.*"))

    def gradient(f):
        return jax.grad(lambda params: f(params, state, batch, train=True)[0])(params)

    plain, penalized = gradient(bare), gradient(both)
    for path, a, b, w in zip(paths(params), *map(jax.tree.leaves, (plain, penalized, params)), strict=True):
        expected = a + 2 * s * w * path.endswith("kernel") + t * jnp.sign(w) * path.startswith("head")
        np.testing.assert_allclose(b, expected, 1e-4, 1e-6, err_msg=path)
    loss, (_, metrics) = both(params, state, batch, train=True)
    np.testing.assert_allclose(loss, metrics["loss"] + metrics["penalty"], 1e-6)


def recorded(seen):
    def loss_fn(params, state, batch, *, train, key=None):
        seen.append((batch, key))
        return 0.0, (state, {})

    return loss_fn


def test_mixup():
    seen = []
    x, label = np.arange(6.0, dtype=np.float32).reshape(6, 1), np.arange(6)
    cnn.mixup(recorded(seen), 1.0)({}, {}, {"image": x, "label": label}, train=True, key=KEY)
    (batch, key), mixed = seen[0], seen[0][0]["label"]
    lam = float(mixed.weight)
    assert 0 < lam < 1
    assert sorted(np.asarray(mixed.second)) == list(range(6))
    np.testing.assert_allclose(batch["image"], lam * x + (1 - lam) * x[mixed.second], 1e-5)
    assert (jax.random.key_data(key) != jax.random.key_data(KEY)).any()


def test_mixup_is_linear_in_the_labels():
    batch = {"image": LOGITS, "label": LABELS}
    hard, _ = call(cnn.mixup(cnn.cross_entropy(AS_IS), 1.0), batch)
    soft, _ = call(cnn.mixup(cnn.cross_entropy(AS_IS), 1.0), batch | {"label": np.eye(4, dtype=np.float32)[LABELS]})
    assert hard == pytest.approx(soft, rel=1e-5)
    twice, _ = call(
        cnn.cutmix(cnn.mixup(cnn.cross_entropy(cnn.as_layer(cnn.flatten)), 1.0)),
        {"image": LOGITS[:, :, None], "label": LABELS},
    )
    assert np.isfinite(twice)


def test_mixing_regression_targets():
    label = RNG.normal(size=(6, 4)).astype(np.float32)
    loss, _ = call(cnn.mixup(cnn.mean_squared_error(AS_IS), 1.0), {"image": label, "label": label})
    assert loss == pytest.approx(0, abs=1e-10)


# For every example, the logit of a label that counts is 3 and its label 1, and -2 and 0.
IGNORING = {
    "integers": np.array([[1, 0], [-1, 0], [1, -1], [-1, -1]]),
    "floats": np.array([[1, 0], [-1, 0], [1, -1], [-1, -1]], np.float32),
}


@pytest.mark.parametrize("label", IGNORING.values(), ids=IGNORING)
@pytest.mark.parametrize("loss", [cnn.binary_cross_entropy, cnn.dice])
def test_ignored_labels_do_not_count_in_mixtures(loss, label):
    image = np.broadcast_to(np.float32([3, -2]), (4, 2))
    loss_fn = cnn.mixup(loss(AS_IS, ignore_label=-1), 1.0)
    if loss is cnn.dice:  # each example is a region of two positions with one label
        image, label = 40 * image[..., None], label[..., None]
    values = {seed: call(loss_fn, {"image": image, "label": label}, key=jax.random.key(seed)) for seed in range(4)}
    for value, metrics in values.values():
        if loss is cnn.dice:
            assert value == pytest.approx(0, abs=1e-3)
        else:
            assert np.log1p(np.exp(-3)) <= value <= np.log1p(np.exp(-2))
            assert metrics["accuracy"] == pytest.approx(1)
    smooth = cnn.binary_cross_entropy(AS_IS, ignore_label=-1, label_smoothing=0.2)
    one = MixedLabel(jnp.array([[1.0]]), jnp.array([[-1.0]]), jnp.float32(0.3))
    alone, _ = call(smooth, {"image": np.float32([[3]]), "label": jnp.array([[1.0]])})
    assert call(smooth, {"image": np.float32([[3]]), "label": one})[0] == pytest.approx(alone, rel=1e-6)


def test_a_custom_loss_receives_mixed_floats():
    image = label = LOGITS

    def loss_fn(params, state, batch, *, train, key=None):
        return jnp.square(batch["image"] - batch["label"]).mean(), (state, {})

    assert call(cnn.mixup(loss_fn, 1.0), {"image": image, "label": label})[0] == 0


def test_cutmix_refuses_label_maps_of_another_size():
    loss_fn = cnn.cutmix(cnn.cross_entropy(cnn.avg_pool(2)))
    batch = {"image": jnp.ones((2, 8, 8, 3)), "label": jnp.zeros((2, 4, 4), int)}
    with pytest.raises(ValueError, match=r"label maps must have the size of the images, \(8, 8\), got .*\(2, 4, 4\)"):
        loss_fn({}, {}, batch, train=True, key=KEY)


def test_cutmix_shares_are_areas():
    x = np.broadcast_to(np.arange(8.0, dtype=np.float32)[:, None, None, None], (8, 12, 10, 1))
    fractions = []
    for seed in range(5):
        seen = []
        cnn.cutmix(recorded(seen))({}, {}, {"image": x, "label": np.arange(8)}, train=True, key=jax.random.key(seed))
        batch, _ = seen[0]
        image, mixed = np.asarray(batch["image"])[..., 0], batch["label"]
        for n, other in enumerate(np.asarray(mixed.second)):
            inside = image[n] != n
            assert set(np.unique(image[n])) <= {n, other}
            if other != n:
                np.testing.assert_allclose(1 - inside.mean(), mixed.weight, 1e-5)
                rows, columns = inside.any(1), inside.any(0)
                assert (inside == rows[:, None] & columns).all()
                assert np.count_nonzero(np.diff(rows)) <= 2
        fractions.append(float(mixed.weight))
    assert len(set(fractions)) == 5


@pytest.mark.parametrize("mix", [cnn.mixup, cnn.cutmix])
def test_mixing_is_for_training(mix):
    batch = {"image": LOGITS[:, :, None], "label": LABELS}
    model = cnn.as_layer(cnn.flatten)
    plain, mixed = (
        call(f, batch, train=False, key=None) for f in (cnn.cross_entropy(model), mix(cnn.cross_entropy(model)))
    )
    assert plain == mixed


def mixed_with(mix, alpha, seed=0):
    """The images and the weights of the labels that `mix` passes to its loss."""
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
        np.testing.assert_allclose(got, expected, 1e-6, 1e-6)  # near 0, rounding depends on the processor


def test_cutmix_without_spatial_dimensions():
    loss_fn = cnn.cutmix(cnn.cross_entropy(cnn.dense(2)))
    with pytest.raises(ValueError, match=r"cutmix needs \(N, \*spatial, C\) .*got shape \(4, 3\)"):
        loss_fn({}, {}, {"image": jnp.ones((4, 3)), "label": jnp.zeros(4, int)}, train=True, key=KEY)


WIDE = np.array([0, 2**32, 1, 1, 2, 0])


@pytest.mark.parametrize(
    ("transform", "loss", "image", "label"),
    [
        (cnn.mixup, cnn.mean_squared_error, LOGITS[:, 0], WIDE),
        (cnn.cutmix, cnn.cross_entropy, np.zeros((6, 2, 2, 4), np.float32), np.tile(WIDE[:, None, None], (1, 2, 2))),
        (lambda f: cnn.clip_per_example(f, 1.0), cnn.cross_entropy, LOGITS, WIDE),
    ],
)
def test_transforms_refuse_integers_that_would_wrap(transform, loss, image, label):
    """2**32 would become class 0."""
    with pytest.raises(ValueError, match=r"label\[1.*\] is 4294967296, which does not fit into int32"):
        call(transform(loss(AS_IS)), {"image": image, "label": label})


@pytest.mark.parametrize("transform", [lambda f: f, lambda f: cnn.clip_per_example(f, 1.0)])
def test_weights_above_32_bits(transform):
    weight = 2**32 * np.array([1, 0, 2, 1, 3, 1])
    loss, _ = call(transform(cnn.cross_entropy(AS_IS)), {"image": LOGITS, "label": LABELS, "weight": weight})
    np.testing.assert_allclose(loss, np.average(reference(LOGITS, np.eye(4)[LABELS]), weights=weight), 1e-5)


@pytest.mark.parametrize("transform", [cnn.mixup, lambda f: cnn.clip_per_example(f, 1.0)])
def test_transforms_check_labels_that_are_known(transform):
    batch = {"image": LOGITS, "label": np.array([0, 7, 1, 1, 2, 0])}
    loss_fn = transform(cnn.cross_entropy(AS_IS))
    for f in (
        lambda key: call(loss_fn, batch, key=key),
        jax.jit(lambda key: loss_fn({}, {}, batch, train=True, key=key)[0]),
    ):
        with pytest.raises(ValueError, match=r"label\[1\] is 7, but the model has 4 outputs"):
            f(KEY)
    call(cnn.clip_per_example(cnn.cross_entropy(AS_IS), 1.0), batch | {"weight": np.array([1, 0, 1, 1, 1, 1])})


@pytest.mark.parametrize("entry", ["image", "label", "weight"])
def test_masked_arrays_lose_their_mask(entry):
    batch = {"image": LOGITS, "label": LABELS, "weight": np.ones(6, np.float32)}
    batch[entry] = np.ma.masked_array(batch[entry], batch[entry] == 0)
    with pytest.raises(TypeError, match=rf"'{entry}' is a masked array, .* by \.filled\(\).*\"weight\".*ignore_label"):
        call(cnn.cross_entropy(AS_IS), batch)


def test_penalties_of_several_transforms_add_up():
    loss_fn = cnn.regularized(cnn.regularized(cnn.cross_entropy(AS_IS), lambda p: 2.0), lambda p: 3.0)
    loss, metrics = call(loss_fn, {"image": LOGITS, "label": LABELS})
    assert metrics["penalty"] == 5.0
    assert loss == pytest.approx(metrics["loss"] + 5.0)


def test_mixup_of_label_maps_that_cutmix_pastes():
    """The targets of integer maps are those of the same maps as fractions."""
    maps = RNG.integers(0, 4, (6, 5, 5))
    image, fractions = RNG.normal(size=(6, 5, 5, 4)).astype(np.float32), np.eye(4, dtype=np.float32)[maps]
    loss_fn = cnn.mixup(cnn.cutmix(cnn.cross_entropy(AS_IS)))
    losses = [call(loss_fn, {"image": image, "label": label})[0] for label in (maps, fractions)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_weighted_sum_refuses_what_would_train_nothing_or_the_wrong_thing():
    with pytest.raises(ValueError, match="weighted_sum needs at least one pair"):
        cnn.weighted_sum()
    part = cnn.distillation(cnn.cross_entropy, lambda x: x)
    with pytest.raises(ValueError, match=r"use distillation\(weighted_sum"):
        cnn.weighted_sum((1.0, part))(AS_IS)


@pytest.mark.parametrize("number", [jnp.float32(0.25), jnp.int32(1)])
def test_check_number_accepts_jax_scalars(number):
    assert check_number("f", "x", number) == number.item()
    with pytest.raises(TypeError, match=r"x must be a number, got float32 of shape \(2,\)"):
        check_number("f", "x", jnp.ones(2))
