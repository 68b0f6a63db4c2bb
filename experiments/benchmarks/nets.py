"""Training steps, inference and memory of whole networks: jaxcnn against PyTorch, Flax, Equinox and stax.

    python -m experiments.benchmarks.nets                                  all networks, all contenders
    python -m experiments.benchmarks.nets resnet20 vgg --peers torch,flax

Times are milliseconds a batch. PyTorch is the fastest of eager and compiled, channels first and last; `/ torch`
is our share of its time, `x flax` how many times as long as we that one takes. Memory is what a training step
takes at most above what is held before it, in MB; PyTorch's is the lesser of its two layouts, eager.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from typing import Any

import jax

import jaxcnn
from experiments.benchmarks import _measure, _networks

NUMBERS = ("flax", "equinox", "stax", "/ torch", "x flax", "x equinox", "x stax")
EAGER = ("torch", "torch channels_last")


def measure(name: str, names: Sequence[str], turns: int, table: _measure.Table) -> list[dict[str, Any]]:
    """All kinds of rows of a network, each shown as soon as it is there."""
    net = _networks.NETWORKS[name]
    built = _networks.build(net, names)
    about = {"net": name, "batch": net.batch, "shape": net.shape, "parameters": built["jaxcnn"].parameters}
    rows = []
    for kind in ("train", "infer"):
        calls = {peer: call for peer, contender in built.items() if (call := getattr(contender, kind))}
        timings, taken = _measure.compare(calls, turns=turns)
        seconds = {peer: timing._asdict() | {"turns": taken[peer]} for peer, timing in timings.items()}
        rows.append(about | {"kind": kind, "seconds": seconds})
        _show(table, rows[-1], taken, 1e3)
    peak = {peer: _peak(name, peer) for peer in ("jaxcnn", *EAGER) if peer in built}
    rows.append(about | {"kind": "memory", "bytes": peak})
    _show(table, rows[-1], {peer: [size] for peer, size in peak.items()}, 1e-6)
    return rows


def _show(table: _measure.Table, row: dict[str, Any], taken: dict[str, list[float]], unit: float) -> None:
    cells = {peer: unit * statistics.median(values) for peer, values in taken.items()}
    best = min((peer for peer in taken if peer.startswith("torch")), key=cells.get, default=None)
    if best:
        cells["/ torch"] = _measure.ratio(taken, "jaxcnn", [best])
    for peer in ("flax", "equinox", "stax"):
        if peer in taken:
            cells[f"x {peer}"] = _measure.ratio(taken, peer, ["jaxcnn"])
    table.row(row["net"], row["kind"], cells["jaxcnn"], cells.get(best), best, *map(cells.get, NUMBERS))


def _peak(name: str, contender: str) -> int:
    """Of a process of its own, in which nothing else has left memory behind."""
    # By default glibc keeps what was freed in pieces of up to 32 MB, so that it counts as held before the step.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return _measure.in_process(__spec__.name, "--memory", name, contender, environment=environment)


def memory(name: str, contender: str) -> int:
    call = _networks.build(_networks.NETWORKS[name], [contender])[contender].train
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
    parser.add_argument("names", nargs="*", metavar="net", help=f"of {', '.join(_networks.NETWORKS)}; default: all")
    parser.add_argument("--peers", default=",".join(_networks.FRAMEWORKS), help="default: %(default)s")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--fresh", action="store_true", help="without train.reuse_memory(), for all contenders")
    parser.add_argument("--memory", nargs=2, metavar=("NET", "CONTENDER"), help="print the bytes of one, and no more")
    options = parser.parse_args()
    if options.memory:
        print(memory(*options.memory))
        return
    if not options.fresh:
        jaxcnn.train.reuse_memory()
    frameworks = dict.fromkeys(("jaxcnn", *options.peers.split(",")))
    nets = _measure.chosen(options.names, _networks.NETWORKS)
    names = _networks.contenders(_measure.chosen(frameworks, _networks.FRAMEWORKS))
    table = _measure.Table(("net", 9), ("kind", 6), "jaxcnn", "torch", ("best of torch", 27), *NUMBERS)
    rows = []
    for name in nets:
        rows += measure(name, names, options.turns, table)
    if not options.names and not options.fresh:
        print(_measure.save("nets", rows))


if __name__ == "__main__":
    main()
