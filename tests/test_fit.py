"""`fit`: the effect of each setting, and the printed output."""

import csv
import functools
import gc
import json
import logging
import math
import os
import pathlib
import re
import resource
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn._key import child_key
from jaxcnn.data import augment
from jaxcnn.train import _checkpoint_folder, checkpoint
from tests import train_small

DIGITS = data.load("mnist_small", "test")
FEW = data.Dataset(DIGITS.images[:200], DIGITS.labels[:200], DIGITS.classes)
TEST_DATA = data.Dataset(DIGITS.images[-70:], DIGITS.labels[-70:], DIGITS.classes)
LINEAR = cnn.serial(cnn.max_pool(4), cnn.flatten, cnn.dense(10))
QUICK = {"epochs": 2, "batch_size": 32, "checkpoint": {"keep": 0}}


def fit(tmp_path, model=LINEAR, train_data=FEW, eval_data=None, name="run", start=None, **config):
    run = train.Run("test", {}, folder=tmp_path / name)
    return train.fit(model, train_data, eval_data=eval_data, config=QUICK | config, run=run, start=start)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_learns_and_prints_progress(tmp_path, capsys):
    fitted = fit(tmp_path, train_data=DIGITS, eval_data=TEST_DATA, epochs=4, optimizer={"learning_rate": 0.02})
    assert fitted.history[-1]["test"]["accuracy"] > 0.8
    records = [json.loads(line) for line in (fitted.folder / "metrics.jsonl").read_text().splitlines()]
    assert records == fitted.history
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    assert [record["step"] for record in records] == [62, 124, 186, 248]
    assert {*records[0]} == {"epoch", "step", "train", "test", "seconds", "images_per_second"}
    rows = list(csv.DictReader((fitted.folder / "metrics.csv").read_text().splitlines()))
    assert float(rows[3]["test.accuracy"]) == records[3]["test"]["accuracy"]
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "compiling ..."
    assert out[-1].startswith("epoch 4: loss ")
    result = train.evaluate(
        cnn.cross_entropy(LINEAR),
        fitted.params,
        fitted.state,
        {"image": TEST_DATA.images / np.float32(255), "label": TEST_DATA.labels},
    )
    assert result["accuracy"] == pytest.approx(records[-1]["test"]["accuracy"])


def test_equals_a_hand_written_loop(tmp_path):
    """A loop over the same batches with the public functions gives the same result."""
    config = {
        "augment": [["translate", 2], "flip"],
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
    }
    fitted = fit(tmp_path, **config)
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, 12), momentum=0.9)
    key = jax.random.key(0)
    image = jax.ShapeDtypeStruct((32, 28, 28, 1), jnp.float32)
    state = train.TrainState.create(LINEAR, optimizer, key, image)
    step = train.make_step(cnn.cross_entropy(LINEAR), optimizer)
    change = augment.compose(augment.translate(2), augment.flip())
    for epoch in range(2):
        order = jax.random.permutation(jax.random.fold_in(child_key(state.key, "order"), epoch), 200)
        for i in range(6):
            rows = order[32 * i : 32 * (i + 1)]
            ours = jax.random.fold_in(child_key(state.key, "augment"), state.step)
            images = change(ours, FEW.images[rows] / np.float32(255), augment.When(rows, epoch))
            state, _ = step(state, {"image": images, "label": FEW.labels[rows]})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), fitted.params, state.params)
    assert int(fitted.train_state.step) == 12


@pytest.mark.parametrize(
    ("setting", "make"),
    [
        ({"mixup": 0.4}, lambda: cnn.mixup(cnn.cross_entropy(LINEAR), 0.4)),
        ({"cutmix": 2.0}, lambda: cnn.cutmix(cnn.cross_entropy(LINEAR), 2.0)),
        ({"label_smoothing": 0.3}, lambda: cnn.cross_entropy(LINEAR, label_smoothing=0.3)),
    ],
    ids=["mixup", "cutmix", "label smoothing"],
)
def test_settings_of_the_loss_equal_the_public_transforms(setting, make, tmp_path):
    few = data.Dataset(FEW.images[:32], FEW.labels[:32], FEW.classes)
    fitted = fit(tmp_path, train_data=few, epochs=1, optimizer={"learning_rate": 0.0}, **setting)
    image = jax.ShapeDtypeStruct((32, 28, 28, 1), jnp.float32)
    state = train.TrainState.create(LINEAR, optax.sgd(0.0), jax.random.key(0), image)
    rows = jax.random.permutation(jax.random.fold_in(child_key(state.key, "order"), 0), 32)
    batch = {"image": few.images[rows] / np.float32(255), "label": few.labels[rows]}
    key = jax.random.fold_in(state.key, 0)
    loss, _ = make()(state.params, state.state, batch, train=True, key=key)
    assert fitted.history[0]["train"]["loss"] == pytest.approx(float(loss), rel=1e-5)
    plain, _ = cnn.cross_entropy(LINEAR)(state.params, state.state, batch, train=True, key=key)
    assert float(plain) != pytest.approx(float(loss), rel=1e-5)


@pytest.mark.slow
def test_results_are_reproducible_and_depend_on_the_seed(tmp_path):
    model = train_small.model()
    config = {"augment": ["flip"], "ema": 0.9}
    first = fit(tmp_path, model, eval_data=TEST_DATA, name="1", **config)
    second = fit(tmp_path, model, eval_data=TEST_DATA, name="2", **config)
    assert train_small.digest(first) == train_small.digest(second)
    assert train_small.digest(first) != train_small.digest(
        fit(tmp_path, model, eval_data=TEST_DATA, name="3", seed=1, **config)
    )


def test_length_of_a_call_changes_nothing(tmp_path, monkeypatch):
    from jaxcnn.train import _loop

    first = fit(tmp_path, train_small.model(), name="1")
    monkeypatch.setattr(_loop, "_SECONDS_PER_CALL", 0.0)  # one step a call
    assert train_small.digest(first) == train_small.digest(fit(tmp_path, train_small.model(), name="2"))


def test_compiles_once_for_training_and_once_for_evaluation(tmp_path, caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        fit(tmp_path, train_small.model(), eval_data=TEST_DATA, epochs=3, evaluate={"batch_size": 32, "tta": "none"})
    messages = [record.getMessage() for record in caplog.records]
    compiled = lambda name: sum(m.startswith(f"Compiling {name}") or f"Compiling jit({name})" in m for m in messages)
    assert compiled("advance") == 1
    assert compiled("loss_fn") == 1  # evaluation


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "rmsprop", "muon"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "step"])
def test_optimizers_by_name(name, schedule):
    params = {"a": {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}}
    config = train.FIT | {
        "optimizer": {"name": name, "learning_rate": 0.1},
        "schedule": {"name": schedule, "warmup": 0.2, "end": 0.0},
        "weight_decay": {"rate": 0.5, "where": ".*/kernel"},
    }
    optimizer = train.make_optimizer(config, 10, params)
    opt_state = optimizer.init(params)
    zero = jax.tree.map(jnp.zeros_like, params)
    kernels = []
    for _ in range(10):
        updates, opt_state = optimizer.update(zero, opt_state, params)
        assert not updates["a"]["bias"].any()  # only kernels decay
        params = optax.apply_updates(params, updates)
        kernels.append(float(params["a"]["kernel"][0, 0]))
    assert kernels[0] == 1  # the first step of the warm-up is of length 0
    assert kernels[-1] < 1


def test_weight_decay_of_sgd_equals_pytorch():
    """w <- w - rate * (g + decay * w)"""
    params = {"kernel": jnp.array([2.0])}
    config = train.FIT | {
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "schedule": {"name": "constant", "warmup": 0.0, "end": 0.0},
        "weight_decay": {"rate": 0.5, "where": ".*"},
    }
    optimizer = train.make_optimizer(config, 10, params)
    updates, _ = optimizer.update({"kernel": jnp.array([3.0])}, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], [-0.1 * (3 + 0.5 * 2)])


