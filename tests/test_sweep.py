"""`sweep`: each run equals `fit` with the same settings. Chunks, resuming, non-finite runs, tables and errors."""

import functools
import gc
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn.report import report
from jaxcnn.train import ConfigError, Run, fit, sweep
from jaxcnn.train._orbax import is_key
from jaxcnn.train._sweep_programs import chunk_size, runs_at_once
from jaxcnn.train._sweep_result import SweepResult, SweepRun

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 48)
IMAGES = (RNG.normal(size=(48, 6, 6, 1)) + LABELS[:, None, None, None]).astype(np.float32)
TRAIN, TEST = (IMAGES[:32], LABELS[:32]), (IMAGES[32:], LABELS[32:])
CONFIG = {"epochs": 2, "batch_size": 8}
# Without a bias before batch norm: its gradient is rounding noise, which Adam scales up.
MODEL = cnn.serial(cnn.conv(4, bias=False), cnn.batch_norm(), jax.nn.relu, cnn.global_avg_pool, cnn.dense(3))


def with_dropout(rate):
    return cnn.serial(cnn.conv(4), jax.nn.relu, cnn.dropout(rate), cnn.global_avg_pool, cnn.dense(3))


def unweighted(model):
    def loss_fn(params, state, batch, *, train, key=None):
        logits, state = model.apply(params, state, batch["image"], train=train, key=key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), (state, {})

    return loss_fn


def run_in(folder):
    return Run("sweep", {}, folder=folder)


def same_as_fit(model, result, config, folder, metrics=None):
    """Each run of the sweep equals `fit` with its settings."""
    for i, run in enumerate(result.runs):
        single = config
        arguments = {}
        for name, value in run.settings.items():
            if name in ("rate",):
                arguments[name] = value
            else:
                single = nested(single, name.split("."), value)
        network = model(**arguments) if arguments else model
        expected = fit(network, TRAIN, eval_data=TEST, config=single, metrics=metrics, run=run_in(folder / f"fit{i}"))
        for a, b in zip(run.history, expected.history, strict=True):
            for part in ("train", "test"):
                assert a[part] == pytest.approx(b[part], rel=2e-4, abs=2e-5)
        for a, b in ((run.params, expected.params), (run.state, expected.state)):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-3, 2e-5), a, b)


def nested(config, path, value):
    if not path:
        return value
    if isinstance(config, list):
        return [nested(item, path[1:], value) if str(i) == path[0] else item for i, item in enumerate(config)]
    return config | {path[0]: nested(config.get(path[0], {}), path[1:], value)}


@pytest.mark.sample(13, 5)
@pytest.mark.parametrize(
    ("over", "config"),
    [
        ({"optimizer.learning_rate": [0.003, 0.03], "seed": [0, 7]}, {}),
        ({"weight_decay.rate": [0.0, 0.1]}, {"optimizer": {"name": "adamw", "learning_rate": 0.01}}),
        ({"weight_decay.rate": [0.0, 0.1]}, {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}),
        ({"optimizer.momentum": [0.0, 0.9]}, {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}),
        ({"regularize.l1": [0.0, 0.01], "regularize.l2": [0.01]}, {}),
        ({"label_smoothing": [0.0, 0.2], "clip_norm": [0.1]}, {}),
        ({"mixup": [0.2, 1.0]}, {}),
        ({"cutmix": [0.5, 1.0]}, {}),
        ({"ema": [0.5, 0.9]}, {"accumulate": 3}),
        ({"schedule.end": [0.001, 0.01]}, {"schedule": {"name": "linear", "warmup": 0.25}}),
        ({"schedule.end": [0.001, 0.01]}, {"schedule": {"name": "exponential"}, "optimizer": {"learning_rate": 0.05}}),
        ({"augment.0.1": [5, 40]}, {"augment": [["rotate", 10]]}),
        ({"seed": [1, 2]}, {"dtype": "bfloat16"} | {"optimizer": {"learning_rate": 1e-4}}),
    ],
    ids=str,
)
def test_runs_equal_fit(over, config, tmp_path):
    config = CONFIG | config
    result = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=config, run=run_in(tmp_path))
    same_as_fit(MODEL, result, config, tmp_path)


