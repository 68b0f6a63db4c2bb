"""`fit` with user-defined losses, metrics and callbacks, and its built-in callbacks."""

import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn.metrics import Metric, accuracy, auroc, confusion_matrix, mean_absolute_error, mean_iou, r2
from jaxcnn.train import _checkpoint_folder, callbacks
from jaxcnn.train._batch import evaluation_batch
from jaxcnn.train._evaluate import measurement
from jaxcnn.train._event import format_metrics
from tests.test_report import Page

DIGITS = data.load("mnist_small", "test")
IMAGES, LABELS = DIGITS.images[:96], DIGITS.labels[:96]
TRAIN_DATA, TEST_DATA = (IMAGES[:64], LABELS[:64]), (IMAGES[64:], LABELS[64:])
MODEL = cnn.serial(cnn.max_pool(7), cnn.flatten, cnn.dense(10))
CONFIG = {"epochs": 2, "batch_size": 32, "checkpoint": {"keep": 0}}


def fit(folder, train_data=TRAIN_DATA, eval_data=TEST_DATA, model=MODEL, config=None, **options):
    run = train.Run("test", {}, folder=folder)
    return train.fit(model, train_data, eval_data=eval_data, config=CONFIG | (config or {}), run=run, **options)


# Losses


def test_regression(tmp_path):
    """Float labels that are not class probabilities."""
    target = np.stack([IMAGES.mean((1, 2, 3)), IMAGES.std((1, 2, 3))], 1).astype(np.float32) / 100
    model = cnn.serial(cnn.avg_pool(7), cnn.flatten, cnn.dense(2))
    config = {"epochs": 20, "optimizer": {"learning_rate": 0.1}}
    result = fit(tmp_path, (IMAGES, target), (IMAGES, target), model, config, loss=cnn.mean_squared_error)
    assert result.history[-1]["test"]["loss"] < 0.1 * result.history[0]["test"]["loss"]
    assert {*result.history[-1]["test"]} == {"loss"}
    assert result.outcome.startswith("test loss 0.0")
    assert re.fullmatch(r"Best\([\d,]+ parameters, epoch \d+: loss .*\)", repr(result.best))
    assert result.best.metrics["loss"] == min(record["test"]["loss"] for record in result.history)


def weighted_pixels(model, *, scale=1.0):
    """A loss that uses one additional entry of the batch and has no metric "loss"."""

    def loss_fn(params, state, batch, *, train, key=None):
        y, state = model.apply(params, state, batch["image"], train=train, key=key)
        chosen = jnp.take_along_axis(y, batch["label"][:, None], 1)[:, 0]
        return scale * jnp.mean(batch["importance"] * (chosen - 1) ** 2), (state, {"mean_output": y.mean()})

    return loss_fn


def test_a_user_defined_loss_receives_the_other_entries_of_a_batch(tmp_path):
    train_data, eval_data = (
        {"image": x, "label": y, "importance": np.ones((len(y),))} for x, y in (TRAIN_DATA, TEST_DATA)
    )
    config = {"augment": ["flip"], "regularize": {"l2": 1e-3}}
    result = fit(tmp_path, train_data, eval_data, config=config, loss=functools.partial(weighted_pixels, scale=2.0))
    assert {*result.history[-1]["train"]} == {"loss", "mean_output", "penalty"}
    assert {*result.history[-1]["test"]} == {"loss", "mean_output"}
    train_data["importance"] = 0 * train_data["importance"]
    still = fit(tmp_path / "0", train_data, eval_data, loss=weighted_pixels)
    assert still.history[-1]["train"]["loss"] == 0


def test_a_stream_may_have_other_entries(tmp_path):
    def batches(step):
        while True:
            yield {"image": IMAGES[:32], "label": LABELS[:32], "importance": np.full(32, step, np.float32)}

    others = {"label": jax.ShapeDtypeStruct((32,), np.int32), "importance": jax.ShapeDtypeStruct((32,), np.float32)}
    image = jax.ShapeDtypeStruct((32, 28, 28, 1), np.uint8)
    stream = data.Stream(batches, 2, image, (), "", others)
    assert fit(tmp_path, stream, stream, loss=weighted_pixels).history[-1]["test"]["loss"] == 0  # of step 0


