"""Convolution: one small kernel slides over the signal or image and is used at every position.

A dense layer from a 100x100x3 image to as many features has one weight for each pair of an input and an output; a
convolution has one for each tap of its kernel, 75 for a 5x5x3 filter, wherever it is used (parameter sharing), and each
output sees only the pixels under the kernel (sparsity).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import he_normal, zeros

from jaxcnn._combine import serial
from jaxcnn._layer import (
    Initializer,
    Layer,
    Params,
    as_floating,
    child_key,
    constructor,
    from_input_shape,
    get_param,
    spatial_rank,
    stateless,
)
from jaxcnn._lowering import add_bias, convolve, convolve_transposed
from jaxcnn._window import (
    PAD_MODES,
    Padding,
    check_choice,
    check_integer,
    check_window_options,
    make_transposed_window,
    make_window,
    per_dimension,
)


@constructor
def conv(
    features: int,
    size: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = he_normal(),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features), in 1, 2 or 3 spatial dimensions.

    y[n, i, f] = bias[f] + sum_k sum_c x[n, stride * i + dilation * k - low, c] * kernel[k, c, f]

    with i and k running over all spatial dimensions, `low` the padding before the first position, and spatial' =
    floor((spatial + low + high - dilation * (size - 1) - 1) / stride) + 1. The kernel is not flipped: the field calls
    this cross-correlation "convolution".

    Args:
        features: number of filters, the channels of the output.
        size: taps of the kernel, one int for all spatial dimensions or one for each.
        stride: positions from one window to the next.
        padding: "SAME" (spatial' = ceil(spatial / stride), an odd position goes to the end), "SAME_LOWER"
            (it goes to the start), "VALID" (none), "CAUSAL" (1-D: no output sees a later input), an int
            (that many at both ends, as in PyTorch), or for each dimension an int or a pair (low, high).
        padding_mode: what is there: "zeros", "reflect", "replicate" or "circular".
        dilation: positions from one tap of the kernel to the next.
        groups: both channels and features are split into so many groups that do not see each other.
        bias: whether to add one.
        kernel_init, bias_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.

    Params:
        kernel (*size, C / groups, features); bias (features,).

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank, channels or features not divisible by groups, or a window larger than the input.

    Example: a filter that finds where an image turns from light to dark.
        >>> image = jnp.array([[9.0, 9.0, 9.0, 0.0, 0.0, 0.0]] * 3).reshape(1, 3, 6, 1)
        >>> edge = jnp.array([[1.0, 0.0, -1.0]] * 3).reshape(3, 3, 1, 1)
        >>> y, _ = jaxcnn.conv(1, 3, padding="VALID", bias=False).apply({"kernel": edge}, {}, image, train=False)
        >>> y[0, 0, :, 0]
        Array([ 0., 27., 27.,  0.], dtype=float32)

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    _check_groups("conv", features, groups)
    check_window_options("conv", size=size, stride=stride, padding=padding, dilation=dilation)
    check_choice("conv", "padding_mode", padding_mode, PAD_MODES)

    def init(key, x):
        rank = spatial_rank(as_floating(x, "conv"), "conv")
        shape = (*per_dimension("conv", "size", size, rank), _channels("conv", x, groups), features)
        return _init(key, shape, bias, kernel_init, bias_init)

    def fn(params, x):
        rank = spatial_rank(x := as_floating(x, "conv"), "conv")
        window = make_window("conv", x.shape, size, stride, dilation, padding).on("conv", x.shape)
        kernel = get_param("conv", params, "kernel", (*window.size, _channels("conv", x, groups), features), x)
        if padding_mode != "zeros":  # the convolution itself can only add zeros
            x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), PAD_MODES[padding_mode])
            window = window._replace(padding=((0, 0),) * rank)
        y = convolve(x, kernel.astype(x.dtype), window, groups)  # lax.conv_general_dilated, or what equals it
        return add_bias(y, get_param("conv", params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


@constructor
def depthwise_conv(
    size: int | Sequence[int] = 3,
    *,
    multiplier: int = 1,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: int | Sequence[int] = 1,
    bias: bool = True,
    kernel_init: Initializer = he_normal(),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C * multiplier): each channel has filters of its own.

    y[n, i, f] = bias[f] + sum_k x[n, stride * i + dilation * k - low, f // multiplier] * kernel[k, 0, f]

    A `conv` with groups=C: C times fewer weights and multiply-adds than a full one.

    Args:
        size, stride, padding, padding_mode, dilation, bias, kernel_init, bias_init: as in `conv`.
        multiplier: filters for each channel.

    Params:
        kernel (*size, 1, C * multiplier); bias (C * multiplier,).

    Raises:
        TypeError, ValueError: as in `conv`.

    Example:
        >>> params, _ = jaxcnn.depthwise_conv(3).init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
        >>> params["kernel"].shape
        (3, 3, 1, 32)

    Source: Sifre, "Rigid-motion scattering for image classification", 2014.
    """
    check_integer("depthwise_conv", "multiplier", multiplier)

    def groups_of(channels):
        return conv(
            channels * multiplier,
            size,
            stride=stride,
            padding=padding,
            padding_mode=padding_mode,
            dilation=dilation,
            groups=channels,
            bias=bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
        )

    groups_of(1)  # refuses at once what no number of channels could make right
    return from_input_shape(lambda shape: groups_of(shape[-1]))


