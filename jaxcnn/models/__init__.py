"""Architectures, each a function that returns a layer; `MODELS` has them by name.

Families are functions of their settings (`resnet(depths=(2, 2, 2, 2))`), and variants have names (`resnet18()`).
"""

import difflib
from collections.abc import Callable

from jaxcnn._layer import Layer
from jaxcnn.models import _cifar_resnet, _lenet, _resnet
from jaxcnn.models._resnet import resnet as resnet

MODELS: dict[str, Callable[..., Layer]] = {
    name: build for family in (_lenet, _resnet, _cifar_resnet) for name, build in family.VARIANTS.items()
}

__all__ = ["MODELS", "resnet", *MODELS]


def __getattr__(name: str) -> Callable[..., Layer]:
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, 3)
    raise AttributeError(f"jaxcnn.models has no {name!r}" + (f"; near it are {', '.join(near)}" if near else ""))


def __dir__() -> list[str]:
    return sorted(__all__)
