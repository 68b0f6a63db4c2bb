"""An experiment as a command-line program: its arguments, run folder, log and progress output."""

import contextlib
import io
import itertools
import json
import math
import os
import pathlib
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxcnn._arguments import short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn._memory import reuse_memory_by_default
from jaxcnn._replace import replace
from jaxcnn._weights_error import WeightsError
from jaxcnn.data import DataError
from jaxcnn.train import _checkpoint_folder
from jaxcnn.train._config import Config, ConfigError, as_argument, flat_entries
from jaxcnn.train._lock import locked
from jaxcnn.train._log import append_log, check_record, read_log, write_csv, write_log
from jaxcnn.train._output import Output
from jaxcnn.train._override import override
from jaxcnn.train.checkpoint import CheckpointError, first_process_result, versions

_runs: weakref.WeakSet["Run"] = weakref.WeakSet()  # all runs of this process
_TICK = 2  # seconds between progress updates of `busy`


def command(main: Callable[[Config], Any], config: Config, description: str) -> None:
    """Run `main` on `config`, overridden by the arguments `key.path=value` of the command line.

    `--help` prints the description and every key with its default. `--distributed` first connects to the other
    processes. JAX detects them under SLURM, Open MPI and on TPU pods; elsewhere, set JAX_COORDINATOR_ADDRESS (host:port
    of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Errors in settings, data, checkpoints or weights, and
    missing packages, are printed as one line without a traceback; the exit status is then 2.

    Args:
        main: the program, a function of the config.
        config: all settings and their defaults.
        description: the text of `--help`, such as the docstring of the program.

    Example: `if __name__ == "__main__": train.command(main, CONFIG, __doc__)`
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an unencodable character must not end the program
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(description.strip() + "\n\nSettings (override with key.path=value) and their defaults:\n")
        for key, value in flat_entries(config):
            print(f"  {key}={as_argument(value)}")
        return
    reuse_memory_by_default()
    if "--distributed" in arguments:
        arguments.remove("--distributed")
        _connect_processes()
    try:
        main(override(config, arguments))
    except (ConfigError, DataError, CheckpointError, MissingExtraError, WeightsError) as error:
        for run in sorted(_runs, key=lambda run: len(run.folder.parts), reverse=True):  # folders inside others first
            run._remove_if_unused()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class Run:
    """The folder, log and progress output of one run.

    `config.json` holds the config, package versions and device. Each `log` call adds a record to `metrics.jsonl`, one
    JSON object per line, and to `metrics.csv`. With several processes, only the first one writes and prints.

    Args:
        name: of the experiment. The folder is named after it and the current time.
        config: the resolved config.
        root: the folder that contains all runs.
        folder: the run folder itself, instead of `root`. To resume a run, pass its folder.

    Raises:
        CheckpointError: if the folder cannot be written.
    """

    def __init__(self, name: str, config: Config, *, root: str | os.PathLike = "runs", folder: str | os.PathLike = ""):
        self.config = _as_read_back(config)  # as resuming reads it from a checkpoint
        self._name, self._first = name, jax.process_index() == 0
        self._output = Output(enabled=self._first)
        self._unwritten = self._reported = False  # whether the files lack records, and whether the error was printed
        self.records: list[dict[str, Any]] = []
        self._folder = self._absolute = pathlib.Path(folder or root)  # until the folder exists
        self._new = not folder or not os.path.exists(folder)  # False also for a name that no file can have
        _runs.add(self)
        with _folder_errors(self.folder):
            self._folder = pathlib.Path(folder) if folder else _new_folder(root, name)
            self._absolute = self._folder.absolute()
            if self._first:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_config()

    @property
    def folder(self) -> pathlib.Path:
        """The run folder as it was given, or its absolute path after a change of the working directory."""
        return self._folder if self._folder.absolute() == self._absolute else self._absolute

    @property
    def _metrics(self) -> pathlib.Path:
        return self.folder / "metrics.jsonl"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other thread, and no other process on this file system, can train in this folder.

        If the body raises TypeError or ValueError for its input before anything is written, the new folder is removed.

        Raises:
            CheckpointError: if the folder is in use; the message names the process.
        """
        try:
            with contextlib.ExitStack() as stack:
                first_process_result(lambda: stack.enter_context(locked(self.folder)))
                yield
        except (TypeError, ValueError):
            self._remove_if_unused()
            raise

    def progress(self, line: str) -> None:
        """Print a progress line: updated in place on a terminal and in a notebook, else at growing intervals."""
        self._output.progress(line)

    @contextlib.contextmanager
    def busy(self, activity: str) -> Iterator[None]:
        """A context that repeatedly shows the activity and the seconds that it has taken so far."""
        done = threading.Event()
        start = time.monotonic()

        def show():
            while not done.wait(_TICK):
                self.progress(f"{activity} ... {time.monotonic() - start:.0f} s")

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def say(self, line: str) -> None:
        """Print a permanent line."""
        self._output.say(line)

    def log(self, line: str, /, **record: Any) -> None:
        """Print a permanent line, and add the record to the log files.

        Arrays are written as lists, and non-finite numbers as null. If the files cannot be written, the error is
        printed once; the records stay in memory, and the next `log` tries to write them again.

        Raises:
            TypeError, ValueError: for an entry that JSON cannot hold, or a "step" that is not an integer.
        """
        json_record = _as_read_back(record)
        check_record(json_record)
        self.say(line)
        self.records.append(json_record)
        self._write([json_record])

    def forget_after(self, step: int, records: list[dict[str, Any]] | None = None) -> None:
        """Load the log of this run for a resume, and drop the records that the training will repeat.

        These are the records of later steps, and those without a step that follow one of a later step; their number is
        printed. Records without a step that this object has logged are kept.

        Args:
            step: the last step to keep; -1 if the training starts anew. The log of an earlier training is then renamed,
                and so is a `config.json` that differs.
            records: the records in the checkpoint of this step. If the log lacks one, or repeats one, they replace it,
                and the old log is renamed.
        """
        if not self._first:
            self.records = list(records or [])
            return
        own = [record for record in self.records if "step" not in record]
        logged, problem = read_log(self._metrics)
        later_steps = (i for i, record in enumerate(logged) if record.get("step", 0) > step)
        first_later = next(later_steps, len(logged)) if step >= 0 else 0

        def is_kept(i, record):
            return record["step"] <= step if "step" in record else i < first_later

        kept = [record for i, record in enumerate(logged) if is_kept(i, record)]
        if records is not None:
            # The log may have more: callbacks and the program can log after the checkpoint.
            saved = [record for record in records if "step" in record]
            if problem is None and [record for record in kept if record in saved] != saved:
                problem = "differs from the records in the checkpoint"
            if problem is not None:
                kept = records
        kept = [*kept, *(record for record in own if record not in kept)]
        if problem is None and step < 0 and any("step" in record for record in logged):
            problem = "is the log of another training"
        if count := sum("step" not in record and record not in kept for record in logged):
            self.say(f"{self._metrics}: dropped {count} records without a step, logged after step {max(step, 0)}")
        if problem is not None:
            self._set_aside(self._metrics, problem)
        if step < 0:
            with _folder_errors(self.folder):
                self._write_config(anew=True)
        self.records = kept
        self._unwritten = True
        self._write([])

    def _remove_if_unused(self) -> None:
        """Remove a new folder that contains nothing but the config."""
        with contextlib.suppress(OSError):
            if self._new and self._first and [path.name for path in self.folder.iterdir()] == ["config.json"]:
                (self.folder / "config.json").unlink()
                self.folder.rmdir()

    def _write_config(self, *, anew: bool = False) -> None:
        """Write `config.json` unless the folder has a valid one. With `anew`, it must be that of this run."""
        path = self.folder / "config.json"
        about = {
            "experiment": self._name,
            "config": self.config,
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }
        if path.exists():
            try:
                existing = _checkpoint_folder.read_json(path)
            except ValueError as error:
                existing, problem = None, str(error)
            else:
                problem = "expected the keys experiment, config, versions and device"
            if not isinstance(existing, dict) or not about.keys() <= existing.keys():
                self.say(f"{path} is damaged and will be rewritten: {problem}")
            elif anew and existing != about:
                self._set_aside(path, "describes another training")
            else:
                return
        with replace(path) as file:  # another process may start in the same folder
            file.write(f"{json.dumps(about, indent=2)}\n".encode())

    def _write(self, new: list[dict[str, Any]]) -> None:
        """Append the new records, or write all records if the files lack some. An error is printed once."""
        if not self._first:
            return
        log, table = self._metrics, self._metrics.with_suffix(".csv")
        problem, was_unwritten = f"{log}: cannot write the records, keeping them in memory", self._unwritten
        self._unwritten = True
        try:
            if was_unwritten:
                write_log(log, self.records)
            else:
                append_log(log, new)
            problem, self._unwritten = f"{table}: cannot write the table of the records", False
            write_csv(table, self.records)
            self._reported = False
        except OSError as error:
            if not self._reported:
                self.say(f"{problem}: {error}")
            self._reported = True

    def _set_aside(self, path: pathlib.Path, problem: str) -> None:
        """Keep a file that does not fit this run under a new name."""
        backup = path.with_name(f"{path.name}.damaged")
        for number in itertools.count(2):
            if not os.path.lexists(backup):
                break
            backup = path.with_name(f"{path.name}.damaged-{number}")
        try:
            if os.path.lexists(path):
                path.rename(backup)
                self.say(f"{path}: {problem}; renamed to {backup.name}, writing a new one")
            else:
                self.say(f"{path}: {problem}; writing a new one")
        except OSError as error:
            self.say(f"{path}: {problem}; cannot rename it: {error}")