@pytest.mark.parametrize("mix", [pytest.param("cutmix", marks=pytest.mark.slow), "mixup"])
def test_zero_switches_off(tmp_path, mix):
    over = {"clip_norm": [0.0, 0.01], mix: [0.0, 0.3]}
    config = CONFIG | {"optimizer": {"name": "sgd", "learning_rate": 0.1}, "epochs": 1}
    result = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=config, run=run_in(tmp_path))
    same_as_fit(MODEL, result, config, tmp_path)


@pytest.mark.slow
def test_arguments_of_the_model(tmp_path):
    over = {"rate": [0.0, 0.5], "seed": [0, 1]}
    result = sweep(with_dropout, TRAIN, over=over, eval_data=TEST, config=CONFIG, run=run_in(tmp_path))
    assert [run.settings for run in result.runs][1] == {"rate": 0.0, "seed": 1}
    same_as_fit(with_dropout, result, CONFIG, tmp_path)


@pytest.mark.slow
@pytest.mark.sample(3)
@pytest.mark.parametrize("layer", [cnn.spatial_dropout, cnn.gaussian_dropout, cnn.drop_block], ids=lambda f: f.__name__)
def test_rates_of_other_random_layers(layer, tmp_path):
    make = lambda rate: cnn.serial(cnn.conv(4), layer(rate), cnn.global_avg_pool, cnn.dense(3))
    result = sweep(make, TRAIN, over={"rate": [0.1, 0.4]}, eval_data=TEST, config=CONFIG, run=run_in(tmp_path))
    same_as_fit(make, result, CONFIG, tmp_path)


@pytest.mark.slow
def test_chunks_do_not_change_results(tmp_path):
    over = {"seed": range(3)}
    whole = sweep(MODEL, TRAIN, over=over, config=CONFIG, run=run_in(tmp_path / "whole"))
    parts = sweep(MODEL, TRAIN, over=over, config=CONFIG, run=run_in(tmp_path / "parts"), chunk=2)
    for a, b in zip(whole.runs, parts.runs, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6), a.params, b.params)
        assert a.history[-1]["train"] == pytest.approx(b.history[-1]["train"], rel=1e-4)


def test_a_run_that_is_not_finite_ends_and_the_others_continue(tmp_path):
    over = {"optimizer.learning_rate": [1e30, 0.01]}
    config = CONFIG | {"optimizer": {"name": "sgd"}}
    result = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=config, run=run_in(tmp_path))
    bad, good = result.runs
    assert bad.nonfinite_step == 1
    assert bad.history == []
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(bad.params))
    assert good.nonfinite_step is None
    assert len(good.history) == 2
    assert result.best is good
    assert "1 not finite" in result.table()


def test_a_run_that_is_not_finite_does_not_continue(tmp_path):
    """The loss is not finite for some batches only, and the order of the images differs between epochs."""

    def loss(model):
        loss_fn = cnn.cross_entropy(model)

        def finite_for_most_batches(params, state, batch, *, train, key=None):
            value, (state, metrics) = loss_fn(params, state, batch, train=train, key=key)
            value = jnp.where(batch["label"][0] == 0, jnp.inf, value)
            return value, (state, metrics | {"loss": value})

        return finite_for_most_batches

    config = CONFIG | {"epochs": 4}
    result = sweep(MODEL, TRAIN, over={"seed": range(8)}, loss=loss, config=config, run=run_in(tmp_path))
    epochs = [len(run.history) for run in result.runs]
    for run, count in zip(result.runs, epochs, strict=True):
        steps = [record["step"] for record in run.history]
        assert steps == [4, 8, 12, 16][:count]
        assert (run.nonfinite_step is None) == (count == 4)
        assert run.nonfinite_step is None or 4 * count <= run.nonfinite_step < 4 * (count + 1)
    assert min(epochs) == 0 < max(epochs)