def test_schedules():
    rates = lambda **config: [
        round(float(train.make_schedule({"warmup": 0.0, "end": 0.0} | config, 1.0, 100)(step)), 4)
        for step in (0, 10, 49, 50, 75, 100)
    ]
    assert rates(name="constant") == [1] * 6
    assert rates(name="step") == [1, 1, 1, 0.1, 0.01, 0.01]
    assert rates(name="linear", warmup=0.5) == [0, 0.2, 0.98, 1, 0.5, 0]
    few = lambda steps: [train.make_schedule({"name": "step"}, 1.0, steps)(step) for step in range(steps)]
    np.testing.assert_allclose(few(1), [1])
    np.testing.assert_allclose(few(2), [1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(few(4), [1, 1, 0.1, 0.01], rtol=1e-6)


def test_invalid_schedules():
    for config, peak, steps, message in (
        ({"name": "cosine", "start": 1}, 1.0, 10, "schedule: unknown 'start'"),
        ({"name": "cosine", "warmup": 1.5}, 1.0, 10, "warmup must be at least 0 and below 1, got 1.5"),
        ({"name": "cosine", "end": -1.0}, 1.0, 10, "end must be at least 0 and finite, got -1.0"),
        ({}, 1.0, 10, "schedule.name: unknown ''"),
        ({"name": "cosine"}, -1.0, 10, "make_schedule: peak must be at least 0"),
        ({"name": "cosine"}, 1.0, 0, "make_schedule: steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train.make_schedule(config, peak, steps)


def test_rates_of_cosine():
    rates = lambda **config: [
        round(float(train.make_schedule({"warmup": 0.0, "end": 0.0} | config, 1.0, 100)(step)), 4)
        for step in (0, 10, 49, 50, 75, 100)
    ]
    assert rates(name="cosine", end=0.2) == [1, 0.9804, 0.6126, 0.6, 0.3172, 0.2]
    assert rates(name="exponential", end=0.01)[3:] == [0.1, 0.0316, 0.01]


def test_accumulation_is_a_larger_batch(tmp_path):
    """Each epoch is one accumulated batch, so the order does not matter."""
    train_data = {"image": FEW.images[:64], "label": FEW.labels[:64]}
    plain = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "schedule": {"name": "constant"}, "epochs": 3}
    whole = fit(tmp_path, train_data=train_data, name="1", batch_size=64, **plain)
    parts = fit(tmp_path, train_data=train_data, name="2", batch_size=16, accumulate=4, **plain)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), whole.params, parts.params)


SGD = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "schedule": {"name": "constant"}}


@pytest.mark.sample(3)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_accumulation_loses_no_step(tmp_path, steps):
    """The last update of an epoch uses fewer steps. The EMA changes once per update, not once per step."""
    train_data = {"image": FEW.images[: 8 * steps], "label": FEW.labels[: 8 * steps]}
    fitted = fit(tmp_path, train_data=train_data, batch_size=8, accumulate=2, ema=0.9, epochs=2, **SGD)
    key = jax.random.key(0)
    state = train.TrainState.create(LINEAR, optax.sgd(0.1), key, jax.ShapeDtypeStruct((8, 28, 28, 1), jnp.float32))
    params = ema = state.params
    gradient = jax.jit(jax.grad(lambda params, batch: cnn.cross_entropy(LINEAR)(params, {}, batch, train=True)[0]))
    updates = 0
    for epoch in range(2):
        order = jax.random.permutation(jax.random.fold_in(child_key(state.key, "order"), epoch), 8 * steps)
        for first in range(0, steps, 2):
            rows = order[8 * first : 8 * min(first + 2, steps)]
            batch = {"image": train_data["image"][rows] / np.float32(255), "label": train_data["label"][rows]}
            params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient(params, batch))
            decay = min(0.9, (1 + updates) / (10 + updates))
            ema = jax.tree.map(lambda a, w, decay=decay: decay * a + (1 - decay) * w, ema, params)
            updates += 1
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, fitted.train_state.params, params)
    jax.tree.map(close, fitted.params, ema)


@pytest.mark.slow
def test_accumulation_resumes(tmp_path):
    config = {"epochs": 3, "accumulate": 4, "ema": 0.9, "checkpoint": {"every": 2, "keep": 9}}
    whole = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="whole", **config)
    folder = tmp_path / "part" / "checkpoints"
    fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config)
    for step in checkpoint.steps(folder):
        if step > 8:
            shutil.rmtree(folder / str(step))
    resumed = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config)
    assert train_small.digest(whole) == train_small.digest(resumed)


def test_clipping(tmp_path):
    config = {"optimizer": {"name": "sgd", "learning_rate": 1.0}, "schedule": {"name": "constant"}, "epochs": 1}
    fitted = fit(tmp_path, batch_size=200, clip_norm=0.01, **config)
    start = train.TrainState.create(
        LINEAR, optax.sgd(1.0), jax.random.key(0), jax.ShapeDtypeStruct((200, 28, 28, 1), jnp.float32)
    )
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, fitted.params, start.params))
    np.testing.assert_allclose(moved, 0.01, rtol=1e-3)


def test_ema():
    params = {"w": jnp.array(1.0)}
    optimizer = train.with_ema(optax.sgd(1.0), 0.5)
    state = optimizer.init(params)
    expected = 1.0
    for step in range(20):
        updates, state = optimizer.update({"w": jnp.array(-1.0)}, state, params)
        params = optax.apply_updates(params, updates)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(params["w"])
    np.testing.assert_allclose(train.ema_params(state)["w"], expected, rtol=1e-6)
    assert train.ema_params(optax.sgd(1.0).init(params)) is None


def test_the_ema_is_evaluated_and_returned(tmp_path):
    fitted = fit(tmp_path, eval_data=TEST_DATA, ema=0.9)
    assert not np.array_equal(fitted.params["2"]["kernel"], fitted.train_state.params["2"]["kernel"])
    same(fitted.params, train.ema_params(fitted.train_state.opt_state))


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "config",
    [
        {"label_smoothing": 0.2},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"regularize": {"l1": 1e-3, "l2": 1e-3}},
        {"dtype": "bfloat16"},
        {"augment": [["rand_augment", 1, 5]]},
        {"evaluate": {"tta": "flip_and_shift"}},
    ],
)
def test_settings_change_what_is_trained_and_it_still_trains(tmp_path, config):
    plain = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="1")
    other = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="2", **config)
    assert math.isfinite(other.history[-1]["train"]["loss"])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(other.params))
    if "evaluate" in config:
        same(plain.params, other.params)
        assert plain.history[-1]["test"] != other.history[-1]["test"]
    else:
        assert plain.history[-1]["train"]["loss"] != other.history[-1]["train"]["loss"]


def test_regularization_equals_that_of_the_loss(tmp_path):
    fitted = fit(tmp_path, regularize={"l1": 0.25, "l2": 0.5}, optimizer={"learning_rate": 0.0}, epochs=1)
    kernel = fitted.params["2"]["kernel"]
    penalty = float(0.25 * jnp.abs(kernel).sum() + 0.5 * (kernel**2).sum())
    assert fitted.history[0]["train"]["penalty"] == pytest.approx(penalty, rel=1e-4)


def test_patience(tmp_path):
    fitted = fit(tmp_path, eval_data=TEST_DATA, epochs=20, patience=3, optimizer={"learning_rate": 0.0})
    assert len(fitted.history) == 4  # the first was the best
    assert fitted.epoch == 1


@pytest.mark.parametrize("keep", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_patience_returns_the_best_epoch(tmp_path, keep):
    """The learning rate is far too large, so accuracy rises and falls at random."""
    config = {"epochs": 12, "patience": 3, "optimizer": {"name": "sgd", "learning_rate": 30.0}, "ema": 0.5}
    config |= {"schedule": {"name": "constant"}, "checkpoint": {"keep": keep}}
    fitted = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, **config)
    accuracies = [record["test"]["accuracy"] for record in fitted.history]
    assert fitted.epoch == 1 + int(np.argmax(accuracies)) < len(accuracies)
    eval_data = {"image": TEST_DATA.images / np.float32(255), "label": TEST_DATA.labels}
    result = train.evaluate(cnn.cross_entropy(train_small.model()), fitted.params, fitted.state, eval_data)
    assert result["accuracy"] == pytest.approx(max(accuracies))
    assert f"test accuracy {max(accuracies):.2%} after" in fitted.outcome
    if keep:  # resumed after the end: nothing to do, and the same result
        again = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, **config)
        same((fitted.params, fitted.state, fitted.epoch), (again.params, again.state, again.epoch))


def test_outcome_without_evaluation(tmp_path):
    fitted = fit(tmp_path)
    accuracy = fitted.history[-1]["train"]["accuracy"]
    assert fitted.outcome.startswith(f"training accuracy {accuracy:.2%} after ")
    assert repr(fitted).startswith("FitResult(500 parameters, epoch 2: training accuracy ")
    assert len(repr(fitted)) < 300


