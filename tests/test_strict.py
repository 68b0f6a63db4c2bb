"""Every layer, loss, step and augmentation under the strict modes of JAX."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import explain, metrics, uncertainty
from jaxcnn.data import augment
from jaxcnn.data.corruptions import CORRUPTIONS, corrupt
from tests.layers import CASES, RANDOM_LAYERS, Case, example

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)
MODES = {
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "dtype": lambda: jax.numpy_dtype_promotion("strict"),
    "x64": lambda: jax.enable_x64(True),
    "leaks": jax.checking_leaks,
}
every_mode = pytest.mark.parametrize("mode", MODES)


@contextlib.contextmanager
def strict(mode):
    with MODES[mode]():
        yield
    jax.clear_caches() if mode == "leaks" else None


def lowered(f, *args):
    """The result's shapes and dtypes, after all that happens before the compiler runs."""
    jax.jit(f).lower(*args)
    return jax.eval_shape(f, *args)


@pytest.mark.sample(5)
@every_mode
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layers(case: Case, mode: str):
    params, state, x = example(case)

    def loss(params, x):
        y, new = case.layer.apply(params, state, x, train=True, key=KEY)
        return jnp.sum(jnp.sin(y)), (y, new)

    with strict(mode):
        made = lowered(case.layer.init, KEY, x)
        gradient, (y, new) = lowered(jax.grad(loss, (0, 1), has_aux=True), params, x)
        evaluated, same = lowered(functools.partial(case.layer.apply, train=False), params, state, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((made, gradient, y, new, evaluated, same))} == {np.dtype("float32")}


LOGITS = cnn.serial(cnn.conv(3), cnn.global_avg_pool, cnn.dense(3))
HARD = {"image": np.ones((4, 6, 5, 2), np.float32), "label": np.arange(4, dtype=np.int32) % 3}
SOFT = HARD | {"label": np.full((4, 3), 1 / 3, np.float32)}
BATCHES = {
    "hard": HARD,
    "bytes": HARD | {"label": HARD["label"].astype(np.uint8)},
    "soft": SOFT,
    "weighted": HARD | {"weight": np.array([1, 0, 2, 0.5])},
    "counted": SOFT | {"weight": np.array([1, 0, 2, 1])},
}
LOSSES = {
    "cross_entropy": cnn.cross_entropy(LOGITS, label_smoothing=0.1),
    "regularized": cnn.regularized(
        cnn.cross_entropy(LOGITS), cnn.l1(0.1), cnn.l2(0.1), cnn.elastic_net(0.1, 0.1), cnn.orthogonal(0.1)
    ),
    "mixup": cnn.mixup(cnn.cross_entropy(LOGITS)),
    "cutmix": cnn.cutmix(cnn.cross_entropy(LOGITS)),
    "mixed_twice": cnn.mixup(cnn.cutmix(cnn.cross_entropy(LOGITS))),
    "adversarial": cnn.adversarial(cnn.cross_entropy(LOGITS), 0.1, 2),
    "adversarial_l2": cnn.adversarial(cnn.cross_entropy(LOGITS), 0.1, 2, norm=2),
    "sharpness_aware": cnn.sharpness_aware(cnn.cross_entropy(LOGITS)),
    "clip_per_example": cnn.clip_per_example(cnn.cross_entropy(LOGITS), 1.0),
}


TASK_LOSSES = {
    "cross_entropy": functools.partial(cnn.cross_entropy, class_weight=[1, 2, 3]),
    "focal": cnn.focal,
    "binary_cross_entropy": functools.partial(cnn.binary_cross_entropy, pos_weight=2.0),
    "dice": cnn.dice,
    "mean_squared_error": cnn.mean_squared_error,
    "mean_absolute_error": cnn.mean_absolute_error,
    "huber": cnn.huber,
}


@pytest.mark.parametrize("make", TASK_LOSSES.values(), ids=TASK_LOSSES)
def test_losses_without_jit_are_no_false_alarms_of_debug_nans(make):
    model = cnn.as_layer(cnn.identity)
    one_hot = {"image": np.ones((4, 3), np.float32), "label": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]}
    batch = one_hot | {"weight": np.array([1, 0, 2, 0.5])}
    with jax.debug_nans(True):
        loss, _ = make(model)({}, {}, batch, train=True)
    assert np.isfinite(loss)


@pytest.mark.sample(5)
@every_mode
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, batch, mode):
    loss_fn, batch = LOSSES[name], BATCHES[batch]
    params, state = jax.eval_shape(LOGITS.init, KEY, HARD["image"])
    with strict(mode):
        value = lowered(
            jax.value_and_grad(functools.partial(loss_fn, train=True, key=KEY), has_aux=True), params, state, batch
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(value)} == {np.dtype("float32")}


