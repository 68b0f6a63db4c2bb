"""100 training runs of LeNet-5 with different seeds: `train.sweep` against consecutive calls of `train.fit`.

    python -m experiments.benchmarks.many_runs                       100 runs of 3 epochs of the digits in the package
    python -m experiments.benchmarks.many_runs --runs 10 --sample 2

The sweep trains all runs. Of the consecutive runs, only a sample is measured in the same process, one half before and
one half after the sweep, with evenly spaced seeds; the time for all of them is the mean over the sample times their
number. Both evaluate on the test digits after each epoch, and save no checkpoints.

Each call of `fit` compiles its programs again, the sweep compiles once. The time of tracing, lowering and compiling is
measured by events of `jax.monitoring`, and is stated separately. The rest is the time without compilation.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax.monitoring
import numpy as np

from experiments.benchmarks import _measure
from jaxcnn import data, models, serial, train

COMPILING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
CONFIG = {"batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 2e-3}, "checkpoint": {"keep": 0}}


def measure(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of a call, its seconds, and those of tracing, lowering and compiling in it."""
    spans: list[tuple[float, float]] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event.rpartition("/")[2] in COMPILING:
            spans.append((time.perf_counter() - seconds, time.perf_counter()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        began = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - began
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return result, seconds, length(spans)


def length(spans: list[tuple[float, float]]) -> float:
    """The length of the union of intervals: a function that is traced in another one counts once."""
    total, end = 0.0, -np.inf
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def compare(model: Any, train_data: Any, test_data: Any, *, runs: int, sample: int, epochs: int) -> dict[str, Any]:
    """The seconds of both, with and without compilation, and the accuracies of the sample in both."""
    config = CONFIG | {"epochs": epochs}
    seeds = [int(seed) for seed in np.linspace(0, runs - 1, sample)]

    def in_folder(function: Callable[..., Any], **options: Any) -> tuple[Any, float, float]:
        with tempfile.TemporaryDirectory() as folder:
            run = train.Run("many_runs", config, folder=folder)
            return measure(lambda: function(model, train_data, eval_data=test_data, run=run, **options))

    def fit(seed: int) -> tuple[Any, float, float]:
        return in_folder(train.fit, config=config | {"seed": seed})

    half = (sample + 1) // 2
    before = [fit(seed) for seed in seeds[:half]]
    swept, total, compiling = in_folder(train.sweep, over={"seed": range(runs)}, config=config)
    fits = [*before, *(fit(seed) for seed in seeds[half:])]
    times = [{"total": seconds, "compilation": compilation} for _, seconds, compilation in fits]
    accuracy = lambda result: result.history[-1]["test"]["accuracy"]
    return {
        **{"net": "lenet5", "runs": runs, "sample": sample, "epochs": epochs, "images": len(train_data.images)},
        "sweep": {"total": total, "compilation": compiling},
        "fit": {key: runs * statistics.mean(row[key] for row in times) for key in times[0]},
        "fits": times,
        "accuracy": {
            "sweep": [accuracy(swept.runs[seed]) for seed in seeds],
            "fit": [accuracy(result) for result, _, _ in fits],
        },
    }


def ratios(row: dict[str, Any]) -> tuple[float, float]:
    """The time of the consecutive runs divided by that of the sweep: with and without compilation."""
    without = [row[name]["total"] - row[name]["compilation"] for name in ("fit", "sweep")]
    return row["fit"]["total"] / row["sweep"]["total"], without[0] / without[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--sample", type=int, default=5, help="consecutive runs that are measured")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    train.reuse_memory()
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    model = serial(normalize=data.normalize(digits), network=models.lenet5())
    row = compare(model, digits, test_digits, **vars(options))
    table = _measure.Table(("seconds", 34), "total", "compiling", "training")
    for name, title in (("sweep", "sweep"), ("fit", f"{row['runs']} fits, from {row['sample']} of them")):
        total, compiling = row[name]["total"], row[name]["compilation"]
        table.row(title, total, compiling, total - compiling)
    print("fit / sweep: {:.1f} with compilation, {:.1f} without".format(*ratios(row)))
    if options.runs == parser.get_default("runs") and options.epochs == parser.get_default("epochs"):
        print(_measure.save("many_runs", [row]))


if __name__ == "__main__":
    main()
