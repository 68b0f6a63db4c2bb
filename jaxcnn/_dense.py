"""Dense layers, and layers that only reshape, pad or resize."""

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
    """(..., C) -> (..., features): every output sees every input (full connection).

    y = x @ kernel + bias

    Args:
        features: number of outputs.
        bias: whether to add one.
        kernel_init, bias_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`.

    Params:
        kernel (C, features); bias (features,).

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for parameters made for inputs of another length, such as flattened feature maps.

    Example: 100 units that see all of a 100 x 100 x 3 image. A 5 x 5 x 3 filter has 75 weights.
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
    """(N, ..., C) -> (N, ... * C): each example as one row. Passed uncalled: `serial(conv(32), flatten, dense(10))`.

    Example:
        >>> jaxcnn.flatten(jnp.zeros((8, 5, 5, 16))).shape
        (8, 400)
    """
    return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))


def identity(x: jax.Array) -> jax.Array:
    """x -> x, the layer that does nothing. Passed uncalled.

    Example:
        >>> jaxcnn.identity(3.0)
        3.0
    """
    return x


@constructor
def pad(padding: Padding, *, mode: str = "zeros") -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): positions added around, spatial' = low + spatial + high.

    Args:
        padding: an int (that many at every end), or for each dimension an int or a pair (low, high).
        mode: what is there: "zeros", "reflect", "replicate" or "circular".

    Raises:
        ValueError: for a wrong rank, an unknown mode, or a name such as "SAME", which needs a window.

    Example:
        >>> jaxcnn.pad(1).apply({}, {}, jnp.ones((1, 1, 1, 1)), train=False)[0][0, :, :, 0]
        Array([[0., 0., 0.],
               [0., 1., 0.],
               [0., 0., 0.]], dtype=float32)
    """
    if isinstance(padding, str):
        raise ValueError(f"pad: padding={padding!r} needs a window; give an int or pairs (low, high)")
    check_window_options("pad", padding=padding)
    check_choice("pad", "mode", mode, PAD_MODES)

    def fn(x):
        pads = resolve_padding("pad", padding, spatial_rank(x, "pad"))
        return jnp.pad(x, ((0, 0), *pads, (0, 0)), PAD_MODES[mode])

    return as_layer(fn)


@constructor
def upsample(scale: int | Sequence[int], method: str = "nearest") -> Layer:
    """(N, *spatial, C) -> (N, *(scale * spatial), C): every position becomes `scale` positions.

    Args:
        scale: an int for all spatial dimensions or one for each.
        method: "nearest" repeats values, the others interpolate: "linear", "cubic", "lanczos3", "lanczos5".

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
    """(N, *spatial, C) -> (N, *size, C): sampled anew on another grid, pixel centers at i + 1/2.

    Args:
        size: positions in each spatial dimension, one int for all or one for each.
        method: "nearest", "linear" (bilinear for images), "cubic" (Keys, a = -1/2), "lanczos3" or "lanczos5".
        antialias: whether to widen the filter when the image shrinks (PyTorch's default is not to).

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
    """(N, *spatial, C * scale^rank) -> (N, *(scale * spatial), C): channels become positions.

    y[n, scale * i + k, c] = x[n, i, c * scale^rank + k],  k counted over the scale^rank places in row-major order

    the order of channels as in PyTorch (TensorFlow's depth_to_space has c and k the other way round).

    Args:
        scale: how much longer each spatial dimension becomes.

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
                f"pixel_shuffle: the {channels} channels of input {x.shape} do not divide by {scale**rank}"
            )
        x = jnp.reshape(x, (n, *spatial, channels // scale**rank, *(scale,) * rank))
        pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank + 1)]  # each position, then its places
        return x.transpose(0, *pairs, rank + 1).reshape(n, *(scale * m for m in spatial), channels // scale**rank)

    return as_layer(fn)


@constructor
def pixel_unshuffle(scale: int) -> Layer:
    """(N, *spatial, C) -> (N, *(spatial / scale), C * scale^rank): positions become channels.

    The inverse of `pixel_shuffle`: y[n, i, c * scale^rank + k] = x[n, scale * i + k, c].

    Args:
        scale: how much shorter each spatial dimension becomes.

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
            raise ValueError(f"pixel_unshuffle: the spatial dimensions of input {x.shape} do not divide by {scale}")
        parts = [size for m in spatial for size in (m // scale, scale)]
        positions, places = range(1, 2 * rank + 1, 2), range(2, 2 * rank + 1, 2)
        x = jnp.reshape(x, (n, *parts, channels)).transpose(0, *positions, 2 * rank + 1, *places)
        return x.reshape(n, *(m // scale for m in spatial), channels * scale**rank)

    return as_layer(fn)


_METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")