@every_mode
@pytest.mark.parametrize("name", ["mse", "mixup", "cutmix"])
def test_regression(name, mode):
    loss_fn = cnn.mean_squared_error(LOGITS)
    loss_fn = {"mse": lambda f: f, "mixup": cnn.mixup, "cutmix": cnn.cutmix}[name](loss_fn)
    params, state = jax.eval_shape(LOGITS.init, KEY, HARD["image"])
    with strict(mode):
        value = lowered(functools.partial(loss_fn, train=True, key=KEY), params, state, SOFT)
    assert {leaf.dtype for leaf in jax.tree.leaves(value)} == {np.dtype("float32")}


@pytest.mark.parametrize("name", ["regularized", "clip_per_example"])
def test_float64_images_and_float32_parameters(name):
    loss_fn = LOSSES[name]
    params, state = jax.eval_shape(LOGITS.init, KEY, HARD["image"])
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        batch = HARD | {"image": HARD["image"].astype(np.float64)}
        (loss, _), gradient = lowered(
            jax.value_and_grad(functools.partial(loss_fn, train=True, key=KEY), has_aux=True), params, state, batch
        )
    assert loss.dtype == np.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype("float32")}


@pytest.mark.parametrize("make", [*RANDOM_LAYERS, functools.partial(cnn.with_dropout, cnn.identity)])
def test_traced_rates_of_bfloat16(make):
    """A rate that is traced in float32, as in a sweep, gives what the same number in Python gives."""
    x = jnp.ones((2, 8, 8, 3), jnp.bfloat16)
    run = lambda rate: make(rate).apply({}, {}, x, train=True, key=KEY)[0]
    with jax.numpy_dtype_promotion("strict"):
        y = jax.jit(run)(jnp.float32(0.3))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(*(np.asarray(v, np.float32) for v in (y, jax.jit(lambda: run(0.3))())))


@every_mode
def test_make_step(mode):
    optimizer = optax.sgd(0.1, momentum=0.9)  # optax.adam itself promotes int32 to float
    with strict(mode):
        state = cnn.train.TrainState.create(LOGITS, optimizer, KEY, HARD["image"])
        types = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
        after, _ = jax.eval_shape(cnn.train.make_step(LOSSES["mixup"], optimizer), state, HARD)
    assert types(after) == types(state)


AUGMENTS = {
    "random_crop": augment.random_crop(1),
    "translate": augment.translate(1),
    "flip": augment.flip(),
    "alternating_flip": augment.alternating_flip(),
    "rotate": augment.rotate(30),
    "affine": augment.affine(30, 3, 0.3, 0.2),
    "cutout": augment.cutout(2),
    "random_erasing": augment.random_erasing(1.0),
    "brightness": augment.brightness(0.5),
    "contrast": augment.contrast(0.5),
    "saturation": augment.saturation(0.5),
    "rand_augment": augment.rand_augment(2, 15),
}


EXPLAIN = {
    "feature_visualization": lambda *args: explain.feature_visualization(*args, "0", 0, key=KEY, steps=2),
    "saliency": functools.partial(explain.saliency, label=0),
    "smooth_grad": functools.partial(explain.smooth_grad, label=0, key=KEY),
    "integrated_gradients": functools.partial(explain.integrated_gradients, label=0),
    "grad_cam": lambda *args: explain.grad_cam(*args, "0", label=0),
}


def test_the_table_of_augmentations_is_complete():
    functions = inspect.getmembers(augment, inspect.isfunction)
    public = {name for name, f in functions if f.__annotations__.get("return") == augment.Augment and name[0] != "_"}
    assert public - {"in_float32"} == {*AUGMENTS}


@pytest.mark.sample(5)
@every_mode
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.uint8])
@pytest.mark.parametrize("name", AUGMENTS)
def test_augmentations(name, dtype, mode):
    images = np.ones((2, 6, 5, 3), dtype)
    with strict(mode):
        y = lowered(augment.compose(AUGMENTS[name]), KEY, images)
    assert y == jax.ShapeDtypeStruct(images.shape, dtype)


@pytest.mark.sample(5)
@every_mode
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions(name, mode):
    images = np.random.default_rng(0).random((1, 20, 20, 3), np.float32)
    with strict(mode):
        y = jax.eval_shape(functools.partial(corrupt, name=name, severity=3), images, key=KEY)
    assert y == jax.ShapeDtypeStruct(images.shape, np.float32)


@every_mode
@pytest.mark.parametrize("name", EXPLAIN)
def test_explanations(name, mode):
    params, state = jax.eval_shape(LOGITS.init, KEY, HARD["image"])
    with strict(mode):
        made = lowered(functools.partial(EXPLAIN[name], LOGITS), params, state, HARD["image"])
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {np.dtype("float32")}


PREDICTED, PROBABILITIES = np.zeros((4, 3), np.float32), np.full((4, 3), 1 / 3, np.float32)
METRICS = {
    "accuracy": metrics.accuracy(),
    "top_k": metrics.top_k(2),
    "f1": metrics.f1(),
    "mean_iou": metrics.mean_iou(),
    "confusion_matrix": metrics.confusion_matrix(),
    "expected_calibration_error": metrics.expected_calibration_error(),
    "auroc": metrics.auroc(),
    "average_precision": metrics.average_precision(),
}


