"""The run folder: its lock, recovery from damaged logs, and one-line errors."""

import errno
import functools
import io
import json
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxcnn.train import CheckpointError, ConfigError, Run, _flock, _log, command, override
from jaxcnn.train._lock import locked
from tests.test_checkpoint_folder import mutated

ROWS = [{"epoch": i, "step": 5 * i, "train": {"loss": 1 / i}} for i in (1, 2, 3)]


def log_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def logged(tmp_path):
    run = Run("test", {}, folder=tmp_path)
    for row in ROWS:
        run.log("", **row)
    return tmp_path


# One writer


def test_a_second_writer_is_refused(tmp_path):
    with locked(tmp_path):
        with pytest.raises(CheckpointError, match=rf"in use by process {os.getpid()} on .* since \d{{4}}-") as caught:
            Run("test", {}, folder=tmp_path).locked().__enter__()
        assert "\n" not in str(caught.value)
        result = []

        def other():
            try:
                with locked(tmp_path / "." / "x" / ".."):
                    result.append("in")
            except CheckpointError:
                result.append("refused")

        (tmp_path / "x").mkdir()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert result == ["refused"]
        with locked(tmp_path / "x"):  # another folder
            pass
    with locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


HOLD = (
    "import pathlib, sys\n"
    "from jaxcnn.train._lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('in', flush=True)\n"
    "    sys.stdin.read()\n"
)


def test_a_lock_ends_with_its_owner(tmp_path):
    """The lock of a killed process is released."""
    owner = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert owner.stdout.readline() == b"in\n"
        with pytest.raises(CheckpointError, match=f"in use by process {owner.pid} on "), locked(tmp_path):
            pass
    finally:
        owner.kill()
        owner.communicate()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"5", b'{"pid": 1}'])