def test_the_loss_is_part_of_the_run(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    config = {"checkpoint": {"keep": 1}}
    fit(tmp_path, config=config)
    with pytest.raises(train.ConfigError, match="different model"):
        fit(tmp_path, config=config, loss=functools.partial(cnn.cross_entropy, auxiliary=0.1, label_smoothing=0.2))


def test_label_smoothing_needs_a_loss_with_that_argument(tmp_path):
    with pytest.raises(train.ConfigError, match=r"label_smoothing must be 0: .*mean_squared_error.* has no such"):
        fit(tmp_path, config={"label_smoothing": 0.1}, loss=cnn.mean_squared_error)
    with pytest.raises(TypeError, match=r"fit needs a loss, such as cross_entropy\(model\)"):
        fit(tmp_path, loss=lambda model: model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "mse"}, TypeError, "loss must be callable, such as jaxcnn.cross_entropy, got 'mse'"),
        ({"callbacks": [None]}, TypeError, "callbacks must be callable, got None"),
        ({"metrics": {"a": 3}}, TypeError, r"metrics: 'a' must be a jaxcnn\.metrics\.Metric, got 3"),
        ({"metrics": {"a": accuracy()}, "eval_data": None}, train.ConfigError, "metrics need eval_data"),
    ],
)
def test_what_has_no_effect_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        fit(tmp_path, **options)


# Metrics


def test_metrics_use_all_examples(tmp_path):
    """The number of examples is not a multiple of the batch size, so the last batch is padded."""

    def update(output, batch):
        wrong = (output.argmax(-1) != batch["label"]) * batch["weight"]
        return {"wrong": wrong.sum(), "worst": jnp.zeros(10).at[batch["label"]].add(wrong)}

    metrics = {"errors": Metric(update, lambda sums: sums["worst"].sum()), "top_1": accuracy()}
    config = {"evaluate": {"batch_size": 20, "tta": "flip"}}
    for record in fit(tmp_path, config=config, metrics=metrics).history:
        assert record["test"]["top_1"] == pytest.approx(record["test"]["accuracy"])
        assert record["test"]["errors"] == round(32 * (1 - record["test"]["accuracy"]))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["test"] == record["test"]


# The best epoch

UNSTEADY = {"epochs": 8, "optimizer": {"name": "sgd", "learning_rate": 30.0}, "schedule": {"name": "constant"}}


@pytest.mark.parametrize("watch", ["", "-loss", "-errors"])
def test_the_best_epoch(tmp_path, watch):
    errors = Metric(lambda y, batch: ((y.argmax(-1) != batch["label"]) * batch["weight"]).sum(), lambda sums: sums)
    go = lambda name, **config: fit(tmp_path / name, config=UNSTEADY | config, metrics={"errors": errors})
    last = go("last", watch=watch)
    name, sign = (watch or "accuracy").lstrip("-"), -1 if watch.startswith("-") else 1
    epoch = 1 + int(np.argmax([sign * record["test"][name] for record in last.history]))
    assert (last.epoch, last.best.epoch) == (8, epoch)
    assert last.best.metrics == last.history[epoch - 1]["test"]
    best = go("best", watch=watch, restore_best=True)
    assert best.epoch == best.best.epoch == epoch
    for one, other in ((best.params, last.best.params), (best.train_state.params, last.params)):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    test = {"image": TEST_DATA[0] / np.float32(255), "label": TEST_DATA[1]}
    loss = train.evaluate(cnn.cross_entropy(MODEL), best.params, best.state, test)["loss"]
    assert loss == pytest.approx(best.best.metrics["loss"])


def test_the_best_epoch_needs_an_existing_metric(tmp_path):
    with pytest.raises(train.ConfigError, match=r"watch: unknown metric 'acuracy'; .*did you mean 'accuracy'"):
        fit(tmp_path, config={"watch": "acuracy"})
    with pytest.raises(train.ConfigError, match='watch: "loss" would select the epoch with the largest loss; use "-lo'):
        fit(tmp_path, config={"watch": "loss"})
    for config in ({"watch": "accuracy"}, {"restore_best": True}):
        with pytest.raises(train.ConfigError, match="needs evaluation metrics: pass eval_data"):
            fit(tmp_path, eval_data=None, config=config)
    assert fit(tmp_path, eval_data=None).best is None


