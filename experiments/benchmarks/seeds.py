"""Run experiments with several seeds, each in a separate process, and report mean and std of their metrics.

    python -m experiments.benchmarks.seeds                            all experiments
    python -m experiments.benchmarks.seeds mnist_cnn                  one experiment
    python -m experiments.benchmarks.seeds mnist_cnn train.epochs=2   with other settings; results are not saved
    python -m experiments.benchmarks.seeds signals/GunPoint/fcn1d     one set and one network of the signals

Each experiment runs with 3 seeds, except `mnist_best` with 2, because a run takes a quarter of an hour. JAXCNN_DATA
must contain the full MNIST and `ucr.npz`. The results of all signals are in one file.
"""

import importlib
import json
import statistics
import sys
import tempfile
import time

from experiments.benchmarks import _measure
from jaxcnn.train import override

EXPERIMENTS = {  # name in the results file: (module and settings, config key of the seed, number of seeds)
    "mnist_lenet": ("mnist_lenet", "train.seed", 3),
    "mnist_lenet_all": ("mnist_lenet data.name=mnist", "train.seed", 3),
    "mnist_cnn": ("mnist_cnn", "train.seed", 3),
    "mnist_best": ("mnist_best", "train.seed", 2),
    "regression": ("regression", "train.seed", 3),
    "multilabel": ("multilabel", "train.seed", 3),
    "segmentation": ("segmentation", "train.seed", 3),
    "distillation": ("distillation", "train.seed", 3),
    "autoencoder": ("autoencoder", "train.seed", 3),
    "dcgan": ("dcgan", "train.seed", 3),
    "overfit_and_regularize": ("overfit_and_regularize", "train.seed", 3),
    "finetune": ("finetune", "train.seed", 3),
    "image_folder": ("image_folder", "train.seed", 3),
    "write_your_own_loop": ("write_your_own_loop", "train.seed", 3),
    **{
        f"signals/{name}/{model}": (f"signals data.name={name} model.name={model}", "train.seed", 3)
        for name in ("ItalyPowerDemand", "GunPoint", "BasicMotions", "ArrowHead", "OSULeaf")
        for model in ("fcn1d", "resnet1d", "inception_time")
    },
}


def child(name: str, assignments: list[str]) -> None:
    """Run an experiment and print its result as the last line."""
    module = importlib.import_module(f"experiments.{name}")
    print(json.dumps(module.main(override(module.CONFIG, assignments))))


def flatten_metrics(result: dict, prefix: str = "") -> dict[str, float]:
    """All float values of a nested result except times. The keys of nested dicts are joined by spaces."""
    metrics = {}
    for key, value in result.items():
        if isinstance(value, dict):
            metrics |= flatten_metrics(value, f"{prefix}{key} ")
        elif isinstance(value, float) and "second" not in key:
            metrics[prefix + key] = value
    return metrics


def measure(label: str, extra: list[str]) -> dict:
    command, key, seeds = EXPERIMENTS[label]
    name, *settings = command.split()
    runs, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            output = f"folder={folder}/run" if name == "write_your_own_loop" else f"runs={folder}"
            began = time.perf_counter()
            assignments = (*settings, *extra, output, f"{key}={seed}")
            result = _measure.run_module(__spec__.name, "--child", name, *assignments)
            seconds.append(time.perf_counter() - began)
        runs.append(flatten_metrics(result))
    return {"experiment": label, "figures": {name: [run[name] for run in runs] for name in runs[0]}, "seconds": seconds}


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if "=" not in argument]
    extra = [argument for argument in arguments if "=" in argument]
    for label in _measure.select_names(names, EXPERIMENTS):
        row = measure(label, extra)
        print(f"{label}: {statistics.mean(row['seconds']):.0f} s")
        for name, values in row["figures"].items():
            spec = ".2%" if max(values) <= 1 else ".2f"
            print(f"  {name:28} {_measure.mean_and_std(values, spec)}", flush=True)
        if not extra:
            group, slash, _ = label.partition("/")
            name = group if slash else f"seeds_{label}"
            print(_measure.save(name, [*_measure.other_rows(name, "experiment", [label]), row]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        main(sys.argv[1:])
