"""Building blocks that nearly all architectures use."""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._arguments import check_choice
from jaxcnn._combine import AnyLayer, parallel, serial
from jaxcnn._conv import conv, depthwise_conv
from jaxcnn._dense import dense
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._window import Padding

Norm = Callable[[], Layer]
PADDINGS = {"torch": None, "tensorflow": "SAME"}  # None: dilation * (size // 2) at both ends


def conv_norm_act(
    features: int,
    size: int | tuple[int, ...] = 3,
    *,
    stride: int | tuple[int, ...] = 1,
    padding: Padding | None = None,
    dilation: int = 1,
    groups: int = 1,
    norm: Norm = batch_norm,
    act: AnyLayer = jax.nn.relu,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial / stride, features): convolution, normalization, activation.

    `padding` is as in `conv`. The default is dilation * (size // 2), as is common in PyTorch.
    """
    if padding is None:
        padding = dilation * (size // 2) if isinstance(size, int) else tuple(dilation * (n // 2) for n in size)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    convolution = conv(features, size, **options, bias=False)
    return serial(conv=convolution, norm=norm(), act=act)


def depthwise_norm_act(
    size: int = 3,
    *,
    stride: int = 1,
    padding: Padding | None = None,
    dilation: int = 1,
    norm: Norm = batch_norm,
    act: AnyLayer = jax.nn.relu,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial / stride, C): depthwise convolution, normalization, activation."""
    padding = dilation * (size // 2) if padding is None else padding
    convolution = depthwise_conv(size, stride=stride, padding=padding, dilation=dilation, bias=False)
    return serial(conv=convolution, norm=norm(), act=act)


def padding_of(library: str) -> Padding | None:
    """Return the padding of all convolutions of a network as in the library, for `conv_norm_act`.

    "torch" pads both ends equally. "tensorflow" pads the end of a strided convolution more than the start.

    Raises:
        ValueError: for another name.
    """
    check_choice("model", "padding", library, PADDINGS)
    return PADDINGS[library]


def dilation_at(stride: int, output_stride: int) -> int:
    """Return the dilation that replaces the strides beyond `output_stride` for a layer at total stride `stride`.

    Raises:
        ValueError: if `output_stride` is not 8, 16 or 32.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride!r}")
    return max(stride // output_stride, 1)


def head(classes: int | None, dropout: float = 0.0) -> dict[str, AnyLayer]:
    """Return the last layers of a classifier, (N, C) -> (N, classes), as keyword arguments of `serial`; {} for None."""
    if classes is None:
        return {}
    return {"drop": drop(dropout), "head": dense(classes)}


def with_auxiliary(main: Layer, **auxiliary: Layer) -> Layer:
    """x -> main(x) in evaluation, (*main(x), auxiliary(x)) in training: an additional gradient path to x."""
    ((name, layer),) = auxiliary.items()

    def append_logits(y, auxiliary_logits):
        if auxiliary_logits is None:
            return y
        return (*y, auxiliary_logits) if isinstance(y, tuple) else (y, auxiliary_logits)

    return parallel(append_logits, main=main, **{name: _only_in_training(layer)})


def _only_in_training(layer: Layer) -> Layer:
    """x -> layer(x) in training, None in evaluation."""

    def apply(params, state, x, *, train, key=None):
        return layer.apply(params, state, x, train=True, key=key) if train else (None, state)

    return Layer(layer.init, apply)
