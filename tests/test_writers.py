"""Several processes and threads that use one run folder: they wait for each other or are rejected."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.train import FIT, CheckpointError, ConfigError, Run, _checkpoint_folder, checkpoint, override
from jaxcnn.train._interrupt import stop_signal
from jaxcnn.train._lock import locked
from jaxcnn.train._recipe import merge
from tests.test_checkpoint_folder import read, write
from tests.test_run import log_of

ROOT = pathlib.Path(__file__).parent.parent
LIKE = {"w": jnp.zeros(3)}
posix = pytest.mark.skipif(os.name != "posix", reason="needs fork and flock")


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


LOCK_AND_FORK = """
import os, pathlib, sys, time
from jaxcnn.train._lock import locked
folder = pathlib.Path(sys.argv[1])
say = lambda text: os.write(1, f"{text}\\n".encode())  # in one piece, as two processes share the pipe
with locked(folder):
    child = os.fork()
    if child:
        say(child)
        time.sleep(60)
    try:
        with locked(folder):
            pass
    except Exception:
        say("refused")
# The child leaves the block, which must not remove the lock of its parent.
say(folder.joinpath("lock").exists())
time.sleep(60)
"""


@posix
def test_a_forked_process_does_not_hold_the_lock_of_its_parent(tmp_path):
    """Data loading workers can outlive a killed training process."""
    owner = python(LOCK_AND_FORK, tmp_path)
    lines = [owner.stdout.readline().strip() for _ in range(3)]
    child = int(next(line for line in lines if line.isdigit()))
    try:
        assert {*lines} == {str(child), "refused", "True"}
        with pytest.raises(CheckpointError, match=f"in use by process {owner.pid}"), locked(tmp_path):
            pass
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it lives
        with locked(tmp_path):
            pass
    finally:
        owner.kill()
        os.kill(child, signal.SIGKILL)
        owner.communicate()


SAVE = """
import sys
import jax.numpy as jnp
from jaxcnn.train import checkpoint
for step in range(8):
    checkpoint.save(sys.argv[1], step, {"w": jnp.full(3, step)}, keep=2)