@pytest.mark.slow
def test_all_runs_not_finite(tmp_path):
    config = CONFIG | {"optimizer": {"name": "sgd"}, "epochs": 1}
    result = sweep(MODEL, TRAIN, over={"optimizer.learning_rate": [1e30]}, config=config, run=run_in(tmp_path))
    with pytest.raises(ValueError, match="no run of the sweep has a finite metric"):
        result.best  # noqa: B018
    assert "none with a finite metric" in repr(result)


def test_resume_after_an_interruption(tmp_path, monkeypatch):
    over = {"seed": range(4)}
    run = run_in(tmp_path)
    log = run.log
    monkeypatch.setattr(run, "log", lambda line, **record: log(line, **record) if record["step"] < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=CONFIG, run=run, chunk=2)
    again = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=CONFIG, run=run_in(tmp_path), chunk=2)
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3, 4]
    single = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=CONFIG, run=run_in(tmp_path / "other"), chunk=2)
    for a, b in zip(again.runs, single.runs, strict=True):
        assert (a.settings, a.history) == (b.settings, b.history)
        jax.tree.map(np.testing.assert_array_equal, (a.params, a.state), (b.params, b.state))


@pytest.mark.slow
def test_resume_with_a_damaged_chunk_and_other_chunks(tmp_path, capsys):
    options = {"over": {"seed": range(4)}, "config": CONFIG}
    first = sweep(MODEL, TRAIN, **options, run=run_in(tmp_path), chunk=2)
    (tmp_path / "sweep" / "1" / "about.json").write_text("{}")
    again = sweep(MODEL, TRAIN, **options, run=run_in(tmp_path), chunk=1)
    out = capsys.readouterr().out
    assert "its SHA-256 differs from the manifest; training its runs again" in out
    assert [run.settings["seed"] for run in again.runs] == [0, 1, 2, 3]
    for i, (a, b) in enumerate(zip(again.runs, first.runs, strict=True)):
        compare = np.testing.assert_array_equal if i >= 2 else functools.partial(np.testing.assert_allclose, rtol=1e-3)
        jax.tree.map(compare, a.params, b.params)


@pytest.mark.slow
def test_another_sweep_in_the_same_folder(tmp_path):
    sweep(MODEL, TRAIN, over={"seed": [0]}, config=CONFIG, run=run_in(tmp_path))
    with pytest.raises(ConfigError, match="different config"):
        sweep(MODEL, TRAIN, over={"seed": [1]}, config=CONFIG, run=run_in(tmp_path))


def fake(settings, accuracy, **kwargs):
    history = [{"epoch": 1, "train": {"loss": 1.0}, "test": {"accuracy": accuracy, "loss": 1 - accuracy}}]
    return SweepRun(settings, history, {}, {}, **kwargs)


def test_table_and_best(tmp_path):
    runs = [fake({"rate": rate, "seed": seed}, 0.5 + rate + seed / 100) for rate in (0.1, 0.3, 0.2) for seed in (0, 2)]
    result = SweepResult(runs, "", tmp_path)
    assert result.best.settings == {"rate": 0.3, "seed": 2}
    assert [settings["rate"] for settings, _ in result.groups()] == [0.3, 0.2, 0.1]
    assert result.table().splitlines()[1].split() == ["0.3", "81.00", "±", "1.41", "%", "0.1900", "±", "0.0141", "2"]
    assert SweepResult(runs, "loss", tmp_path).best.settings == {"rate": 0.1, "seed": 0}
    assert "rate=0.3, seed=2: accuracy 82.00%" in repr(result)


def test_table_of_runs_without_finite_metrics(tmp_path):
    """A run that ended, the first of its group, and one whose last evaluation was not finite."""
    runs = [
        fake({"rate": 0.1, "seed": 0}, 0.5, nonfinite_step=7)._replace(history=[]),
        fake({"rate": 0.1, "seed": 1}, 0.5),
    ]
    unknown = fake({"rate": 0.2, "seed": 0}, 0.5)
    unknown.history[-1]["test"] |= {"accuracy": None, "loss": None}
    result = SweepResult([*runs, unknown], "", tmp_path)
    assert result.best is result.runs[1]
    assert [row["accuracy"] for row in result.rows()] == ["50.00 %", "-"]
    assert result.table().splitlines()[1].split() == ["0.1", "50.00", "%", "0.5000", "2,", "1", "not", "finite"]