def test_a_nonfinite_epoch_is_not_the_best():
    assert callbacks.metric_to_maximize("", {"loss": 0.5, "accuracy": 0.25}) == 0.25
    assert callbacks.metric_to_maximize("", {"loss": np.nan, "accuracy": 0.25}) is None
    assert callbacks.metric_to_maximize("", {"loss": 0.5}) == -0.5


def test_an_array_cannot_be_watched(tmp_path):
    with pytest.raises(train.ConfigError, match=r"watch: 'matrix' is an array of shape \(10, 10\); watch a scalar"):
        fit(tmp_path, config={"watch": "-matrix"}, metrics={"matrix": confusion_matrix()})


@pytest.mark.parametrize(("watch", "epochs"), [("error", 1), ("-error", 4)])
def test_patience_with_a_metric_that_is_better_when_smaller(tmp_path, watch, epochs):
    """The error falls in every epoch, so the first epoch is the best without the minus sign."""
    target = IMAGES.mean((1, 2)).astype(np.float32) / 100
    model = cnn.serial(cnn.avg_pool(7), cnn.flatten, cnn.dense(1))
    config = {"epochs": 4, "patience": 1, "watch": watch, "optimizer": {"learning_rate": 1e-3}}
    options = {"loss": cnn.mean_squared_error, "metrics": {"error": mean_absolute_error()}, "config": config}
    result = fit(tmp_path, (IMAGES, target), (IMAGES, target), model, **options)
    assert result.epoch == result.best.epoch == epochs
    assert len(result.history) == min(epochs + 1, 4)
    errors = [record["test"]["error"] for record in result.history]
    assert errors == sorted(errors, reverse=True)
    np.testing.assert_allclose(errors[epochs - 1], result.best.metrics["error"])


def test_a_metric_that_is_never_finite(tmp_path, capsys):
    """It is recorded as None, printed as n/a, and no epoch is the best: the last parameters are returned."""
    undefined = Metric(lambda output, batch: batch["weight"].sum(), lambda sums: sums * jnp.nan)
    result = fit(tmp_path, config={"epochs": 5, "watch": "nothing", "patience": 2}, metrics={"nothing": undefined})
    assert [record["test"]["nothing"] for record in result.history] == [None, None]
    assert "nothing n/a" in capsys.readouterr().out
    assert result.best is None
    assert result.epoch == 2


def stop_at(event, step):
    event.stop = event.step == step


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_a_user_defined_loss_and_metrics_resume_to_the_bit(tmp_path, stop):
    """Within the first epoch, at its end, and within the third of four epochs of two steps."""
    pytest.importorskip("orbax.checkpoint")
    train_data, eval_data = (
        {"image": x, "label": y, "importance": np.linspace(0, 1, len(y)).astype(np.float32)}
        for x, y in (TRAIN_DATA, TEST_DATA)
    )
    spread = Metric(
        lambda output, batch: {"sum": batch["weight"] @ output.max(1), "count": batch["weight"].sum()},
        lambda sums: sums["sum"] / sums["count"],
    )
    chosen = {"spread": spread, "matrix": confusion_matrix(), "auc": auroc(), "iou": mean_iou()}
    config = {"epochs": 4, "checkpoint": {"every": 1, "keep": 2}, "watch": "-spread", "restore_best": True, "ema": 0.5}
    config |= {"augment": [["translate", 2]], "regularize": {"l2": 1e-3}}
    options = {"loss": functools.partial(weighted_pixels, scale=2.0), "metrics": chosen, "config": config}
    whole = fit(tmp_path / "whole", train_data, eval_data, **options)
    stopping = [functools.partial(stop_at, step=stop)]
    stopped = fit(tmp_path / "part", train_data, eval_data, callbacks=stopping, **options)
    assert int(stopped.train_state.step) == stop
    resumed = fit(tmp_path / "part", train_data, eval_data, **options)
    assert int(resumed.train_state.step) == 8
    timeless = lambda result: [
        {name: record[name] for name in ("epoch", "step", "train", "test")} for record in result.history
    ]
    assert timeless(resumed) == timeless(whole)
    assert (resumed.epoch, resumed.best.epoch) == (whole.epoch, whole.best.epoch)
    values = lambda result: (result.params, result.state, result.best, result.train_state._replace(key=()))
    jax.tree.map(np.testing.assert_array_equal, values(resumed), values(whole))


