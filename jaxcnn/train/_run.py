"""An experiment as a command: its arguments, its folder, its progress."""

import importlib.metadata
import json
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxcnn.data import DataError
from jaxcnn.train._config import Config, ConfigError, entries, override
from jaxcnn.train._memory import reuse_memory


def command(main: Callable[[Config], Any], config: Config, description: str) -> None:
    """Run `main` on `config`, overridden by the arguments `key.path=value` of the command line.

    `--help` prints the description and every key with its default. Settings and data that cannot be are
    told in one line, without a traceback, and end the program with status 2.
    """
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        print(description.strip() + "\n\nSettings, given as key.path=value, and their defaults:\n")
        for key, value in entries(config):
            print(f"  {key}={value}")
        return
    reuse_memory()
    try:
        main(override(config, arguments))
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class Run:
    """The folder of one run: `config.json`, with versions and device, and `metrics.jsonl`, a line for each `log`.

    Args:
        name: of the experiment; the folder is called after it and the time.
        config: the resolved config.
        root: the folder of all runs.
    """

    def __init__(self, name: str, config: Config, root: str = "runs"):
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.folder = pathlib.Path(root, f"{name}-{stamp}")
        for again in range(2, 1000):
            try:
                self.folder.mkdir(parents=True)
                break
            except FileExistsError:
                self.folder = pathlib.Path(root, f"{name}-{stamp}-{again}")
        about = {
            "experiment": name,
            "config": config,
            "versions": {"python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "optax", "numpy")},
            "device": jax.devices()[0].device_kind,
        }
        (self.folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")
        self._metrics = self.folder / "metrics.jsonl"
        self._live = sys.stdout.isatty()
        self._shown = time.monotonic()

    def progress(self, line: str) -> None:
        """Show where the run is: in place on a terminal, else as a line of its own every three seconds."""
        now = time.monotonic()
        if self._live:
            print(f"\r\x1b[K{line}", end="", flush=True)
        elif now - self._shown < 3:
            return
        else:
            print(line, flush=True)
        self._shown = now

    def log(self, line: str, **record: Any) -> None:
        """Print a line that stays, and write the record to `metrics.jsonl`, a number that is not finite as null."""
        print(f"\r\x1b[K{line}" if self._live else line, flush=True)
        self._shown = time.monotonic()
        with self._metrics.open("a") as file:
            finite = jax.tree.map(lambda v: None if isinstance(v, float) and not math.isfinite(v) else v, record)
            file.write(json.dumps(finite, allow_nan=False) + "\n")
