"""Layers and networks as data, which each framework builds in its own way."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jaxcnn.models._efficientnet import V1 as EFFICIENTNET_STAGES


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


def _conv_norm(features: int, size: int = 3, stride: int = 1, groups: int = 1) -> tuple[Any, ...]:
    return Conv(features, size, stride, groups, bias=False), Norm()


def _basic(features: int, stride: int, widens: bool) -> tuple[Any, ...]:
    """The block of ResNet-18 and -20."""
    branch = (*_conv_norm(features, stride=stride), Relu(), *_conv_norm(features))
    return Residual(branch, _conv_norm(features, 1, stride) if widens else ()), Relu()


def _bottleneck(features: int, stride: int, widens: bool) -> tuple[Any, ...]:
    """The block of ResNet-50."""
    narrow = (*_conv_norm(features, 1), Relu(), *_conv_norm(features, stride=stride), Relu())
    branch = (*narrow, *_conv_norm(4 * features, 1))
    return Residual(branch, _conv_norm(4 * features, 1, stride) if widens else ()), Relu()


def _resnet(
    widths: tuple[int, ...], counts: tuple[int, ...], block: Callable = _basic, expansion: int = 1, classes: int = 10
) -> tuple[Any, ...]:
    """The stages, pooling and classifier. The input must have as many channels as `widths[0]`."""
    layers, channels = [], widths[0]
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
        for i in range(count):
            layers += block(width, 2 if stage and i == 0 else 1, channels != expansion * width)
            channels = expansion * width
    return (*layers, GlobalAvgPool(), Dense(classes))


def _separable(channels: int, features: int, stride: int) -> tuple[Any, ...]:
    """The block of MobileNet: a depthwise and a pointwise convolution."""
    return *_conv_norm(channels, stride=stride, groups=channels), Relu(), *_conv_norm(features, 1), Relu()


def _convnext(width: int, count: int = 3) -> tuple[Any, ...]:
    """ConvNeXt blocks."""
    branch = (Conv(width, 7, groups=width), LayerNorm(), Dense(4 * width), Gelu(), Dense(width))
    return (Residual(branch),) * count


def _vgg(*widths: int) -> tuple[Any, ...]:
    return sum(((*_conv_norm(width), Relu()) * 2 + (MaxPool(2, 2),) for width in widths), ())


NETWORKS = {
    "lenet5": Network(
        (28, 28, 1),
        128,
        (
            *(Conv(6, 5), Relu(), MaxPool(2, 2)),
            *(Conv(16, 5, valid=True), Relu(), MaxPool(2, 2), Flatten()),
            *(Dense(120), Relu(), Dense(84), Relu(), Dense(10)),
        ),
    ),
    "small": Network(
        (28, 28, 1),
        128,
        (Conv(32), Relu(), MaxPool(2, 2), Conv(64), Relu(), MaxPool(2, 2), Flatten(), Dense(10)),
    ),
    "resnet20": Network((32, 32, 3), 128, (*_conv_norm(16), Relu(), *_resnet((16, 32, 64), (3, 3, 3)))),
    "mobilenet": Network(
        (32, 32, 3),
        64,
        (
            *(*_conv_norm(32), Relu()),
            *_separable(32, 64, 1),
            *_separable(64, 128, 2),
            *_separable(128, 128, 1),
            *_separable(128, 256, 2),
            *_separable(256, 256, 1),
            *(GlobalAvgPool(), Dense(10)),
        ),
    ),
    "convnext": Network(
        (32, 32, 3),
        64,
        (
            *(Conv(64, 2, 2), LayerNorm(), *_convnext(64)),
            *(LayerNorm(), Conv(128, 2, 2), *_convnext(128)),
            *(GlobalAvgPool(), Dense(10)),
        ),
    ),
    "vgg": Network((32, 32, 3), 64, (*_vgg(64, 128, 256), Flatten(), Dense(256), Relu(), Dense(10))),
    "resnet18": Network(
        (64, 64, 3),
        16,
        (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1), *_resnet((64, 128, 256, 512), (2, 2, 2, 2))),
    ),
}


def resnet50(batch: int) -> Network:
    stages = _resnet((64, 128, 256, 512), (3, 4, 6, 3), _bottleneck, expansion=4, classes=1000)
    return Network((224, 224, 3), batch, (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1), *stages))


def convnext_tiny(batch: int) -> Network:
    """Without the scale of each residual branch."""
    first, *stages = zip((96, 192, 384, 768), (3, 3, 9, 3), strict=True)
    layers = (Conv(96, 4, 4), LayerNorm(), *_convnext(*first))
    for width, count in stages:
        layers += (LayerNorm(), Conv(width, 2, 2), *_convnext(width, count))
    return Network((224, 224, 3), batch, (*layers, GlobalAvgPool(), LayerNorm(), Dense(1000)))


def densenet121(batch: int) -> Network:
    def norm_conv(features, size):
        return Norm(), Relu(), Conv(features, size, bias=False)

    layers, channels = (*_conv_norm(64, 7, 2), Relu(), MaxPool(3, 2, 1)), 64
    for stage, count in enumerate((6, 12, 24, 16)):
        if stage:
            channels //= 2
            layers += (*norm_conv(channels, 1), AvgPool(2))
        layers += (Append((*norm_conv(128, 1), *norm_conv(32, 3))),) * count
        channels += 32 * count
    return Network((224, 224, 3), batch, (*layers, Norm(), Relu(), GlobalAvgPool(), Dense(1000)))


def efficientnet_b0(batch: int) -> Network:
    """Without dropout and stochastic depth."""
    layers, channels = (*_conv_norm(32, 3, 2), Silu()), 32
    for expansion, size, first_stride, features, count in EFFICIENTNET_STAGES:
        for stride in (first_stride, *[1] * (count - 1)):
            wide = expansion * channels
            expand = (*_conv_norm(wide, 1), Silu()) if expansion > 1 else ()
            branch = (*expand, *_conv_norm(wide, size, stride, wide), Silu(), Excite(channels // 4))
            branch = (*branch, *_conv_norm(features, 1))
            layers += (Residual(branch),) if stride == 1 and channels == features else branch
            channels = features
    return Network((224, 224, 3), batch, (*layers, *_conv_norm(1280, 1), Silu(), GlobalAvgPool(), Dense(1000)))


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
