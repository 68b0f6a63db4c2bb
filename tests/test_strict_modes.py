"""Everything works under jax's strict modes: no rank or dtype is promoted silently, under x64 float32 stays float32,
and no NaN or tracer is made on the way."""

import contextlib
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn.data import augment
from tests.layers import CASES, Case, example

KEY = np.array([0, 7], np.uint32)  # jax.random.PRNGKey(7), the same in all modes
MODES = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "x64": lambda: jax.enable_x64(True),
    "leaks": jax.checking_leaks,
}
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
mode = pytest.mark.parametrize("mode", MODES)


def uses(case: Case, params, state, x, key):
    """Initial values, outputs in both modes, and the gradients of the one in training."""
    drawn = case.layer.init(key, x)

    def loss(params, x):
        y, new = case.layer.apply(params, state, x, train=True, key=key)
        return jnp.sum(jnp.square(y)), (y, new)

    gradients, (y, new) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return drawn, y, new, gradients, case.layer.apply(params, state, x, train=False)


@every
@mode
def test_layers(case: Case, mode: str):
    with MODES[mode]():
        shapes = jax.eval_shape(functools.partial(uses, case), *example(case), KEY)
        low = jax.eval_shape(
            functools.partial(uses, case), *example(case)[:2], example(case)[2].astype(jnp.bfloat16), KEY
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(low[1])} == {jnp.dtype("bfloat16")}


@every
@pytest.mark.usefixtures("quick_compilation")
def test_layers_make_no_nan(case: Case):
    with jax.debug_nans(True):
        jax.block_until_ready(jax.jit(functools.partial(uses, case))(*example(case), KEY))


IMAGE = np.random.default_rng(0).uniform(size=(4, 6, 6, 3)).astype(np.float32)
LABEL = np.array([0, 2, 1, 1])
MODEL = cnn.serial(cnn.conv(4), cnn.batch_norm(), cnn.flatten, cnn.dense(3))
LOSSES = {
    "cross_entropy": cnn.cross_entropy(MODEL, label_smoothing=0.1),
    "mean_squared_error": cnn.mean_squared_error(MODEL),
    "mixup": cnn.mixup(cnn.cross_entropy(MODEL)),
    "cutmix": cnn.cutmix(cnn.cross_entropy(MODEL)),
    "mixup of squares": cnn.mixup(cnn.mean_squared_error(MODEL)),
    "cutmix of squares": cnn.cutmix(cnn.mean_squared_error(MODEL)),
    "regularized": cnn.regularized(
        cnn.cross_entropy(MODEL), cnn.l1(0.1), cnn.l2(0.1), cnn.elastic_net(0.1, 0.2), cnn.orthogonal(0.1)
    ),
}
BATCHES = {
    "classes": {"image": IMAGE, "label": LABEL},
    "small classes": {"image": IMAGE, "label": LABEL.astype(np.uint8)},
    "weights": {"image": IMAGE, "label": LABEL, "weight": np.array([1, 0, 2, 0.5])},
    "integer weights": {"image": IMAGE, "label": LABEL, "weight": np.array([1, 0, 2, 1])},
    "fractions": {"image": IMAGE, "label": np.eye(3, dtype=np.float32)[LABEL]},
    "weighted fractions": {"image": IMAGE, "label": np.eye(3)[LABEL], "weight": np.ones(4, np.float32)},
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("loss", LOSSES)
@mode
def test_losses_and_steps(loss: str, batch: str, mode: str):
    chosen = BATCHES[batch]
    if "squares" in loss.replace("mean_squared_error", "squares"):
        chosen = chosen | {"label": np.eye(3, dtype=np.float32)[LABEL]}
    with MODES[mode]():
        optimizer = optax.sgd(0.1)
        state = jax.eval_shape(lambda: train.TrainState.create(MODEL, optimizer, jax.random.key(0), IMAGE))
        after, metrics = jax.eval_shape(train.make_step(LOSSES[loss], optimizer), state, chosen)
        value, _ = jax.eval_shape(functools.partial(LOSSES[loss], train=False), state.params, state.state, chosen)
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]
    assert {leaf.dtype for leaf in jax.tree.leaves((metrics, value))} == {np.dtype("float32")}