def test_start(tmp_path):
    kernel = np.full((49, 10), 0.25, np.float32)
    still = {"optimizer": {"learning_rate": 0.0}}
    fitted = fit(tmp_path, start=({"2": {"kernel": kernel}}, {}), **still)
    np.testing.assert_array_equal(fitted.params["2"]["kernel"], kernel)
    for part, message in (
        ({"2": {"kernle": kernel}}, "the model has no 2/kernle; expected one of: .*kernel.*; did you mean 'kernel'"),
        ({"2": {"kernel": kernel[:9]}}, r"2/kernel has shape \(9, 10\), the model needs \(49, 10\)"),
        ({"2": kernel}, "2 must be a dict; expected one of: .*kernel"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            fit(tmp_path, start=(part, {}), name="other", **still)
        assert caught.value.__notes__ == ["in the params of start=(params, state)"]


def test_own_optimizer_equals_that_of_the_config(tmp_path):
    config = QUICK | {"ema": 0.9, "accumulate": 2}
    given = {"optimizer": {"name": "adamw", "learning_rate": 0.1}, "weight_decay": {"rate": 0.1}, "clip_norm": 1.0}
    by_name = train.fit(LINEAR, FEW, config=config | given, run=train.Run("a", {}, folder=tmp_path / "a"))
    decay = functools.partial(optax.adamw, weight_decay=0.1, mask={"2": {"kernel": True, "bias": False}})
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), decay(optax.cosine_decay_schedule(0.1, 6)))
    own = train.fit(LINEAR, FEW, config=config, optimizer=optimizer, run=train.Run("b", {}, folder=tmp_path / "b"))
    same(by_name.params, own.params)


def test_learning_rates_by_path_and_resume(tmp_path):
    net = cnn.serial(cnn.flatten, frozen=cnn.freeze(cnn.dense(8)), body=cnn.dense(8), head=cnn.dense(10))
    labels = {"frozen": "fast", "body": "slow", "head": "fast"}
    fit = lambda rate, epochs, name, **options: train.fit(
        net,
        FEW,
        config={"epochs": epochs, "batch_size": 32} | options,
        # its updates are not 0 without a gradient: only the mask keeps frozen parameters
        optimizer=optax.partition({"fast": optax.yogi(rate), "slow": optax.sgd(0.0)}, labels),
        run=train.Run("fit", {}, folder=tmp_path / name),
    )
    fitted = fit(1e-2, 2, "a")
    initial = train.TrainState.create(net, optax.sgd(0.1), jax.random.key(0), jnp.zeros((1, 28, 28, 1))).params
    same({name: fitted.params[name] for name in ("frozen", "body")}, {k: initial[k] for k in ("frozen", "body")})
    assert not np.array_equal(fitted.params["head"]["kernel"], initial["head"]["kernel"])
    assert (tmp_path / "a" / "checkpoints" / "12").exists()
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "12")
    same(fit(1e-2, 2, "a").params, fitted.params)
    with pytest.raises(train.ConfigError, match=r"different model, optimizer or .*\n  optimizer: same operations"):
        fit(1e-3, 2, "a")
    with pytest.raises(train.ConfigError, match=r"different model, optimizer or .*\n  optimizer: .* -> 0"):
        train.fit(net, FEW, config={"epochs": 2, "batch_size": 32}, run=train.Run("fit", {}, folder=tmp_path / "a"))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_reduce_on_plateau_gets_the_loss(ema, tmp_path):
    plateau = optax.contrib.reduce_on_plateau(0.5, patience=1, cooldown=0, rtol=0.0, atol=100.0)
    run = train.Run("fit", {}, folder=tmp_path)
    optimizer = optax.chain(optax.sgd(0.1), plateau)
    fitted = train.fit(LINEAR, FEW, config=QUICK | {"ema": ema}, optimizer=optimizer, run=run)
    states = jax.tree.leaves(fitted.train_state.opt_state, is_leaf=lambda leaf: hasattr(leaf, "best_value"))
    (state,) = (leaf for leaf in states if hasattr(leaf, "best_value"))
    assert float(state.scale) == 0.5**11  # of 12 steps, no loss but the first is an improvement of 100


def test_optimizers_that_need_the_loss_cannot_accumulate(tmp_path):
    run = train.Run("fit", {}, folder=tmp_path)
    with pytest.raises(train.ConfigError, match=r"accumulate must be 1: the optimizer needs the loss .*'value'"):
        train.fit(LINEAR, FEW, config=QUICK | {"accumulate": 2}, optimizer=optax.lbfgs(), run=run)


def test_lbfgs_searches_along_lines(tmp_path):
    few = data.Dataset(FEW.images[:32], FEW.labels[:32], FEW.classes)

    def final_loss(optimizer, name):
        run = train.Run("fit", {}, folder=tmp_path / name)
        fitted = train.fit(LINEAR, few, config=QUICK | {"epochs": 8}, optimizer=optimizer, run=run)
        return fitted.history[-1]["train"]["loss"]

    assert final_loss(optax.lbfgs(), "lbfgs") < 0.5 * final_loss(optax.sgd(0.1), "sgd")


NORMALIZED_SGD = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
RECOMPUTING = {  # optimizers that compute the loss or its gradient again, and one that accepts no other keywords
    "sophia": optax.contrib.sophia(1e-2),
    "sam": optax.contrib.sam(optax.sgd(0.1), NORMALIZED_SGD),
    "opaque sam": optax.contrib.sam(optax.sgd(0.1), NORMALIZED_SGD, opaque_mode=True),
    "line search": optax.chain(optax.sgd(0.5), optax.scale_by_backtracking_linesearch(10)),
}


@pytest.mark.parametrize("name", RECOMPUTING)
def test_optimizers_that_compute_the_loss_again(name, tmp_path):
    run = train.Run("fit", {}, folder=tmp_path)
    fitted = train.fit(LINEAR, FEW, config=QUICK, optimizer=RECOMPUTING[name], run=run)
    first, last = (record["train"]["loss"] for record in (fitted.history[0], fitted.history[-1]))
    assert last < first


def test_opaque_sam_equals_sharpness_aware():
    """optax computes the second gradient of the same batch, at the same distance."""
    batch = {"image": FEW.images[:8].astype(np.float32) / 255, "label": FEW.labels[:8]}
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    sam = optax.contrib.sam(optax.sgd(0.1), ascent, opaque_mode=True)
    loss_fn = cnn.cross_entropy(LINEAR)

    def updated(loss_fn, optimizer):
        train_state = train.TrainState.create(LINEAR, optimizer, jax.random.key(0), batch["image"])
        return train.make_step(loss_fn, optimizer)(train_state, batch)[0].params

    expected = updated(cnn.sharpness_aware(loss_fn, 0.05), optax.sgd(0.1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), updated(loss_fn, sam), expected)


def test_schedule_free_optimizers_are_evaluated_at_their_average(tmp_path):
    optimizer = optax.contrib.schedule_free_sgd(0.5, b1=0.8)
    run = train.Run("fit", {}, folder=tmp_path)
    net = cnn.serial(cnn.flatten, cnn.freeze(cnn.dense(8)), cnn.dense(10))
    fitted = train.fit(net, FEW, eval_data=TEST_DATA, config=QUICK, optimizer=optimizer, run=run)
    last = fitted.train_state.params
    expected = optax.contrib.schedule_free_eval_params(_schedule_free_state(fitted), last)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), fitted.params, expected)
    assert (fitted.params["2"]["kernel"] != last["2"]["kernel"]).any()
    same(fitted.params["1"], last["1"])  # the frozen layer
    loss = train.evaluate(cnn.cross_entropy(net), fitted.params, fitted.state, TEST_DATA)["loss"]
    assert fitted.history[-1]["test"]["loss"] == pytest.approx(loss)


def test_schedule_free_optimizer_of_a_part(tmp_path):
    parts = {"a": optax.contrib.schedule_free_sgd(0.5, b1=0.8), "b": optax.sgd(0.1)}
    optimizer = optax.partition(parts, {"2": {"kernel": "a", "bias": "b"}})
    run = train.Run("fit", {}, folder=tmp_path)
    fitted = train.fit(LINEAR, FEW, config=QUICK, optimizer=optimizer, run=run)
    averaged, last = fitted.params["2"], fitted.train_state.params["2"]
    z = _schedule_free_state(fitted).z["2"]
    np.testing.assert_allclose(averaged["kernel"], (last["kernel"] - 0.2 * z["kernel"]) / 0.8, atol=1e-6)
    same(averaged["bias"], last["bias"])


def test_an_optimizer_for_parameters_of_another_type():
    with pytest.raises(AttributeError) as error:
        train.fit(LINEAR, FEW, config=QUICK, optimizer=optax.lookahead(optax.sgd(0.1), 5, 0.5))
    assert error.value.__notes__[0].startswith("in the argument optimizer of fit")