@pytest.mark.slow
def test_report(tmp_path):
    over = {"optimizer.learning_rate": [1e30, 0.01, 0.02], "seed": [0, 1]}
    config = CONFIG | {"optimizer": {"name": "sgd"}}
    result = sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=config, run=run_in(tmp_path))
    page = report(result.folder).read_text()
    assert page.count("stroke-opacity") == 2 * 6  # accuracy and loss of six runs
    assert "6 runs of 3 combinations of settings. 2 of them ended early" in page
    best = result.groups()[0][0]["optimizer.learning_rate"]
    assert page.index(f"<td>{best:g}</td>") < page.index("<td>1e+30</td>")


def test_momentum_of_nesterov(tmp_path):
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True}
    config = CONFIG | {"epochs": 1, "optimizer": optimizer}
    result = sweep(MODEL, TRAIN, over={"optimizer.momentum": [0.5, 0.9]}, config=config, run=run_in(tmp_path / "sweep"))
    alone = fit(MODEL, TRAIN, config=config, run=run_in(tmp_path / "fit"))
    np.testing.assert_allclose(result.runs[1].history[0]["train"]["loss"], alone.history[0]["train"]["loss"], rtol=1e-5)
    assert result.runs[0].history[0]["train"]["loss"] != result.runs[1].history[0]["train"]["loss"]


def test_an_int_in_the_config_for_an_argument_that_takes_a_float(tmp_path):
    config = CONFIG | {"epochs": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0}}
    result = sweep(MODEL, TRAIN, over={"optimizer.momentum": [0, 0.9]}, config=config, run=run_in(tmp_path))
    assert result.runs[0].history[0]["train"]["loss"] != result.runs[1].history[0]["train"]["loss"]


@pytest.mark.parametrize("train", [fit, functools.partial(sweep, over={"seed": [0]})], ids=["fit", "sweep"])
def test_a_run_that_is_a_path(train):
    with pytest.raises(TypeError, match=r"run must be a train\.Run, such as train\.Run\(.*, got 'runs/x'"):
        train(MODEL, TRAIN, config=CONFIG, run="runs/x")


@pytest.mark.parametrize("keep", [0, 1])
def test_a_sweep_keeps_the_log_of_another_training(tmp_path, keep, capsys):
    """Of `fit`; and of a sweep that it does not continue, since it is without checkpoints."""
    config = CONFIG | {"epochs": 1, "checkpoint": {"keep": keep}}
    path = tmp_path / "metrics.jsonl"
    go = lambda: sweep(MODEL, TRAIN, over={"seed": [0, 1]}, config=config, run=run_in(tmp_path))
    message = f"{path}: is the log of another training; renamed to metrics.jsonl.damaged"
    fit(MODEL, TRAIN, config=config, run=run_in(tmp_path))
    logs = [path.read_bytes()]
    go()
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == logs[0]
    assert capsys.readouterr().out.count(message) == 1
    logs.append(path.read_bytes())
    go()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    assert (message in capsys.readouterr().out) == (keep == 0)
    if keep:  # a resumed `fit` renames the log of the sweep, and a resumed sweep that of `fit`
        fit(MODEL, TRAIN, config=config, run=run_in(tmp_path))
        go()
        assert message in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl.damaged-2").read_bytes() == logs[1]


def test_argument_of_the_model_with_the_name_of_a_setting(tmp_path):
    with pytest.raises(ConfigError, match="'seed' is a setting and an argument of the model"):
        sweep(lambda seed: MODEL, TRAIN, over={"seed": [0, 1]}, config=CONFIG, run=run_in(tmp_path))


