"""Dense layers, and layers that reshape or pad."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, check_integer, check_number
from jaxcnn._array import as_array, as_floating, check_array, spatial_rank
from jaxcnn._initial import truncated_normal, zeros
from jaxcnn._key import child_key
from jaxcnn._layer import Initializer, Layer, as_layer, check_initializers, constructor, get_param, stateless
from jaxcnn._lowering import add_bias, matrix_product
from jaxcnn._number import is_traced_number, is_zero
from jaxcnn._window import PAD_MODES, Padding, check_window_options, resolve_padding


@constructor
def dense(
    features: int,
    *,
    bias: bool = True,
    kernel_init: Initializer = truncated_normal(1),
    bias_init: Initializer = zeros,
) -> Layer:
    """(..., C) -> (..., features): a fully connected layer; every output depends on every input.

    y = x @ kernel + bias

    Args:
        features: number of outputs.
        bias: whether to add a bias.
        kernel_init, bias_init: `(key, shape, dtype) -> array`, as in `jax.nn.initializers`. Defaults: a truncated
            normal distribution with variance 1 / fan_in (LeCun et al., 1998), and zeros.

    Params:
        kernel (C, features); bias (features,).

    Raises:
        TypeError: for an initializer that is not a function, or input that is not floating-point.
        ValueError: for parameters that were created for another input size.

    Example: 100 units on a 100x100x3 image have 3,000,000 weights; a 5x5x3 filter has 75.
        >>> image = jax.ShapeDtypeStruct((1, 100 * 100 * 3), jnp.float32)
        >>> params, _ = jax.eval_shape(jaxcnn.dense(100).init, jax.random.key(0), image)
        >>> jaxcnn.count_params(params, "kernel")
        3000000

    Source: Rosenblatt, "The perceptron", 1958.
    """
    features = check_integer("dense", "features", features)
    check_initializers("dense", kernel_init=kernel_init, bias_init=bias_init)

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
        y = matrix_product(x, kernel.astype(x.dtype))
        return add_bias(y, get_param("dense", params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


def flatten(x: jax.Array, start_dim: int = 1, end_dim: int = -1) -> jax.Array:
    """(N, ..., C) -> (N, ... * C): each example as a vector.

    A plain function, passed without a call: `serial(conv(32), flatten, dense(10))`.

    Args:
        start_dim, end_dim: first and last dimension to merge, as in PyTorch. In a network, set them by
            `functools.partial(flatten, start_dim=2)`.

    Raises:
        TypeError: for dimensions that are not ints.
        ValueError: for dimensions that the input does not have.

    Example:
        >>> jaxcnn.flatten(jnp.zeros((8, 5, 5, 16))).shape
        (8, 400)
        >>> jaxcnn.flatten(jnp.zeros((8, 5, 5, 16)), start_dim=2).shape
        (8, 5, 80)
    """
    check_array(x, "flatten")
    rank = len(x.shape)
    for name, dim in (("start_dim", start_dim), ("end_dim", end_dim)):
        check_integer("flatten", name, dim, -(2**31))
    first, last = (dim + rank if dim < 0 else dim for dim in (start_dim, end_dim))
    if not 0 <= first <= last < rank and (first, last, rank) != (1, 0, 1):  # (N,) becomes (N, 1)
        raise ValueError(f"flatten: input {x.shape} has no dimensions from start_dim={start_dim} to end_dim={end_dim}")
    return as_array(x).reshape(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])


def identity(x: jax.Array) -> jax.Array:
    """x -> x. A plain function, passed without a call.

    Example:
        >>> jaxcnn.identity(3.0)
        3.0
    """
    return x


@constructor
def pad(padding: Padding, *, mode: str = "zeros", value: float = 0.0) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): pads each spatial dimension, spatial' = low + spatial + high.

    Args:
        padding: an int for both ends of all dimensions, or per dimension an int or a pair (low, high). For 1-D signals
            also one pair.
        mode: "zeros", "reflect", "replicate" or "circular".
        value: the constant for mode="zeros", such as `-jnp.inf` before a maximum.

    Raises:
        ValueError: for a wrong rank, an unknown mode, a value for another mode than "zeros" or that is not in the range
            of integer input, or a name such as "SAME", which needs a window.

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
    value = check_number("pad", "value", value, -math.inf, math.inf, closed=True)
    if mode != "zeros" and not is_zero(value):
        raise ValueError(f'pad: value={value} is the constant for mode="zeros", but mode is {mode!r}')

    def fn(x):
        pads = ((0, 0), *resolve_padding("pad", padding, spatial_rank(x, "pad")), (0, 0))
        x = jnp.asarray(x)
        if jnp.issubdtype(x.dtype, jnp.integer) and not _fits(value, x.dtype):
            raise ValueError(f"pad: value={value} does not fit into the input's dtype, {x.dtype}")
        constant = {"constant_values": jnp.asarray(value, x.dtype)} if mode == "zeros" else {}
        return jnp.pad(x, pads, PAD_MODES[mode], **constant)

    return as_layer(fn)


def _fits(value: Any, dtype: Any) -> bool:
    """Whether the number is one of this integer dtype. A traced number counts as one: its value is unknown."""
    limits = jnp.iinfo(dtype)
    return is_traced_number(value) or (limits.min <= value <= limits.max and value == int(value))