@constructor
def separable_conv(
    features: int,
    size: int | Sequence[int] = 3,
    *,
    multiplier: int = 1,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    padding_mode: str = "zeros",
    dilation: int | Sequence[int] = 1,
    bias: bool = True,
    kernel_init: Initializer = he_normal(),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features): a depthwise convolution, then a 1x1 convolution.

    Space and channels are mixed one after the other. For a k x k kernel this takes about 1 / features + 1 / k^2 of the
    weights of a full convolution.

    Args:
        features: channels of the output.
        multiplier: depthwise filters for each channel.
        size, stride, padding, padding_mode, dilation: of the depthwise part, as in `conv`.
        bias: whether the pointwise part has one (the depthwise part has none).
        kernel_init, bias_init: as in `conv`.

    Params:
        depthwise/kernel (*size, 1, C * multiplier); pointwise/kernel (1, .., C * multiplier, features);
        pointwise/bias (features,).

    Raises:
        TypeError, ValueError: as in `conv`.

    Example:
        >>> params, _ = jaxcnn.separable_conv(64).init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
        >>> jaxcnn.count_params(params, ".*/kernel")  # a full convolution has 18432
        2336

    Source: Chollet, "Xception: deep learning with depthwise separable convolutions", 2017.
    """
    return serial(
        depthwise=depthwise_conv(
            size,
            multiplier=multiplier,
            stride=stride,
            padding=padding,
            padding_mode=padding_mode,
            dilation=dilation,
            bias=False,
            kernel_init=kernel_init,
        ),
        pointwise=conv(features, 1, bias=bias, kernel_init=kernel_init, bias_init=bias_init),
    )


@constructor
def conv_transpose(
    features: int,
    size: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = he_normal(),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features): every input lays down a copy of the kernel.

    y[n, stride * i + dilation * k - low, f] += x[n, i, c] * kernel[k, c, f],  for all i, k, c;  then + bias[f]

    the transpose of the linear map that `conv` is. spatial' = (spatial - 1) * stride - low - high +
    dilation * (size - 1) + 1 + output_padding.

    Args:
        features, size, dilation, groups, bias, kernel_init, bias_init: as in `conv`.
        stride: positions from one copy to the next: the image grows by this factor.
        padding: what is cut off the output. "SAME": spatial' = stride * spatial; "VALID": nothing; "CAUSAL": 1-D, only
            at the end, spatial' = stride * spatial; an int or pairs: so much at each end, as in PyTorch.
        output_padding: positions added at the end of the output.

    Params:
        kernel (*size, C / groups, features), PyTorch's with axes (2, .., 0, 1) if groups=1; bias (features,).

    Raises:
        TypeError, ValueError: as in `conv`.

    Example:
        >>> kernel = jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
        >>> layer = jaxcnn.conv_transpose(1, 3, stride=2, padding="VALID", bias=False)
        >>> y, _ = layer.apply({"kernel": kernel}, {}, jnp.array([1.0, 10.0]).reshape(1, 2, 1), train=False)
        >>> y.ravel()
        Array([ 1.,  2., 13., 20., 30.], dtype=float32)

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016.
    """
    name = "conv_transpose"
    _check_groups(name, features, groups)
    check_window_options(name, size=size, stride=stride, padding=padding, dilation=dilation)
    check_window_options(name, least=0, output_padding=output_padding)

    def init(key, x):
        rank = spatial_rank(as_floating(x, name), name)
        shape = (*per_dimension(name, "size", size, rank), _channels(name, x, groups), features)
        return _init(key, shape, bias, kernel_init, bias_init)

    def fn(params, x):
        rank = spatial_rank(x := as_floating(x, name), name)
        window = make_transposed_window(name, x.shape, size, stride, dilation, padding)
        extra = per_dimension(name, "output_padding", output_padding, rank, 0)
        kernel = get_param(name, params, "kernel", (*window.size, _channels(name, x, groups), features), x)
        pads = tuple((low, high - more) for (low, high), more in zip(window.padding, extra, strict=True))
        spatial = tuple(
            (n - 1) * step + span - low - high
            for n, step, span, (low, high) in zip(x.shape[1:-1], window.stride, window.span, pads, strict=True)
        )
        y = convolve_transposed(x, kernel.astype(x.dtype), window._replace(padding=pads), groups, spatial)
        return add_bias(y, get_param(name, params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


def _check_groups(name: str, features: int, groups: int) -> None:
    check_integer(name, "features", features)
    check_integer(name, "groups", groups)
    if features % groups:
        raise ValueError(f"{name}: features={features} is not divisible by groups={groups}")


def _channels(name: str, x: jax.Array, groups: int) -> int:
    """The channels that one group of filters sees."""
    if x.shape[-1] % groups:
        raise ValueError(f"{name}: the {x.shape[-1]} channels of input {x.shape} are not divisible by groups={groups}")
    return x.shape[-1] // groups


def _init(key: jax.Array, shape: tuple, bias: bool, kernel_init: Initializer, bias_init: Initializer) -> Params:
    kernel = {"kernel": kernel_init(child_key(key, "kernel"), shape, jnp.float32)}
    return kernel | ({"bias": bias_init(child_key(key, "bias"), shape[-1:], jnp.float32)} if bias else {})
