"""An experiment as a command: its arguments, its folder, its progress."""

import contextlib
import csv
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
from jaxcnn.data import DataError
from jaxcnn.train._config import Config, ConfigError, entries, override
from jaxcnn.train._memory import reuse_memory
from jaxcnn.train.checkpoint import CheckpointError, versions
from jaxcnn.weights import WeightsError

_SILENCE = 2  # seconds, at most, between two lines where nobody watches


def command(main: Callable[[Config], Any], config: Config, description: str) -> None:
    """Run `main` on `config`, overridden by the arguments `key.path=value` of the command line.

    `--help` prints the description and every key with its default. `--distributed` first joins the other processes: by
    what SLURM, Open MPI or a TPU pod says of them, or the environment variables JAX_COORDINATOR_ADDRESS (host:port of
    the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID. Settings, data, checkpoints, weights and packages that are not
    there or cannot be are told in one line, without a traceback, and end the program with status 2.
    """
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(description.strip() + "\n\nSettings, given as key.path=value, and their defaults:\n")
        for key, value in entries(config):
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
    """

    def __init__(self, name: str, config: Config, root: str | os.PathLike = "runs", folder: str | os.PathLike = ""):
        self.config = config
        self.folder = pathlib.Path(folder) if folder else _new_folder(root, name)
        self._first = jax.process_index() == 0
        self._live = sys.stdout.isatty()
        self._shown = time.monotonic()
        self._lock = threading.Lock()
        self._metrics = self.folder / "metrics.jsonl"
        self.records: list[dict[str, Any]] = []
        if not self._first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {
            "experiment": name,
            "config": config,
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }
        if not (self.folder / "config.json").exists():
            (self.folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")

    def progress(self, line: str) -> None:
        """Show where the run is: in place on a terminal, else as a line of its own every two seconds."""
        with self._lock:
            now = time.monotonic()
            if self._live:
                self._say(f"\r\x1b[K{line}", end="")
            elif now - self._shown < _SILENCE:
                return
            else:
                self._say(line)
            self._shown = now

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """In its block, say what takes so long, again and again."""
        done = threading.Event()
        began = time.monotonic()

        def speak():
            while not done.wait(_SILENCE):
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
        with self._lock:
            self._say(f"\r\x1b[K{line}" if self._live else line)
            self._shown = time.monotonic()

    def log(self, line: str, **record: Any) -> None:
        """Print a line that stays, and add the record to the files, a number that is not finite as null."""
        self.say(line)
        finite = _finite(record)
        self.records.append(finite)
        if self._first:
            with self._metrics.open("a") as file:
                file.write(json.dumps(finite, allow_nan=False) + "\n")
            self._write_csv()

    def forget_after(self, step: int) -> None:
        """Go on from the records of an earlier part of this run, without those of steps after this one."""
        if not self._first:
            return
        lines = self._metrics.read_text().splitlines() if self._metrics.exists() else []
        self.records = [record for line in lines if (record := _record(line)) and record.get("step", 0) <= step]
        kept = self._metrics.with_suffix(".part")
        kept.write_text("".join(json.dumps(record, allow_nan=False) + "\n" for record in self.records))
        kept.replace(self._metrics)
        self._write_csv()

    def _write_csv(self) -> None:
        rows = [dict(entries(record)) for record in self.records]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        partial = self.folder / "metrics.csv.part"
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.folder / "metrics.csv")

    def _say(self, line: str, end: str = "\n") -> None:
        if self._first:
            print(line, end=end, flush=True)


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
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(line: str) -> dict[str, Any] | None:
    """What a line of the log holds; the last one may have been cut off."""
    try:
        return json.loads(line)
    except ValueError:
        return None