@pytest.mark.slow
def test_metrics_are_logged_drawn_and_reported(tmp_path, capsys):
    """Arrays are recorded and shown in the report, but not printed, and TensorBoard gets numbers only."""
    pytest.importorskip("tensorboardX")
    chosen = {"iou": mean_iou(), "matrix": confusion_matrix(), "auc": auroc(bins=100)}
    fit(tmp_path, config={"tensorboard": True, "report": True}, metrics=chosen)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    test = records[-1]["test"]
    assert {*test} == {"loss", "accuracy", *chosen}
    assert np.shape(test["matrix"]) == (10, 10)
    assert np.trace(test["matrix"]) == pytest.approx(32 * test["accuracy"])
    last = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch 2: loss"))
    assert f"iou {test['iou']:.4f}, auc {test['auc']:.4f}" in last
    assert "matrix" not in last
    written = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert [f"test/{name}".encode() in written for name in chosen] == [True, False, True]
    page = Page(tmp_path / "report.html")
    header, *rows = page.tables["Metrics after each epoch"]
    row = dict(zip(header, rows[-1], strict=True))
    assert float(row["test iou"]) == pytest.approx(test["iou"], rel=1e-3)
    assert "test matrix" not in row
    np.testing.assert_allclose(page.numbers("test matrix, after epoch 2"), test["matrix"])


def test_metrics_that_do_not_fit_are_refused_before_training(tmp_path):
    epochs = []
    with pytest.raises(ValueError, match=r"r2: the output \(256, 10\) and the labels \(256,\) differ in shape"):
        fit(tmp_path, TRAIN_DATA, DIGITS, metrics={"r2": r2()}, callbacks=[epochs.append])
    assert epochs == []


def test_metrics_do_not_apply_the_model_twice():
    """The compiler merges the two applications of the model: by the loss and for the metrics."""
    x = jnp.zeros((64, 28, 28, 1))
    batch = {"image": x, "label": jnp.zeros(64, int), "weight": jnp.ones(64)}
    params, state = MODEL.init(jax.random.key(0), x)
    flops = lambda chosen: (
        measurement(cnn.cross_entropy(MODEL), MODEL, chosen, evaluation_batch, True)
        .lower(params, state, batch)
        .compile()
        .cost_analysis()["flops"]
    )
    assert flops({"same": accuracy()}) < 1.5 * flops({})


# Callbacks of the user


def test_a_callback_receives_all_events_and_adds_to_the_record(tmp_path):
    events = []

    def callback(event):
        events.append((event.kind, event.step))
        if event.kind == "epoch":
            kernel = event.params["2"]["kernel"]
            event.record["norm"] = float(jnp.linalg.norm(kernel))
            assert event.record["test"]["accuracy"] == event.metric
            assert event.run.folder == tmp_path

    result = fit(tmp_path, callbacks=[callback])
    assert events[0] == ("start", 0)
    assert [step for kind, step in events if kind == "epoch"] == [2, 4]
    assert events[-1] == ("end", 4)
    assert result.history[-1]["norm"] == pytest.approx(float(jnp.linalg.norm(result.params["2"]["kernel"])))


def test_a_callback_ends_training(tmp_path):
    def enough(event):
        event.stop = event.kind == "epoch" and event.metric > 0

    result = fit(tmp_path, callbacks=[enough], config={"epochs": 50})
    assert len(result.history) < 50
    assert result.history[-1]["test"]["accuracy"] > 0


def test_an_exception_in_a_callback_ends_training(tmp_path):
    def broken(event):
        if event.kind == "epoch":
            raise IndexError("of the user")

    with pytest.raises(IndexError, match="of the user"):
        fit(tmp_path, callbacks=[broken])
    fit(tmp_path)  # the folder is free again


