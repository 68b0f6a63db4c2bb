"""Architectures, each a function that returns a layer; `MODELS` has them by name.

Families are functions of their settings (`resnet(depths=(2, 2, 2, 2))`), and variants have names (`resnet18()`).
"""

import difflib
from collections.abc import Callable

from jaxcnn._layer import Layer
from jaxcnn.models import (
    _alexnet,
    _cifar_resnet,
    _convnext,
    _densenet,
    _efficientnet,
    _googlenet,
    _inception,
    _lenet,
    _mnasnet,
    _mobilenet,
    _nin,
    _preact_resnet,
    _regnet,
    _resnet,
    _shufflenet,
    _squeezenet,
    _unet,
    _vgg,
    _wide_resnet,
    _xception,
)
from jaxcnn.models._cifar_resnet import cifar_resnet as cifar_resnet
from jaxcnn.models._convnext import convnext as convnext
from jaxcnn.models._densenet import densenet as densenet
from jaxcnn.models._efficientnet import efficientnet as efficientnet
from jaxcnn.models._mnasnet import mnasnet as mnasnet
from jaxcnn.models._mobilenet import mobilenet_v3 as mobilenet_v3
from jaxcnn.models._preact_resnet import preact_resnet as preact_resnet
from jaxcnn.models._regnet import regnet as regnet
from jaxcnn.models._resnet import resnet as resnet
from jaxcnn.models._shufflenet import shufflenet_v2 as shufflenet_v2
from jaxcnn.models._squeezenet import squeezenet as squeezenet
from jaxcnn.models._vgg import vgg as vgg
from jaxcnn.models._wide_resnet import wide_resnet as wide_resnet

MODELS: dict[str, Callable[..., Layer]] = {
    name: build
    for family in (
        _lenet,
        _alexnet,
        _nin,
        _vgg,
        _googlenet,
        _resnet,
        _cifar_resnet,
        _preact_resnet,
        _wide_resnet,
        _inception,
        _xception,
        _densenet,
        _squeezenet,
        _shufflenet,
        _mobilenet,
        _mnasnet,
        _efficientnet,
        _regnet,
        _convnext,
        _unet,
    )
    for name, build in family.VARIANTS.items()
}

__all__ = [
    "MODELS",
    "cifar_resnet",
    "convnext",
    "densenet",
    "efficientnet",
    "mnasnet",
    "mobilenet_v3",
    "preact_resnet",
    "regnet",
    "resnet",
    "shufflenet_v2",
    "squeezenet",
    "vgg",
    "wide_resnet",
    *MODELS,
]


def __getattr__(name: str) -> Callable[..., Layer]:
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, 3)
    raise AttributeError(f"jaxcnn.models has no {name!r}" + (f"; near it are {', '.join(near)}" if near else ""))


def __dir__() -> list[str]:
    return sorted(__all__)
