"""Dense layers, and layers that reshape, pad or resize."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, zeros

from jaxcnn._layer import (
    Initializer,
    Layer,
    as_floating,
    as_layer,
    child_key,
    constructor,
    get_param,
    spatial_rank,
    stateless,
)
from jaxcnn._lowering import add_bias, resample
from jaxcnn._window import (
    PAD_MODES,
    Padding,
    check_choice,
    check_integer,
    check_window_options,
    per_dimension,
    resolve_padding,
)


@constructor
def dense(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = lecun_normal(),
    bias_init: Initializer = zeros,
) -> Layer:
    """(..., C) -> (..., features): a fully connected layer; every output depends on every input.

    y = x @ kernel + bias

    Args:
        features: number of outputs.
        bias: whether to add a bias.
        kernel_init, bias_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.

    Params:
        kernel (C, features); bias (features,).

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for parameters that were created for another input size.

    Example: 100 units on a 100x100x3 image have 3,000,000 weights; a 5x5x3 filter has 75.
        >>> image = jax.ShapeDtypeStruct((1, 100 * 100 * 3), jnp.float32)
        >>> params, _ = jax.eval_shape(jaxcnn.dense(100).init, jax.random.key(0), image)
        >>> jaxcnn.count_params(params, "kernel")
        3000000

    Source: Rosenblatt, "The perceptron", 1958.
    """
    check_integer("dense", "features", features)

    def init(key, x):
        if len(as_floating(x, "dense").shape) < 1:
            raise ValueError("dense needs (..., C), got a scalar")
        params = {"kernel": kernel_init(child_key(key, "kernel"), (x.shape[-1], features), jnp.float32)}
        if bias:
            params["bias"] = bias_init(child_key(key, "bias"), (features,), jnp.float32)
        return params

    def fn(params, x):
        x = as_floating(x, "dense")
        kernel = get_param("dense", params, "kernel", (*x.shape[-1:], features), x)
        y = x @ kernel.astype(x.dtype)
        return add_bias(y, get_param("dense", params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


def flatten(x: jax.Array) -> jax.Array:
    """(N, ..., C) -> (N, ... * C): each example as a vector.

    A plain function, passed without a call: `serial(conv(32), flatten, dense(10))`.

    Example:
        >>> jaxcnn.flatten(jnp.zeros((8, 5, 5, 16))).shape
        (8, 400)
    """
    return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def identity(x: jax.Array) -> jax.Array:
    """x -> x. A plain function, passed without a call.

    Example:
        >>> jaxcnn.identity(3.0)
        3.0
    """
    return x


@constructor
def pad(padding: Padding, *, mode: str = "zeros") -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): pads each spatial dimension, spatial' = low + spatial + high.

    Args:
        padding: an int for both ends of all dimensions, or per dimension an int or a pair (low, high).
        mode: "zeros", "reflect", "replicate" or "circular".

    Raises:
        ValueError: for a wrong rank, an unknown mode, or a name such as "SAME", which needs a window.

    Example:
        >>> jaxcnn.pad(1).apply({}, {}, jnp.ones((1, 1, 1, 1)), train=False)[0][0, :, :, 0]
        Array([[0., 0., 0.],
               [0., 1., 0.],
               [0., 0., 0.]], dtype=float32)
    """
    if isinstance(padding, str):
        raise ValueError(f"pad: padding={padding!r} needs a window; pass an int or pairs (low, high)")
    check_window_options("pad", padding=padding)
    check_choice("pad", "mode", mode, PAD_MODES)

    def fn(x):
        pads = resolve_padding("pad", padding, spatial_rank(x, "pad"))
        return jnp.pad(x, ((0, 0), *pads, (0, 0)), PAD_MODES[mode])

    return as_layer(fn)


@constructor
def upsample(scale: int | Sequence[int], method: str = "nearest") -> Layer:
    """(N, *spatial, C) -> (N, *(scale * spatial), C): enlarges by an integer factor.

    Args:
        scale: one int for all spatial dimensions or one per dimension.
        method: "nearest" (repeats values), or interpolation: "linear", "cubic", "lanczos3", "lanczos5".

    Raises:
        ValueError: for a wrong rank or an unknown method.

    Example:
        >>> jaxcnn.upsample(2).apply({}, {}, jnp.array([1.0, 2.0]).reshape(1, 2, 1), train=False)[0].ravel()
        Array([1., 1., 2., 2.], dtype=float32)
    """
    check_window_options("upsample", scale=scale)
    check_choice("upsample", "method", method, _METHODS)

    def fn(x):
        factors = per_dimension("upsample", "scale", scale, spatial_rank(x, "upsample"))
        if method == "nearest":
            for axis, factor in enumerate(factors, 1):
                x = jnp.repeat(x, factor, axis)
            return x
        spatial = tuple(n * factor for n, factor in zip(x.shape[1:-1], factors, strict=True))
        return resample(as_floating(x, "upsample"), spatial, method)

    return as_layer(fn)


