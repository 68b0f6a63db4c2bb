"""Architectures, each a function that returns a layer; `MODELS` has them by name."""

from collections.abc import Callable

from jaxcnn._layer import Layer
from jaxcnn.models._lenet import lenet5 as lenet5

MODELS: dict[str, Callable[..., Layer]] = {"lenet5": lenet5}

__all__ = ["MODELS", "lenet5"]
