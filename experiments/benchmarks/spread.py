"""How much the time of a training step varies between processes.

    python -m experiments.benchmarks.spread [networks ...]

Where the memory of a process lies can change its speed for as long as it runs. Each network runs in 20 processes, one
after the other, as a user's program does: without `train.reuse_memory()`. A process takes the median of 20 training
steps after 5 others. Times are milliseconds, `within 10 %` is the fraction of the processes whose time differs from the
median over processes by at most 10 %. With names, the results of these networks are replaced.
"""

import json
import os
import statistics
import sys
import tempfile
import time

from experiments.benchmarks import _measure, _networks

PROCESSES, STEPS, FIRST_STEPS = 20, 20, 5
NETWORKS = {name: _networks.NETWORKS[name] for name in ("lenet5", "small", "resnet20", "mobilenet")}


def child(name: str) -> float:
    """The median time of a training step in this process, in seconds."""
    step = _networks.create_contender(NETWORKS[name], "jaxcnn").train
    seconds = []
    for _ in range(FIRST_STEPS + STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[FIRST_STEPS:])


def within(seconds: list[float], tolerance: float = 0.1) -> float:
    """The fraction of the values that differ from their median by at most this fraction of it."""
    median = statistics.median(seconds)
    return statistics.mean(abs(value - median) <= tolerance * median for value in seconds)


def main(names: list[str]) -> None:
    table = _measure.Table(("ms", 10), "median", "smallest", "largest", "within 10 %")
    selected = _measure.select_names(names, NETWORKS)
    rows = []
    with tempfile.TemporaryDirectory() as cache:  # compiles once per network
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for name in selected:
            seconds = [
                _measure.run_module(__spec__.name, "--child", name, environment=environment) for _ in range(PROCESSES)
            ]
            rows.append({"net": name, "seconds": seconds})
            milliseconds = (1e3 * reduce(seconds) for reduce in (statistics.median, min, max))
            table.row(name, *milliseconds, within(seconds))
    print(_measure.save("spread", [*_measure.other_rows("spread", "net", selected), *rows]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
