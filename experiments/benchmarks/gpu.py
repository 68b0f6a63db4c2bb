"""Checks and benchmarks for one GPU in one command, within a time budget.

    python -m experiments.benchmarks.gpu                            all parts in 8 minutes
    python -m experiments.benchmarks.gpu networks --budget 480      one part, in its own 8 minutes
    python -m experiments.benchmarks.gpu --tiny                     tiny sizes, to check the command on any machine

Parts, in order of importance. Each may use the budget up to its deadline; what it leaves is for the next parts:

    conformance   layers, losses, training steps and classifiers on the GPU against the CPU of the same process, values
                  and gradients; a network exported for the GPU; `vmap`; whether a training step repeats bit for bit
    networks      the networks of `nets`: training, inference and compilation against PyTorch and Flax
    imagenet      images per second in bfloat16, against PyTorch, and as a fraction of a large matrix product
    operations    operations of `ops` against PyTorch
    vmap          32 LeNets in one program against a loop, Flax and PyTorch
    cifar10       runs of `experiments.cifar10_speedrun` and of its twin in PyTorch; needs JAXCNN_DATA

Networks and operations are measured in bfloat16 and float32. In float32, products use TF32, as is JAX's default, also
in PyTorch. PyTorch runs with channels last and autocast, eager and, if the budget allows, with `torch.compile`. The
results are in `results/gpu-CARD.json` and are saved after each measurement. With names of parts, the results of these
parts are replaced. A failing measurement is printed and the others continue; then the exit status is 1.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import _conformance, _gpu_parts, _measure
from experiments.benchmarks._gpu_parts import Row


class Part(NamedTuple):
    fraction: float  # of the budget
    tasks: Callable[[bool, float], _gpu_parts.Tasks]  # (tiny, deadline) -> pairs (name, function that returns a row)
    text: Callable[[Row], str]  # a row as a printed line


def _conformance_text(row: Row) -> str:
    names = ("difference", "where", "tolerance", "bit-exact")
    return ", ".join(f"{name} {_short(row[name])}" for name in names if name in row)


def _networks_text(row: Row) -> str:
    texts = []
    for kind in ("train", "infer"):
        ratios = "".join(f", / {peer} {value:.2f}" for peer, value in row[kind]["ratio"].items())
        texts.append(f"{kind} {_milliseconds(row[kind]['seconds'])}{ratios}")
    compilation = {
        peer: sum(row["compilation"][kind][peer] for kind in ("train", "infer")) for peer in row["compilation"]["train"]
    }
    return "; ".join(texts) + "; compilation in s: " + ", ".join(f"{peer} {s:.1f}" for peer, s in compilation.items())


def _imagenet_text(row: Row) -> str:
    rates = {label: statistics.median(turns) for label, turns in row["images_per_second"].items()}
    return ", ".join(f"{label} {rate:.0f}/s ({row['of_peak'][label]:.1%} of peak)" for label, rate in rates.items())


def _operations_text(row: Row) -> str:
    times = ", ".join(f"{label} {median:.3f} ms" for label, (median, _, _) in row["milliseconds"].items())
    return f"{times}, / torch {_short(row['of torch'])}, / lax {_short(row['of lax'])}"


def _vmap_text(row: Row) -> str:
    return _milliseconds(row["seconds"]) + "".join(f", {name} / loop {v:.2f}" for name, v in row["ratio"].items())


def _milliseconds(seconds: dict[str, dict[str, float]]) -> str:
    return ", ".join(f"{label} {1e3 * timing['median']:.3f} ms" for label, timing in seconds.items())


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PARTS = {
    "conformance": Part(0.25, lambda tiny, _: _conformance.tasks(_gpu_parts.TINY if tiny else None), _conformance_text),
    "networks": Part(0.3, lambda tiny, _: _gpu_parts.networks(tiny), _networks_text),
    "imagenet": Part(0.25, lambda tiny, _: _gpu_parts.imagenet(tiny), _imagenet_text),
    "operations": Part(0.1, lambda tiny, _: _gpu_parts.operations(tiny), _operations_text),
    "vmap": Part(0.05, lambda tiny, _: _gpu_parts.many(tiny), _vmap_text),
    "cifar10": Part(
        0.05,
        _gpu_parts.cifar10,
        lambda row: f"{_measure.accuracy_and_time(row['accuracies'], row['seconds'])}, {len(row['seconds'])} runs",
    ),
}


def results_path(folder: pathlib.Path, tiny: bool) -> pathlib.Path:
    card = "-".join(jax.devices()[0].device_kind.lower().split())
    return folder / f"{'tiny' if tiny else 'gpu'}-{card}.json"


def rows(name: str, tiny: bool, deadline: float) -> Iterator[Row]:
    """The rows of a part until the deadline. A failing measurement gives a row with its exception."""
    if time.perf_counter() >= deadline:
        print(f"{name}: skipped, the budget is used up")
        return
    print(f"{name} ...", flush=True)
    with contextlib.closing(PARTS[name].tasks(tiny, deadline)) as tasks:  # type: ignore[type-var]
        while True:
            label = "preparation"
            try:
                task = next(tasks, None)
                if task is None:
                    return
                label, measure = task
                if time.perf_counter() >= deadline:
                    print(f"{name}: skipped from {label} on, the budget is used up")
                    return
                row = measure()
            except Exception as error:  # one failing measurement must not end the others
                row = {"exception": f"{type(error).__name__}: {error}"}
            yield {"part": name, "name": label} | row


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and return the exit status."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"any of: {', '.join(PARTS)}; default: all")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts; default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes; the results are in tiny-CARD.json")
    parser.add_argument(
        "--output", type=pathlib.Path, default=_measure.FOLDER / "results", help="folder of the results"
    )
    options = parser.parse_args(arguments)
    names = _measure.select_names(options.parts, PARTS)
    path = results_path(options.output, options.tiny)
    kept = {(row["part"], row["name"]): row for row in _measure.other_rows("gpu", "part", names, path)}
    measured: dict[tuple[str, str], Row] = {}
    failures, total, fraction = 0, sum(PARTS[name].fraction for name in names), 0.0
    for name in names:
        fraction += PARTS[name].fraction
        for row in rows(name, options.tiny, began + options.budget * fraction / total):
            # PyTorch is compiled after everything else, and the row then has all contenders.
            key = name, row["name"]
            measured[key] = measured.get(key, {}) | row
            _measure.save("gpu", [*(kept | measured).values()], path)
            failed = "exception" in row or not row.get("passed", True)
            failures += failed
            text = row.get("exception") or PARTS[name].text(row)
            if failed or (name != "conformance" or "bit-exact" in row):
                print(f"  {'FAILED ' if failed else ''}{row['name']}: {text}", flush=True)
        of_part = [row for (part, _), row in measured.items() if part == name]
        passed = sum("exception" not in row and row.get("passed", True) for row in of_part)
        print(
            f"{name}: {passed} of {len(of_part)} measurements passed, {time.perf_counter() - began:.0f} s", flush=True
        )
    print(path)
    return int(failures > 0)


if __name__ == "__main__":
    # JAX would take most of the memory of the card, and PyTorch needs its part.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")
    sys.exit(main())
