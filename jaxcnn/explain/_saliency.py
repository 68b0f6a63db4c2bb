"""Where a network looks: how much the score of a class depends on each part of an image.

The score is the logit of the class, s[n] = logits[n, label[n]]. All are pure functions; under `jax.jit`, one that is
called again is compiled once. Two cautions: a map can look right and say nothing, so compare it with that of random
parameters (Adebayo et al., "Sanity checks for saliency maps", 2018); and as softmax sees only differences of logits,
what speaks for a class may do so by lowering the others, which its own map does not show.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Params, State, as_floating, as_layer, at_least_float32, check_key, check_number
from jaxcnn._transform import capture
from jaxcnn._window import check_integer
from jaxcnn.explain._labels import checked_classes


def saliency(model: AnyLayer, params: Params, state: State, x: jax.Array, *, label: Any = None) -> jax.Array:
    """(N, *spatial, C) -> the same: the gradient of a class's score for the image.

    g[n] = d s[n] / d x[n],  s[n] = logits[n, label[n]]

    A change dx of the image changes the score by the sum of g dx, as long as it is small. The map of the source is
    max_c |g|.

    Args:
        model: from images to logits (N, classes), in evaluation.
        params, state: of the model.
        x: images (N, *spatial, C).
        label: the class, an int or one for each image (N,); by default the one with the largest logit.

    Raises:
        TypeError: for images or labels of another kind.
        ValueError: for a label that is no class, or outputs that are not logits (N, classes).

    Example:
        >>> model = jaxcnn.serial(flatten=jaxcnn.flatten, head=jaxcnn.dense(2))
        >>> params = {"head": {"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]]), "bias": jnp.zeros(2)}}
        >>> jaxcnn.explain.saliency(model, params, {}, jnp.ones((1, 2, 1)), label=0).ravel()
        Array([1., 2.], dtype=float32)

    Source: Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014.
    """
    x = as_floating(x, "saliency")
    return _gradient(model, params, state, label)(x)


def smooth_grad(
    model: AnyLayer,
    params: Params,
    state: State,
    x: jax.Array,
    *,
    key: jax.Array,
    label: Any = None,
    noise: float = 0.15,
    samples: int = 32,
) -> jax.Array:
    """(N, *spatial, C) -> the same: the mean gradient of a class's score around the image.

    g = 1 / samples sum_k ds/dx at x + sigma * e_k,  e_k ~ Normal(0, 1),  sigma[n] = noise * (max x[n] - min x[n])

    Args:
        model, params, state, x, label: as in `saliency`; the default label is that of the image without noise.
        key: of the noise.
        noise: its std, as a fraction of the image's range; the source suggests 0.1 to 0.2.
        samples: of the noise.

    Raises:
        TypeError, ValueError: as in `saliency`, or for noise below 0 or samples below 1.

    Example:
        >>> model = jaxcnn.serial(flatten=jaxcnn.flatten, head=jaxcnn.dense(2))
        >>> params = {"head": {"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]]), "bias": jnp.zeros(2)}}
        >>> jaxcnn.explain.smooth_grad(model, params, {}, jnp.ones((1, 2, 1)), label=0, key=jax.random.key(0)).ravel()
        Array([1., 2.], dtype=float32)

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    x = as_floating(x, "smooth_grad")
    check_key(key)
    check_number("smooth_grad: noise", noise)
    check_integer("smooth_grad", "samples", samples)
    label = _explained(_logits(model, params, state, x), label)
    axes = tuple(range(1, x.ndim))
    sigma = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

    def around(k):
        return x + sigma * jax.random.normal(jax.random.fold_in(key, k), x.shape).astype(x.dtype)

    return _mean(_gradient(model, params, state, label), around, samples)


def integrated_gradients(
    model: AnyLayer,
    params: Params,
    state: State,
    x: jax.Array,
    *,
    label: Any = None,
    baseline: Any = 0.0,
    steps: int = 64,
) -> jax.Array:
    """(N, *spatial, C) -> the same: how much each value adds to a class's score, compared with a baseline.

    a = (x - b) * integral over t from 0 to 1 of ds/dx at b + t (x - b),  so that sum(a[n]) = s(x[n]) - s(b[n])

    by the midpoint rule; the difference of the two sides says whether there are enough steps.

    Args:
        model, params, state, x, label: as in `saliency`; the default label is that of x.
        baseline: b, the image that says nothing: a number, or an array of the shape of x or of one image.
        steps: points at which the gradient is taken.

    Raises:
        TypeError, ValueError: as in `saliency`, or for a baseline of another shape or steps below 1.

    Example:
        >>> square = jaxcnn.serial(flatten=jaxcnn.flatten, square=jnp.square)
        >>> jaxcnn.explain.integrated_gradients(square, {}, {}, jnp.full((1, 1, 1), 3.0)).ravel()
        Array([9.], dtype=float32)

    Source: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017.
    """
    x = as_floating(x, "integrated_gradients")
    check_integer("integrated_gradients", "steps", steps)
    baseline = jnp.asarray(baseline, x.dtype)
    if baseline.shape not in ((), x.shape[1:], x.shape):
        raise ValueError(
            f"integrated_gradients: baseline must be a number or have shape {x.shape[1:]} or {x.shape}, "
            f"got shape {baseline.shape}"
        )
    label = _explained(_logits(model, params, state, x), label)

    def between(k):
        return baseline + ((k + 0.5) / steps).astype(x.dtype) * (x - baseline)

    return (x - baseline) * _mean(_gradient(model, params, state, label), between, steps)


def grad_cam(
    model: AnyLayer, params: Params, state: State, x: jax.Array, layer: str, *, label: Any = None
) -> jax.Array:
    """(N, *spatial of the layer), at least 0: where the layer sees what speaks for a class.

    map[n] = relu(sum_c w[n, c] a[n, :, c]),  w[n, c] = mean over i of ds[n] / da[n, i, c]

    with a the output of the layer. As a rule it is the last one with spatial dimensions: its channels mean most, and
    its positions still have a place in the image. To bring the maps to the images' size:
    `jax.image.resize(maps, x.shape[:-1], "linear")`.

    Args:
        model, params, state, x, label: as in `saliency`.
        layer: the path of a layer of the model, whose output is (N, *spatial, C).

    Raises:
        TypeError: as in `saliency`.
        ValueError: as in `saliency`, for a path that is not there, or a layer without spatial dimensions.

    Example:
        >>> model = jaxcnn.serial(act=jax.nn.relu, pool=jaxcnn.global_avg_pool)
        >>> x = jnp.array([[1.0, 5.0], [2.0, 6.0]])[None]
        >>> jaxcnn.explain.grad_cam(model, {}, {}, x, "act", label=0)  # the first channel, each weighing one half
        Array([[0.5, 1. ]], dtype=float32)

    Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017.
    """
    x = as_floating(x, "grad_cam")
    probe: Any = capture(as_layer(model), re.escape(layer))

    def outputs(offsets):
        return probe.apply(params, state, x, train=False, offsets=offsets)[0]

    shape = jax.eval_shape(outputs, {})[1][layer]
    if shape.ndim != x.ndim:
        raise ValueError(f"grad_cam needs a layer with output (N, *spatial, C), that of {layer!r} is {shape.shape}")

    def score(offset):
        logits, seen = outputs({layer: offset})
        return _score(logits, label), seen[layer]

    gradient, activation = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = gradient.mean(tuple(range(1, x.ndim - 1)), keepdims=True)
    return jax.nn.relu((weights * activation).sum(-1))


def _logits(model: AnyLayer, params: Params, state: State, x: jax.Array) -> jax.Array:
    logits, _ = as_layer(model).apply(params, state, x, train=False)
    return logits


def _explained(logits: jax.Array, label: Any) -> jax.Array:
    """The class of each example whose score is explained, (N,)."""
    if logits.ndim != 2:
        raise ValueError(f"the score of a class is one of the logits (N, classes), but the model gives {logits.shape}")
    return logits.argmax(-1) if label is None else checked_classes("label", label, *logits.shape)


def _score(logits: jax.Array, label: Any) -> jax.Array:
    """The scores of all examples, summed: none depends on another's image, so the gradient is that of each."""
    return jnp.take_along_axis(logits, _explained(logits, label)[:, None], axis=1).sum()


def _gradient(model: AnyLayer, params: Params, state: State, label: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.grad(lambda x: _score(_logits(model, params, state, x), label))


def _mean(gradient: Callable[[jax.Array], jax.Array], point: Callable[[jax.Array], jax.Array], n: int) -> jax.Array:
    """The mean of the gradient at points 0 to n - 1, one at a time: memory does not grow with n."""
    like = jax.eval_shape(point, jnp.int32(0))
    zero = at_least_float32(jnp.zeros(like.shape, like.dtype))
    return (lax.fori_loop(0, n, lambda k, total: total + gradient(point(k)), zero) / n).astype(like.dtype)