def _schedule_free_state(fitted):
    is_state = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)
    (state,) = filter(is_state, jax.tree.leaves(fitted.train_state.opt_state, is_leaf=is_state))
    return state


@pytest.mark.parametrize("own", [False, True])
def test_more_epochs_of_a_finished_run(own, tmp_path):
    def fit(epochs, name, schedule=None):
        schedule = schedule or {} if own else {"schedule": schedule or {"name": "constant"}}
        config = {"epochs": epochs, "batch_size": 32, "patience": 5} | schedule
        options = {"optimizer": optax.sgd(optax.cosine_decay_schedule(0.1, 18), momentum=0.9)} if own else {}
        run = train.Run("fit", config, folder=tmp_path / name)
        return train.fit(LINEAR, FEW, eval_data=TEST_DATA, config=config, run=run, **options)

    fit(1, "longer")
    longer, whole = fit(3, "longer"), fit(3, "whole")
    same(longer.train_state.params, whole.train_state.params)
    same(longer.best.params, whole.best.params)
    assert [record["test"] for record in longer.history] == [record["test"] for record in whole.history]
    with pytest.raises(train.ConfigError, match=r"epochs: was 3, now 2$"):
        fit(2, "longer")
    if not own:
        fit(1, "cosine", {"name": "cosine"})
        with pytest.raises(train.ConfigError, match=r"epochs: was 1, now 2\n.*a learning rate that does not depend on"):
            fit(2, "cosine", {"name": "cosine"})
        fit(1, "warmup", {"name": "constant", "warmup": 0.5})
        with pytest.raises(train.ConfigError, match="epochs: was 1, now 2"):
            fit(2, "warmup", {"name": "constant", "warmup": 0.5})


@pytest.mark.parametrize(
    "setting",
    [{"optimizer": {"name": "sgd"}}, {"schedule": {"end": 1e-4}}, {"weight_decay": {"rate": 0.1}}, {"clip_norm": 1.0}],
)
def test_settings_that_an_own_optimizer_replaces(setting):
    with pytest.raises(
        train.ConfigError, match=f"^{next(iter(setting))} has no effect together with the argument optimizer"
    ):
        train.fit(LINEAR, FEW, config=setting, optimizer=optax.sgd(0.1))


@pytest.mark.parametrize("rank_promotion", ["allow", "raise"])
def test_adafactor_whose_state_has_fewer_dimensions_than_a_kernel(rank_promotion, tmp_path):
    net = cnn.serial(cnn.flatten, cnn.dense(130), jax.nn.relu, cnn.dense(10))
    config = QUICK | {"epochs": 1}
    with jax.numpy_rank_promotion(rank_promotion):
        fitted = train.fit(
            net, FEW, config=config, optimizer=optax.adafactor(1e-2), run=train.Run("fit", {}, folder=tmp_path)
        )
    assert np.isfinite(fitted.history[0]["train"]["loss"])


def test_a_callback_may_log_lines_with_an_epoch(tmp_path):
    def extra(event):
        if event.kind in ("epoch", "end"):
            event.run.log("more", epoch=event.epoch, confusion=[[1, 0], [0, 1]])

    run = train.Run("fit", {}, folder=tmp_path)
    fitted = train.fit(LINEAR, FEW, eval_data=TEST_DATA, callbacks=[extra], config=QUICK, run=run)
    assert [record["step"] for record in fitted.history] == [fitted.history[0]["step"], 2 * fitted.history[0]["step"]]
    assert fitted.best.metrics == fitted.history[fitted.best.epoch - 1]["test"]
    assert "accuracy" in fitted.outcome


def test_own_augmentation_equals_that_of_the_config(tmp_path):
    by_name = train.fit(
        LINEAR,
        FEW,
        config=QUICK | {"augment": [["translate", 2], "flip"]},
        run=train.Run("a", {}, folder=tmp_path / "a"),
    )
    augmentation = data.augment.compose(data.augment.translate(2), data.augment.flip())
    own = train.fit(LINEAR, FEW, config=QUICK, augmentation=augmentation, run=train.Run("b", {}, folder=tmp_path / "b"))
    same(by_name.params, own.params)


def test_own_augmentation_gets_rows_and_epochs_and_resumes_only_with_itself(tmp_path):
    def fit(factor, name, **options):
        def augmentation(key, batch, when):
            known = (when.index[:, None, None, None] < len(FEW.images)) & (batch["image"] <= 1)
            label = jnp.where(when.epoch == 0, 0, batch["label"])
            return batch | {"image": jnp.where(known, factor * batch["image"], jnp.nan), "label": label}

        run = train.Run("fit", {}, folder=tmp_path / name)
        config = {"epochs": 2, "batch_size": 32} | options
        return train.fit(LINEAR, FEW, config=config, augmentation=augmentation, run=run)

    zeros = {"image": FEW.images, "label": np.zeros_like(FEW.labels)}
    run = train.Run("fit", {}, folder=tmp_path / "zeros")
    of_zeros = train.fit(LINEAR, zeros, config={"epochs": 1, "batch_size": 32}, run=run)
    same(fit(1.0, "one", epochs=1).params, of_zeros.params)
    whole = fit(0.5, "a")
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "12")
    same(fit(0.5, "a").params, whole.params)
    with pytest.raises(train.ConfigError, match=r"different model, optimizer or .*\n  augmentation: same operations"):
        fit(0.25, "a")
    run = train.Run("fit", {}, folder=tmp_path / "a")
    with pytest.raises(train.ConfigError, match=r"different model, optimizer or .*\n  augmentation: .* -> 0"):
        train.fit(LINEAR, FEW, config={"epochs": 2, "batch_size": 32}, run=run)


@pytest.mark.parametrize(
    ("augmentation", "setting", "error", "message"),
    [
        ("flip", {}, TypeError, "augmentation must be callable, such as augment.compose.*got 'flip'"),
        (
            data.augment.compose(),
            {"augment": ["flip"]},
            train.ConfigError,
            "augment has no effect .* augmentation of fit",
        ),
        (data.augment.compose(), {"augment_labels": False}, train.ConfigError, "augment_labels has no effect"),
        (data.augment.compose(), {"label_fill": [255]}, train.ConfigError, "label_fill has no effect"),
        (lambda key, batch, when: batch["image"], {}, ValueError, r"must return a batch .* 'label': \(32,\)}, got "),
        (
            lambda key, batch, when: batch | {"image": batch["image"][:, 2:]},
            {},
            ValueError,
            r"'image': \(32, 28, 28, 1\).* got \{'image': \(32, 26, 28, 1\)",
        ),
        (
            data.augment.brightness(0.5),
            {},
            Exception,
            r"augmentation of fit, \(key, batch, when\) -> batch; data.augment",
        ),
        (lambda key, batch: batch, {}, TypeError, r"augmentation of fit, \(key, batch, when\) -> batch; data.augment"),
    ],
)
def test_errors_of_an_own_augmentation(augmentation, setting, error, message, tmp_path):
    run = train.Run("fit", {}, folder=tmp_path)
    with pytest.raises(error) as caught:
        train.fit(LINEAR, FEW, config=QUICK | setting, augmentation=augmentation, run=run)
    assert re.search(message, "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])]))


def poisoned(where=5):
    images = FEW.images / np.float32(255)
    images[where] = np.nan
    return {"image": images, "label": FEW.labels}


def test_a_nonfinite_value_is_an_error_with_step_and_path(tmp_path):
    spoilt = cnn.serial(lambda x: jnp.where(x.sum() > 500, jnp.nan, x), train_small.model())  # a batch with much ink
    with pytest.raises(train.NonFiniteError, match=r"step \d: loss is not finite; try a smaller learning rate"):
        fit(tmp_path, spoilt, batch_size=20)
    # A loss that is finite while its gradient is not.
    square_root = cnn.serial(cnn.flatten, cnn.dense(10), lambda x: jnp.sqrt(jnp.abs(0 * x)))
    with pytest.raises(train.NonFiniteError, match=r"step 0: params/1/bias is not finite"):
        fit(tmp_path, square_root, name="gradient")


def test_nonfinite_steps_are_skipped(tmp_path):
    fitted = fit(tmp_path, train_small.model(), train_data=poisoned(), batch_size=20, on_nonfinite="skip", epochs=2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fitted.params, fitted.state)))
    assert [record["skipped"] for record in fitted.history] == [1, 2]
    assert int(fitted.train_state.step) == 20
    everywhere = {"image": np.full((200, 28, 28, 1), np.nan, np.float32), "label": FEW.labels}
    with pytest.raises(train.NonFiniteError, match="the 9 steps before were also non-finite and skipped"):
        fit(tmp_path, train_small.model(), train_data=everywhere, batch_size=10, on_nonfinite="skip", name="all")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2])
