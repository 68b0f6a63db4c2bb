"""The block of networks for phones: wide inside, narrow where it is added."""

from collections.abc import Callable

import jax

from jaxcnn._combine import AnyLayer, residual, serial
from jaxcnn._conv import depthwise_conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, from_input_shape
from jaxcnn._squeeze_excite import squeeze_excite
from jaxcnn._transform import drop_path as dropped
from jaxcnn.models._unit import Norm, conv_norm_act


def inverted_residual(
    features: int,
    size: int = 3,
    *,
    hidden: int,
    stride: int = 1,
    squeeze: int = 0,
    norm: Norm,
    act: AnyLayer,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    squeeze_act: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    drop_path: float = 0.0,
) -> Layer:
    """(N, H, W, C) -> (N, H / stride, W / stride, features): 1x1 to `hidden` channels, depthwise, 1x1 to `features`.

    y = x + project(excite(depthwise(expand(x)))), without x where the shape changes

    Args:
        features: channels of the output.
        size, stride: of the depthwise convolution.
        hidden: channels in between; there is no expansion where x has them.
        squeeze: hidden units of the squeeze-and-excitation after the depthwise convolution; 0 for none.
        norm, act: after each convolution, but no activation after the last.
        gate, squeeze_act: of the squeeze-and-excitation.
        drop_path: rate at which the branch is dropped.

    Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """

    def block(shape: tuple[int, ...]) -> Layer:
        parts: dict[str, AnyLayer] = (
            {} if hidden == shape[-1] else {"expand": conv_norm_act(hidden, 1, norm=norm, act=act)}
        )
        depthwise = depthwise_conv(size, stride=stride, padding=size // 2, bias=False)
        parts["depthwise"] = serial(conv=depthwise, norm=norm(), act=act)
        if squeeze:
            parts["excite"] = squeeze_excite(features=squeeze, activation=squeeze_act, gate=gate)
        parts["project"] = conv_norm_act(features, 1, norm=norm, act=identity)
        return added(parts, shape, features, stride, drop_path)

    return from_input_shape(block)


def fused_inverted_residual(
    features: int, *, expand: int, stride: int = 1, norm: Norm, act: AnyLayer, drop_path: float = 0.0
) -> Layer:
    """(N, H, W, C) -> (N, H / stride, W / stride, features): expansion and depthwise convolution as one of 3x3.

    Faster than two where images are large and channels few; without expansion it is all there is.

    Source: Tan and Le, "EfficientNetV2: smaller models and faster training", 2021.
    """

    def block(shape: tuple[int, ...]) -> Layer:
        if expand == 1:
            parts: dict[str, AnyLayer] = {"fused": conv_norm_act(features, 3, stride=stride, norm=norm, act=act)}
        else:
            parts = {
                "fused": conv_norm_act(expand * shape[-1], 3, stride=stride, norm=norm, act=act),
                "project": conv_norm_act(features, 1, norm=norm, act=identity),
            }
        return added(parts, shape, features, stride, drop_path)

    return from_input_shape(block)


def added(parts: dict[str, AnyLayer], shape: tuple[int, ...], features: int, stride: int, drop_path: float) -> Layer:
    """The parts one after the other, added to their input where it has their shape."""
    branch = serial(**parts)
    return residual(dropped(branch, drop_path)) if stride == 1 and shape[-1] == features else branch


def make_divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, but not below 90 % of what was asked for: widths that hardware likes."""
    nearest = max(by, int(channels + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * channels else nearest
