"""Successive halving: the runs that are kept, their equality with a plain sweep, resuming, and the work it saves."""

import json
import logging
import statistics

import jax
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn.report import report
from jaxcnn.train import Carry, ConfigError, SweepResult, SweepRun, TrainState, sweep
from jaxcnn.train._sweep_halving import rungs, survivors
from jaxcnn.train._sweep_train import Trained
from tests.test_sweep import TEST, TRAIN, run_in

MODEL = cnn.serial(cnn.flatten, cnn.dense(3))
RATES = [1e-4, 3e-4, 1e38, 1e-3, 3e-3, 1e-2, 0.03]
OVER = {"optimizer.learning_rate": RATES, "seed": [0, 1, 2]}
CONFIG = {"epochs": 4, "batch_size": 8, "optimizer": {"name": "sgd"}, "watch": "-loss"}
CONFIG |= {"checkpoint": {"keep": 0}}
OPTIONS = {"over": OVER, "eval_data": TEST, "config": CONFIG}


def halved(folder, **options):
    run = options.pop("run", None) or run_in(folder)
    return sweep(MODEL, TRAIN, **OPTIONS | {"run": run, "chunk": 2, "halving": 2} | options)


def same(a, b):
    """Equal runs, up to the rounding of programs for different numbers of runs."""
    assert (a.settings, a.nonfinite_step, len(a.history)) == (b.settings, b.nonfinite_step, len(b.history))
    for x, y in zip(a.history, b.history, strict=True):
        for part in ("train", "test"):
            assert x[part] == pytest.approx(y[part], rel=1e-5, abs=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-7), (a.params, a.state), (b.params, b.state))


@pytest.mark.parametrize(
    ("combinations", "epochs", "eta", "expected"),
    [
        (9, 9, 3, [(0, 1, 9), (1, 3, 3), (3, 9, 1)]),
        (81, 81, 3, [(0, 1, 81), (1, 3, 27), (3, 9, 9), (9, 27, 3), (27, 81, 1)]),  # Li et al., 2018, table 1
        (100, 10, 3, [(0, 1, 100), (1, 3, 33), (3, 10, 11)]),
        (10, 8, 2, [(0, 1, 10), (1, 2, 5), (2, 4, 2), (4, 8, 1)]),
        (3, 30, 3, [(0, 10, 3), (10, 30, 1)]),
        (7, 30, 0, [(0, 30, 7)]),
    ],
)
def test_rungs(combinations, epochs, eta, expected):
    assert [tuple(rung) for rung in rungs(combinations, epochs, eta)] == expected


def test_survivors_are_ranked_by_the_mean_over_seeds():
    run = lambda rate, seed, loss, **options: SweepRun(
        {"rate": rate, "seed": seed}, [{"train": {"loss": loss}}], {}, {}, **options
    )
    runs = {
        10: run(0.1, 0, 0.1),  # the best single run, of a combination with a worse mean
        11: run(0.1, 1, 0.9),
        12: run(0.2, 0, 0.4),
        13: run(0.2, 1, 0.5),
        14: run(0.3, 0, 0.01),
        15: run(0.3, 1, 9.0, nonfinite_step=3)._replace(history=[]),
        16: run(0.4, 0, 0.0, nonfinite_step=1)._replace(history=[]),
        17: run(0.4, 1, 0.0, nonfinite_step=1)._replace(history=[]),
    }
    assert survivors(runs, 1, "") == [12, 13]
    assert survivors(runs, 2, "") == [10, 11, 12, 13]
    assert survivors(runs, 3, "") == [10, 11, 12, 13, 14]  # a non-finite run does not continue
    assert survivors(runs, 4, "") == [10, 11, 12, 13, 14]


