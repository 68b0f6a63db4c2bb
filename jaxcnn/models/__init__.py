"""Architectures, each a function that returns a layer; `MODELS` has them by name."""

from collections.abc import Callable

from jaxcnn._layer import Layer
from jaxcnn.models._cifar_resnet import resnet20 as resnet20
from jaxcnn.models._lenet import lenet5 as lenet5

MODELS: dict[str, Callable[..., Layer]] = {"lenet5": lenet5, "resnet20": resnet20}

__all__ = ["MODELS", "lenet5", "resnet20"]