def test_learning_rate_zero_with_a_cosine_schedule(tmp_path):
    config = CONFIG | {"epochs": 1, "schedule": {"name": "cosine"}}
    result = sweep(MODEL, TRAIN, over={"optimizer.learning_rate": [0.0, 0.1]}, config=config, run=run_in(tmp_path))
    assert [run.nonfinite_step for run in result.runs] == [None, None]
    assert [run.history[0]["train"]["loss"] is not None for run in result.runs] == [True, True]


@pytest.mark.parametrize("over", [None, ["seed"], {"seed": 3}])
def test_over_must_be_names_and_values(over, tmp_path):
    with pytest.raises(TypeError, match=r"sweep: over must be a dict of names and values, such as .*, got"):
        sweep(MODEL, TRAIN, over=over, config=CONFIG, run=run_in(tmp_path))


@pytest.mark.parametrize(
    ("over", "config", "message"),
    [
        ({}, {}, "over is empty"),
        ({"sead": [1]}, {}, "unknown 'sead'; expected one of: .*did you mean 'seed'"),
        ({"epochs": [1, 2]}, {}, "'epochs' changes the compiled program"),
        ({"optimizer.name": ["sgd", "adam"]}, {}, "'optimizer.name' changes the compiled program"),
        ({"augment": [[], ["flip"]]}, {}, "'augment' changes the compiled program"),
        ({"schedule.warmup": [0.1]}, {}, "'schedule.warmup' changes the compiled program"),
        ({"augment.0.1": [1, 2]}, {"augment": [["translate", 1]]}, "'augment.0.1' changes the compiled program"),
        ({"augment.0.1": [1, 2]}, {"augment": [["rand_augment", 2]]}, "'augment.0.1' changes the compiled program"),
        ({"seed": []}, {}, "'seed' must have one or more numbers"),
        ({"seed": [0, 1, 0]}, {}, r"'seed' has a value more than once: \[0, 1, 0\]"),
        ({"optimizer.learning_rate": [1e50]}, {}, "'optimizer.learning_rate' must have numbers that are finite in"),
        (
            {"optimizer.ns_steps": [3, 5]},
            {"optimizer": {"name": "muon", "ns_steps": 5}},
            "'optimizer.ns_steps' changes the compiled program",
        ),
        ({"ema": ["a"]}, {}, "'ema' must have one or more numbers"),
        ({"ema": [1.5]}, {}, "ema must be at least 0 and below 1"),
        ({"seed": [0]}, {"patience": 3}, "patience: a sweep does not support it"),
        ({"features": [4, 8]}, {}, "features=8 gives parameters of other shapes"),
    ],
    ids=str,
)
def test_errors(over, config, message, tmp_path):
    make = lambda features=4: cnn.serial(cnn.flatten, cnn.dense(features))
    with pytest.raises(ConfigError, match=message):
        sweep(make if "features" in over else MODEL, TRAIN, over=over, config=CONFIG | config, run=run_in(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": CONFIG | {"watch": "accurracy"}}, "watch: unknown metric 'accurracy'.*did you mean 'accuracy'"),
        ({"metrics": {"f1": cnn.metrics.f1()}, "eval_data": None}, "metrics need eval_data"),
        (
            {"loss": unweighted, "eval_data": (TEST[0][:5], TEST[1][:5])},
            r'eval_data: the loss ignores batch\["weight"\]',
        ),
    ],
)
def test_errors_before_training(options, message, tmp_path):
    config = CONFIG | {"evaluate": {"batch_size": 4}}
    options = {"over": {"seed": [0]}, "eval_data": TEST, "config": config} | options
    with pytest.raises(ValueError, match=message):
        sweep(MODEL, TRAIN, **options, run=run_in(tmp_path))
    assert not (tmp_path / "sweep").exists()


def test_seeds_are_printed_with_all_digits(tmp_path, capsys):
    result = sweep(MODEL, TRAIN, over={"seed": [20240101, 20240102]}, config=CONFIG, run=run_in(tmp_path))
    printed = capsys.readouterr().out
    assert "(seed=20240101)" in printed
    assert "(seed=20240102)" in printed
    assert "best seed=2024010" in repr(result)


