"""Squeeze-and-excitation: channel attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._combine import parallel, serial
from jaxcnn._dense import dense, identity
from jaxcnn._layer import Layer, constructor, from_input_shape
from jaxcnn._pool import global_avg_pool


@constructor
def squeeze_excite(
    reduction: int = 16,
    *,
    features: int | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    gate: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
) -> Layer:
    """(N, *spatial, C) -> the same: scales each channel by a weight computed from the means of all channels.

    y = x * gate(expand(activation(squeeze(mean_i x[n, i]))))

    Args:
        reduction: the hidden layer has C / reduction units, at least one.
        features: number of hidden units; overrides `reduction`.
        activation, gate: functions on arrays.

    Params:
        weights/squeeze/kernel (C, units), weights/squeeze/bias (units,);
        weights/expand/kernel (units, C), weights/expand/bias (C,).

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> params, _ = jaxcnn.squeeze_excite(16).init(jax.random.key(0), jnp.zeros((1, 8, 8, 64)))
        >>> params["weights"]["squeeze"]["kernel"].shape
        (64, 4)

    Source: Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018.
    """
    reduction = check_integer("squeeze_excite", "reduction", reduction)
    if features is not None:
        features = check_integer("squeeze_excite", "features", features)
    for name, function in (("activation", activation), ("gate", gate)):
        if not callable(function):
            raise TypeError(f"squeeze_excite: {name} must be a function x -> y or a layer, got {short_repr(function)}")

    def scale(x, weights):
        return x * jnp.expand_dims(weights, tuple(range(1, x.ndim - 1)))

    def block(shape):
        channels = shape[-1]
        weights = serial(
            pool=global_avg_pool,
            squeeze=dense(features or max(channels // reduction, 1)),
            activation=activation,
            expand=dense(channels),
            gate=gate,
        )
        return parallel(scale, input=identity, weights=weights)

    return from_input_shape(block, "squeeze_excite")