def test_the_content_of_a_lock_file_is_only_information(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(CheckpointError, match="in use by another process"), locked(tmp_path):
            pass


def test_threads_exclude_each_other_where_the_system_has_no_locks(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with locked(tmp_path), pytest.raises(CheckpointError, match=f"in use by process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_lock_file_that_its_owner_removed_does_not_count(tmp_path, monkeypatch):
    """The owner ends after its file is opened and before the file is locked."""
    path = tmp_path / "lock"
    real = _flock.acquire

    def ending(handle, **options):
        monkeypatch.undo()
        path.unlink()
        return real(handle, **options)

    path.write_text("")
    monkeypatch.setattr(_flock, "acquire", ending)
    with locked(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_threads_take_turns(tmp_path):
    """Many threads try at once; no two hold the lock at the same time."""
    inside, most, entered = [], [], []

    def work():
        while len(entered) < 50:
            try:
                with locked(tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    entered.append(1)
                    inside.pop()
            except CheckpointError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*most} == {1}


# Damaged logs

DAMAGE = [
    b"\xff\n",
    b"5\n",
    b"null\n",
    b"[]\n",
    b"\n",
    b'{"step": "3"}\n',
    b'{"step": null}\n',
    b'{"step": true}\n',
    b'{"step": 5, "loss": NaN}\n',
    b'{"step": 5, "loss": 1e999}\n',
    b'{"step": 5, "loss": ' + b"[" * 100_000 + b"\n",
    b'{"step": 5, "a": ' + b'{"a":' * 800 + b"1" + b"}" * 801 + b"\n",
    b"\x00" * 50 + b"\n",
]


@pytest.mark.parametrize("line", DAMAGE)
@pytest.mark.parametrize("at", [0, 2])
def test_a_damaged_log_is_rebuilt(logged, capsys, line, at):
    content = (logged / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    content[at:at] = [line]
    (logged / "metrics.jsonl").write_bytes(b"".join(content))
    run = Run("test", {}, folder=logged)
    run.forget_after(10, ROWS[:2])
    assert run.records == ROWS[:2] == log_of(logged)
    assert (logged / "metrics.jsonl.damaged").read_bytes() == b"".join(content)
    assert f"metrics.jsonl: line {at + 1} is damaged: " in capsys.readouterr().out
    run.forget_after(10)  # without a checkpoint's records, what is whole is kept
    assert run.records == ROWS[:2]


@pytest.mark.parametrize("change", ["missing", "empty", "changed", "fewer", "repeated", "directory"])
def test_a_log_that_differs_from_the_checkpoint_is_replaced(logged, capsys, change):
    path = logged / "metrics.jsonl"
    match change:
        case "missing" | "directory":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "changed":
            path.write_bytes(path.read_bytes().replace(b"0.5", b"0.7"))
        case "repeated":
            path.write_bytes(path.read_bytes() + path.read_bytes())
        case "fewer":
            path.write_bytes(path.read_bytes().splitlines(keepends=True)[1])
    if change == "directory":
        path.mkdir()
        (path / "file").write_text("")
    run = Run("test", {}, folder=logged)
    run.forget_after(10, ROWS[:2])
    assert run.records == ROWS[:2] == log_of(logged)
    assert "metrics.jsonl: " in capsys.readouterr().out
    assert (logged / "metrics.jsonl.damaged").exists() == (change != "missing")


def test_renamed_logs_are_not_overwritten(logged):
    for i in range(3):
        (logged / "metrics.jsonl").write_bytes(b"%d\n" % i)
        Run("test", {}, folder=logged).forget_after(10, ROWS[:2])
    names = ["metrics.jsonl.damaged", "metrics.jsonl.damaged-2", "metrics.jsonl.damaged-3"]
    assert [(logged / name).read_bytes() for name in names] == [b"0\n", b"1\n", b"2\n"]


def test_a_valid_log_is_unchanged(logged, capsys):
    """It has an incomplete last row."""
    with (logged / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    run = Run("test", {}, folder=logged)
    capsys.readouterr()
    run.forget_after(10, ROWS[:2])
    assert run.records == ROWS[:2]
    assert capsys.readouterr().out == ""
    assert not (logged / "metrics.jsonl.damaged").exists()


def test_records_without_a_step(tmp_path, capsys):
    """As in a run that was never interrupted, up to the checkpoint; then what the resumed program has logged."""
    rows = [{"data": 100}, ROWS[0], {"note": 5}, ROWS[1], {"note": 10}, ROWS[2], {"note": 15}]
    run = Run("test", {}, folder=tmp_path)
    for row in rows:
        run.log("", **row)
    resumed = Run("test", {}, folder=tmp_path)
    resumed.log("", data=100)
    resumed.log("", machine="other")
    capsys.readouterr()
    resumed.forget_after(10, rows[:4])  # a callback logged the note of step 10 after the checkpoint
    assert resumed.records == [*rows[:5], {"machine": "other"}] == log_of(tmp_path)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'metrics.jsonl'}: dropped 1 records without a step, logged after step 10\n"
    )
    resumed.forget_after(-1)
    assert resumed.records == [rows[0], rows[2], rows[4], {"machine": "other"}]
    anew = Run("test", {}, folder=tmp_path)
    anew.log("", data=200)
    anew.forget_after(-1)
    assert anew.records == [{"data": 200}] == log_of(tmp_path)
    assert "dropped 4 records without a step, logged after step 0" in capsys.readouterr().out


def test_records_with_a_step_that_the_program_logs_after_the_checkpoint(logged, capsys):
    with (logged / "metrics.jsonl").open("w") as file:
        final = {"step": 10, "final": 1.0}
        file.writelines(json.dumps(record) + "\n" for record in (*ROWS[:2], final))
    run = Run("test", {}, folder=logged)
    capsys.readouterr()
    run.forget_after(10, ROWS[:2])
    assert run.records == [*ROWS[:2], final] == log_of(logged)
    assert capsys.readouterr().out == ""


def test_a_log_that_cannot_be_read(logged, monkeypatch, capsys):
    real = type(logged).read_bytes

    def refuse(path):
        if path.name == "metrics.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(type(logged), "read_bytes", refuse)
    Run("test", {}, folder=logged).forget_after(10, ROWS[:2])
    assert log_of(logged) == ROWS[:2]
    assert "cannot be read: [Errno 13]" in capsys.readouterr().out
    assert (logged / "metrics.jsonl.damaged").exists()


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.full)])
def test_mutated_logs_stop_nothing(logged, cases, capsys):
    rng = random.Random(0)
    path = logged / "metrics.jsonl"
    original = path.read_bytes()
    run = Run("test", {}, folder=logged)
    for case in range(cases):
        path.write_bytes(mutated(rng, original))
        run.forget_after(10, ROWS[:2])
        assert [record for record in run.records if record in ROWS] == ROWS[:2]
        assert log_of(logged) == run.records
        path.write_bytes(mutated(rng, original))
        run.forget_after(10)
        assert _log.read_log(path) == (run.records, None)
        if case % 50 == 0:
            for aside in logged.glob("*.damaged*"):
                aside.unlink()


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b"[]", b"{}", b"[" * 100_000, b"null", b'{"config": {}}'])
def test_a_damaged_config_is_rewritten(logged, capsys, content):
    whole = json.loads((logged / "config.json").read_text())
    (logged / "config.json").write_bytes(content)
    Run("test", {}, folder=logged)
    assert json.loads((logged / "config.json").read_text()) == whole
    assert "config.json is damaged and will be rewritten: " in capsys.readouterr().out


