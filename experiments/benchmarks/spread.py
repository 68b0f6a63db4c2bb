"""How much the times of a training step and of single operations vary between processes.

    python -m experiments.benchmarks.spread ["NETWORK OR OPERATION" ...]

Where the memory of a process lies can change its speed for as long as it runs. Each network and each operation runs in
20 processes, one after the other, as a user's program does: without `train.reuse_memory()`. A process takes the median
of 20 calls after 5 others. Times are milliseconds, `within 10 %` is the fraction of the processes whose time differs
from the median over processes by at most 10 %. With names, the results of these networks and operations are replaced.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jaxcnn
from experiments.benchmarks import _measure, _networks, ops

PROCESSES, CALLS, FIRST_CALLS = 20, 20, 5
NETWORKS = {name: _networks.NETWORKS[name] for name in ("lenet5", "small", "resnet20", "mobilenet")}
OPERATIONS = {
    case.name: case
    for case in ops.CASES
    if case.name in ("3x3 16->16", "3x3 64->64", "1x1 256->64", "depthwise 3x3, 128", "max pool 2x2", "batch norm, 64")
}


def child(name: str) -> dict[str, float]:
    """kind -> the median time of a call in this process, in seconds."""
    if name in NETWORKS:
        return {"training step": seconds_of(_networks.create_contender(NETWORKS[name], "jaxcnn").train)}
    case = OPERATIONS[name]
    arrays = ops.in_dtype(case, ops.inputs(case), "float32")
    return {kind: seconds_of(ops.jax_call(ops.ours(case), kind, jaxcnn.jit, arrays)) for kind in ops.kinds(case)}


def seconds_of(call: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(FIRST_CALLS + CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[FIRST_CALLS:])


def within(seconds: list[float], tolerance: float = 0.1) -> float:
    """The fraction of the values that differ from their median by at most this fraction of it."""
    median = statistics.median(seconds)
    return statistics.mean(abs(value - median) <= tolerance * median for value in seconds)


def main(names: list[str]) -> None:
    table = _measure.Table(("ms", 20), ("", 14), "median", "smallest", "largest", "within 10 %")
    selected = _measure.select_names(names, (*NETWORKS, *OPERATIONS))
    rows = []
    for name in selected:
        times = [_measure.run_module(__spec__.name, "--child", name) for _ in range(PROCESSES)]
        for kind in times[0]:
            seconds = [each[kind] for each in times]
            rows.append({"name": name, "kind": kind, "seconds": seconds})
            milliseconds = (1e3 * reduce(seconds) for reduce in (statistics.median, min, max))
            table.row(name, kind, *milliseconds, within(seconds))
    print(_measure.save("spread", [*_measure.other_rows("spread", "name", selected), *rows]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main(sys.argv[1:])
