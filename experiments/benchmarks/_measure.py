"""Measure time and memory, run subprocesses, print tables and save results."""

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent
RELEASE = (0, 10)  # of jax: the newest for Python 3.11
_WARM_UP = 0.02  # seconds of untimed calls, until OpenMP's threads of the previous contender no longer spin


class Timing(NamedTuple):
    """Seconds per call: the median over turns, and the lower and upper quartile."""

    median: float
    low: float
    high: float


def compare(
    calls: Mapping[str, Callable[[], Any]], *, turns: int = 7, seconds: float = 0.06
) -> tuple[dict[str, Timing], dict[str, list[float]]]:
    """Time calls against each other. Returns a `Timing` per call and the seconds per call of each turn.

    Each call must block until its result is ready. The calls take turns, so that background load affects all of them
    equally. A turn starts with untimed calls, because the data of the previous contender fills the cache and, on a CPU,
    its threads still spin. It then repeats the call for about `seconds`.
    """
    warm_up = _WARM_UP if jax.default_backend() == "cpu" else 0.0
    for call in calls.values():
        call()  # compiles
    turn_times = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            first = time.perf_counter()
            while True:
                began = time.perf_counter()
                call()
                if (ended := time.perf_counter()) - first >= warm_up:
                    break
            repeats = max(1, min(100, int(seconds / (ended - began))))
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            turn_times[name].append((time.perf_counter() - began) / repeats)
    return {name: _timing(times) for name, times in turn_times.items()}, turn_times


def _timing(times: list[float]) -> Timing:
    low, _, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Timing(statistics.median(times), float(low), float(high))


def ratio(turn_times: Mapping[str, list[float]], ours: str, peers: Iterable[str]) -> float:
    """The time of `ours` divided by the time of the peer with the smallest median: the median over turns."""
    fastest = min(peers, key=lambda name: statistics.median(turn_times[name]))
    return statistics.median(a / b for a, b in zip(turn_times[ours], turn_times[fastest], strict=True))


def peak_memory(call: Callable[[], Any]) -> int:
    """Peak memory of a call in bytes, minus the memory of the process before the call. Linux only."""
    call()
    time.sleep(0.5)  # XLA frees the memory of a program shortly after its result is ready
    before = _process_memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    call()
    return _process_memory("VmHWM") - before


def _process_memory(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def cache_environment(folder: str) -> dict[str, str]:
    """Environment variables that keep JAX's compilation cache in a folder."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def select_names(names: Collection[str], known: Collection[str]) -> list[str]:
    """The names from the command line, or all known names if it has none. Exits on an unknown name."""
    if unknown := {*names} - {*known}:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; expected one of: {', '.join(known)}")
    return list(names or known)


def run_python(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run `python arguments` and return its standard output. If it fails, exit with its output and errors."""
    command = [sys.executable, *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{process.stdout}{process.stderr}")
    return process.stdout


def run_module(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run `python -m module arguments` and parse the last line of its output as JSON."""
    return json.loads(run_python("-m", module, *arguments, environment=environment).splitlines()[-1])


def machine() -> dict[str, Any]:
    """Hardware, package versions and date of a measurement."""
    device = jax.devices()[0]
    return {
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := installed(name))},
    }


_PACKAGES = ("jax", "jaxlib", "torch", "flax", "equinox", "keras", "optax", "numpy", "onnx", "onnxruntime")


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Name, family and model of the processor: the name alone is often the same for several generations."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    # The tabs between a name and its colon depend on the length of the name.
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in fields:
        return platform.processor()
    return f"{fields['model name']}, family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"


def mean_and_std(values: Sequence[float], spec: str) -> str:
    """Mean ± sample standard deviation, in a format like ".1f". A format like ".2%" shows both in percent."""
    scale, spec = (100, spec.replace("%", "f")) if spec.endswith("%") else (1, spec)
    std = f" ± {scale * statistics.stdev(values):{spec}}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):{spec}}{' %' if scale > 1 else ''}{std}"


def accuracy_and_time(accuracies: Sequence[float], seconds: Sequence[float], spec: str = ".2f") -> str:
    """Mean and std of the accuracies and run times of several runs."""
    return f"{mean_and_std(accuracies, '.2%')} in {mean_and_std(seconds, spec)} s"


def results_path(name: str) -> pathlib.Path:
    """results/NAME-BACKEND.json. On a CPU, the names of other releases of jax than the main one contain the release."""
    backend, release = jax.default_backend(), jax.__version_info__[:2]
    suffix = "" if backend != "cpu" or release == RELEASE else f"-jax{release[0]}.{release[1]}"
    return FOLDER / "results" / f"{name}-{backend}{suffix}.json"


def load(name: str) -> dict[str, Any] | None:
    """The saved file of results/NAME.json, or None if it was not measured."""
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def other_rows(name: str, key: str, measured: Iterable[str], path: pathlib.Path | None = None) -> list[dict[str, Any]]:
    """The saved rows of a benchmark, without those whose value of `key` was measured again.

    Rows that another processor has measured are dropped.
    """
    path = path or results_path(name)
    saved = json.loads(path.read_text()) if path.exists() else {"machine": machine(), "rows": []}
    if saved["machine"]["device"] != machine()["device"]:
        return []
    return [row for row in saved["rows"] if row[key] not in measured]


def save(name: str, rows: list[dict[str, Any]], path: pathlib.Path | None = None) -> pathlib.Path:
    """Write measurements to `path`, by default results/NAME-BACKEND.json, and return the path."""
    path = path or results_path(name)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    temporary.replace(path)  # a process that is killed here keeps the earlier results
    return path


class Table:
    """A table printed row by row. Text is left-aligned; numbers are right-aligned, with three significant digits."""

    def __init__(self, *columns: str | tuple[str, int]):
        """A (name, width) column holds text and is left-aligned. A plain name is right-aligned with width 10."""
        self._columns = [(column, 10) if isinstance(column, str) else column for column in columns]
        self._text = [not isinstance(column, str) for column in columns]
        self.row(*(name for name, _ in self._columns))

    def row(self, *values: Any) -> None:
        cells = zip(map(_cell, values), self._columns, self._text, strict=True)
        print(*(cell.ljust(width) if text else cell.rjust(width) for cell, (_, width), text in cells), flush=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
