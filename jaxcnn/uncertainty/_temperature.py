"""Temperature scaling: one number that calibrates a trained classifier and keeps its predictions."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_positive
from jaxcnn._array import as_floating
from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._validate import check_finite, is_concrete
from jaxcnn.uncertainty._check import as_number, check_not_probs, checked_labels, checked_logits, of_label

_LOWEST, _HIGHEST = 0.01, 100.0
_STEPS = 40  # halvings of log(_HIGHEST / _LOWEST): down to the rounding of float32


def temperature(logits: Any, labels: Any) -> jax.Array:
    """(N, *spatial, K), (N, *spatial) -> the scalar T that minimizes the cross-entropy of softmax(logits / T).

    T = argmin -mean_n log softmax(logits[n] / T)[labels[n]]

    Fit T on data that were not used for training, and apply it by `with_temperature`. T > 1 means that the network is
    overconfident. The cross-entropy is convex in 1 / T. T is limited to [0.01, 100]: it is 0.01 if all predictions are
    right, and 100 if the network is no better than chance.

    Args:
        logits: outputs of the model.
        labels: integer classes.

    Raises:
        ValueError: for other shapes, logits that are not finite or probabilities, or labels out of range. Inside a
            compiled function, labels out of range and logits that are not finite make T NaN instead.

    Example:
        >>> logits = jnp.array([[4.0, 0.0]] * 4)
        >>> T = jaxcnn.uncertainty.temperature(logits, [0, 0, 0, 1])
        >>> round(float(jax.nn.softmax(logits / T)[0, 0]), 4)
        0.75

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    values = checked_logits("temperature", logits)
    if is_concrete(values):
        check_finite("temperature: logits", values)
        check_not_probs("temperature", logits)
    logits, labels = checked_labels("temperature", labels, values)
    # The logits divided by their largest magnitude, as differences and means of large ones overflow.
    tiny = jnp.finfo(logits.dtype).tiny
    scale = jnp.clip(jnp.abs(logits).max(), tiny, 1 / tiny)  # XLA multiplies by the reciprocal, which must be normal
    logits = logits / scale
    to_largest, to_label = logits - logits.max(-1, keepdims=True), logits - of_label(logits, labels)[..., None]

    def halve(_, bounds):
        """Bisection of log T: the cross-entropy rises with 1 / T where the mean logit is above that of the label."""
        low, high = bounds
        middle = (low + high) / 2
        factor = jnp.minimum(scale * jnp.exp(-middle), jnp.finfo(scale.dtype).max)
        rises = (jax.nn.softmax(to_largest * factor) * to_label).sum(-1).mean() > 0
        return jnp.where(rises, middle, low), jnp.where(rises, high, middle)

    bounds = tuple(jnp.log(jnp.asarray(t, logits.dtype)) for t in (_LOWEST, _HIGHEST))
    low, high = lax.fori_loop(0, _STEPS, halve, bounds)
    # The slope at 1 / T = 0. If the cross-entropy rises there, or has no slope, it is least at the highest T.
    no_better = to_label.mean(-1).mean() >= 0
    T = jnp.where(no_better, _HIGHEST, jnp.exp((low + high) / 2).clip(_LOWEST, _HIGHEST))
    return jnp.where(jnp.isfinite(to_label).all(), T, jnp.nan)


@constructor
def with_temperature(model: AnyLayer, T: Any) -> Layer:
    """The model with its logits divided by T in evaluation; in training, it equals the model.

    y = model(x) / T

    Parameters keep their paths, so that weights of the model fit, and `export` includes T.

    Args:
        model: a layer from images to logits, or to a tuple of logits.
        T: a number above 0, from `temperature`.

    Raises:
        TypeError: if T is not a number, or the logits are not floating-point.
        ValueError: if T is not finite and above 0.

    Example:
        >>> model = jaxcnn.uncertainty.with_temperature(jaxcnn.identity, 2.0)
        >>> model.apply({}, {}, jnp.array([[4.0, 0.0]]), train=False)[0].tolist()
        [[2.0, 0.0]]

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    model, T = as_layer(model), check_positive("with_temperature", "T", as_number(T))

    def scaled(logits):
        logits = as_floating(logits, "with_temperature")
        return logits / jnp.asarray(T, logits.dtype)

    def apply(params, state, x, *, train, key=None):
        y, state = model.apply(params, state, x, train=train, key=key)
        return y if train else jax.tree.map(scaled, y), state

    return Layer(model.init, apply)