"""


@posix
def test_processes_that_save_into_one_folder_take_turns(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    processes = [python(SAVE, tmp_path) for _ in range(2)]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0, out
    assert checkpoint.steps(tmp_path)[-1] == 7
    assert all(_checkpoint_folder.damage(tmp_path / str(step), step) is None for step in checkpoint.steps(tmp_path))
    assert all(path.name.isdigit() for path in tmp_path.iterdir())


@posix
def test_reading_waits_for_a_step_that_is_being_replaced(tmp_path, monkeypatch):
    """A reader that renamed the old step back would block the new one."""
    pytest.importorskip("orbax.checkpoint")
    checkpoint.save(tmp_path, 1, {"w": jnp.ones(3)}, keep=1)
    code = (
        "import pathlib, sys\nfrom jaxcnn.train import checkpoint\n"
        "print('here', flush=True)\nprint(checkpoint.recovered_steps(pathlib.Path(sys.argv[1])), flush=True)"
    )
    readers = []
    aside = _checkpoint_folder._rename_removed

    def slow(path):
        removed = aside(path)
        readers.append(python(code, tmp_path))
        assert readers[0].stdout.readline() == "here\n"
        with pytest.raises(subprocess.TimeoutExpired):
            readers[0].wait(timeout=0.5)
        return removed

    monkeypatch.setattr(_checkpoint_folder, "_rename_removed", slow)
    checkpoint.save(tmp_path, 1, {"w": jnp.full(3, 2.0)}, keep=1)
    assert readers[0].communicate(timeout=60)[0] == "[1]\n"
    assert checkpoint.restore(tmp_path, LIKE).tree["w"].tolist() == [2, 2, 2]


def test_threads_that_save_and_restore(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    failed = []

    def work(i):
        try:
            for step in range(4):
                checkpoint.save(tmp_path / str(i), step, {"w": jnp.full(3, 10.0 * i + step)}, keep=1)
                np.testing.assert_array_equal(checkpoint.restore(tmp_path / str(i), LIKE).tree["w"], 10 * i + step)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_damaged_later_steps_do_not_displace_valid_ones(tmp_path):
    """Training restarts from step 2, because steps 5 to 7 are damaged."""
    for step in (1, 2, 5, 6, 7):
        write(tmp_path, step, b"%d" % step)
    for step in (5, 6, 7):
        (tmp_path / str(step) / "about.json").write_text("{")
    for step in (3, 4):
        write(tmp_path, step, b"%d" % step)
        _checkpoint_folder.prune(tmp_path, 2, step)
    assert _checkpoint_folder.steps(tmp_path) == [3, 4, 5, 6, 7]
    write(tmp_path, 8, b"8")
    _checkpoint_folder.prune(tmp_path, 2, 8)
    assert _checkpoint_folder.steps(tmp_path) == [4, 8]


def test_a_step_of_another_number_is_not_the_best(tmp_path):
    for step in (1, 2):
        write(tmp_path, step, b"", metric=step / 10)
    (tmp_path / "2").rename(tmp_path / "5")
    assert _checkpoint_folder.best(tmp_path) == 1


def test_a_complete_step_without_its_name_is_used(tmp_path):
    write(tmp_path, 1, b"new")
    (tmp_path / "1").rename(tmp_path / "1.partial")
    write(tmp_path / "other", 1, b"old")
    (tmp_path / "other" / "1").rename(tmp_path / "1.removed")
    assert read(tmp_path) == (1, b"new")


@posix
@pytest.mark.parametrize("name", ["manifest.json", "about.json"])
def test_a_pipe_in_place_of_a_file_is_damage(tmp_path, name):
    write(tmp_path, 1, b"")
    (tmp_path / "1" / name).unlink()
    os.mkfifo(tmp_path / "1" / name)
    assert _checkpoint_folder.damage(tmp_path / "1", 1)
    assert name == "manifest.json" or _checkpoint_folder.best(tmp_path) is None


@posix
def test_a_pipe_in_place_of_the_log(tmp_path, capsys):
    run = Run("test", {}, folder=tmp_path)
    os.mkfifo(tmp_path / "metrics.jsonl")
    run.forget_after(5, [{"step": 5}])
    assert log_of(tmp_path) == [{"step": 5}]
    assert "metrics.jsonl: is not a file; renamed to metrics.jsonl.damaged" in capsys.readouterr().out


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_so(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_signal() as received_signal:
            os.kill(os.getpid(), number)
            assert received_signal() == 0
    finally:
        signal.signal(number, before)


def test_runs_that_start_together_in_one_folder(tmp_path):
    begun = []
    for number in range(50):
        together = threading.Barrier(3)

        def work(folder=tmp_path / str(number), together=together):
            together.wait()
            begun.append(Run("test", {"seed": 1}, folder=folder))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["config.json"]
    assert len(begun) == 150


# Arguments and records


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"step": 2.5}, TypeError, "step must be an integer, got 2.5"),
        ({"step": "3"}, TypeError, "step must be an integer, got '3'"),
        ({"keep": 1.5}, TypeError, "keep must be an integer, got 1.5"),
        ({"metric": "high"}, TypeError, "metric must be a number or None, got 'high'"),
        ({"metric": "0.5"}, TypeError, "metric must be a number or None, got '0.5'"),
        ({"metric": 10**400}, TypeError, "metric must be a number or None, got 1000"),
        ({"metric": float("nan")}, ValueError, "metric must be a finite number or None, got nan"),
        ({"note": {1, 2}}, TypeError, "config and note must be JSON-serializable: .*set"),
        ({"config": {"rate": float("inf")}}, ValueError, "config and note must be JSON-serializable"),
    ],
)
def test_save_validates_before_it_writes(tmp_path, arguments, error, message):
    pytest.importorskip("orbax.checkpoint")
    with pytest.raises(error, match=f"checkpoint.save: {message}"):
        checkpoint.save(tmp_path, **({"step": 1, "tree": LIKE} | arguments))
    assert [*tmp_path.iterdir()] == []


def test_save_accepts_numpy_and_jax_numbers(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    checkpoint.save(tmp_path, np.int64(1), LIKE, metric=np.float32(0.5))
    checkpoint.save(tmp_path, jnp.int32(2), LIKE, metric=jnp.float32(0.25))
    assert checkpoint.steps(tmp_path) == [1, 2]
    assert checkpoint.best(tmp_path) == 1


def test_a_name_that_no_file_can_have(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    for where in (tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(CheckpointError, match="cannot write the run folder: "):
            Run("test", {}, folder=where)
        with pytest.raises(CheckpointError, match="cannot write 12 bytes of arrays: "):
            checkpoint.save(where, 1, LIKE)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float32(0.5), 0.5),
        (jnp.int32(3), 3),
        (jnp.bfloat16(0.5), 0.5),
        (np.float64("nan"), None),
        (np.array([1.0, np.inf]), [1.0, None]),
        ([1, (float("nan"),)], [1, [None]]),
        ("\udcff", "\udcff"),
    ],
)
def test_records_of_any_numbers(tmp_path, value, written):
    run = Run("test", {}, folder=tmp_path)
    run.log("", value=value)
    assert run.records == log_of(tmp_path) == [{"value": written}]


def test_a_record_after_one_that_was_cut_off(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    Run("test", {}, folder=tmp_path).log("", step=2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"st\n{"step": 2}\n'


def test_a_config_that_is_not_finite_is_read_again(tmp_path, capsys):
    for _ in range(2):
        Run("test", {"rate": float("nan")}, folder=tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["[NaN]", "[1e999]", "[1, [-Infinity]]", '[{"a": NaN}]', "[" * 100_000])
def test_lists_hold_only_what_json_can(text):
    with pytest.raises(ConfigError, match="widths must be of type list"):
        override({"widths": [1]}, [f"widths={text}"])


def test_an_integer_too_large_for_a_float():
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate must be of type float"):
        merge(FIT, {"optimizer": {"learning_rate": 10**400}})


class Plain:
    """A replacement of stdout, as some programs use."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_output_that_is_not_a_file(tmp_path, monkeypatch):
    out = Plain()
    monkeypatch.setattr(sys, "stdout", out)
    Run("test", {}, folder=tmp_path).say("line")
    assert out.text == "line\n"
