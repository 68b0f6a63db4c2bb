"""An experiment as a command: its arguments, its folder, its progress."""

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
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxcnn._extra import MissingExtraError
from jaxcnn._replace import replace
from jaxcnn.data import DataError
from jaxcnn.train import _steps
from jaxcnn.train._config import Config, ConfigError, flat_entries, override
from jaxcnn.train._lock import locked
from jaxcnn.train._log import append_log, read_log, write_csv, write_log
from jaxcnn.train._memory import reuse_memory
from jaxcnn.train.checkpoint import CheckpointError, agreed, versions
from jaxcnn.weights import WeightsError

_TICK = 2  # seconds between two signs of life
_WAITS = (10, 30, 60, 120, 300)  # seconds without a line, where the output is no terminal; the last one is repeated


def command(main: Callable[[Config], Any], config: Config, description: str) -> None:
    """Run `main` on `config`, overridden by the arguments `key.path=value` of the command line.

    `--help` prints the description and every key with its default. `--distributed` first joins the other processes: by
    what SLURM, Open MPI or a TPU pod says of them, or the environment variables JAX_COORDINATOR_ADDRESS (host:port of
    the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Settings, data, checkpoints, weights and packages that are not
    there or cannot be are told in one line, without a traceback, and end the program with status 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what an old code page lacks must not end a program
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(description.strip() + "\n\nSettings, given as key.path=value, and their defaults:\n")
        for key, value in flat_entries(config):
            print(f"  {key}={value}")
        return
    reuse_memory()
    if "--distributed" in arguments:
        arguments.remove("--distributed")
        _join()
    try:
        main(override(config, arguments))
    except (ConfigError, DataError, CheckpointError, MissingExtraError, WeightsError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class Run:
    """The folder of one run: `config.json`, with versions and device, and a record for each `log`.

    The records are in `metrics.jsonl`, a JSON object a line, and in `metrics.csv`. Of several processes, the first
    writes and speaks for all.

    Args:
        name: of the experiment; the folder is called after it and the time.
        config: the resolved config.
        root: the folder of all runs.
        folder: instead, the run's folder itself; it may be that of a run that was ended, and which goes on.

    Raises:
        CheckpointError: if the folder cannot be written.
    """

    def __init__(self, name: str, config: Config, *, root: str | os.PathLike = "runs", folder: str | os.PathLike = ""):
        self.config = config
        self._first = jax.process_index() == 0
        self._live = _is_terminal(sys.stdout)
        self._shown = time.monotonic()
        self._waits = iter(_WAITS)
        self._wait = next(self._waits)
        self._speaking = threading.Lock()
        self._unwritten = self._told = False  # whether the files lack records, and whether that was told
        self.records: list[dict[str, Any]] = []
        self.folder = pathlib.Path(folder or root)  # for the message, if it cannot be written
        try:
            self.folder = pathlib.Path(folder) if folder else _new_folder(root, name)
            self._metrics = self.folder / "metrics.jsonl"
            if self._first:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write_config(name)
        except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
            raise CheckpointError(f"{self.folder}: cannot be written: {error}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """In its block, nobody else can train in this folder: no other thread, no other process on this file system.

        Raises:
            CheckpointError: if somebody else does; it says who.
        """
        with contextlib.ExitStack() as stack:
            agreed(lambda: stack.enter_context(locked(self.folder)))
            yield

    def progress(self, line: str) -> None:
        """Show where the run is: in place on a terminal, else as a line of its own, in growing intervals."""
        with self._speaking:
            now = time.monotonic()
            if self._live:
                self._say(f"\r\x1b[K{line}", end="")
            elif now - self._shown < self._wait:
                return
            else:
                self._say(line)
                self._wait = next(self._waits, self._wait)
            self._shown = now

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """In its block, say what takes so long, again and again."""
        done = threading.Event()
        began = time.monotonic()

        def speak():
            while not done.wait(_TICK):
                self.progress(f"{what} ... {time.monotonic() - began:.0f} s")

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        with self._speaking:
            self._say(f"\r\x1b[K{line}" if self._live else line)
            self._shown = time.monotonic()
            self._waits = iter(_WAITS)
            self._wait = next(self._waits)

    def log(self, line: str, **record: Any) -> None:
        """Print a line that stays, and add the record to the files, a number that is not finite as null.

        Arrays and their scalars are written as lists and numbers. If the files cannot be written, that is told
        once; the records are kept in memory and written when they can be.
        """
        finite = json.loads(json.dumps(_finite(record), allow_nan=False))  # as it would be read again
        self.say(line)
        self.records.append(finite)
        self._write([finite])

    def forget_after(self, step: int, records: list[dict[str, Any]] | None = None) -> None:
        """Go on from the records of an earlier part of this run, without those of steps after this one.

        Args:
            step: the last one to keep.
            records: as a checkpoint of this step has them. If those in the log differ, these are used, and the log is
                moved aside.
        """
        if not self._first:
            self.records = list(records or [])
            return
        found, problem = read_log(self._metrics)
        kept = [record for record in found if record.get("step", 0) <= step]
        if records is not None:
            if problem is None and [record for record in kept if "step" in record] != [
                record for record in records if "step" in record
            ]:
                problem = "does not have the records of the checkpoint"
            if problem is not None:
                kept = records
        if problem is not None:
            self._move_aside(problem)
        self.records = kept
        self._unwritten = True
        self._write([])

    def _write_config(self, name: str) -> None:
        """Say what the run is, unless the folder says so already."""
        path = self.folder / "config.json"
        if path.exists():
            try:
                about = _steps.read_json(path)
            except ValueError as error:
                about, problem = None, str(error)
            else:
                problem = "expected experiment, config, versions and device"
            if isinstance(about, dict) and {"experiment", "config", "versions", "device"} <= about.keys():
                return
            self.say(f"{path} is damaged and is written anew: {problem}")
        about = {
            "experiment": name,
            "config": _finite(self.config),
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }
        with replace(path) as file:  # another process may begin in the same folder
            file.write(f"{json.dumps(about, indent=2)}\n".encode())

    def _write(self, new: list[dict[str, Any]]) -> None:
        """Add records to the files, or write all if the files lack some; a failure is told, once."""
        if not self._first:
            return
        try:
            if self._unwritten:
                write_log(self._metrics, self.records)
            else:
                append_log(self._metrics, new)
            write_csv(self._metrics.with_suffix(".csv"), self.records)
            self._unwritten = self._told = False
        except OSError as error:
            if not self._told:
                self.say(f"{self._metrics}: records cannot be written and are kept in memory: {error}")
            self._unwritten = self._told = True

    def _move_aside(self, problem: str) -> None:
        """Keep a damaged log under another name."""
        aside = self._metrics.with_name("metrics.jsonl.damaged")
        for again in itertools.count(2):
            if not os.path.lexists(aside):
                break
            aside = self._metrics.with_name(f"metrics.jsonl.damaged-{again}")
        try:
            if os.path.lexists(self._metrics):
                self._metrics.rename(aside)
                self.say(f"{self._metrics}: {problem}; moved to {aside.name} and written anew")
            else:
                self.say(f"{self._metrics}: {problem}; written anew")
        except OSError as error:
            self.say(f"{self._metrics}: {problem}; it cannot be moved aside: {error}")

    def _say(self, line: str, end: str = "\n") -> None:
        if not self._first or sys.stdout is None:
            return
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # nobody listens any more, which is no reason to stop
            print(line.encode(encoding, "replace").decode(encoding), end=end, flush=True)


def _is_terminal(stream: Any) -> bool:
    """Whether the stream is one: there may be none, it may be closed, or it may be any object with `write`."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _join() -> None:
    count, number = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    jax.distributed.initialize(
        num_processes=None if count is None else int(count), process_id=None if number is None else int(number)
    )


def _new_folder(root: str | os.PathLike, name: str) -> pathlib.Path:
    """A folder that no run had before."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    if jax.process_count() > 1:  # all processes must mean the same one
        from jax.experimental import multihost_utils

        now = int(multihost_utils.broadcast_one_to_all(int(time.time()) % 2**31))
        return pathlib.Path(root, f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}")
    folder = pathlib.Path(root, f"{name}-{stamp}")
    for again in range(2, 1000):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = pathlib.Path(root, f"{name}-{stamp}-{again}")
    return folder


def _finite(value: Any) -> Any:
    """The value in the order it has, with None for each number that JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if hasattr(value, "tolist"):  # of NumPy or jax
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
