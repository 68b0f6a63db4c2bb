"""What a channel looks for, drawn by the network itself."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Params, State, as_floating, as_layer, check_number, child_key, spatial_rank
from jaxcnn._transform import capture
from jaxcnn._window import check_integer
from jaxcnn.explain._labels import checked_classes


def feature_visualization(
    model: AnyLayer,
    params: Params,
    state: State,
    x: Any,
    layer: str,
    channel: Any,
    *,
    key: jax.Array,
    steps: int = 256,
    learning_rate: float = 0.05,
    l2: float = 0.1,
    total_variation: float = 0.25,
    jitter: int = 2,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[jax.Array, jax.Array]:
    """Images (N, *spatial, C) that make a channel of a layer as active as can be, and the activations (steps, N).

    x <- clip(x + Adam(u - d/dx [l2 * sum_i x[i]^2 + total_variation * sum_i |x[i + 1] - x[i]|])),
    u[n] = g[n] / rms(g[n]),  g[n] = d/dx of mean_i a[n, i, channel], for x moved at random

    with a the output of the layer. In each step, the images are moved by up to `jitter` positions, and what leaves on
    one side comes back on the other. The penalties and the moves keep out patterns that excite the network and look
    like nothing. As u has size 1, the same weights do for every layer. After a `relu`, a channel that is zero
    everywhere has no gradient: take the layer before.

    Args:
        model, params, state: a layer made by combinators, in evaluation, and what belongs to it.
        x: the images have its shape (N, *spatial, C): an array or a `jax.ShapeDtypeStruct`.
        layer: the path of a layer of the model.
        channel: of its output, an int or one for each image (N,).
        key: of the noise that the images begin with, and of the moves.
        steps: of Adam.
        learning_rate: of Adam, in units of the images' values.
        l2, total_variation: weights of the penalties.
        jitter: positions, at most, that the images are moved by in each dimension.
        bounds: the least and the largest value in an image; None for any.

    Raises:
        TypeError: for an x that is no floating-point array or its shape.
        ValueError: for a layer or channel that is not there, or options out of range.

    Example:
        >>> net = jaxcnn.serial(flatten=jaxcnn.flatten, head=jaxcnn.dense(1))
        >>> params = {"head": {"kernel": jnp.array([[1.0], [-1.0]]), "bias": jnp.zeros(1)}}
        >>> like = jax.ShapeDtypeStruct((1, 2, 1), jnp.float32)
        >>> images, activations = jaxcnn.explain.feature_visualization(
        ...     net, params, {}, like, "head", 0, key=jax.random.key(0), jitter=0
        ... )
        >>> images.ravel()
        Array([1., 0.], dtype=float32)

    Source: Erhan et al., "Visualizing higher-layer features of a deep network", 2009; Mahendran and Vedaldi,
    "Understanding deep image representations by inverting them", 2015 (total variation); Olah, Mordvintsev and
    Schubert, "Feature visualization", 2017 (moves).
    """
    name = "feature_visualization"
    x = as_floating(x, name)
    check_integer(name, "steps", steps)
    check_integer(name, "jitter", jitter, 0)
    for option, value in {"learning_rate": learning_rate, "l2": l2, "total_variation": total_variation}.items():
        check_number(f"{name}: {option}", value)
    low, high = bounds or (-math.inf, math.inf)
    if not low < high:
        raise ValueError(f"{name}: bounds must be a least and a largest value, got {bounds}")
    axes = tuple(range(1, spatial_rank(x, name) + 1))
    probe = capture(as_layer(model), re.escape(layer))

    def activation(x):
        a = probe.apply(params, state, x, train=False)[0][1][layer]
        return a.reshape(len(a), -1, a.shape[-1]).mean(1)  # (N, channels)

    channel = checked_classes(f"{name}: channel", channel, *jax.eval_shape(activation, x).shape)

    def active(x, move):
        a = jnp.take_along_axis(activation(jnp.roll(x, move, axes)), channel[:, None], axis=1)[:, 0]
        return a.sum(), a

    def penalty(x):
        variation = sum(jnp.abs(jnp.diff(x, axis=axis)).sum() for axis in axes)
        return l2 * jnp.square(x).sum() + total_variation * variation

    optimizer = optax.adam(learning_rate)

    def step(carry, key):
        x, opt_state = carry
        move = jax.random.randint(key, (len(axes),), -jitter, jitter + 1)
        gradient, a = jax.grad(active, has_aux=True)(x, move)
        size = jnp.sqrt(jnp.square(gradient).mean(tuple(range(1, x.ndim)), keepdims=True))
        ascent = gradient / jnp.maximum(size, 1e-12)
        updates, opt_state = optimizer.update(jax.grad(penalty)(x) - ascent, opt_state)
        return (jnp.clip(x + updates, low, high), opt_state), a

    start = (0.1 * jax.random.normal(child_key(key, "start"), x.shape, x.dtype)).clip(low, high)
    (x, _), activations = lax.scan(
        step, (start, optimizer.init(start)), jax.random.split(child_key(key, "moves"), steps)
    )
    return x, activations
