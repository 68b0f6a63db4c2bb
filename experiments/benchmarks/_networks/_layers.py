"""Layers as data, which each framework builds in its own way."""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Conv:
    features: int
    size: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = True
    valid: bool = False

    @property
    def padding(self) -> int:
        return 0 if self.valid else (self.size - 1) // 2


@dataclass(frozen=True)
class Norm:
    """Batch norm."""


@dataclass(frozen=True)
class LayerNorm:
    """Layer norm over the channels."""


@dataclass(frozen=True)
class Relu:
    pass


@dataclass(frozen=True)
class Gelu:
    """Exact GELU, not the tanh approximation."""


@dataclass(frozen=True)
class Silu:
    pass


@dataclass(frozen=True)
class MaxPool:
    size: int
    stride: int
    padding: int = 0


@dataclass(frozen=True)
class AvgPool:
    """Average pooling without padding and with windows that do not overlap."""

    size: int


@dataclass(frozen=True)
class GlobalAvgPool:
    pass


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Dense:
    """Dense layer over the channels. Before `Flatten` or `GlobalAvgPool` it equals a 1x1 convolution."""

    features: int


@dataclass(frozen=True)
class Residual:
    branch: tuple[Any, ...]
    shortcut: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Append:
    """Concatenate the channels of the input and of the branch, as DenseNet does."""

    branch: tuple[Any, ...]


@dataclass(frozen=True)
class Excite:
    """Squeeze-and-excitation with a hidden layer of `features` units and SiLU."""

    features: int


class Network(NamedTuple):
    shape: tuple[int, int, int]  # height, width, channels
    batch: int
    layers: tuple[Any, ...]
    dtype: str = "float32"  # of the layers; "bfloat16" in jaxcnn, Flax and PyTorch


def widen(layers: tuple[Any, ...], factor: int) -> tuple[Any, ...]:
    """Multiply the channels of all layers by `factor`, except for the classifier at the end."""

    def widen_layer(layer):
        match layer:
            case Conv(features, groups=groups):
                return replace(layer, features=factor * features, groups=groups if groups == 1 else factor * groups)
            case Dense(features):
                return Dense(factor * features)
            case Residual(branch, shortcut):
                return Residual(tuple(map(widen_layer, branch)), tuple(map(widen_layer, shortcut)))
        return layer

    return *map(widen_layer, layers[:-1]), layers[-1]


def flattened(layers: Iterable[Any]) -> Iterator[Any]:
    """All layers. The layers inside a residual layer replace it."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from flattened((*layer.branch, *layer.shortcut))
        else:
            yield layer


def output_shape(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The output shape of a layer for an input shape (*spatial, C), without the batch dimension."""
    *spatial, channels = shape
    match layer:
        case Conv() | MaxPool():
            features = layer.features if isinstance(layer, Conv) else channels
            return (*((n + 2 * layer.padding - layer.size) // layer.stride + 1 for n in spatial), features)
        case AvgPool(size):
            return (*(n // size for n in spatial), channels)
        case GlobalAvgPool():
            return (channels,)
        case Flatten():
            return (math.prod(shape),)
        case Dense():
            return (*spatial, layer.features)
        case Residual():
            return functools.reduce(lambda shape, inner: output_shape(inner, shape), layer.branch, shape)
        case Append():
            *_, added = functools.reduce(lambda shape, inner: output_shape(inner, shape), layer.branch, shape)
            return (*spatial, channels + added)
    return shape