def test_notes_of_a_callback_are_restored_after_a_resume(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    found = []

    def counting(event, last):
        if event.kind == "start":
            found.append(event.note.get("count", 0))
        if event.kind == "epoch":
            event.note["count"] = event.note.get("count", 0) + 1
            event.stop = event.epoch == last

    config = {"epochs": 4, "checkpoint": {"keep": 1}}
    for last in (2, 4):
        result = fit(tmp_path, config=config, callbacks=[functools.partial(counting, last=last)])
    assert found == [0, 2]
    assert [record["epoch"] for record in result.history] == [1, 2, 3, 4]


def test_notes_may_have_any_name(tmp_path):
    """Also those of entries that a checkpoint holds beside the notes."""
    pytest.importorskip("orbax.checkpoint")
    notes = {"seconds": -1, "records": "mine", "note": [1]}
    found = []

    def noting(event):
        if event.kind == "start":
            found.append({name: event.note.get(name) for name in notes})
            event.note |= notes

    for epochs in (1, 2):
        stop = lambda event, epochs=epochs: setattr(event, "stop", event.epoch == epochs)
        fit(tmp_path, config={"epochs": 2, "checkpoint": {"keep": 1}}, callbacks=[noting, stop])
    assert found == [dict.fromkeys(notes), notes]


def test_a_checkpoint_that_fit_did_not_save(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    config = {"checkpoint": {"keep": 1}}
    fit(tmp_path, config=config)
    folder = tmp_path / "checkpoints" / "4"
    rewrite(folder, json.loads((folder / "about.json").read_text()) | {"note": None})
    with pytest.raises(
        train.CheckpointError, match="checkpoints/4 was not saved by fit; remove it to resume from an e"
    ):
        fit(tmp_path, config=config)


def rewrite(folder, about):
    (folder / "about.json").write_text(json.dumps(about))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["about.json"] = _checkpoint_folder.sha256(folder / "about.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda record: record.update(step="a"), ValueError, r"event\.record\['step'\] must stay 2, got 'a'"),
        (lambda record: record.update(epoch=2.5), ValueError, r"event\.record\['epoch'\] must stay 1, got 2.5"),
        (lambda record: record.clear(), ValueError, r"event\.record\['epoch'\] must stay 1, got None"),
        (
            lambda record: record.update(train=3),
            TypeError,
            r"event\.record\['train'\] must be a dict of metrics, got 3",
        ),
        (
            lambda record: record.pop("train"),
            TypeError,
            r"event\.record\['train'\] must be a dict of metrics, got None",
        ),
        (lambda record: record.update({1: 2}), TypeError, r"dict whose keys are strings, got \{"),
    ],
)
def test_changes_of_a_record_that_are_refused(tmp_path, change, error, message):
    def callback(event):
        if event.kind == "epoch":
            change(event.record)

    with pytest.raises(error, match=message):
        fit(tmp_path, callbacks=[callback])
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_callback_that_changes_the_working_directory(tmp_path, monkeypatch):
    pytest.importorskip("orbax.checkpoint")
    pytest.importorskip("tensorboardX")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()

    def callback(event):
        if event.kind == "epoch":
            os.chdir(tmp_path / "other")

    config = {"checkpoint": {"keep": 1}, "report": True, "tensorboard": True}
    result = fit("run", config=config, callbacks=[callback])
    assert [*(tmp_path / "other").iterdir()] == []
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"checkpoints", "metrics.jsonl", "metrics.csv", "config.json", "report.html", "tensorboard"} <= names
    assert train.checkpoint.steps(tmp_path / "run" / "checkpoints") == [4]
    assert result.folder == tmp_path / "run"


def test_an_epoch_without_a_finite_step_is_an_error_after_a_resume_within_it(tmp_path, monkeypatch):
    pytest.importorskip("orbax.checkpoint")
    monkeypatch.setattr("jaxcnn.train._loop._SECONDS_PER_CALL", 0)  # one step per call
    config = {"on_nonfinite": "skip", "checkpoint": {"keep": 1}}
    options = {"config": config, "loss": functools.partial(nonfinite_at_random, rate=2)}
    fit(tmp_path, callbacks=[functools.partial(stop_at, step=1)], **options)
    with pytest.raises(train.NonFiniteError, match="epoch 1: all 2 steps were non-finite"):
        fit(tmp_path, **options)


def test_a_callback_that_needs_a_run_raises_without_one():
    step = train.make_step(cnn.cross_entropy(MODEL), optax.sgd(0.1))
    source = data.source(TRAIN_DATA, 32)
    state = train.TrainState.create(MODEL, optax.sgd(0.1), jax.random.key(0), IMAGES[:1] / np.float32(1))
    event = next(train.loop(step, state, source, epochs=1))
    with pytest.raises(ValueError, match=r"this callback needs a run; pass one to train\.loop"):
        callbacks.progress(event)