def test_a_resumed_run_at_the_end_of_an_earlier_rung():
    """A run with the records of three epochs, which was not finite in the fourth one."""
    train_state = TrainState(0, {"w": np.ones(2)}, {}, (), None)
    trained = Trained([{"epoch": epoch} for epoch in (1, 2, 3)], 9, Carry(train_state, {}, 0, 0, 0))
    at_end = {epoch: trained.run({"seed": 0}, epoch) for epoch in (2, 3, 4)}
    assert {epoch: len(run.history) for epoch, run in at_end.items()} == {2: 2, 3: 3, 4: 3}
    assert {epoch: run.nonfinite_step for epoch, run in at_end.items()} == {2: None, 3: None, 4: 9}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All combinations for all epochs, and with successive halving."""
    folder = tmp_path_factory.mktemp("sweeps")
    plain = sweep(MODEL, TRAIN, **OPTIONS, run=run_in(folder / "plain"))
    return plain, halved(folder / "halved")


def test_survivors_equal_a_plain_sweep(results):
    """The oracle drops combinations by the records of the plain sweep."""
    plain, result = results
    loss_after = lambda rate, epoch: statistics.mean(
        run.history[epoch - 1]["test"]["loss"] for run in plain.runs if run.settings["optimizer.learning_rate"] == rate
    )
    epochs, left = {1e38: 0}, [rate for rate in RATES if rate != 1e38]
    for end, following in ((1, 3), (2, 1), (4, 0)):
        kept = sorted(left, key=lambda rate: loss_after(rate, end))[:following]
        epochs |= {rate: end for rate in left if rate not in kept}
        left = kept
    assert sorted(epochs.values()) == [0, 1, 1, 1, 2, 2, 4]
    for run, full in zip(result.runs, plain.runs, strict=True):
        count = epochs[run.settings["optimizer.learning_rate"]]
        assert len(run.history) == count
        if count in (0, 4):
            same(run, full)
        else:
            assert run.history[-1]["test"] == pytest.approx(full.history[count - 1]["test"], rel=1e-5)
    assert result.best.settings["optimizer.learning_rate"] == 0.03


def test_work_and_table(results):
    plain, result = results
    assert result.work == (1 * 4 + 2 * 2 + 3 * 1) / (7 * 4)
    assert plain.work == 6 / 7  # with the largest learning rate, no epoch was finite
    assert [row["epochs"] for row in result.rows()] == ["4", "2", "2", "1", "1", "1", "0"]
    assert "epochs" not in plain.rows()[0]
    assert [row["runs"] for row in result.rows()][-2:] == ["3", "3, 3 not finite"]


def test_log_and_report(results):
    folder = results[1].folder
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(record["step"] for record in records) == [*range(1, 22)]
    assert [len(record["history"]) for record in records if record["history"]] == [1] * 9 + [2] * 6 + [4] * 3
    page = report(folder).read_text()
    assert "Successive halving trained 39% of the epochs; a dot is the end of a run that was dropped." in page
    assert page.count('r="2" fill=') == 2 * 15  # in the charts of accuracy and loss
    curves = [path.split('"')[0] for path in page.split('<path d="')[1:]]
    assert [path.count("L") for path in curves if path] == [0] * 9 + [1] * 6 + [3] * 3 + [0] * 9 + [1] * 6 + [3] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "said", ["successive halving: 9 runs until epoch 2", "successive halving: 3 runs until epoch 4"]
)
def test_resume(results, said, tmp_path, monkeypatch):
    run = run_in(tmp_path)
    say = run.say
    monkeypatch.setattr(run, "say", lambda line: say(line) if line != said else 1 / 0)
    config = CONFIG | {"checkpoint": {"keep": 1}}
    with pytest.raises(ZeroDivisionError):
        halved(tmp_path, run=run, config=config)
    count = len([*(tmp_path / "sweep").iterdir()])
    again = halved(tmp_path, config=config, chunk=3)  # chunks need not be the same
    for a, b in zip(again.runs, results[1].runs, strict=True):
        same(a, b)
    assert count == (11 if "9 runs" in said else 16)
    assert len([*(tmp_path / "sweep").iterdir()]) == count + (4 if "9 runs" in said else 1)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(record["step"] for record in records) == [*range(1, 22)]


@pytest.mark.slow
def test_compiles_once_for_each_size(tmp_path, caplog):
    for chunk, sizes in ((2, 1), (0, 3)):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level(logging.WARNING):
            halved(tmp_path / str(chunk), chunk=chunk)
        messages = [record.getMessage() for record in caplog.records]
        compiled = lambda name: sum(message.startswith(f"Compiling jit({name})") for message in messages)  # noqa: B023
        assert [compiled(name) for name in ("create", "train_epoch", "measure")] == [1, sizes, sizes]


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        (OVER, {"halving": 1}, "halving must be an integer of at least 2, or 0 to train all combinations, got 1"),
        (OVER, {"halving": 2.5}, "halving must be an integer"),
        (OVER, {"halving": 5}, "halving=5 needs at least 5 combinations .* and 5 epochs, got 7 and 4"),
        ({"seed": range(9)}, {"halving": 2}, "halving=2 needs at least 2 combinations .* got 1 and 4"),
    ],
    ids=str,
)
def test_errors(over, options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        halved(tmp_path, over=over, **options)


def test_runs_with_the_most_epochs_are_the_best(tmp_path):
    run = lambda rate, *losses: SweepRun({"rate": rate}, [{"train": {"loss": loss}} for loss in losses], {}, {})
    result = SweepResult([run(0.1, 0.2), run(0.2, 0.9, 0.5), run(0.3, 0.9, 0.4)], "", tmp_path)
    assert result.best.settings == {"rate": 0.3}
    assert [settings["rate"] for settings, _ in result.groups()] == [0.3, 0.2, 0.1]