def test_an_epoch_without_a_finite_step_is_an_error(tmp_path, epochs):
    """The epoch has fewer steps than the limit of consecutive non-finite steps."""
    train_data = {"image": np.full((160, 28, 28, 1), np.nan, np.float32), "label": FEW.labels[:160]}
    with pytest.raises(train.NonFiniteError, match="epoch 1: all 8 steps were non-finite"):
        fit(tmp_path, train_small.model(), train_data=train_data, batch_size=20, on_nonfinite="skip", epochs=epochs)


@pytest.mark.slow
def test_nonfinite_steps_are_rolled_back(tmp_path, capsys):
    """Some epochs omit the NaN image. Training continues with an order that omits it."""
    config = {"epochs": 1, "batch_size": 20, "on_nonfinite": "rollback", "checkpoint": {"every": 2, "keep": 2}}
    train_data = {name: value[:39] for name, value in poisoned().items()}  # one batch of 20; half of the images
    fitted = fit(tmp_path, train_small.model(), train_data=train_data, **config)
    assert int(fitted.train_state.step) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fitted.params, fitted.state)))
    everywhere = {"image": np.full((200, 28, 28, 1), np.nan, np.float32), "label": FEW.labels}
    with pytest.raises(train.NonFiniteError, match="after 10 rollbacks"):
        fit(tmp_path, train_small.model(), train_data=everywhere, name="all", **config)
    assert "rolled back to step 0, continuing with a new random order" in capsys.readouterr().out


@pytest.mark.slow
def test_a_rollback_into_an_epoch_changes_the_order(tmp_path):
    """The NaN image is in the fourth of five steps. With the same order, every retry would reach it again."""
    key = child_key(child_key(jax.random.key(0), "steps"), "order")
    where = int(jax.random.permutation(jax.random.fold_in(key, 0), 100)[65])
    train_data = {name: value[:100] for name, value in poisoned(where).items()}
    config = {"epochs": 1, "batch_size": 20, "on_nonfinite": "rollback", "checkpoint": {"every": 2, "keep": 2}}
    fitted = fit(tmp_path, train_small.model(), train_data=train_data, **config)
    assert int(fitted.train_state.step) == 5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fitted.params, fitted.state)))


def stream(seed=0, images=FEW.images):
    def batches(step):
        while True:
            at = np.random.default_rng((seed, step)).integers(0, 200, 20)
            yield {"image": images[at], "label": FEW.labels[at]}
            step += 1

    return data.Stream(batches, 5, jax.ShapeDtypeStruct((20, 28, 28, 1), images.dtype), FEW.classes)


@pytest.mark.slow
def test_streams(tmp_path):
    fitted = fit(tmp_path, train_small.model(), train_data=stream(), eval_data=stream(1), epochs=3, augment=["flip"])
    assert int(fitted.train_state.step) == 15
    assert fitted.history[-1]["train"]["loss"] < fitted.history[0]["train"]["loss"]
    again = fit(
        tmp_path, train_small.model(), train_data=stream(), eval_data=stream(1), epochs=3, augment=["flip"], name="2"
    )
    assert train_small.digest(fitted) == train_small.digest(again)
    everywhere = stream(images=np.full((200, 28, 28, 1), np.nan, np.float32))
    with pytest.raises(train.NonFiniteError, match="step 0: loss is not finite"):
        fit(tmp_path, train_small.model(), train_data=everywhere, name="3")


def test_resumes(tmp_path):
    """From a checkpoint in the middle of an epoch, after the later ones were deleted."""
    config = {"epochs": 4, "checkpoint": {"every": 2, "keep": 3}, "augment": ["flip"]}
    whole = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="whole", **config)
    fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config)
    folder = tmp_path / "part" / "checkpoints"
    assert checkpoint.steps(folder)[-1] == 24
    for step in checkpoint.steps(folder):
        if step > 20:
            _checkpoint_folder.remove(folder / str(step))
    resumed = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config)
    assert train_small.digest(whole) == train_small.digest(resumed)
    done = fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config)  # nothing is left to do
    assert train_small.digest(whole) == train_small.digest(done)
    with pytest.raises(train.ConfigError, match=r"  epochs: was 4, now 5"):
        fit(tmp_path, train_small.model(), eval_data=TEST_DATA, name="part", **config | {"epochs": 5})
    other = data.Dataset(FEW.images[::-1].copy(), FEW.labels, FEW.classes)
    with pytest.raises(train.ConfigError, match="data: was"):
        fit(tmp_path, train_small.model(), train_data=other, eval_data=TEST_DATA, name="part", **config)
    with pytest.raises(train.ConfigError, match=r"different model, optimizer or .*.*\n.*model in training: .* -> "):
        fit(tmp_path, LINEAR, eval_data=TEST_DATA, name="part", **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; .*did you mean 'epochs'"),
        ({"early_stopping": 3}, "unknown key 'early_stopping'; .*did you mean 'patience'"),
        ({"max_grad_norm": 1.0}, "unknown key 'max_grad_norm'; .*did you mean 'clip_norm'"),
        ({"optimizer": {"name": "SGD"}}, "optimizer.name: unknown 'SGD'; .*did you mean 'sgd'"),
        ({"optimizer": {"name": "AdamW"}}, "optimizer.name: unknown 'AdamW'; .*did you mean 'adamw'"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.lr: adam has no such argument; .*did you mean 'learning_rate'"),
        (
            {"optimizer": {"name": "adamw", "weight_decay": 0.1}},
            r'optimizer.weight_decay: adamw has no such argument; set it by \{"weight_decay": \{"rate": \.\.',
        ),
        ({"dtype": jnp.bfloat16}, "dtype must be of type str, such as 'float32', got <class 'jax.numpy.bfloat16'>$"),
        ({"optimizer": {"name": "adm"}}, "optimizer.name: unknown 'adm'; .*did you mean 'adam'"),
        ({"optimizer": {"momentun": 0.9, "name": "sgd"}}, "sgd has no such argument; .*did you mean 'momentum'"),
        ({"schedule": {"name": "cosinus"}}, "schedule.name: unknown 'cosinus'; .*did you mean 'cosine'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 201}, "batch_size must be at most 200, the number of examples in train_data, got 201"),
        ({"epochs": 999_999_999}, r"epochs: 999,999,999 epochs of 6 steps exceed the limit of 2\*\*31 - 1 steps"),
        ({"epochs": 999_999_999, "schedule": {"name": "step"}}, "exceed the limit of 2"),
        ({"augment": [[]]}, r"augment\[0\] must be a name or a list \[name, argument, \.\.\.\], got \[\]"),
        ({"augment": ["flip", {}]}, r"augment\[1\] must be a name or a list .*got \{\}"),
        ({"augment": [[["flip"]]]}, r"augment\[0\] must be a name or a list .*got \[\['flip'\]\]"),
        ({"augment": [3]}, r"augment\[0\] must be a name or a list .*got 3"),
        ({"epochs": 1.5}, "epochs must be of type int, such as 10, got 1.5"),
        ({"augment": ["flop"]}, r"augment\[0\]: unknown 'flop'; .*did you mean 'flip'"),
        ({"augment": [["translate", -1]]}, r"augment\[0\]: translate: pixels must be at least 0"),
        ({"augment": [["translate"]]}, r"augment\[0\]: .*missing"),
        ({"on_nonfinite": "ignore"}, "on_nonfinite: unknown 'ignore'"),
        ({"on_nonfinite": "rollback"}, "checkpoint.keep must be at least 1, got 0"),
        ({"optimizer": {"lr": 0.1}}, "optimizer.lr: adam has no such argument; expected one of: learning_rate, b1"),
        ({"optimizer": {"b1": float("nan")}}, "optimizer.b1 must be a finite number, got nan"),
        ({"optimizer": {"momentum": "x", "name": "sgd"}}, "optimizer.momentum must be a finite number, got 'x'"),
        ({"weight_decay": {"where": "("}}, r"weight_decay.where: '\(' is not a regular expression"),
        ({"label_fill": [True]}, "label_fill must be a number"),
        ({"schedule": {"name": "constant", "end": 1e-5}}, "schedule.end has no effect on the schedule 'constant'"),
        ({"schedule": {"name": "step", "end": 1e-5}}, "schedule.end has no effect on the schedule 'step'"),
        ({"checkpoint": {"every": 3, "keep": 0}}, "checkpoint.every has no effect if checkpoint.keep is 0"),
        ({"evaluate": {"tta": "flip"}}, "evaluate.tta has no effect without eval_data"),
        ({"optimizer": {"name": "sgd", "nesterov": True}}, "optimizer.nesterov has no effect on sgd without"),
        ({"optimizer": {"name": "adam", "b1": 1.0}}, "optimizer.b1 must be at least 0 and below 1, got 1.0"),
        ({"optimizer": {"name": "adam", "eps": -1.0}}, "optimizer.eps must be at least 0 and finite, got -1.0"),
        ({"optimizer": {"name": "sgd", "momentum": -3.0}}, "optimizer.momentum must be at least 0 and below 1"),
        ({"optimizer": {"name": "adam", "mu_dtype": "int8"}}, "optimizer.mu_dtype: unknown 'int8'"),
        ({"augment": [["random_crop", 1.5]]}, "random_crop: padding must be an int"),
        ({"watch": "-"}, 'watch: "-" needs the name of a metric'),
        ({"evaluate": {"tta": "all"}}, "evaluate.tta: unknown 'all'"),
        ({"mixup": 0.2, "cutmix": 1.0}, "mixup or cutmix must be 0, got 0.2 and 1.0"),
        ({"patience": 2}, "patience needs evaluation metrics: pass eval_data"),
        (
            {"weight_decay": {"rate": 0.1, "where": "kernl"}},
            "weight_decay.where: 'kernl' does not match the whole path",
        ),
        ({"optimizer.learning_rate": 0.1}, r"settings are nested: write \{\"optimizer\": \{\"learning_rate\": ..\}\}$"),
        (
            {"augment": [lambda key, image: image]},
            r"augment\[0\] must be a name .*pass your own functions as fit\(",
        ),
        ({"augment": [["translate", 1]], "label_fill": [10**400]}, "label_fill must be a number"),
        (
            {"schedule": optax.constant_schedule(1.0)},
            r"schedule must be of type dict.*with their schedules, as fit\(optimizer=..\)",
        ),
        ({"optimizer": optax.sgd(0.1)}, r"optimizer must be of type dict.*pass optimizers of optax"),
    ],
)
def test_refuses(tmp_path, config, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, **config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": print}, r"callbacks must be a list of functions, got .*; pass \[\.\.\]"),
        ({"run": "runs/a"}, "run must be a train.Run, .*got 'runs/a'"),
        ({"start": ({},)}, r"start must be a pair \(params, state\)"),
        ({"optimizer": optax.sgd}, "fit: optimizer must be an optax optimizer"),
        ({"metrics": {"f1": cnn.metrics.f1}, "eval_data": FEW}, r"call it: metrics\.f1\(\)"),
        ({"eval_data": data.source(FEW, 8)}, "eval_data: pass the arrays or the stream itself, not a Source"),
    ],
)
def test_refuses_arguments_of_other_types(options, message):
    with pytest.raises(TypeError, match=message):
        train.fit(LINEAR, FEW, **options)


