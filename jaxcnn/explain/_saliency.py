"""Attribution methods: how much each part of an image contributes to the score of a class.

The score is the logit of the class, s[n] = logits[n, label[n]]. All functions are pure; use `jax.jit` to compile
repeated calls. Two cautions. A map that looks the same for random parameters says nothing about what was learned
(Adebayo et al., "Sanity checks for saliency maps", 2018). Softmax depends only on differences of
logits, so evidence for a class may act by lowering the other logits; the map of the class does not show this.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_number
from jaxcnn._array import as_floating, at_least_float32
from jaxcnn._combine import AnyLayer
from jaxcnn._key import check_key
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._loss import check_output
from jaxcnn._transform import capture
from jaxcnn.explain._labels import check_path, checked_classes


def saliency(model: AnyLayer, params: Params, state: State, x: jax.Array, *, label: Any = None) -> jax.Array:
    """(N, *spatial, C) -> same shape: the gradient of the class score with respect to the image.

    g[n] = d s[n] / d x[n],  s[n] = logits[n, label[n]]

    A small change dx of the image changes the score by sum(g * dx). The paper plots max_c |g|.

    Args:
        model: maps images to logits (N, classes); it runs in evaluation mode.
        params, state: parameters and state of the model.
        x: images (N, *spatial, C).
        label: the class, an int or one per image (N,). The default is the predicted class.

    Raises:
        TypeError: if images are not floating-point, labels are not ints, or the output is not one floating-point array.
        ValueError: if a label is out of range, or if the outputs are not logits (N, classes).

    Example:
        >>> model = jaxcnn.serial(flatten=jaxcnn.flatten, head=jaxcnn.dense(2))
        >>> params = {"head": {"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]]), "bias": jnp.zeros(2)}}
        >>> jaxcnn.explain.saliency(model, params, {}, jnp.ones((1, 2, 1)), label=0).ravel()
        Array([1., 2.], dtype=float32)

    Source: Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014.
    """
    x = as_floating(x, "saliency")
    return _gradient("saliency", model, params, state, label)(x)


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
    """(N, *spatial, C) -> same shape: the mean gradient of the class score over noisy copies of the image.

    g = 1 / samples sum_k ds/dx at x + sigma * e_k,  e_k ~ Normal(0, 1),  sigma[n] = noise * (max x[n] - min x[n])

    Args:
        model, params, state, x, label: as in `saliency`; the default label is the prediction without noise.
        key: random key for the noise.
        noise: std of the noise as a fraction of the image's value range; the paper suggests 0.1 to 0.2.
        samples: number of noisy copies.

    Raises:
        TypeError, ValueError: as in `saliency`, or if noise < 0 or samples < 1.

    Example:
        >>> model = jaxcnn.serial(flatten=jaxcnn.flatten, head=jaxcnn.dense(2))
        >>> params = {"head": {"kernel": jnp.array([[1.0, 5.0], [2.0, 6.0]]), "bias": jnp.zeros(2)}}
        >>> jaxcnn.explain.smooth_grad(model, params, {}, jnp.ones((1, 2, 1)), label=0, key=jax.random.key(0)).ravel()
        Array([1., 2.], dtype=float32)

    Source: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """
    x = as_floating(x, "smooth_grad")
    check_key(key)
    noise = check_number("smooth_grad", "noise", noise)
    samples = check_integer("smooth_grad", "samples", samples)
    label = _class_labels("smooth_grad", _logits("smooth_grad", model, params, state, x), label)
    axes = tuple(range(1, x.ndim))
    sigma = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

    def around(k):
        return x + sigma * jax.random.normal(jax.random.fold_in(key, k), x.shape).astype(x.dtype)

    return _mean(_gradient("smooth_grad", model, params, state, label), around, samples)


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
    """(N, *spatial, C) -> same shape: the contribution of each value to the class score, relative to a baseline.

    a = (x - b) * integral over t from 0 to 1 of ds/dx at b + t (x - b),  and sum(a[n]) = s(x[n]) - s(b[n])

    The integral is approximated by the midpoint rule. If the two sums differ noticeably, increase `steps`.

    Args:
        model, params, state, x, label: as in `saliency`; the default label is the prediction for x.
        baseline: b, an image without information: a number, or an array with the shape of x or of one image.
        steps: number of points at which the gradient is evaluated.

    Raises:
        TypeError, ValueError: as in `saliency`, or if the baseline has another shape or steps < 1.

    Example:
        >>> square = jaxcnn.serial(flatten=jaxcnn.flatten, square=jnp.square)
        >>> jaxcnn.explain.integrated_gradients(square, {}, {}, jnp.full((1, 1, 1), 3.0)).ravel()
        Array([9.], dtype=float32)

    Source: Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017.
    """
    x = as_floating(x, "integrated_gradients")
    steps = check_integer("integrated_gradients", "steps", steps)
    baseline = jnp.asarray(baseline, x.dtype)
    if baseline.shape not in ((), x.shape[1:], x.shape):
        raise ValueError(
            f"integrated_gradients: baseline must be a number or have shape {x.shape[1:]} or {x.shape}, "
            f"got shape {baseline.shape}"
        )
    baseline = jnp.broadcast_to(baseline, x.shape)
    label = _class_labels("integrated_gradients", _logits("integrated_gradients", model, params, state, x), label)

    def between(k):
        return baseline + ((k.astype(jnp.float32) + 0.5) / steps).astype(x.dtype) * (x - baseline)

    return (x - baseline) * _mean(_gradient("integrated_gradients", model, params, state, label), between, steps)


def grad_cam(
    model: AnyLayer, params: Params, state: State, x: jax.Array, layer: str, *, label: Any = None
) -> jax.Array:
    """Return nonnegative maps (N, *spatial of the layer) of the evidence for a class in the output of a layer.

    map[n] = relu(sum_c w[n, c] a[n, :, c]),  w[n, c] = mean over i of ds[n] / da[n, i, c]

    with a the output of the layer. The usual choice is the last layer with spatial dimensions: it has the most abstract
    features that still have a position in the image. To resize the maps to the images:
    `jax.image.resize(maps, x.shape[:-1], "linear")`.

    Args:
        model, params, state, x, label: as in `saliency`.
        layer: path of a layer of the model with output (N, *spatial, C).

    Raises:
        TypeError: as in `saliency`, or if the path is not a string.
        ValueError: as in `saliency`, or if the layer does not exist or has no spatial dimensions.

    Example:
        >>> model = jaxcnn.serial(act=jax.nn.relu, pool=jaxcnn.global_avg_pool)
        >>> x = jnp.array([[1.0, 5.0], [2.0, 6.0]])[None]
        >>> jaxcnn.explain.grad_cam(model, {}, {}, x, "act", label=0)  # the first channel with weight 1/2
        Array([[0.5, 1. ]], dtype=float32)

    Source: Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2017.
    """
    x = as_floating(x, "grad_cam")
    probe: Any = capture(as_layer(model), re.escape(check_path("grad_cam", layer)))

    def outputs(offsets):
        return probe.apply(params, state, x, train=False, offsets=offsets)[0]

    shape = jax.eval_shape(outputs, {})[1][layer]
    if not isinstance(shape, jax.ShapeDtypeStruct) or shape.ndim != x.ndim:
        found = getattr(shape, "shape", shape)
        raise ValueError(f"grad_cam needs a layer with output (N, *spatial, C), but the output of {layer!r} is {found}")

    def score(offset):
        logits, activations = outputs({layer: offset})
        return _score("grad_cam", _checked_logits("grad_cam", logits), label), activations[layer]

    gradient, activation = jax.grad(score, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    weights = gradient.mean(tuple(range(1, x.ndim - 1)), keepdims=True)
    return jax.nn.relu((weights * activation).sum(-1))


def _logits(name: str, model: AnyLayer, params: Params, state: State, x: jax.Array) -> jax.Array:
    return _checked_logits(name, as_layer(model).apply(params, state, x, train=False)[0])


def _checked_logits(name: str, logits: Any) -> jax.Array:
    check_output(f"{name}: the output of the model", logits)
    if logits.ndim != 2:
        raise ValueError(f"{name}: the model must return logits (N, classes), got shape {logits.shape}")
    return logits


def _class_labels(name: str, logits: jax.Array, label: Any) -> jax.Array:
    """The class (N,) whose score is attributed, for each example."""
    return logits.argmax(-1) if label is None else checked_classes(f"{name}: label", label, *logits.shape)


def _score(name: str, logits: jax.Array, label: Any) -> jax.Array:
    """The sum of all scores. Examples are independent, so its gradient contains the gradient of each score."""
    return jnp.take_along_axis(logits, _class_labels(name, logits, label)[:, None], axis=1).sum()


def _gradient(name: str, model: AnyLayer, params: Params, state: State, label: Any) -> Callable[[jax.Array], jax.Array]:
    return jax.grad(lambda x: _score(name, _logits(name, model, params, state, x), label))


def _mean(gradient: Callable[[jax.Array], jax.Array], point: Callable[[jax.Array], jax.Array], n: int) -> jax.Array:
    """The mean gradient at points 0 to n - 1, computed sequentially to keep memory independent of n."""
    like = jax.eval_shape(point, jnp.int32(0))
    zero = at_least_float32(jnp.zeros(like.shape, like.dtype))
    return (lax.fori_loop(0, n, lambda k, total: total + gradient(point(k)), zero) / n).astype(like.dtype)
