"""`fit` with signals at any time, other writers, and damaged logs."""

import errno
import json
import os
import signal
import threading

import pytest

import jaxcnn as cnn
from jaxcnn import data, train
from jaxcnn.train import _fit, _log, callbacks, checkpoint

pytest.importorskip("orbax.checkpoint")

DIGITS = data.load("mnist_small", "test")
FEW = data.Dataset(DIGITS.images[:64], DIGITS.labels[:64], DIGITS.classes)
MODEL = cnn.serial(cnn.max_pool(7), cnn.flatten, cnn.dense(10))
CONFIG = {"epochs": 2, "batch_size": 32, "checkpoint": {"keep": 1}}
SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]


def fit(folder, callbacks=(), **config):
    run = train.Run("test", {}, folder=folder)
    return train.fit(MODEL, FEW, eval_data=FEW, callbacks=callbacks, config=CONFIG | config, run=run)


def stop_after_an_epoch(event):
    event.stop = event.kind == "epoch"


def rows(history):
    return [{name: record[name] for name in ("epoch", "step", "train", "test")} for record in history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return rows(fit(tmp_path_factory.mktemp("whole")).history)


@pytest.mark.sample(3)
@pytest.mark.parametrize(("number", "status"), SIGNALS)
@pytest.mark.parametrize("save", [1, 2])
def test_a_signal_during_a_save(tmp_path, monkeypatch, capsys, whole, number, status, save):
    """During the first or last save of the training. No step is written twice."""
    written = []

    real = checkpoint.save

    def saving(folder, step, *args, **options):
        real(folder, step, *args, **options)
        written.append(step)
        if len(written) == save:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", saving)
        with pytest.raises(train.Interrupted) as caught:
            fit(tmp_path)
    assert caught.value.code == status
    assert written == [2, 4][:save]
    assert f"stopped by signal {int(number)} at step {2 * save}; checkpoint saved in" in capsys.readouterr().out
    assert rows(fit(tmp_path).history) == whole


@pytest.mark.parametrize(
    ("where", "number", "status"), [(w, *s) for w, s in zip(["evaluation", "report", "end"], SIGNALS, strict=True)]
)
def test_a_signal_at_the_end_of_training(tmp_path, monkeypatch, where, number, status):
    def kill(*args, **options):
        os.kill(os.getpid(), number)
        return real(*args, **options)

    real = _fit.mean_metrics
    match where:
        case "evaluation":
            monkeypatch.setattr(_fit, "mean_metrics", kill)
        case "report":
            at_end = lambda event: event.kind == "end" and os.kill(os.getpid(), number)
            monkeypatch.setattr("jaxcnn.report.write_report", lambda model, data: at_end)
        case "end":  # after training has checked for a signal for the last time
            asking = callbacks.signals

            def signals(received_signal, checkpoints):
                ask = asking(received_signal, checkpoints)
                return lambda event: (ask(event), event.kind == "end" and os.kill(os.getpid(), number))

            monkeypatch.setattr(callbacks, "signals", signals)
    with pytest.raises(train.Interrupted) as caught:
        fit(tmp_path, report=where == "report", epochs=1)
    assert caught.value.code == status
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path / "checkpoints") == [2]


def test_an_ignored_sighup_stays_ignored(tmp_path):
    from jaxcnn.train._interrupt import stop_signal

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_signal() as received_signal:
        os.kill(os.getpid(), signal.SIGHUP)
        assert received_signal() == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_another_fit_is_refused_before_it_changes_anything(tmp_path, monkeypatch):
    fit(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run = train.Run("test", {}, folder=tmp_path)
    with run.locked(), pytest.raises(train.CheckpointError, match="in use by process"):
        fit(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    fit(tmp_path)


def test_threads_that_fit(tmp_path, whole):
    """Threads with separate folders do not interact. In one folder, one of them is rejected."""
    results = {}

    def work(name, folder):
        try:
            results[name] = rows(fit(tmp_path / folder).history)
        except train.CheckpointError as error:
            results[name] = str(error)

    threads = [threading.Thread(target=work, args=(i, folder)) for i, folder in enumerate("abb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == whole
    if results[1] != results[2]:  # else one began when the other had ended
        assert whole in (results[1], results[2])
        assert any("in use by process" in str(results[name]) for name in (1, 2)), results
    for folder in "ab":
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.mark.parametrize("line", [b"\xff\n", b"[" * 50_000 + b"\n"])
def test_a_damaged_log_does_not_stop_a_resume(tmp_path, monkeypatch, whole, line):
    fit(tmp_path, callbacks=[stop_after_an_epoch])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line + path.read_bytes())
    (tmp_path / "config.json").write_text("")
    assert rows(fit(tmp_path).history) == whole
    assert (tmp_path / "metrics.jsonl.damaged").exists()
    assert rows(map(json.loads, path.read_text().splitlines())) == whole


def test_a_step_that_was_being_replaced_is_resumed(tmp_path, whole, capsys):
    fit(tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "4").rename(folder / "4.removed")
    (folder / "4.partial").mkdir()
    capsys.readouterr()
    assert rows(fit(tmp_path).history) == whole
    assert "resuming from step 4" in capsys.readouterr().out


def test_a_damaged_step_is_skipped(tmp_path, whole, capsys):
    """It is reported as a printed line, because warnings may be errors, as in this test."""
    fit(tmp_path, checkpoint={"keep": 2})
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "checkpoints" / "5")  # also a step of another name is none
    assert rows(fit(tmp_path, checkpoint={"keep": 2}).history) == whole
    out = capsys.readouterr().out
    assert "about.json: belongs to step 4, not to step 5; using step 2 instead" in out
    assert "resuming from step 2" in out


def test_a_log_that_cannot_be_written_does_not_end_a_training(tmp_path, monkeypatch, capsys, whole):
    def disk_full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    run = train.Run("test", {}, folder=tmp_path)
    monkeypatch.setattr(_log, "replace", disk_full)
    fitted = train.fit(MODEL, FEW, eval_data=FEW, config=CONFIG, run=run)
    assert rows(fitted.history) == whole
    assert capsys.readouterr().out.count("cannot write the records") == 1