@pytest.mark.parametrize("config", [["epochs", 2], "epochs"])
def test_refuses_a_config_that_is_not_a_dict(config):
    with pytest.raises(train.ConfigError, match=r"config must be a dict, such as \{\"epochs\": 20\}, got"):
        train.resolve(config)


@pytest.mark.parametrize("value", [jnp.ones(3), 1, 1j])
def test_refuses_losses_that_are_not_floating_point_scalars(tmp_path, value):
    loss = lambda model: lambda params, state, batch, *, train, key=None: (value, (state, {}))
    with pytest.raises(TypeError, match="the loss of a LossFn must be a floating-point scalar, got"):
        train.fit(LINEAR, FEW, loss=loss, run=train.Run("a", {}, folder=tmp_path))


def test_refuses_a_layer_whose_state_changes_its_shape(tmp_path):
    def init(key, x):
        return {}, {"mean": jnp.zeros(x.shape[-1])}

    def apply(params, state, x, *, train, key=None):
        return x, {"mean": x} if train else state

    net = cnn.serial(cnn.flatten, run=cnn.Layer(init, apply), head=cnn.dense(10))
    with pytest.raises(TypeError, match=r"'run/mean' was float32\[784\] and is now float32\[32, 784\]"):
        train.fit(net, FEW, run=train.Run("a", {}, folder=tmp_path), config={"batch_size": 32})


@pytest.mark.parametrize(
    ("state", "metrics", "message"),
    [
        (None, {}, r"with a state like the one that init returned: expected a dict, got None"),
        ({"mean": 1.0}, {}, r"with a state like the one that init returned: 'mean' was missing and is now float32\[\]"),
        ({}, {"a": None}, "the metric 'a' of the loss must be a number, got None"),
        ({}, {"a": "high"}, "the metric 'a' of the loss must be a number, got 'high'"),
        ({}, {1: 0.5}, "the names of a loss's metrics must be strings, got 1"),
    ],
)
def test_refuses_other_results_of_a_loss(tmp_path, state, metrics, message):
    def loss(model):
        def loss_fn(params, _, batch, *, train, key=None):
            return jnp.zeros(()), (state, metrics)

        return loss_fn

    with pytest.raises(TypeError, match=message):
        train.fit(LINEAR, FEW, loss=loss, run=train.Run("a", {}, folder=tmp_path))


def test_a_hint_on_bytes_to_reconstruct(tmp_path, capsys):
    images = np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2, 1)
    options = {"loss": cnn.mean_squared_error, "config": {"epochs": 1, "batch_size": 8}}
    model = cnn.conv(1)
    train.fit(model, (images, images), run=train.Run("a", {}, folder=tmp_path / "a"), **options)
    assert "to reconstruct images, divide both by 255" in capsys.readouterr().out
    train.fit(model, (images, np.uint8(images > 9)), run=train.Run("a", {}, folder=tmp_path / "b"), **options)
    assert "train_data: " not in capsys.readouterr().out


def test_batches_of_weight_0_have_no_metrics(tmp_path):
    """Only one of ten batches has an example that counts. Its loss is that of the epoch."""
    weight = (np.arange(200) == 3).astype(np.float32)
    rows = {"image": FEW.images, "label": FEW.labels, "weight": weight}
    options = {"batch_size": 20, "epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.0}}
    result = fit(tmp_path, train_data=rows, **options)
    one = (FEW.images[3:4], FEW.labels[3:4])
    expected = train.evaluate(cnn.cross_entropy(LINEAR), result.params, result.state, one)
    assert result.history[0]["train"]["loss"] == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("image", "hint"),
    [
        (
            np.ones((8, 3, 16, 20), np.float32),
            r"images (8, 3, 16, 20) are read as (N, H, W, C); if they are (N, C, H, W)",
        ),
        (np.ones((8, 16, 16), np.float32), "images (8, 16, 16) are read as signals (N, T, C); if they are (N, H, W)"),
        (np.full((8, 6, 6, 1), 200.0, np.float32), "images have whole numbers up to 200; pass uint8, or divide by 255"),
        (np.full((8, 6, 6, 1), 200.5, np.float32), ""),
        (np.ones((8, 16, 16, 3), np.float32), ""),
        (np.full((8, 6, 6, 1), 200, np.uint8), ""),
        (np.ones((8, 100, 3), np.float32), ""),
    ],
)
def test_unlikely_images_get_a_hint(tmp_path, capsys, image, hint):
    model = cnn.serial(cnn.flatten, cnn.dense(2))
    fit(tmp_path, model, (image, np.arange(8) % 2), epochs=1, batch_size=8)
    out = capsys.readouterr().out
    assert hint in out
    assert ("train_data: images" in out) == bool(hint)


def test_a_run_of_its_own_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train.fit(LINEAR, FEW, config=QUICK | {"epochs": 1})
    assert capsys.readouterr().out.splitlines()[-1] == f"results in {result.folder}"


@pytest.mark.parametrize("metrics", [None, {"mean": np.ones(3, np.float32)}])
def test_refuses_metrics_of_a_loss_that_are_not_scalars(tmp_path, metrics):
    def loss(model):
        def loss_fn(params, state, batch, *, train, key=None):
            return jnp.float32(0), (state, metrics)

        return loss_fn

    with pytest.raises(TypeError, match=r"fit: the metric.* must be a"):
        train.fit(LINEAR, FEW, loss=loss, run=train.Run("a", {}, folder=tmp_path))
    with pytest.raises(TypeError, match=r"evaluate: the metric.* must be a"):
        train.evaluate(loss(None), {}, {}, {"image": np.ones((2, 3)), "label": np.zeros(2, int)})


