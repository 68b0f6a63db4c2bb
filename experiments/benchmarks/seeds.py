"""Experiments over several seeds, each run in a process of its own: mean and std of what they reach.

    python -m experiments.benchmarks.seeds                            all of them
    python -m experiments.benchmarks.seeds mnist_cnn                  one of them
    python -m experiments.benchmarks.seeds mnist_cnn train.epochs=2     with other settings, which is not kept

Three seeds each, two where one takes a quarter of an hour. Needs all of MNIST in JAXCNN_DATA.
"""

import importlib
import json
import statistics
import sys
import tempfile
import time

from experiments.benchmarks import _measure
from jaxcnn.train import override

EXPERIMENTS = {  # by the name of its file: the experiment with its settings, what is told the seed, and how many
    "mnist_lenet": ("mnist_lenet", "train.seed", 3),
    "mnist_lenet_all": ("mnist_lenet data.name=mnist", "train.seed", 3),
    "mnist_cnn": ("mnist_cnn", "train.seed", 3),
    "mnist_best": ("mnist_best", "train.seed", 2),
    "overfit_and_regularize": ("overfit_and_regularize", "train.seed", 3),
    "finetune": ("finetune", "train.seed", 3),
    "image_folder": ("image_folder", "train.seed", 3),
    "write_your_own_loop": ("write_your_own_loop", "train.seed", 3),
}


def child(name: str, assignments: list[str]) -> None:
    """Run an experiment; the last line is what it returned."""
    module = importlib.import_module(f"experiments.{name}")
    print(json.dumps(module.main(override(module.CONFIG, assignments))))


def figures(result: dict, prefix: str = "") -> dict[str, float]:
    """The accuracies, losses and shares of a result, by path."""
    found = {}
    for key, value in result.items():
        if isinstance(value, dict):
            found |= figures(value, f"{prefix}{key} ")
        elif isinstance(value, float) and "second" not in key:
            found[prefix + key] = value
    return found


def measure(label: str, extra: list[str]) -> dict:
    command, key, seeds = EXPERIMENTS[label]
    name, *settings = command.split()
    runs, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            where = f"folder={folder}/run" if name == "write_your_own_loop" else f"runs={folder}"
            began = time.perf_counter()
            assignments = (*settings, *extra, where, f"{key}={seed}")
            result = _measure.in_process(__spec__.name, "--child", name, *assignments)
            seconds.append(time.perf_counter() - began)
        runs.append(figures(result))
    return {"experiment": label, "figures": {name: [run[name] for run in runs] for name in runs[0]}, "seconds": seconds}


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if "=" not in argument]
    extra = [argument for argument in arguments if "=" in argument]
    for label in _measure.chosen(names, EXPERIMENTS):
        row = measure(label, extra)
        print(f"{label}: {statistics.mean(row['seconds']):.0f} s")
        for name, values in row["figures"].items():
            print(f"  {name:28} {_measure.spread(values, '.2%')}", flush=True)
        if not extra:
            print(_measure.save(f"seeds_{label}", [row]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