def test_the_registered_report_is_used(tmp_path, monkeypatch):
    kinds = []
    monkeypatch.setattr("jaxcnn.report.write_report", lambda model, data: lambda event: kinds.append(event.kind))
    fit(tmp_path)
    assert kinds == []
    fit(tmp_path, config={"report": True})
    assert kinds[0] == "start"
    assert kinds[-1] == "end"


def test_training_imports_reports_only_when_they_are_shown():
    lines = [
        line for path in pathlib.Path(train.__file__).parent.rglob("*.py") for line in path.read_text().splitlines()
    ]
    found = [
        line.strip() for line in lines if re.search(r"import.* (explain|report)\b|jaxcnn\.(explain|report)\b", line)
    ]
    assert sorted(found) == [
        *["# Not at the top: jaxcnn.report imports this package."] * 3,
        'return importlib.import_module("jaxcnn.report._notebook").fit_html(self)',
        'return importlib.import_module("jaxcnn.report._notebook").sweep_html(self)',
        'write_report = importlib.import_module("jaxcnn.report").write_report',
    ]


def test_a_metric_must_not_replace_one_of_the_loss(tmp_path):
    with pytest.raises(ValueError, match="metrics: 'accuracy' is also a metric of the loss; choose another name"):
        fit(tmp_path, metrics={"accuracy": accuracy()})
    with pytest.raises(TypeError, match=r"metrics must be a dict such as \{.*\}, got "):
        fit(tmp_path, metrics=[accuracy()])


def test_evaluate_computes_metrics_of_the_model():
    x, y = TEST_DATA[0] / np.float32(255), TEST_DATA[1]
    params, state = MODEL.init(jax.random.key(0), x[:1])
    loss_fn = cnn.cross_entropy(MODEL)
    options = {"metrics": {"same": accuracy()}, "model": MODEL, "batch_size": 3}
    result = train.evaluate(loss_fn, params, state, {"image": x, "label": y}, **options)
    assert result["same"] == pytest.approx(result["accuracy"], rel=1e-6)
    traces = []
    counted = Metric(lambda output, batch: traces.append(1) or batch["weight"].sum(), lambda count: count)
    for _ in range(2):
        result = train.evaluate(loss_fn, params, state, {"image": x, "label": y}, metrics={"n": counted}, model=MODEL)
        assert result["n"] == len(x)
    assert len(traces) == 1  # compiled once
    with pytest.raises(TypeError, match="metrics need the model"):
        train.evaluate(loss_fn, params, state, {"image": x, "label": y}, metrics=options["metrics"])


def test_metrics_as_text():
    metrics = {"loss": 0.12345, "accuracy": 0.98765, "matrix": [[1, 2]], "r2": None, "f1": float("nan")}
    assert format_metrics(metrics) == "loss 0.123, accuracy 98.8%, r2 n/a, f1 n/a"
    assert format_metrics(metrics, precise=True) == "loss 0.1235, accuracy 98.77%, r2 n/a, f1 n/a"


