"""Ablations of the speedruns: accuracy and time with one trick disabled or one setting changed at a time.

    python -m experiments.benchmarks.ablations [mnist_speedrun | cifar10_speedrun] [key.path=value ...]

MNIST: the seconds include the whole process, with an empty compilation cache. CIFAR-10: the seconds include training
and evaluation, but no compilation. On a CPU it runs with small=true, which is too small to reach 94 %. JAXCNN_DATA must
contain both data sets.
"""

import json
import os
import sys

import jax

from experiments import cifar10_speedrun
from experiments.benchmarks import _measure, mnist_speedrun
from jaxcnn.train import override

RUNS = 5
TRICKS = {
    "mnist_speedrun": {
        "none (baseline)": [],
        "3x3 stem with stride 1": ["stem.size=3", "stem.stride=1"],
        "pooling after norm and activation": ["pool_first=false"],
        "batch norm statistics over more steps": ["norm_decay=0.95"],
        "no learning rate warmup": ["train.schedule.warmup=0"],
        "default betas of Adam": ["train.optimizer.betas=[0.9, 0.999]"],
        "no label smoothing": ["train.label_smoothing=0"],
        "full compiler optimization": ["optimization_level=3"],
    },
    "cifar10_speedrun": {
        "none (baseline)": [],
        "no whitening": ["whitening.enabled=false"],
        "bias of the whitening layer trained to the end": ["whitening.epochs=1000"],
        "no dirac initialization": ["dirac=false"],
        "SGD instead of Muon": ["muon.enabled=false"],
        "random instead of alternating flips": ["flip=random"],
        "no label smoothing": ["train.label_smoothing=0"],
        "no test-time augmentation": ["tta=none"],
    },
}


def _mnist(assignments: list[str]) -> list[tuple[float, float]]:
    command = ["-m", "experiments.mnist_speedrun", *assignments]
    return [mnist_speedrun.run_once([*command, f"train.seed={seed}"], dict(os.environ)) for seed in range(RUNS)]


def _cifar10(assignments: list[str]) -> list[tuple[float, float]]:
    result = _measure.run_module(__spec__.name, "--child", f"runs={RUNS}", *assignments)
    return list(zip(result["accuracies"], result["seconds"], strict=True))


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if "=" not in argument]
    extra = [argument for argument in arguments if "=" in argument]
    for name in _measure.select_names(names, TRICKS):
        measure = {"mnist_speedrun": _mnist, "cifar10_speedrun": _cifar10}[name]
        small = ["small=true"] if name == "cifar10_speedrun" and jax.default_backend() == "cpu" else []
        rows = []
        for trick, assignments in TRICKS[name].items():
            settings = [*small, *assignments, *extra]
            runs = measure(settings)
            rows.append({"without": trick, "settings": settings, "runs": runs})
            print(f"{name} {trick:42} {_measure.accuracy_and_time(*zip(*runs, strict=True))}", flush=True)
        if not extra:
            print(_measure.save(f"ablations_{name}", rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(cifar10_speedrun.main(override(cifar10_speedrun.CONFIG, sys.argv[2:]))))
    else:
        main(sys.argv[1:])