def test_callbacks_may_add_any_entry_to_a_record(tmp_path, capsys):
    def add(event):
        if event.kind == "epoch":
            event.record["test"] |= {"note": "ok", "values": np.ones(2)}
            event.record["line"] = 1

    options = {"config": QUICK | {"epochs": 1}, "run": train.Run("a", {}, folder=tmp_path)}
    history = train.fit(LINEAR, FEW, eval_data=TEST_DATA, callbacks=[add], **options).history
    assert (history[0]["test"]["note"], history[0]["test"]["values"], history[0]["line"]) == ("ok", [1, 1], 1)
    assert "note" not in capsys.readouterr().out


def test_accumulation_under_strict_promotion(tmp_path):
    with jax.numpy_dtype_promotion("strict"):
        fit(tmp_path, accumulate=2, epochs=1, batch_size=40)


def test_refuses_other_data(tmp_path):
    for train_data, message in (
        ([1, 2], "train_data must be a Dataset, a Stream, a dict with"),
        ({"images": FEW.images}, "train_data has no 'image'; expected one of: images; did you mean 'images'"),
        ({"image": FEW.images}, "the batch has no 'label'; expected one of: image"),
        ({"image": FEW.images[:0], "label": FEW.labels[:0]}, "entries of the same length, at least 1"),
        ({"image": FEW.images[:, :0], "label": FEW.labels}, r"images of shape \(200, 0, 28, 1\) are empty"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            fit(tmp_path, train_data=train_data)


def test_tta():
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 1))
    outputs = {name: train.with_tta(cnn.flatten, name).apply({}, {}, x, train=False)[0] for name in ("flip", "none")}
    np.testing.assert_array_equal(outputs["none"], cnn.flatten(x))
    np.testing.assert_allclose(outputs["flip"], cnn.flatten(x + x[:, :, ::-1]) / 2)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    moved = [padded[:, :5, :6], padded[:, 2:, 2:]]
    both = lambda x: (x + x[:, :, ::-1]) / 2
    expected = both(x) / 2 + sum(map(both, moved)) / 4
    y = train.with_tta(cnn.flatten, "flip_and_shift").apply({}, {}, x, train=False)[0]
    np.testing.assert_allclose(y, cnn.flatten(expected), rtol=1e-6)
    np.testing.assert_array_equal(train.with_tta(cnn.flatten, "flip").apply({}, {}, x, train=True)[0], cnn.flatten(x))


def test_tta_flips_maps_back():
    x = jax.random.uniform(jax.random.key(0), (2, 5, 6, 1))
    for model in (cnn.identity, lambda x: x[..., 0]):
        y = train.with_tta(model, "flip").apply({}, {}, x, train=False)[0]
        np.testing.assert_allclose(y, model(x), rtol=1e-6)
        with pytest.raises(ValueError, match="tta 'flip_and_shift' needs an output per image"):
            train.with_tta(model, "flip_and_shift").apply({}, {}, x, train=False)