@constructor
def resize(size: int | Sequence[int], method: str = "linear", *, antialias: bool = True) -> Layer:
    """(N, *spatial, C) -> (N, *size, C): resamples by interpolation, with pixel centers at i + 1/2.

    Args:
        size: output size, one int for all spatial dimensions or one per dimension.
        method: "nearest", "linear" (bilinear for images), "cubic" (Keys, a = -1/2), "lanczos3" or "lanczos5".
        antialias: whether to widen the filter when shrinking; PyTorch's default is False.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank or an unknown method.

    Example:
        >>> jaxcnn.resize(4).apply({}, {}, jnp.array([0.0, 4.0]).reshape(1, 2, 1), train=False)[0].ravel()
        Array([0., 1., 3., 4.], dtype=float32)
    """
    check_window_options("resize", size=size)
    check_choice("resize", "method", method, _METHODS)

    def fn(x):
        spatial = per_dimension("resize", "size", size, spatial_rank(x := as_floating(x, "resize"), "resize"))
        if method == "nearest":
            return jax.image.resize(x, (x.shape[0], *spatial, x.shape[-1]), method)
        return resample(x, spatial, method, antialias)

    return as_layer(fn)


@constructor
def pixel_shuffle(scale: int) -> Layer:
    """(N, *spatial, C * scale^rank) -> (N, *(scale * spatial), C): moves channels to positions.

    y[n, scale * i + k, c] = x[n, i, c * scale^rank + k],  k: position in the block of scale^rank, in row-major order

    The order of channels is PyTorch's; TensorFlow's depth_to_space has k before c.

    Args:
        scale: factor by which each spatial dimension grows.

    Raises:
        ValueError: for a wrong rank or channels not divisible by scale^rank.

    Example:
        >>> jaxcnn.pixel_shuffle(2).apply({}, {}, jnp.arange(4.0).reshape(1, 1, 1, 4), train=False)[0][0, :, :, 0]
        Array([[0., 1.],
               [2., 3.]], dtype=float32)

    Source: Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", 2016.
    """
    check_integer("pixel_shuffle", "scale", scale)

    def fn(x):
        rank = spatial_rank(x, "pixel_shuffle")
        n, *spatial, channels = x.shape
        if channels % scale**rank:
            raise ValueError(
                f"pixel_shuffle: the {channels} channels of input {x.shape} are not divisible by {scale**rank}"
            )
        x = jnp.reshape(x, (n, *spatial, channels // scale**rank, *(scale,) * rank))
        pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank + 1)]  # each dimension, then its block
        return x.transpose(0, *pairs, rank + 1).reshape(n, *(scale * m for m in spatial), channels // scale**rank)

    return as_layer(fn)


@constructor
def pixel_unshuffle(scale: int) -> Layer:
    """(N, *spatial, C) -> (N, *(spatial / scale), C * scale^rank): moves positions to channels.

    The inverse of `pixel_shuffle`: y[n, i, c * scale^rank + k] = x[n, scale * i + k, c].

    Args:
        scale: factor by which each spatial dimension shrinks.

    Raises:
        ValueError: for a wrong rank or a spatial dimension not divisible by scale.

    Example:
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> jaxcnn.pixel_unshuffle(2).apply({}, {}, x, train=False)[0].shape
        (1, 1, 1, 4)
    """
    check_integer("pixel_unshuffle", "scale", scale)

    def fn(x):
        rank = spatial_rank(x, "pixel_unshuffle")
        n, *spatial, channels = x.shape
        if any(m % scale for m in spatial):
            raise ValueError(f"pixel_unshuffle: the spatial dimensions of input {x.shape} are not divisible by {scale}")
        parts = [size for m in spatial for size in (m // scale, scale)]
        blocks, offsets = range(1, 2 * rank + 1, 2), range(2, 2 * rank + 1, 2)
        x = jnp.reshape(x, (n, *parts, channels)).transpose(0, *blocks, 2 * rank + 1, *offsets)
        return x.reshape(n, *(m // scale for m in spatial), channels * scale**rank)

    return as_layer(fn)


_METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")