def test_fit_with_seeds_is_a_sweep(tmp_path):
    config = CONFIG | {"seed": 3}
    options = {"eval_data": TEST, "config": config, "metrics": {"f1": cnn.metrics.f1()}}
    result = fit(MODEL, TRAIN, seeds=2, **options, run=run_in(tmp_path / "fit"))
    expected = sweep(MODEL, TRAIN, over={"seed": [3, 4]}, **options, run=run_in(tmp_path / "sweep"))
    assert [run.settings for run in result.runs] == [{"seed": 3}, {"seed": 4}]
    assert [run.history for run in result.runs] == [run.history for run in expected.runs]
    for a, b in zip(result.runs, expected.runs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, (a.params, a.state), (b.params, b.state))
    same_as_fit(MODEL, result, CONFIG, tmp_path, metrics=options["metrics"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds must be an integer of at least 1, the number of networks, got 0"),
        ({"seeds": 2.0}, "seeds must be an integer .* got 2.0"),
        ({"seeds": range(3)}, r"seeds must be an integer .* got range\(0, 3\)"),
        ({"seeds": 2, "callbacks": [print]}, "callbacks: fit with seeds=2 trains all networks in one program"),
        ({"seeds": 2, "start": ({}, {})}, "start: fit with seeds=2 trains all networks in one program"),
        ({"seeds": 2, "optimizer": optax.sgd(0.1)}, "optimizer: fit with seeds=2 trains all networks in one program"),
        ({"seeds": 2, "config": CONFIG | {"patience": 3}}, "patience: a sweep does not support it"),
        ({"seeds": 2, "config": CONFIG | {"seed": 2**32 - 1}}, "seed must be at least 0 and below 4294967296"),
    ],
)
def test_errors_of_seeds(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(MODEL, TRAIN, **{"config": CONFIG} | options, run=run_in(tmp_path))


def device_bytes(folder, runs, chunk, monkeypatch):
    """The most bytes on the device, after any epoch of a sweep, and those of the intermediate results of an epoch."""
    live, temporary = [], []

    class Jit:
        def __init__(self, function, **options):
            self.function = jax.jit(function, **options)

        def __call__(self, *args):
            if len(args) == 4:  # train_epoch
                temporary.append(self.function.lower(*args).compile().memory_analysis().temp_size_in_bytes)
            result = self.function(*args)
            gc.collect()
            live.append(sum(array.nbytes for array in jax.live_arrays() if not is_key(array)))
            return result

    monkeypatch.setattr("jaxcnn.train._sweep_programs.jit", Jit)
    sweep(MODEL, TRAIN, over={"seed": range(runs)}, config=CONFIG, run=run_in(folder), chunk=chunk)
    return max(live), max(temporary)


def test_runs_at_once(monkeypatch):
    """As many as fit into 40 % of 100 MB, but at most 16; one if a step has more than 400 MB."""
    of_size = lambda size: runs_at_once(jax.make_jaxpr(lambda x: x + 1)(jax.ShapeDtypeStruct((size // 4,), np.float32)))
    memory = "jaxcnn.train._sweep_programs._free_memory"
    monkeypatch.setattr(memory, lambda: 1e8)
    assert [of_size(size) for size in (10**6, 10**7, 5 * 10**7)] == [16, 4, 1]
    monkeypatch.setattr(memory, lambda: 1e12)
    assert [of_size(size) for size in (10**7, 3 * 10**8, 5 * 10**8)] == [16, 16, 1]


@pytest.mark.full
def test_memory_grows_with_the_chunk_not_with_the_runs(tmp_path, monkeypatch):
    few, many, larger = (
        device_bytes(tmp_path / str(i), runs, chunk, monkeypatch)
        for i, (runs, chunk) in enumerate([(8, 4), (32, 4), (32, 16)])
    )
    assert many == few
    assert larger[0] > few[0]
    assert larger[1] > 2 * few[1]


def test_stream(tmp_path):
    stream = cnn.data.Stream(lambda step: iter(()), 4, jax.ShapeDtypeStruct((8, 6, 6, 1), np.float32))
    with pytest.raises(TypeError, match="sweep needs training data in memory"):
        sweep(MODEL, stream, over={"seed": [0]}, config=CONFIG, run=run_in(tmp_path))


@pytest.mark.parametrize(("runs", "limit", "size"), [(10, 100, 10), (10, 4, 4), (10, 9, 5), (9, 4, 3), (3, 0, 1)])
def test_chunk_size(runs, limit, size):
    assert chunk_size(runs, limit) == size


PROGRAM = """
import json
import sys
from tests.test_sweep import CONFIG, MODEL, TEST, TRAIN, run_in, sweep
options = json.loads(sys.argv[2])
result = sweep(MODEL, TRAIN, **options, eval_data=TEST, config=CONFIG | {"watch": "-loss"}, run=run_in(sys.argv[1]))
print(json.dumps([run.history for run in result.runs]))
"""


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "options",
    [
        {"over": {"seed": [0, 1, 2]}},
        {"over": {"optimizer.learning_rate": [1e-4, 1e-3, 0.01], "seed": [0]}, "halving": 2},
    ],
    ids=str,
)
def test_devices_share_the_runs(options, tmp_path):
    """Three runs on two devices: a copy of the last run fills up the second device."""
    histories = []
    for devices in (1, 2):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / str(devices)), json.dumps(options)]
        out = subprocess.run(command, env=os.environ | flags, check=True, capture_output=True, text=True).stdout
        histories.append(json.loads(out.splitlines()[-1]))
    for a, b in zip(*histories, strict=True):
        for x, y in zip(a, b, strict=True):
            assert x["test"] == pytest.approx(y["test"], rel=1e-5)
            assert x["train"] == pytest.approx(y["train"], rel=1e-5)


@pytest.mark.parametrize("metrics", [{}, {"r2": cnn.metrics.r2()}])
def test_several_evaluation_batches(tmp_path, metrics):
    """r2 adds means and squares of batches, which differ between the runs."""
    x = RNG.normal(size=(70, 4)).astype(np.float32)
    data = x, (x @ RNG.normal(size=(4, 3)) + RNG.normal(size=(70, 3))).astype(np.float32)
    config = {"epochs": 1, "batch_size": 32, "evaluate": {"batch_size": 32}, "checkpoint": {"keep": 0}}
    options = {"eval_data": data, "loss": cnn.mean_squared_error, "metrics": metrics, "config": config}
    swept = sweep(cnn.dense(3), data, over={"seed": np.arange(2)}, run=run_in(tmp_path / "sweep"), **options)
    for seed, run in enumerate(swept.runs):
        single = options | {"config": config | {"seed": seed}}
        expected = fit(cnn.dense(3), data, run=run_in(tmp_path / f"{seed}"), **single)
        assert run.history[0]["test"] == pytest.approx(expected.history[0]["test"], rel=1e-4)


def test_numpy_values_are_saved_and_resumed(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    over = {"seed": np.arange(2), "optimizer.learning_rate": np.array([1e-3, 1e-2], np.float32)}
    first, second = (
        sweep(MODEL, TRAIN, over=over, eval_data=TEST, config=CONFIG, run=run_in(tmp_path)) for _ in range(2)
    )
    assert [run.settings for run in first.runs] == [run.settings for run in second.runs]
    assert all(type(value) in (int, float) for run in first.runs for value in run.settings.values())


def test_metrics_of_entries_that_only_the_evaluation_data_have(tmp_path):
    group = cnn.metrics.Metric(lambda output, batch: (batch["group"] * batch["weight"]).sum(), lambda total: total)
    eval_data = {"image": TEST[0], "label": TEST[1], "group": np.ones(16, np.float32)}
    options = {"eval_data": eval_data, "metrics": {"group": group}, "config": CONFIG | {"watch": "group"}}
    swept = sweep(MODEL, TRAIN, over={"seed": [0]}, run=run_in(tmp_path / "sweep"), **options)
    assert swept.runs[0].history[-1]["test"]["group"] == 16
    assert fit(MODEL, TRAIN, run=run_in(tmp_path / "fit"), **options).best.metrics["group"] == 16
