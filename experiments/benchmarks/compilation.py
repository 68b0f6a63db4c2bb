"""How long compilers take: first inference and first training step of whole networks, in jaxcnn and in Flax.

    python -m experiments.benchmarks.compilation [networks ...]

Seconds of the first call less those of the second, each in a process of its own without a compilation cache, medians
of 3. ResNet-50 has one image of 224x224, the others what they have in `nets`.
"""

import json
import statistics
import sys
import time

from experiments.benchmarks import _measure, _networks

RUNS = 3
FRAMEWORKS = ("jaxcnn", "flax")
NETWORKS = _networks.NETWORKS | {"resnet50": _networks.resnet50(batch=1)}


def child(name: str, framework: str, kind: str) -> float:
    call = getattr(_networks.unused(NETWORKS[name], framework), kind)
    moments = [time.perf_counter()]
    for _ in range(2):
        call()
        moments.append(time.perf_counter())
    began, first, second = moments
    return first - began - (second - first)


def measure(*what: str) -> float:
    return _measure.in_process(__spec__.name, "--child", *what)


def main(names: list[str]) -> None:
    there = [framework for framework in FRAMEWORKS if _measure.installed(framework) or framework == "jaxcnn"]
    table = _measure.Table(("seconds", 10), ("", 6), *FRAMEWORKS)
    rows = []
    for name in _measure.chosen(names, NETWORKS):
        for kind in ("infer", "train"):
            runs = {framework: [] for framework in there}
            for _ in range(RUNS):
                for framework in there:
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
