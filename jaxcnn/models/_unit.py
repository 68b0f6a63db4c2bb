"""Building blocks that nearly all architectures use."""

from collections.abc import Callable

import jax

from jaxcnn._combine import AnyLayer, serial
from jaxcnn._conv import conv
from jaxcnn._dense import dense
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._window import Padding

Norm = Callable[[], Layer]


def conv_norm_act(
    features: int,
    size: int | tuple[int, ...] = 3,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: Padding | None = None,
    groups: int = 1,
    norm: Norm = batch_norm,
    act: AnyLayer = jax.nn.relu,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial / stride, features): convolution, normalization, activation.

    `padding` is as in `conv`. The default is size // 2, as is common in PyTorch.
    """
    if padding is None:
        padding = size // 2 if isinstance(size, int) else tuple(n // 2 for n in size)
    convolution = conv(features, size, stride=stride, padding=padding, groups=groups, bias=False)
    return serial(conv=convolution, norm=norm(), act=act)


def head(classes: int | None, dropout: float = 0.0) -> dict[str, AnyLayer]:
    """Return the last layers of a classifier, (N, C) -> (N, classes), as keyword arguments of `serial`; {} for None."""
    if classes is None:
        return {}
    return {"drop": drop(dropout), "head": dense(classes)}
