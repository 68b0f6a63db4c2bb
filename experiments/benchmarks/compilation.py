"""Compilation time of inference and of a training step of whole networks, in jaxcnn and Flax.

    python -m experiments.benchmarks.compilation [networks ...]

The time of the first call minus the time of the second, in seconds. Each runs in a separate process without a
compilation cache; results are medians of 3. ResNet-50 has batch size 1 and images of 224x224. The others have the
batch and image size of `nets`.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import _measure, _networks

RUNS = 3
FRAMEWORKS = ("jaxcnn", "flax")
NETWORKS = _networks.NETWORKS | {"resnet50": _networks.resnet50(batch=1)}


def child(name: str, framework: str, kind: str) -> float:
    """Compilation time in seconds. `kind` is "infer" or "train"."""
    return compile_seconds(getattr(_networks.create_contender(NETWORKS[name], framework), kind))


def compile_seconds(call: Callable[[], Any]) -> float:
    """The seconds of the first call minus those of the second."""
    timestamps = [time.perf_counter()]
    for _ in range(2):
        call()
        timestamps.append(time.perf_counter())
    start, first, second = timestamps
    return (first - start) - (second - first)


def measure(*arguments: str) -> float:
    return _measure.run_module(__spec__.name, "--child", *arguments)


def main(names: list[str]) -> None:
    installed = [framework for framework in FRAMEWORKS if _measure.installed(framework) or framework == "jaxcnn"]
    table = _measure.Table(("seconds", 10), ("", 6), *FRAMEWORKS)
    rows = []
    for name in _measure.select_names(names, NETWORKS):
        for kind in ("infer", "train"):
            runs = {framework: [] for framework in installed}
            for _ in range(RUNS):
                for framework in installed:
                    runs[framework].append(measure(name, framework, kind))
            rows.append({"net": name, "kind": kind, "seconds": runs})
            table.row(name, kind, *(statistics.median(runs[f]) if f in runs else None for f in FRAMEWORKS))
    if not names:
        print(_measure.save("compilation", rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
