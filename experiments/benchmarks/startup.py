"""From nothing to a training network: import, first step, first epoch, each in a fresh process.

    python -m experiments.benchmarks.startup

LeNet-5 at batch 128, with one epoch of 62 steps (8,000 digits), in jaxcnn, Flax and PyTorch (eager); the JAX ones with
an empty compilation cache and with a filled one. Seconds since the process was started, medians of 5.
"""

import json
import os
import statistics
import sys
import tempfile
import time

STEPS = 62
RUNS = 5


def child(framework: str) -> None:
    """Print seconds since the start of the process, which the environment holds: imported, first step, first epoch."""
    began = float(os.environ["BENCHMARK_BEGAN"])
    if framework == "torch":
        import torch  # noqa: F401
    else:
        __import__({"jaxcnn": "jaxcnn", "flax": "flax.linen"}[framework])
        import optax  # noqa: F401
    imported = time.time() - began
    from experiments.benchmarks import _networks  # off the clock: it needs jax for PyTorch's network, too

    began = time.time() - imported
    contender = _networks.build(_networks.NETWORKS["lenet5"], [framework])[framework]  # trains one step
    first = time.time() - began
    for _ in range(STEPS - 1):
        contender.train()
    print(json.dumps([imported, first, time.time() - began]))


def measure(framework: str, cache: str | None) -> list[float]:
    from experiments.benchmarks import _measure  # not at the top, where a child would import it, too

    environment = os.environ | {"BENCHMARK_BEGAN": str(time.time())}
    if cache:
        environment |= _measure.cached(cache)
    return _measure.in_process(__spec__.name, framework, environment=environment)


def main() -> None:
    from experiments.benchmarks import _measure

    rows = []
    table = _measure.Table(("seconds since the process was started", 40), "imported", "first step", "epoch")
    with tempfile.TemporaryDirectory() as cache:
        cases = {
            "jaxcnn": ("jaxcnn", None),
            "jaxcnn, compilation cache": ("jaxcnn", cache),
            "flax": ("flax", None),
            "flax, compilation cache": ("flax", cache),
            "torch": ("torch", None),
        }
        cases = {name: case for name, case in cases.items() if _measure.installed(case[0]) or case[0] == "jaxcnn"}
        for case in cases.values():
            measure(*case)  # fills the cache, and the operating system's of files
        runs = {name: [] for name in cases}
        for _ in range(RUNS):
            for name, case in cases.items():
                runs[name].append(measure(*case))
    for name, seconds in runs.items():
        medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
        rows.append({"case": name, "seconds": medians, "runs": seconds})
        table.row(name, *medians)
    print(_measure.save("startup", rows))


if __name__ == "__main__":
    child(sys.argv[1]) if sys.argv[1:] else main()