# Folders that cannot be written


@pytest.mark.parametrize("how", ["a file", "below a file", "root is a file", "config is a directory"])
def test_an_impossible_folder_is_a_one_line_error(tmp_path, how, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "config.json").mkdir(parents=True)
    where = {
        "a file": {"folder": tmp_path / "file"},
        "below a file": {"folder": tmp_path / "file" / "run"},
        "root is a file": {"root": tmp_path / "file"},
        "config is a directory": {"folder": tmp_path / "folder"},
    }[how]
    monkeypatch.setattr(sys, "argv", ["test"])
    with pytest.raises(SystemExit) as caught:
        command(lambda config: Run("test", {}, **where), {}, "Test.")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: {next(iter(where.values()))}")
    assert "cannot write the run folder: " in error


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failing_disk_is_a_one_line_error(tmp_path, monkeypatch, code):
    def refuse(*args, **options):
        raise OSError(code, os.strerror(code))

    for name in ("mkdir", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(CheckpointError, match=os.strerror(code)) as caught:
                Run("test", {}, folder=tmp_path / name).locked().__enter__()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.csv"])
def test_records_that_cannot_be_written_are_kept(tmp_path, capsys, name):
    """The error is printed once, and the records are written as soon as that is possible."""
    run = Run("test", {}, folder=tmp_path)
    (tmp_path / name).mkdir()
    for row in ROWS[:2]:
        run.log("said", **row)
    assert run.records == ROWS[:2]
    out = capsys.readouterr().out
    assert out.count("said\n") == 2
    kept = "the records, keeping them in memory" if name == "metrics.jsonl" else "the table of the records"
    assert out.count(f"{tmp_path / name}: cannot write {kept}: ") == out.count("cannot write") == 1
    (tmp_path / name).rmdir()
    run.log("said", **ROWS[2])
    assert log_of(tmp_path) == ROWS
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,5,1.0", "2,10,0.5", "3,15,0.3333333333333333"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"step": "a"}, "step must be an integer, found 'a'"),
        ({"step": None}, "step must be an integer, found 'None'"),
        ({"step": 2.5}, "step must be an integer, found '2.5'"),
        ({"a": functools.reduce(lambda inner, _: [inner], range(100), 1)}, "nested more than 100 levels deep"),
    ],
    ids=["text", "None", "fraction", "depth"],
)
def test_records_that_a_resume_would_call_damaged_are_refused(tmp_path, record, message):
    run = Run("test", {}, folder=tmp_path)
    with pytest.raises(ValueError, match=message):
        run.log("said", **record)
    assert run.records == []
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_config_of_an_earlier_attempt_is_renamed_when_training_starts_anew(tmp_path, capsys):
    for rate in (0.1, 0.2, 0.2):
        run = Run("test", {"rate": rate}, folder=tmp_path)
        run.forget_after(-1)
    assert json.loads((tmp_path / "config.json").read_text())["config"] == {"rate": 0.2}
    assert json.loads((tmp_path / "config.json.damaged").read_text())["config"] == {"rate": 0.1}
    path = tmp_path / "config.json"
    assert capsys.readouterr().out == (
        f"{path}: describes another training; renamed to config.json.damaged, writing a new one\n"
    )
    Run("test", {"rate": 0.3}, folder=tmp_path).forget_after(10)  # a resume
    assert json.loads(path.read_text())["config"] == {"rate": 0.2}


