"""Write torchvision's feature pyramid for three feature maps of odd sizes: `python -m tests.goldens.make_pyramid`.

Needs torch and torchvision, as in `make_zoo`. The weights are those of `tests.zoo_weights`, by their names.
"""

import pathlib

import numpy as np
import torch

from experiments.benchmarks._torchvision import models as torchvision
from tests import zoo_weights

FEATURES = 6
SHAPES = {"a": (2, 13, 9, 3), "b": (2, 7, 5, 4), "c": (2, 3, 2, 5)}


def main() -> None:
    torchvision()
    from torchvision.ops import FeaturePyramidNetwork

    net = FeaturePyramidNetwork([shape[-1] for shape in SHAPES.values()], FEATURES)
    shapes = {name: tuple(weight.shape) for name, weight in net.state_dict().items()}
    net.load_state_dict({name: torch.from_numpy(zoo_weights.weight(name, shape)) for name, shape in shapes.items()})
    maps = {key: torch.from_numpy(zoo_weights.images(shape)).movedim(-1, 1) for key, shape in SHAPES.items()}
    with torch.no_grad():
        results = {key: y.movedim(1, -1).numpy() for key, y in net(maps).items()}
    inputs = {f"input_{key}": zoo_weights.images(shape) for key, shape in SHAPES.items()}
    np.savez_compressed(pathlib.Path(__file__).parent / "tasks" / "pyramid.npz", **inputs, **results)


if __name__ == "__main__":
    main()
