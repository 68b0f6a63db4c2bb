"""Images that maximize the activation of a channel."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn._arguments import check_bounds, check_integer, check_number
from jaxcnn._array import as_floating, spatial_rank
from jaxcnn._combine import AnyLayer
from jaxcnn._key import child_key
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._transform import capture
from jaxcnn.explain._labels import check_path, checked_classes


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
    """Return images (N, *spatial, C) that maximize a channel of a layer, and its activations (steps, N).

    x <- clip(x + Adam(u - d/dx [l2 * sum_i x[i]^2 + total_variation * sum_i |x[i + 1] - x[i]|])),
    u[n] = g[n] / rms(g[n]),  g[n] = d/dx of mean_i a[n, i, channel], for x shifted at random

    with a the output of the layer. Each step shifts the images cyclically by up to `jitter` positions. The penalties
    and the shifts suppress noise-like patterns. The gradient is normalized, so the same penalty weights suit every
    layer. A channel that is zero everywhere after a `relu` has no gradient; use the layer before the `relu` instead.

    Args:
        model, params, state: a model built from combinators, its parameters and state. It runs in evaluation mode.
        x: an array or a `jax.ShapeDtypeStruct` with the shape (N, *spatial, C) and dtype of the images.
        layer: path of a layer of the model.
        channel: channel of the layer's output, an int or one per image (N,).
        key: random key for the initial noise and the shifts.
        steps: number of Adam steps.
        learning_rate: learning rate of Adam.
        l2, total_variation: weights of the penalties.
        jitter: maximum shift in each spatial dimension.
        bounds: smallest and largest allowed value of the images; None for no bounds.

    Raises:
        TypeError: if x is not floating-point, or the path of the layer is not a string.
        ValueError: if the layer or channel does not exist, or if an option is out of range.

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
    Schubert, "Feature visualization", 2017 (random shifts).
    """
    name = "feature_visualization"
    x = as_floating(x, name)
    steps = check_integer(name, "steps", steps)
    jitter = check_integer(name, "jitter", jitter, 0)
    options = {"learning_rate": learning_rate, "l2": l2, "total_variation": total_variation}
    learning_rate, l2, total_variation = (check_number(name, option, options[option]) for option in options)
    low, high = check_bounds(name, bounds) or (-math.inf, math.inf)
    axes = tuple(range(1, spatial_rank(x, name) + 1))
    probe = capture(as_layer(model), re.escape(check_path(name, layer)))

    def activation(x):
        a = probe.apply(params, state, x, train=False)[0][1][layer]
        return a.reshape(len(a), -1, a.shape[-1]).mean(1)  # (N, channels)

    output = jax.eval_shape(lambda x: probe.apply(params, state, x, train=False)[0][1][layer], x)
    if not isinstance(output, jax.ShapeDtypeStruct) or output.ndim < 2 or output.shape[0] != x.shape[0]:
        found = getattr(output, "shape", output)
        raise ValueError(f"{name} needs a layer with output (N, ..., C), but the output of {layer!r} is {found}")
    channel = checked_classes(f"{name}: channel", channel, output.shape[0], output.shape[-1])

    def score(x, shift):
        a = jnp.take_along_axis(activation(jnp.roll(x, shift, axes)), channel[:, None], axis=1)[:, 0]
        return a.sum(), a

    def penalty(x):
        variation = sum(jnp.abs(jnp.diff(x, axis=axis)).sum() for axis in axes)
        return l2 * jnp.square(x).sum() + total_variation * variation

    optimizer = optax.adam(learning_rate)

    def step(carry, key):
        x, opt_state = carry
        shift = jax.random.randint(key, (len(axes),), -jitter, jitter + 1)
        gradient, a = jax.grad(score, has_aux=True)(x, shift)
        rms = jnp.sqrt(jnp.square(gradient).mean(tuple(range(1, x.ndim)), keepdims=True))
        ascent = gradient / jnp.maximum(rms, 1e-12)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, opt_state = optimizer.update(jax.grad(penalty)(x) - ascent, opt_state)
        return (jnp.clip(x + updates, low, high), opt_state), a

    start = (0.1 * jax.random.normal(child_key(key, "start"), x.shape, x.dtype)).clip(low, high)
    (x, _), activations = lax.scan(
        step, (start, optimizer.init(start)), jax.random.split(child_key(key, "moves"), steps)
    )
    return x, activations