def test_the_report_is_written_without_an_import_of_its_package(tmp_path):
    program = f"""
from jaxcnn import data, dense, flatten, serial, train
digits = data.load("mnist_small", "test")
batch = {{"image": digits.images[:128], "label": digits.labels[:128]}}
run = train.Run("test", {{}}, folder={str(tmp_path)!r})
train.fit(serial(flatten, dense(10)), batch, config={{"epochs": 1, "report": True}}, run=run)
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert "<html" in (tmp_path / "report.html").read_text()


def test_tensorboard_keeps_each_epoch_and_numpy_numbers(tmp_path):
    pytest.importorskip("tensorboardX")

    def add_norm(event):
        if event.kind == "epoch":
            event.record["norm"] = np.float32(2.0)

    fit(tmp_path, config={"epochs": 4, "tensorboard": True}, callbacks=[add_norm])
    content = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").rglob("*tfevents*"))
    assert content.count(b"train/loss") == content.count(b"norm") == 4


def test_what_callbacks_do_at_the_start_survives_a_rollback(tmp_path):
    pytest.importorskip("orbax.checkpoint")

    def callback(event):
        if event.kind == "start":
            event.note["mine"] = "kept"
            event.carry = event.carry._replace(skipped=event.carry.skipped + 7)
        if event.kind == "epoch":
            assert (event.note["mine"], int(event.carry.skipped)) == ("kept", 7)
            assert event.note["rollbacks"] > 0

    options = {"epochs": 3, "seed": 3, "on_nonfinite": "rollback", "checkpoint": {"keep": 1}}
    fit(tmp_path, loss=nonfinite_at_random, config=options, callbacks=[callback])


def nonfinite_at_random(model, rate=0.5):
    plain = cnn.cross_entropy(model)

    def loss_fn(params, state, batch, *, train, key=None):
        value, rest = plain(params, state, batch, train=train, key=key)
        return value * jnp.where(jax.random.uniform(key) < rate, jnp.nan, 1) if train else value, rest

    return loss_fn


@pytest.mark.parametrize("how", ["stop", "signal"])
def test_rollbacks_after_a_resume_are_those_of_a_training_without_interruption(tmp_path, monkeypatch, capsys, how):
    """It is interrupted three times. No rollback is to the step of an interruption."""
    pytest.importorskip("orbax.checkpoint")
    monkeypatch.setattr("jaxcnn.train._loop._SECONDS_PER_CALL", 0)  # one step per call

    def interrupt(event, step):
        if event.kind == "steps" and event.step == step:
            if how == "stop":
                event.stop = True
            else:
                os.kill(os.getpid(), signal.SIGTERM)

    config = {"epochs": 2, "batch_size": 8, "seed": 1, "on_nonfinite": "rollback", "checkpoint": {"keep": 1}}
    options = {"loss": functools.partial(nonfinite_at_random, rate=0.2), "config": config}
    whole = fit(tmp_path / "whole", **options)
    rollbacks = lambda: re.findall("step .* rolled back to step .*,", capsys.readouterr().out)
    expected, found, saved = rollbacks(), [], []
    for step in (1, 2, 9):
        with contextlib.suppress(train.Interrupted):
            fit(tmp_path / "part", callbacks=[functools.partial(interrupt, step=step)], **options)
        saved.append(train.checkpoint.steps(tmp_path / "part" / "checkpoints"))
        found += rollbacks()
    resumed = fit(tmp_path / "part", **options)
    assert saved == [[0, 1], [0, 2], [8, 9]]
    assert train.checkpoint.steps(tmp_path / "part" / "checkpoints") == [16]
    assert found + rollbacks() == expected
    assert {line.split()[-1] for line in expected} == {"0,", "8,"}
    jax.tree.map(np.testing.assert_array_equal, (resumed.params, resumed.best), (whole.params, whole.best))
    assert [record["train"] for record in resumed.history] == [record["train"] for record in whole.history]


def test_a_callback_that_ends_training_within_an_epoch_saves_its_step(tmp_path):
    pytest.importorskip("orbax.checkpoint")

    def stop(event):
        if event.kind == "steps" and event.step == 1:
            event.note["done"] = True
            event.stop = True

    options = {"config": {"epochs": 2, "checkpoint": {"keep": 1}}, "callbacks": [stop]}
    assert int(fit(tmp_path, **options).train_state.step) == 1
    assert train.checkpoint.steps(tmp_path / "checkpoints") == [1]
    assert int(fit(tmp_path, **options).train_state.step) == 4


def test_history_has_only_epochs(tmp_path):
    run = train.Run("test", {}, folder=tmp_path)
    fitted = train.fit(MODEL, TRAIN_DATA, config=CONFIG, run=run)
    run.log("final", accuracy=0.9)
    again = train.fit(MODEL, TRAIN_DATA, config=CONFIG, run=train.Run("test", {}, folder=tmp_path / "b"))
    assert len(fitted.history) == len(again.history) == 2
    assert "results in" in repr(fitted)


def test_evaluate_has_the_loss_of_losses_without_that_metric():
    def loss_fn(params, state, batch, *, train, key=None):
        return jnp.float32(2.5), (state, {"error": jnp.float32(1.0)})

    assert train.evaluate(loss_fn, {}, {}, (np.ones((4, 2)), np.zeros(4))) == {"loss": 2.5, "error": 1.0}