AUGMENTS = {
    "random_crop": augment.random_crop(2),
    "random_crop_edge": augment.random_crop(2, mode="edge"),
    "translate": augment.translate(2),
    "flip": augment.flip(),
    "alternating_flip": augment.alternating_flip(),
    "rotate": augment.rotate(10),
    "affine": augment.affine(10, 2, 0.1, 0.1),
    "cutout": augment.cutout(3),
    "random_erasing": augment.random_erasing(),
    "brightness": augment.brightness(0.3),
    "contrast": augment.contrast(0.3),
    "saturation": augment.saturation(0.3),
    "rand_augment": augment.rand_augment(),
}


def test_the_table_of_augmentations_is_complete():
    public = {name for name, f in inspect.getmembers(augment, inspect.isfunction) if f.__module__ == augment.__name__}
    helpers = {"compose", "stretched", "equalized", "smoothed"}
    assert {name for name in public if not name.startswith("_")} - helpers == {*AUGMENTS} - {"random_crop_edge"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("name", AUGMENTS)
@mode
def test_augmentations(name: str, dtype: str, mode: str):
    images = (255 * IMAGE if dtype == "uint8" else IMAGE).astype(jnp.dtype(dtype))
    with MODES[mode]():
        batch = augment.compose(AUGMENTS[name])
        when = augment.When(np.arange(4, dtype=np.int32), np.int32(1))
        shapes = jax.eval_shape(batch, jax.eval_shape(lambda: jax.random.key(0)), images, when)
        normalized = jax.eval_shape(
            lambda x: data.normalize([0.5] * 3, [0.2] * 3).apply({}, {}, x, train=False)[0], images
        )
    assert shapes.dtype == images.dtype
    assert normalized.dtype == (jnp.float32 if dtype == "uint8" else images.dtype)


SETTINGS = {
    "accumulate": {"accumulate": 2, "average": 0.9},
    "augment": {"augment": [["affine", 5, 1], "flip", ["rand_augment", 1, 5], ["random_erasing", 0.5]]},
    "clip": {"clip_norm": 1.0, "weight_decay": {"rate": 0.1, "where": ".*/kernel"}},
    "cutmix": {"cutmix": 1.0},
    "bfloat16": {"dtype": "bfloat16"},
    "evaluate": {"evaluate": {"batch_size": 7, "views": "mirror_and_shift"}, "patience": 2},
    "mixup": {"mixup": 0.3, "label_smoothing": 0.1},
    "optimizer": {
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "schedule": {"name": "linear", "warmup": 0.3, "end": 1e-4},
    },
    "regularize": {"regularize": {"l1": 0.01, "l2": 0.01}},
    "rollback": {"on_nonfinite": "rollback"},
    "skip": {"on_nonfinite": "skip", "checkpoint": {"every": 1, "keep": 1}},
    "rest": {"seed": 3, "epochs": 2, "batch_size": 5, "tensorboard": False, "report": False},
}


def test_the_settings_are_complete():
    assert {key for config in SETTINGS.values() for key in config} == {*train.FIT}


@pytest.mark.parametrize("name", SETTINGS)
def test_fit_under_x64(tmp_path, name: str):
    """optax itself promotes dtypes and ranks, so only this mode."""
    seen = {"image": (255 * IMAGE[[0, 1, 2, 3] * 3]).astype(np.uint8), "label": np.tile(LABEL, 3)}
    model = cnn.serial(cnn.avg_pool(2), cnn.flatten, cnn.dense(3), cnn.batch_norm())
    config = {"epochs": 1, "batch_size": 4, "checkpoint": {"keep": 1}} | SETTINGS[name]
    config["optimizer"] = {"learning_rate": 1e-3} | config.get("optimizer", {})
    with jax.enable_x64(True):
        run = train.Run("strict", {}, folder=tmp_path)
        fitted = train.fit(model, seen, eval_data=seen, config=config, run=run)
    assert {leaf.dtype for leaf in jax.tree.leaves((fitted.params, fitted.state))} == {np.dtype("float32")}
    assert np.isfinite(fitted.history[-1]["train"]["loss"])


def test_a_context_is_what_it_says():
    """The modes raise where something is promoted."""
    with MODES["rank promotion"](), pytest.raises(ValueError, match="rank"):
        jnp.ones(3) + jnp.ones((2, 3))
    with MODES["dtype promotion"](), pytest.raises(jax.dtypes.TypePromotionError):
        jnp.ones(3) + jnp.ones(3, jnp.bfloat16)
    with contextlib.ExitStack() as stack:
        stack.enter_context(MODES["x64"]())
        assert jnp.ones(3).dtype == jnp.float64
