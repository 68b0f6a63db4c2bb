"""Convolution: a small kernel slides over a signal or an image and computes one output at each position.

It needs far fewer weights than a dense layer: all positions use the same kernel (parameter sharing), and each output
depends only on the inputs under the kernel (sparsity).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, check_integer
from jaxcnn._array import as_floating, spatial_rank
from jaxcnn._combine import serial
from jaxcnn._initial import truncated_normal, zeros
from jaxcnn._key import child_key
from jaxcnn._layer import (
    Initializer,
    Layer,
    Params,
    check_initializers,
    constructor,
    from_input_shape,
    get_param,
    stateless,
)
from jaxcnn._lowering import add_bias, convolve, convolve_transposed
from jaxcnn._window import PAD_MODES, Padding, check_window_options, make_transposed_window, make_window, per_dimension


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
    kernel_init: Initializer = truncated_normal(2),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features), in 1, 2 or 3 spatial dimensions.

    y[n, i, f] = bias[f] + sum_k sum_c x[n, stride * i + dilation * k - low, c] * kernel[k, c, f]

    spatial' = floor((spatial + low + high - dilation * (size - 1) - 1) / stride) + 1

    i and k have one index per spatial dimension; low and high are the padding before and after the input. The kernel is
    not flipped, as in all deep learning libraries (cross-correlation).

    Args:
        features: number of filters, and of output channels.
        size: kernel size, one int for all spatial dimensions or one int per dimension.
        stride: step between windows, in positions.
        padding: "VALID" (none), "SAME" (spatial' = ceil(spatial / stride); an odd total pads one more at the end),
            "SAME_LOWER" (one more at the start), "CAUSAL" (1-D; no output depends on later inputs), an int (both ends
            of every dimension, as in PyTorch), or per dimension an int or a pair (low, high); in 1-D also one pair.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        dilation: step between kernel elements, in positions.
        groups: splits channels and features into this number of independent convolutions; c then counts the channels of
            the group of f.
        bias: whether to add a bias.
        kernel_init, bias_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`. Defaults: a truncated
            normal distribution with variance 2 / fan_in (He et al., 2015), and zeros.

    Params:
        kernel (*size, C / groups, features); bias (features,).

    Raises:
        TypeError: for an initializer that is not a function, or input that is not floating-point.
        ValueError: for a wrong rank, channels or features not divisible by groups, or a window larger than the input.

    Example: an edge detector, which responds where an image changes from light to dark.
        >>> image = jnp.array([[9.0, 9.0, 9.0, 0.0, 0.0, 0.0]] * 3).reshape(1, 3, 6, 1)
        >>> edge = jnp.array([[1.0, 0.0, -1.0]] * 3).reshape(3, 3, 1, 1)
        >>> y, _ = jaxcnn.conv(1, 3, padding="VALID", bias=False).apply({"kernel": edge}, {}, image, train=False)
        >>> y[0, 0, :, 0]
        Array([ 0., 27., 27.,  0.], dtype=float32)

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    features, groups = checked_groups("conv", features, groups)
    check_initializers("conv", kernel_init=kernel_init, bias_init=bias_init)
    if isinstance(padding, str) and padding.lower() in PAD_MODES:
        raise ValueError(f"conv: padding={padding!r} is a mode: pass padding_mode={padding.lower()!r}")
    check_window_options("conv", size=size, stride=stride, padding=padding, dilation=dilation)
    check_choice("conv", "padding_mode", padding_mode, PAD_MODES)

    def init(key, x):
        return init_params("conv", key, x, size, features, groups, kernel_init, bias_init if bias else None)

    def fn(params, x):
        x = as_floating(x, "conv")
        rank = spatial_rank(x, "conv")
        # Size, stride, dilation and padding (low, high) of each dimension. "SAME" etc. become numbers for this input.
        window = make_window("conv", x.shape, size, stride, dilation, padding).check_fits("conv", x.shape)
        kernel = get_param("conv", params, "kernel", kernel_shape("conv", x, size, features, groups), x)
        if padding_mode != "zeros":  # convolve only pads with zeros
            x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), PAD_MODES[padding_mode])
            window = window._replace(padding=((0, 0),) * rank)
        # The sum over k and c of the equation. It equals `lax.conv_general_dilated` with channels last.
        y = convolve(x, kernel.astype(x.dtype), window, groups)
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
    kernel_init: Initializer = truncated_normal(2),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C * multiplier): separate filters for each channel.

    y[n, i, f] = bias[f] + sum_k x[n, stride * i + dilation * k - low, f // multiplier] * kernel[k, 0, f]

    This is `conv` with groups=C. It has C times fewer weights and multiply-adds than a full convolution.

    Args:
        size, stride, padding, padding_mode, dilation, bias, kernel_init, bias_init: as in `conv`.
        multiplier: number of filters per channel.

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
    multiplier = check_integer("depthwise_conv", "multiplier", multiplier)

    def conv_of(channels):
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

    conv_of(1)  # wrong options are an error here, not at the first call
    return from_input_shape(lambda shape: conv_of(shape[-1]), "depthwise_conv")


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
    kernel_init: Initializer = truncated_normal(2),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features): a depthwise convolution, then a 1x1 convolution.

    The first mixes positions, the second mixes channels. For a k x k kernel they have 1 / features + 1 / k^2 times the
    weights of a full convolution.

    Args:
        features: number of output channels.
        multiplier: number of depthwise filters per channel.
        size, stride, padding, padding_mode, dilation: of the depthwise part, as in `conv`.
        bias: whether the pointwise part has a bias; the depthwise part has none.
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
    kernel_init: Initializer = truncated_normal(2),
    bias_init: Initializer = zeros,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', features): each input adds a scaled copy of the kernel to the output.

    y[n, stride * i + dilation * k - low, f] += x[n, i, c] * kernel[k, c, f],  for all i, k, c;  then + bias[f]

    With groups, c counts the channels of the group of f.

    spatial' = (spatial - 1) * stride - low - high + dilation * (size - 1) + 1 + output_padding

    This is the transpose of the linear map of `conv`, also called deconvolution.

    Args:
        features, size, dilation, groups, bias, kernel_init, bias_init: as in `conv`.
        stride: step between the copies; the output grows by this factor.
        padding: number of positions to cut from the output. "VALID": none; "SAME": so that spatial' = stride * spatial;
            "CAUSAL" (1-D): as many as "SAME", all at the end; an int or pairs: at both ends, as in PyTorch.
        output_padding: number of positions to add at the end of the output.

    Params:
        kernel (*size, C / groups, features); bias (features,).

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
    features, groups = checked_groups(name, features, groups)
    check_initializers(name, kernel_init=kernel_init, bias_init=bias_init)
    check_window_options(name, size=size, stride=stride, padding=padding, dilation=dilation)
    check_window_options(name, least=0, output_padding=output_padding)

    def init(key, x):
        return init_params(name, key, x, size, features, groups, kernel_init, bias_init if bias else None)

    def fn(params, x):
        x = as_floating(x, name)
        spatial_rank(x, name)
        # Size, stride, dilation and padding of each dimension; output padding is negative padding at the end.
        window = make_transposed_window(name, x.shape, size, stride, dilation, padding, output_padding)
        kernel = get_param(name, params, "kernel", kernel_shape(name, x, size, features, groups), x)
        spatial = window.transposed_output(x.shape[1:-1])  # spatial' of the equation
        # The sum of all copies is the input gradient of a convolution from spatial' to the positions of x.
        y = convolve_transposed(x, kernel.astype(x.dtype), window, groups, spatial)
        return add_bias(y, get_param(name, params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


def checked_groups(name: str, features: int, groups: int) -> tuple[int, int]:
    """`features` and `groups` as ints. Raises an error unless both are positive and groups divides features."""
    features = check_integer(name, "features", features)
    groups = check_integer(name, "groups", groups)
    if features % groups:
        raise ValueError(f"{name}: features={features} is not divisible by groups={groups}")
    return features, groups


def kernel_shape(name: str, x: jax.Array, size: int | Sequence[int], features: int, groups: int) -> tuple[int, ...]:
    """(*size, C / groups, features). ValueError if groups does not divide the channels C of x."""
    sizes = per_dimension(name, "size", size, spatial_rank(x, name))
    if x.shape[-1] % groups:
        raise ValueError(f"{name}: the {x.shape[-1]} channels of input {x.shape} are not divisible by groups={groups}")
    return (*sizes, x.shape[-1] // groups, features)


def init_params(name, key, x, size, features, groups, kernel_init, bias_init: Initializer | None) -> Params:
    shape = kernel_shape(name, as_floating(x, name), size, features, groups)
    params = {"kernel": kernel_init(child_key(key, "kernel"), shape, jnp.float32)}
    if bias_init:
        params["bias"] = bias_init(child_key(key, "bias"), (features,), jnp.float32)
    return params