@every_mode
@pytest.mark.parametrize("name", METRICS)
def test_metrics(name, mode):
    with jax.numpy_dtype_promotion("strict"), strict(mode):
        value = METRICS[name].compute(METRICS[name].update(jnp.asarray(PREDICTED), {"label": HARD["label"]}))
    assert value.dtype == np.float32


@every_mode
def test_calibration_and_mistakes(mode):
    with jax.numpy_dtype_promotion("strict"), strict(mode):
        diagram = uncertainty.reliability_diagram(PROBABILITIES, HARD["label"])
        mistakes = explain.worst_mistakes(PREDICTED, HARD["label"], 2)
    assert {leaf.dtype for leaf in (*diagram, mistakes.label_probability)} == {np.dtype("float32")}


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_normalize_without_rank_promotion(rank):
    layer = cnn.data.normalize([0.5, 0.25], [0.25, 0.5])
    with strict("rank"), jax.numpy_dtype_promotion("strict"):
        y, _ = layer.apply({}, {}, jnp.ones((1,) * (rank - 1) + (2,)), train=False)
    np.testing.assert_allclose(y.ravel(), [2, 1.5])


@pytest.mark.sample(3)
@pytest.mark.parametrize("case", [case for case in CASES if case.random], ids=lambda case: case.name)
def test_random_draws_are_the_same_under_x64(case: Case):
    params, state, x = example(case)
    plain, _ = case.layer.apply(params, state, x, train=True, key=KEY)
    with jax.enable_x64(True):
        wide, _ = case.layer.apply(params, state, x, train=True, key=KEY)
    np.testing.assert_allclose(plain, wide, 1e-4, 1e-4)


@pytest.mark.sample(6)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_zeros_give_no_nan(case: Case):
    """Values and gradients of input and parameters that are all zero, which roots and quotients may not survive."""
    params, state, x = jax.tree.map(jnp.zeros_like, example(case))

    def loss(params, x):
        return jnp.sum(jnp.sin(case.layer.apply(params, state, x, train=True, key=KEY)[0]))

    with jax.debug_nans(True):
        jax.jit(jax.grad(loss, (0, 1)))(params, x)


SETTINGS = {
    "accumulate": {"accumulate": 2, "ema": 0.9},
    "augment": {
        "augment_labels": True,
        "label_fill": [],
        "augment": [["affine", 5, 1], "flip", ["rand_augment", 1, 5], ["random_erasing", 0.5]],
    },
    "clip": {"clip_norm": 1.0, "weight_decay": {"rate": 0.1, "where": ".*/kernel"}},
    "cutmix": {"cutmix": 1.0},
    "bfloat16": {"dtype": "bfloat16"},
    "evaluate": {"evaluate": {"batch_size": 7, "tta": "flip_and_shift"}, "patience": 2},
    "mixup": {"mixup": 0.3, "label_smoothing": 0.1},
    "optimizer": {
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "linear", "warmup": 0.3, "end": 1e-4},
    },
    "regularize": {"regularize": {"l1": 0.01, "l2": 0.01}},
    "restore_best": {"restore_best": True, "watch": "-loss"},
    "rollback": {"on_nonfinite": "rollback"},
    "skip": {"on_nonfinite": "skip", "checkpoint": {"every": 1, "keep": 1}},
    "rest": {"seed": 3, "epochs": 2, "batch_size": 5, "tensorboard": False, "report": False},
}


def test_the_settings_are_complete():
    assert {key for config in SETTINGS.values() for key in config} == {*cnn.train.FIT}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", SETTINGS)
def test_fit_under_x64(tmp_path, name: str):
    """optax itself promotes dtypes and ranks, so only this mode."""
    image = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3)).astype(np.uint8)
    train_data = {"image": image, "label": np.arange(12) % 3}
    model = cnn.serial(cnn.avg_pool(2), cnn.flatten, cnn.dense(3), cnn.batch_norm())
    config = {"epochs": 1, "batch_size": 4, "checkpoint": {"keep": 1}} | SETTINGS[name]
    config["optimizer"] = {"learning_rate": 1e-3} | config.get("optimizer", {})
    with jax.enable_x64(True):
        run = cnn.train.Run("strict", {}, folder=tmp_path)
        fitted = cnn.train.fit(model, train_data, eval_data=train_data, config=config, run=run)
    assert {leaf.dtype for leaf in jax.tree.leaves((fitted.params, fitted.state))} == {np.dtype("float32")}
    assert np.isfinite(fitted.history[-1]["train"]["loss"])


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_of_float64(train):
    """Parameters and statistics stay float32."""
    layer = cnn.batch_norm()
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        x = np.random.default_rng(0).normal(size=(4, 3, 3, 2))
        params, state = layer.init(jax.random.key(0), x)
        y, state = layer.apply(params, state, jnp.asarray(x), train=train)
        assert (y.dtype, state["mean"].dtype) == (np.float64, np.float32)
    expected = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2)) if train else x
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