def test_a_run_without_new_checkpoints_loses_no_records(tmp_path):
    """It resumes from existing checkpoints, and keeps the log of a training that saved none under another name."""
    log = lambda name: (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    fit(tmp_path, epochs=3, checkpoint={"keep": 1})
    with pytest.raises(train.ConfigError, match="was saved with a different config"):
        fit(tmp_path, epochs=1, checkpoint={"keep": 0})
    fit(tmp_path, epochs=3, checkpoint={"keep": 0})
    assert len(log("run")) == 3
    fit(tmp_path, name="none", epochs=2, checkpoint={"keep": 0})
    first = log("none")
    fit(tmp_path, name="none", epochs=1, checkpoint={"keep": 0})
    assert (tmp_path / "none" / "metrics.jsonl.damaged").read_text().splitlines() == first
    assert len(log("none")) == 1


def test_resume_with_settings_that_do_not_change_finite_steps(tmp_path):
    fit(tmp_path, epochs=2, checkpoint={"keep": 1, "every": 1})
    result = fit(tmp_path, epochs=2, checkpoint={"keep": 1, "every": 2}, on_nonfinite="skip")
    assert len(result.history) == 2


def test_a_file_in_the_place_of_the_checkpoints(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("")
    with pytest.raises(checkpoint.CheckpointError, match="checkpoints is not a folder; remove or rename it"):
        fit(tmp_path, checkpoint={"keep": 1})
    assert "epoch 1" not in capsys.readouterr().out


def test_a_config_with_arrays(tmp_path):
    config = {"rate": np.float32(0.5), "mean": jnp.ones(2), "limit": float("nan")}
    run = train.Run("test", config, folder=tmp_path)
    assert run.config == {"rate": 0.5, "mean": [1.0, 1.0], "limit": None}
    for _ in range(2):  # resumes
        assert len(train.fit(LINEAR, FEW, config=QUICK | {"checkpoint": {"keep": 1}}, run=run).history) == 2


@pytest.mark.parametrize("name", ["gather", "report"])
def test_an_error_in_the_report_does_not_end_training(tmp_path, monkeypatch, name):
    def broken(*args, **kwargs):
        raise IndexError("deep inside")

    monkeypatch.setattr(f"jaxcnn.report._callback.{name}", broken)
    with pytest.warns(UserWarning, match="the report failed: IndexError: deep inside"):
        fitted = fit(tmp_path, eval_data=TEST_DATA, report=True)
    assert len(fitted.history) == 2
    fitted = fit(tmp_path, eval_data=TEST_DATA, report=True, name="where warnings are errors")
    assert len(fitted.history) == 2


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    fitted = fit(tmp_path, eval_data=TEST_DATA, tensorboard=True)
    files = list((fitted.folder / "tensorboard").iterdir())
    assert b"test/accuracy" in b"".join(file.read_bytes() for file in files)


def resident():
    """The resident memory of this process in MB."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("count", [24, pytest.param(200, marks=pytest.mark.full)])
def test_memory_is_the_same_after_many_trainings(tmp_path, count):
    """Compiled programs are released. Each training has its own model, loss and folder."""
    released, sizes = [], []
    for i in range(count):
        model = cnn.serial(cnn.max_pool(4), cnn.flatten, cnn.dense(10))
        released.append(weakref.ref(model.apply))
        fit(tmp_path, model, eval_data=TEST_DATA, name=str(i), epochs=1)
        del model
        sizes.append(resident())
    gc.collect()
    print(f"{sizes[9]:.0f} MB after 10 trainings, {sizes[-1]:.0f} after {count}")
    assert [ref() for ref in released] == [None] * count
    assert sizes[-1] < 1.05 * sizes[9]


def test_memory_and_files_stay_the_same(tmp_path):
    """Over 2,000 steps with 20 evaluations and checkpoints."""
    pytest.importorskip("orbax.checkpoint")
    opened, sizes = [], []

    class Watched(train.Run):
        def log(self, line, **record):
            super().log(line, **record)
            opened.append(len(os.listdir("/proc/self/fd")))
            sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    run = Watched("memory", {}, folder=tmp_path / "run")
    train_data = data.Dataset(DIGITS.images[:800], DIGITS.labels[:800], DIGITS.classes)
    config = {"epochs": 20, "batch_size": 8, "checkpoint": {"keep": 2}}
    fitted = train.fit(LINEAR, train_data, eval_data=TEST_DATA, config=config, run=run)
    assert int(fitted.train_state.step) == 2000
    print(f"peak memory {sizes[4]:.0f} to {sizes[-1]:.0f} MB, open files {opened[4]} to {opened[-1]}")
    assert max(opened[4:]) <= opened[4] + 2
    assert sizes[-1] - sizes[4] < 20


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer": {"name": "adamw", "learning_rate": 0.1}, "weight_decay": {"rate": 0.1}},
        {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "weight_decay": {"rate": 0.1}, "accumulate": 2},
        {"optimizer": {"name": "adam", "learning_rate": 0.1}, "regularize": {"l1": 0.01, "l2": 0.1}, "ema": 0.9},
    ],
    ids=["decoupled decay", "decay in the gradient", "penalties"],
)
@pytest.mark.parametrize("seeds", [None, 2])
def test_frozen_parameters_stay_constant(config, seeds, tmp_path):
    net = cnn.serial(body=cnn.freeze(cnn.dense(5)), act=jax.nn.relu, head=cnn.dense(3))
    digits = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
    run = train.Run("frozen", {}, folder=tmp_path)
    result = train.fit(net, digits, config={"epochs": 2, "batch_size": 4} | config, run=run, seeds=seeds)
    for seed, trained in enumerate(result.runs if seeds else [result]):
        params = train.TrainState.create(net, optax.sgd(0.1), jax.random.key(seed), digits[0][:1]).params
        np.testing.assert_array_equal(trained.params["body"]["kernel"], params["body"]["kernel"])
        assert (trained.params["head"]["kernel"] != params["head"]["kernel"]).all()


@pytest.mark.parametrize("seeds", [None, 2])
def test_update_at_the_end_of_an_epoch_that_is_not_finite(seeds, tmp_path):
    net, rng = cnn.serial(cnn.flatten, cnn.dense(3)), np.random.default_rng(0)
    images, labels = 1000 * rng.random((24, 4, 4, 1), np.float32), rng.integers(0, 3, 24)
    optimizer = {"optimizer": {"name": "sgd", "learning_rate": 3e38}, "schedule": {"name": "constant"}}
    config = {"epochs": 1, "batch_size": 8, "accumulate": 8} | optimizer
    start = functools.partial(
        train.fit, net, (images, labels), run=train.Run("fit", {}, folder=tmp_path), config=config
    )
    if seeds:
        result = start(seeds=seeds)
        assert all(run.nonfinite_step is not None for run in result.runs)
    else:
        # After the update at the end of the epoch, or before: optax multiplies the infinite update by 0 until then,
        # which is NaN unless the compiler turns the product into a selection.
        with pytest.raises(train.NonFiniteError, match="kernel is not finite"):
            start()
        assert not checkpoint.steps(tmp_path / "checkpoints")


def test_muon_has_decoupled_weight_decay():
    params = {"kernel": 2 * jnp.eye(3), "bias": jnp.ones(3)}
    decay = {"rate": 0.01, "where": ".*"}
    config = train.resolve({"optimizer": {"name": "muon", "learning_rate": 0.1}, "weight_decay": decay})
    ours = train.make_optimizer(config | {"schedule": {"name": "constant", "warmup": 0, "end": 0}}, 10, params)
    theirs = optax.contrib.muon(0.1, weight_decay=0.01, adam_weight_decay=0.01)
    gradient = jax.tree.map(jnp.ones_like, params)
    update = lambda optimizer: optimizer.update(gradient, optimizer.init(params), params)[0]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), update(ours), update(theirs))


def test_muon_decays_the_parameters_of_the_setting_where():
    params = {"kernel": jnp.ones((3, 3, 2, 2)), "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    optimizer = {"name": "muon", "learning_rate": 0.1}
    config = train.resolve({"optimizer": optimizer, "weight_decay": {"rate": 0.5}, "schedule": {"name": "constant"}})
    optimizer = train.make_optimizer(config, 10, params)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    expected = {"kernel": -0.05, "head": {"kernel": -0.05, "bias": 0.0}}
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), updates, expected)


@pytest.mark.parametrize("options", [{"name": "yogi"}, {"name": "muon"}, {"name": "adam"}])
def test_frozen_layers_stay_constant(options, tmp_path):
    net = cnn.serial(cnn.freeze(cnn.conv(4)), jax.nn.relu, cnn.flatten, cnn.dense(3))
    images, labels = np.random.default_rng(0).random((24, 4, 4, 1), np.float32), np.arange(24) % 3
    config = {"epochs": 1, "batch_size": 8, "optimizer": options | {"learning_rate": 0.1}}
    start = net.init(jax.random.key(1), images[:1])
    run = train.Run("fit", {}, folder=tmp_path)
    result = train.fit(net, (images, labels), config=config, run=run, start=start)
    np.testing.assert_array_equal(result.params["0"]["kernel"], start[0]["0"]["kernel"])
    assert not np.array_equal(result.params["3"]["kernel"], start[0]["3"]["kernel"])


def test_optimizer_state_that_overflows(tmp_path):
    def loss(model):
        """The gradient is 1e20 in the batch with the flag: its square overflows, the parameters stay finite."""

        def loss_fn(params, state, batch, *, train, key=None):
            value, rest = cnn.cross_entropy(model)(params, state, batch, train=train, key=key)
            constant = jax.lax.stop_gradient(value)
            return constant + jnp.where(batch["flag"].max() > 0, 1e20, 1.0) * (value - constant), rest

        return loss_fn

    images, labels = np.random.default_rng(0).random((24, 4, 4, 1), np.float32), np.arange(24) % 3
    batch = {"image": images, "label": labels, "flag": (np.arange(24) == 3).astype(np.float32)}
    config = {"epochs": 1, "batch_size": 8, "on_nonfinite": "skip"}
    net, run = cnn.serial(cnn.flatten, cnn.dense(3)), train.Run("fit", {}, folder=tmp_path / "skip")
    result = train.fit(net, batch, loss=loss, config=config, run=run)
    assert result.history[0]["skipped"] == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.train_state.opt_state))
    run = train.Run("fit", {}, folder=tmp_path / "raise")
    with pytest.raises(train.NonFiniteError, match=r"step \d: params/1/\w+ is not finite"):
        train.fit(net, batch, loss=loss, config=config | {"on_nonfinite": "raise"}, run=run)


def test_muon_has_no_decay_arguments():
    for argument in ("weight_decay_mask", "adam_weight_decay"):
        with pytest.raises(train.ConfigError, match="muon has no such argument"):
            train.resolve({"optimizer": {"name": "muon", "learning_rate": 0.1, argument: 0.0}})


@pytest.mark.parametrize("over", [None, {"schedule.end": [0.05, 0.2]}])
def test_end_of_an_exponential_schedule(over, tmp_path):
    config = {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "schedule": {"name": "exponential", "end": 0.2}}
    examples = np.zeros((8, 2), np.float32), np.arange(8) % 2
    start = functools.partial(train.sweep, over=over) if over else train.fit
    with pytest.raises(train.ConfigError, match=r"schedule.end must be above 0 and at most 0.1 for an exponential"):
        start(cnn.dense(2), examples, config=config | {"batch_size": 4}, run=train.Run("end", {}, folder=tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_loss_without_a_metric_of_its_name():
    def loss_fn(params, state, batch, *, train, key=None):
        return jnp.square(params["w"] - batch["image"]).mean(), (state, {"error": params["w"]})

    net = cnn.Layer(lambda key, x: ({"w": jnp.ones(())}, {}), lambda params, state, x, *, train, key=None: (x, state))
    data_source = data.source((np.zeros((4, 2), np.float32), np.zeros(4, int)), 2)
    optimizer = optax.sgd(0.1)
    state = train.TrainState.create(net, optimizer, jax.random.key(0), data_source.spec["image"])
    *_, last = train.loop(train.make_step(loss_fn, optimizer), state, data_source, epochs=1)
    assert set(last.metrics) == {"loss", "error"}
    assert last.metrics["loss"] == pytest.approx((1 + 0.64) / 2)


def test_evaluation_skips_batches_of_padding():
    def loss_fn(params, state, batch, *, train, key=None):
        mean = (batch["image"][:, 0] * batch["weight"]).sum() / batch["weight"].sum()
        return mean, (state, {"mean": mean})

    examples = {"image": np.arange(8, dtype=np.float32)[:, None], "weight": (np.arange(8) < 2).astype(np.float32)}
    assert train.evaluate(loss_fn, {}, {}, examples, batch_size=4)["mean"] == 0.5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 1.5}, TypeError, "loop: epochs must be an int"),
        ({"epochs": -1}, ValueError, "loop: epochs must be at least 0, got -1"),
        ({"epochs": 1, "every": -2}, ValueError, "loop: every must be at least 0, got -2"),
        ({"epochs": 1, "skip": -1}, ValueError, "loop: skip must be at least 0, got -1"),
        (
            {"epochs": 1, "source": (np.zeros((4, 2)), np.zeros(4))},
            TypeError,
            "loop: source must be the result of data.source",
        ),
    ],
)
def test_arguments_of_loop(options, error, message):
    examples = data.source((np.zeros((4, 2), np.float32), np.zeros(4, int)), 2)
    with pytest.raises(error, match=message):
        next(train.loop(None, None, **({"source": examples} | options)))


def test_a_single_update_has_no_warmup():
    assert float(train.make_schedule({"name": "cosine", "warmup": 0.6}, 1.0, 1)(0)) == 1.0


def test_alternating_flip_needs_the_index_of_each_example(tmp_path):
    batches = lambda step: iter([{"image": DIGITS.images[:32], "label": DIGITS.labels[:32]}])
    stream = data.Stream(batches, 1, jax.ShapeDtypeStruct((32, 28, 28, 1), np.uint8))
    with pytest.raises(train.ConfigError, match="alternating_flip needs data in memory"):
        fit(tmp_path, train_data=stream, augment=[["alternating_flip"]])
