"""`experiments.cifar10_speedrun` on a GPU, fifty times.

    python -m experiments.benchmarks.cifar10_speedrun [key.path=value ...]

What it is to be held against, the published recipe in PyTorch on the same files and GPU, is not part of this project:
its times go by the same rules, so that its own script gives them.
"""

import sys

from experiments import cifar10_speedrun
from experiments.benchmarks import _measure
from jaxcnn.train import override


def main(arguments: list[str]) -> None:
    result = cifar10_speedrun.main(override(cifar10_speedrun.CONFIG, ["runs=50", *arguments]))
    if not arguments:
        print(_measure.save("cifar10_speedrun", [result]))


if __name__ == "__main__":
    main(sys.argv[1:])
