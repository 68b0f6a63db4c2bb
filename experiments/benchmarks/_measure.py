"""How time and memory are measured, and how a table of ratios is printed and kept."""

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


class Timing(NamedTuple):
    """Seconds a call: the median over turns, and the quartiles of the turns around it."""

    median: float
    low: float
    high: float


def compare(
    calls: Mapping[str, Callable[[], Any]], *, turns: int = 7, seconds: float = 0.06
) -> tuple[dict[str, Timing], dict[str, list[float]]]:
    """Time calls, which wait for their results, against each other: (summary, each turn's seconds a call).

    All take turns, so that what else the machine does hits all alike. A turn begins with a call that does not
    count (threads of the one before may still spin, and its data fill the cache), then repeats the call for
    about `seconds`.
    """
    for call in calls.values():
        call()  # compiles
    taken = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            repeats = max(1, min(100, int(seconds / (time.perf_counter() - began))))
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            taken[name].append((time.perf_counter() - began) / repeats)
    return {name: _timing(times) for name, times in taken.items()}, taken


def _timing(times: list[float]) -> Timing:
    low, _, high = np.quantile(times, (0.25, 0.5, 0.75))
    return Timing(statistics.median(times), float(low), float(high))


def ratio(taken: Mapping[str, list[float]], ours: str, theirs: Iterable[str]) -> float:
    """The median over turns of our time by that of the fastest of the others (the one with the least median)."""
    best = min(theirs, key=lambda name: statistics.median(taken[name]))
    return statistics.median(a / b for a, b in zip(taken[ours], taken[best], strict=True))


def peak_memory(call: Callable[[], Any]) -> int:
    """Bytes that a call takes at most above what the process holds before it, on Linux."""
    call()
    time.sleep(0.5)  # XLA frees the memory of a program a little after its result is there
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def cached(folder: str) -> dict[str, str]:
    """The environment of a process that keeps what it compiles in a folder, and finds it there."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def chosen(names: Collection[str], known: Collection[str]) -> list[str]:
    """The names given on the command line, or all that are known if there are none."""
    if unknown := {*names} - {*known}:
        sys.exit(f"no {', '.join(sorted(unknown))}; expected one of: {', '.join(known)}")
    return list(names or known)


def output(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """What `python arguments` prints; if it fails, this program ends with all that it said."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def in_process(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """What `python -m module arguments` prints as JSON in its last line."""
    return json.loads(output("-m", module, *arguments, environment=environment).splitlines()[-1])


def machine() -> dict[str, Any]:
    """What a figure depends on: hardware, versions and when it was measured."""
    device = jax.devices()[0]
    return {
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "platform": device.platform,
        "cores": len(os.sched_getaffinity(0)),
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := installed(name))},
    }


_PACKAGES = ("jax", "jaxlib", "torch", "flax", "equinox", "optax", "numpy")


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """What the operating system calls the processor; platform.processor() is empty on Linux."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    return f"{fields.get('model name', platform.processor())}, family {fields.get('cpu family', '?')}".strip()


def spread(values: Sequence[float], form: str) -> str:
    """Mean and std; of a percentage, both in percent."""
    scale, form = (100, form.replace("%", "f")) if form.endswith("%") else (1, form)
    std = f" ± {scale * statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):{form}}{' %' if scale > 1 else ''}{std}"


def reached(accuracies: Sequence[float], seconds: Sequence[float], form: str = ".2f") -> str:
    """What runs of a training reached, and in what time."""
    return f"{spread(accuracies, '.2%')} in {spread(seconds, form)} s"


def save(name: str, rows: list[dict[str, Any]]) -> pathlib.Path:
    """Write what was measured beside the benchmarks, one file for each kind of machine."""
    path = FOLDER / "results" / f"{name}-{jax.default_backend()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path


class Table:
    """A table that is printed row by row: text to the left, numbers to the right with three digits that count."""

    def __init__(self, *columns: str | tuple[str, int]):
        """Columns with their widths, 10 where none is given; the first ones, with a width, hold text."""
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
