"""Training step, inference and memory of whole networks: jaxcnn against PyTorch, Flax, Equinox and stax.

    python -m experiments.benchmarks.nets                                  all networks, all contenders
    python -m experiments.benchmarks.nets resnet20 vgg --peers torch,flax
    python -m experiments.benchmarks.nets --peers torch --output FILE      saves the results of fewer peers, too

Times are milliseconds per batch. PyTorch is the fastest of eager and compiled, with channels first and channels last.
`/ torch` is the time of jaxcnn divided by the time of PyTorch. `x flax` is the time of Flax divided by the time of
jaxcnn. Memory is the peak of a training step in MB, minus the memory in use before the step. For PyTorch it is the
smaller of the two eager layouts. The networks of `_tasks` only exist in jaxcnn and PyTorch. With names, the results of
these networks are replaced.
"""

import argparse
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import jax

import jaxcnn
from experiments.benchmarks import _measure, _networks
from experiments.benchmarks._tasks import TASKS

NETWORKS = _networks.NETWORKS | TASKS
NUMBERS = ("flax", "equinox", "stax", "/ torch", "x flax", "x equinox", "x stax")
EAGER = ("torch", "torch channels_last")


def measure(name: str, names: Sequence[str], turns: int, table: _measure.Table) -> list[dict[str, Any]]:
    """The rows of a network for training, inference and memory. Prints each row as soon as it is measured."""
    net = NETWORKS[name]
    built = _networks.build(net, names)
    common = {"net": name, "batch": net.batch, "shape": net.shape, "parameters": built["jaxcnn"].parameters}
    rows = []
    for kind in ("train", "infer"):
        calls = {peer: call for peer, contender in built.items() if (call := getattr(contender, kind))}
        timings, turn_times = _measure.compare(calls, turns=turns)
        seconds = {peer: timing._asdict() | {"turns": turn_times[peer]} for peer, timing in timings.items()}
        rows.append(common | {"kind": kind, "seconds": seconds})
        _print_row(table, rows[-1], turn_times, 1e3)
    peak = {peer: _peak_memory(name, peer) for peer in ("jaxcnn", *EAGER) if peer in built}
    rows.append(common | {"kind": "memory", "bytes": peak})
    _print_row(table, rows[-1], {peer: [size] for peer, size in peak.items()}, 1e-6)
    return rows


def _print_row(table: _measure.Table, row: dict[str, Any], values: dict[str, list[float]], unit: float) -> None:
    """Print medians of `values` (lists by contender, one value per turn), multiplied by `unit`, and their ratios."""
    cells = {peer: unit * statistics.median(turns) for peer, turns in values.items()}
    best = min((peer for peer in values if peer.startswith("torch")), key=cells.get, default=None)
    if best:
        cells["/ torch"] = _measure.ratio(values, "jaxcnn", [best])
    for peer in ("flax", "equinox", "stax"):
        if peer in values:
            cells[f"x {peer}"] = _measure.ratio(values, peer, ["jaxcnn"])
    table.row(row["net"], row["kind"], cells["jaxcnn"], cells.get(best), best, *map(cells.get, NUMBERS))


def _peak_memory(name: str, contender: str) -> int:
    """Peak memory of a training step, in a fresh process."""
    # glibc keeps freed blocks of up to 32 MB, and all of them after `reuse_memory`. They would count as memory in use
    # before the step.
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "JAXCNN_REUSE_MEMORY": "0"}
    environment = os.environ | malloc | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return _measure.run_module(__spec__.name, "--memory", name, contender, environment=environment)


def memory(name: str, contender: str) -> int:
    """Peak memory of a training step in bytes, minus the memory in use before it."""
    call = _networks.build(NETWORKS[name], [contender])[contender].train
    if jax.default_backend() == "cpu":
        return _measure.peak_memory(call)
    call()
    if contender == "jaxcnn":
        device = jax.devices()[0]
        before = device.memory_stats()["bytes_in_use"]
        call()
        return device.memory_stats()["peak_bytes_in_use"] - before
    import torch

    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="net", help=f"any of: {', '.join(NETWORKS)}; default: all")
    parser.add_argument("--peers", default=",".join(_networks.FRAMEWORKS), help="comma-separated; default: %(default)s")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, help="file of the results, also of those with fewer peers")
    parser.add_argument("--fresh", action="store_true", help="do not call train.reuse_memory()")
    parser.add_argument(
        "--memory", nargs=2, metavar=("NET", "CONTENDER"), help="only print the peak memory of one contender, in bytes"
    )
    options = parser.parse_args()
    if options.memory:
        print(memory(*options.memory))
        return
    if not options.fresh:
        jaxcnn.train.reuse_memory()
    frameworks = dict.fromkeys(("jaxcnn", *options.peers.split(",")))
    nets = _measure.select_names(options.names, NETWORKS)
    names = _networks.contenders(_measure.select_names(frameworks, _networks.FRAMEWORKS))
    table = _measure.Table(("net", 28), ("kind", 6), "jaxcnn", "torch", ("best of torch", 27), *NUMBERS)
    path = options.output
    if path is None and not options.fresh and options.peers == parser.get_default("peers"):
        path = _measure.results_path("nets")
    for name in nets:
        rows = measure(name, names, options.turns, table)
        if path:  # after each network, so that an interruption loses little
            _measure.save("nets", [*_measure.other_rows("nets", "net", [name], path), *rows], path)
    if path:
        print(path)


if __name__ == "__main__":
    main()
