"""Start-up time: import, first training step and first epoch, in a fresh process.

    python -m experiments.benchmarks.startup

LeNet-5 with batch size 128 and an epoch of 62 steps (8,000 digits), in jaxcnn, Flax, Keras on JAX and eager PyTorch.
Those on JAX run with an empty and with a filled compilation cache. Times are seconds since the start of the process,
medians of 5.
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
    """Print the seconds from the start of the process to the end of the import, the first step and the epoch.

    The environment variable BENCHMARK_BEGAN holds the start.
    """
    began = float(os.environ["BENCHMARK_BEGAN"])
    if framework == "torch":
        import torch  # noqa: F401
    else:
        os.environ["KERAS_BACKEND"] = "jax"
        __import__({"flax": "flax.linen"}.get(framework, framework))
        import optax  # noqa: F401
    imported = time.time() - began
    from experiments.benchmarks import _networks  # not timed: it imports jax for PyTorch, too

    began = time.time() - imported
    contender = _networks.build(_networks.NETWORKS["lenet5"], [framework])[framework]  # runs one training step
    first = time.time() - began
    for _ in range(STEPS - 1):
        contender.train()
    print(json.dumps([imported, first, time.time() - began]))


def measure(framework: str, cache: str | None) -> list[float]:
    from experiments.benchmarks import _measure  # not at the top: the child process would import it, too

    environment = os.environ | {"BENCHMARK_BEGAN": str(time.time())}
    if cache:
        environment |= _measure.cache_environment(cache)
    return _measure.run_module(__spec__.name, framework, environment=environment)


def main() -> None:
    from experiments.benchmarks import _measure

    rows = []
    table = _measure.Table(("seconds since the start of the process", 40), "imported", "first step", "epoch")
    with tempfile.TemporaryDirectory() as cache:
        cases = {
            name + text: (name, folder)
            for name in ("jaxcnn", "flax", "keras")
            for text, folder in (("", None), (", compilation cache", cache))
        } | {"torch": ("torch", None)}
        cases = {name: case for name, case in cases.items() if _measure.installed(case[0]) or case[0] == "jaxcnn"}
        for case in cases.values():
            measure(*case)  # fills the compilation cache and the file cache of the operating system
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