def test_a_change_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    run = Run("test", {}, root="runs")
    assert not run.folder.is_absolute()
    run.log("", **ROWS[0])
    monkeypatch.chdir("other")
    assert run.folder.is_absolute()
    run.log("", **ROWS[1])
    assert log_of(run.folder) == ROWS[:2]
    assert not [*(tmp_path / "other").iterdir()]


# Output


def test_characters_that_the_output_cannot_encode(tmp_path, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", out)
    run = Run("test", {}, folder=tmp_path / "λ→")
    run.log("λ é \ud800", note="λ")
    out.flush()
    assert out.buffer.getvalue().decode("cp1252").split("\n")[0].strip() == "? é ?"
    assert log_of(run.folder) == [{"note": "λ"}]
    monkeypatch.setattr(sys, "argv", ["test"])
    command(lambda config: print("λ"), {}, "Test.")
    out.flush()
    assert out.buffer.getvalue().endswith(b"?\r\n" if os.name == "nt" else b"?\n")


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def closed():
    out = io.StringIO()
    out.close()
    return out


@pytest.mark.parametrize("out", [None, Broken(), "closed"])
def test_closed_output(tmp_path, monkeypatch, out):
    before = Run("before", {}, folder=tmp_path / "before")
    monkeypatch.setattr(sys, "stdout", closed() if out == "closed" else out)
    for run in (before, *([] if out == "closed" else [Run("test", {}, folder=tmp_path)])):
        run.say("line")
        run.progress("line")
        with run.busy("compiling"):
            pass
        run.log("line", a=1)
        assert run.records == [{"a": 1}]


def test_a_folder_is_given_by_name(tmp_path):
    with pytest.raises(TypeError, match="positional"):
        Run("test", {}, str(tmp_path))


@pytest.mark.parametrize("log", [False, True])
def test_an_unused_folder_is_removed_after_a_wrong_input(tmp_path, log):
    run = Run("test", {}, root=tmp_path)
    inner = Run("inner", {}, folder=run.folder / "inner")
    if log:
        run.log("a line", loss=1.0)
    for each in (inner, run):
        with pytest.raises(ValueError, match="wrong"), each.locked():
            raise ValueError("wrong")
    assert not inner.folder.exists()
    assert run.folder.exists() == log


def test_a_folder_that_existed_is_kept_after_a_wrong_input(tmp_path):
    run = Run("test", {}, folder=tmp_path)
    with pytest.raises(ValueError, match="wrong"), run.locked():
        raise ValueError("wrong")
    assert (tmp_path / "config.json").exists()


def test_a_program_with_a_wrong_setting_leaves_no_folder(tmp_path, monkeypatch, capsys):
    def main(config):
        run = Run("test", config, root=tmp_path)
        runs = [run, Run("inner", config, folder=run.folder / "inner")]
        raise ConfigError(f"{len(runs)} runs are wrong")

    monkeypatch.setattr(sys, "argv", ["test"])
    with pytest.raises(SystemExit):
        command(main, {}, "A test.")
    assert capsys.readouterr().err == "error: 2 runs are wrong\n"
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("value", [{1, 2}, object(), [np.ones(2), print]])
def test_records_and_configs_that_are_not_json(tmp_path, value):
    with pytest.raises(TypeError, match="'x' must consist of numbers, strings, lists, dicts and arrays, got"):
        Run("test", {"x": value}, root=tmp_path)
    run = Run("test", {}, root=tmp_path)
    with pytest.raises(TypeError, match="'x' must consist of numbers, strings, lists, dicts and arrays, got"):
        run.log("a line", x=value)


# Command lines


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.full)])
def test_mutated_arguments_are_config_errors(cases):
    config = {"fit": {"epochs": 3, "rate": 0.1, "augment": [["flip"]], "on": True, "name": "sgd"}, "seed": 1}
    arguments = ["fit.epochs=5", "fit.rate=1e-3", 'fit.augment=[["flip"]]', "fit.on=false", "fit.name=adam", "seed=2"]
    rng = random.Random(0)
    refused = 0
    for _ in range(cases):
        text = mutated(rng, rng.choice(arguments).encode()).decode("utf-8", "surrogateescape")
        try:
            changed = override(config, [text])
        except ConfigError:
            refused += 1
        else:
            assert {name: type(value) for name, value in changed["fit"].items()} == {
                name: type(value) for name, value in config["fit"].items()
            }
    assert refused > cases / 2
