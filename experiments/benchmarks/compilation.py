"""Compilation time of inference and of a training step of whole networks, in jaxcnn, Flax, Keras and PyTorch.

    python -m experiments.benchmarks.compilation [networks ...]

The time of the first call minus the time of the second, as processor time and as time that passes. Each runs in a
separate process without a compilation cache. Results are medians of 3 runs of jaxcnn and Flax, and of one run of the
others. Keras runs on JAX, PyTorch is `torch.compile` with the compiler in the same process. ResNet-50, ConvNeXt-T,
DenseNet-121 and EfficientNet-B0 have batch size 1 and images of 224x224. The others have the batch and image size of
`nets`. With names, the results of these networks are replaced.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import _measure, _networks

RUNS = {"jaxcnn": 3, "flax": 3, "keras": 1, "torch compile": 1}
NETWORKS = _networks.NETWORKS | {
    "resnet50": _networks.resnet50(batch=1),
    "convnext_tiny": _networks.convnext_tiny(batch=1),
    "densenet121": _networks.densenet121(batch=1),
    "efficientnet_b0": _networks.efficientnet_b0(batch=1),
}
Times = dict[str, float]


def child(name: str, framework: str, kind: str) -> Times:
    """`kind` is "infer" or "train"."""
    return compile_seconds(getattr(_networks.create_contender(NETWORKS[name], framework), kind))


def compile_seconds(call: Callable[[], Any]) -> Times:
    """The seconds of the first call minus those of the second: {"processor", "passed"}."""
    (processor, passed), (processor_again, passed_again) = (_seconds(call) for _ in range(2))
    return {"processor": processor - processor_again, "passed": passed - passed_again}


def _seconds(call: Callable[[], Any]) -> tuple[float, float]:
    processor, began = _processor_seconds(), time.perf_counter()
    call()
    return _processor_seconds() - processor, time.perf_counter() - began


def _processor_seconds() -> float:
    """Of this process and of those it has started, such as the C++ compiler of PyTorch."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in usage)


def measure(*arguments: str) -> Times:
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    return _measure.run_module(__spec__.name, "--child", *arguments, environment=environment)


def main(names: list[str]) -> None:
    installed = [name for name in RUNS if name == "jaxcnn" or _measure.installed(name.split()[0])]
    turns = [name for run in range(max(RUNS.values())) for name in installed if run < RUNS[name]]
    table = _measure.Table(("processor seconds", 17), ("", 6), *((name, 14) for name in RUNS))
    for name in _measure.select_names(names, NETWORKS):
        rows = []
        for kind in ("infer", "train"):
            runs: dict[str, list[Times]] = {framework: [] for framework in installed}
            for framework in turns:
                runs[framework].append(measure(name, framework, kind))
            rows.append({"net": name, "kind": kind, "seconds": runs})
            medians = (statistics.median(run["processor"] for run in runs[f]) if f in runs else None for f in RUNS)
            table.row(name, kind, *medians)
        # After each network, so that an interruption loses little.
        print(_measure.save("compilation", _measure.other_rows("compilation", "net", [name]) + rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
