"""Activations with parameters. For all others, use the functions of `jax.nn`."""

import math

import jax.numpy as jnp

from jaxcnn._arguments import check_number
from jaxcnn._array import as_floating
from jaxcnn._initial import filled
from jaxcnn._layer import Layer, constructor, get_param, stateless
from jaxcnn._lowering import broadcast


@constructor
def prelu(*, slope: float = 0.25) -> Layer:
    """(..., C) -> the same: the identity for x > 0, a learned slope per channel for x < 0.

    y = max(x, 0) + scale * min(x, 0)

    Args:
        slope: initial slope.

    Params:
        scale (C,).

    Raises:
        TypeError: for input that is not floating-point.

    Example:
        >>> layer = jaxcnn.prelu()
        >>> x = jnp.array([[-4.0, 4.0]])
        >>> layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0]
        Array([[-1.,  4.]], dtype=float32)

    Source: He et al., "Delving deep into rectifiers", 2015.
    """
    slope = check_number("prelu", "slope", slope, -math.inf, static=True)

    def init(key, x):
        return {"scale": filled(as_floating(x, "prelu").shape[-1:], slope)}

    def fn(params, x):
        x = as_floating(x, "prelu")
        scale = get_param("prelu", params, "scale", x.shape[-1:], x)
        positive = x > 0
        negative_part = jnp.where(positive, 0, x)  # an infinite x must not give the scale the gradient 0 * inf
        return jnp.where(positive, x, broadcast(scale.astype(x.dtype), x) * negative_part)

    return stateless(init, fn)
