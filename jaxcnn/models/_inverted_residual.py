"""The inverted residual block of mobile networks: wide inside, with a narrow shortcut."""

from collections.abc import Callable

import jax

from jaxcnn._combine import AnyLayer, residual, serial
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, from_input_shape
from jaxcnn._squeeze_excite import squeeze_excite
from jaxcnn._transform import drop_path as with_drop_path
from jaxcnn._window import Padding
from jaxcnn.models._unit import Norm, conv_norm_act, depthwise_norm_act


def inverted_residual(
    features: int,
    size: int = 3,
    *,
    hidden: int,
    stride: int = 1,
    padding: Padding | None = None,
    dilation: int = 1,
    squeeze: int = 0,
    norm: Norm,
    act: AnyLayer,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
    squeeze_act: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    drop_path: float = 0.0,
) -> Layer:
    """(N, H, W, C) -> (N, H / stride, W / stride, features): 1x1 to `hidden` channels, depthwise, 1x1 to `features`.

    y = x + project(excite(depthwise(expand(x)))), without the shortcut x if the shape changes

    Args:
        features: channels of the output.
        size, stride, padding, dilation: of the depthwise convolution. The default padding is dilation * (size // 2).
        hidden: channels of the depthwise convolution. The expansion is omitted if x has as many.
        squeeze: hidden units of the squeeze-and-excitation after the depthwise convolution; 0 for no excitation.
        norm, act: normalization and activation after each convolution. The last convolution has no activation.
        gate, squeeze_act: activations of the squeeze-and-excitation.
        drop_path: stochastic depth rate.

    Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """

    def build(shape: tuple[int, ...]) -> Layer:
        parts: dict[str, AnyLayer] = (
            {} if hidden == shape[-1] else {"expand": conv_norm_act(hidden, 1, norm=norm, act=act)}
        )
        parts["depthwise"] = depthwise_norm_act(
            size, stride=stride, padding=padding, dilation=dilation, norm=norm, act=act
        )
        if squeeze:
            parts["excite"] = squeeze_excite(features=squeeze, activation=squeeze_act, gate=gate)
        parts["project"] = conv_norm_act(features, 1, norm=norm, act=identity)
        return with_shortcut(parts, shape, features, stride, drop_path)

    return from_input_shape(build)


def fused_inverted_residual(
    features: int,
    *,
    expand: int,
    stride: int = 1,
    padding: Padding | None = None,
    norm: Norm,
    act: AnyLayer,
    drop_path: float = 0.0,
) -> Layer:
    """(N, H, W, C) -> (N, H / stride, W / stride, features): expansion and depthwise fused into one 3x3.

    Faster for large images with few channels. Without expansion, this convolution is the whole branch.

    Source: Tan and Le, "EfficientNetV2: smaller models and faster training", 2021.
    """

    def build(shape: tuple[int, ...]) -> Layer:
        hidden = features if expand == 1 else expand * shape[-1]
        fused = conv_norm_act(hidden, 3, stride=stride, padding=padding, norm=norm, act=act)
        parts: dict[str, AnyLayer] = {"fused": fused}
        if expand > 1:
            parts["project"] = conv_norm_act(features, 1, norm=norm, act=identity)
        return with_shortcut(parts, shape, features, stride, drop_path)

    return from_input_shape(build)


def with_shortcut(
    parts: dict[str, AnyLayer], shape: tuple[int, ...], features: int, stride: int, drop_path: float
) -> Layer:
    """Chain the parts, and add a shortcut if the input has the shape of the output."""
    branch = serial(**parts)
    return residual(with_drop_path(branch, drop_path)) if stride == 1 and shape[-1] == features else branch


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, which is faster on hardware, but not below 90 % of `channels`."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