def check_run(run: Any) -> None:
    """Raise TypeError for an argument `run` that is neither a `Run` nor None."""
    if run is not None and not isinstance(run, Run):
        raise TypeError(f"run must be a train.Run, such as train.Run('name', config, folder='runs/name'), got {run!r}")


@contextlib.contextmanager
def _folder_errors(folder: str | os.PathLike) -> Iterator[None]:
    """A context in which the errors of files become a CheckpointError that names the run folder."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise CheckpointError(f"{folder}: cannot write the run folder: {error}") from error


def _connect_processes() -> None:
    """Initialize JAX for several processes, before any other use of JAX."""
    count, number = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    jax.distributed.initialize(
        num_processes=None if count is None else int(count), process_id=None if number is None else int(number)
    )


def _new_folder(root: str | os.PathLike, name: str) -> pathlib.Path:
    """Create a new run folder, the same for all processes."""

    def create() -> str:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
            folder = pathlib.Path(root, f"{name}-{stamp}{suffix}")
            with _folder_errors(root), contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)
                return str(folder)
        raise CheckpointError(f"{root}: too many run folders {name}-{stamp}")

    return pathlib.Path(first_process_result(create))


def _as_read_back(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it is read from its JSON; TypeError for an entry that JSON cannot hold."""
    result = {}
    for name, value in record.items():
        try:
            result[name] = json.loads(json.dumps(to_json(value), allow_nan=False))
        except (TypeError, RecursionError) as error:
            raise TypeError(
                f"{name!r} must consist of numbers, strings, lists, dicts and arrays, got {short_repr(value)}"
            ) from error
    return result


def to_json(value: Any) -> Any:
    """The value with arrays as lists, and None for each non-finite number."""
    if isinstance(value, dict):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(part) for part in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return to_json(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
