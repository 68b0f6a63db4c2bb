"""Losses of quantities: the model's output has the shape of the labels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn._layer import Layer, as_layer, at_least_float32, check_number
from jaxcnn._loss import LossFn, batch_entry, inputs, masked, output_shape, unmix, weighted_mean
from jaxcnn._validate import check_finite, with_check


def mean_squared_error(model: Layer) -> LossFn:
    """Mean squared error between the model's output and the labels.

    loss = mean of (y - label)^2 over all dimensions

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        ValueError: if the shapes differ. (N,) and (N, 1) would broadcast to (N, N).

    Example:
        >>> loss_fn = jaxcnn.mean_squared_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        4.0
    """
    return _regression("mean_squared_error", model, optax.squared_error)


def mean_absolute_error(model: Layer) -> LossFn:
    """Mean absolute error between the model's output and the labels.

    loss = mean of |y - label| over all dimensions

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> loss_fn = jaxcnn.mean_absolute_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        2.0
    """
    return _regression("mean_absolute_error", model, lambda y, label: jnp.abs(y - label))


def huber(model: Layer, *, delta: float = 1.0) -> LossFn:
    """Huber loss: squared error for small differences, absolute error for large ones, so outliers count less.

    loss = mean of d^2 / 2 where |d| <= delta, else delta * (|d| - delta / 2),  d = y - label

    Args:
        model: a layer whose output has the shape of the labels.
        delta: where the square ends, in units of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        ValueError: if the shapes differ, or delta is not positive.

    Example:
        >>> loss_fn = jaxcnn.huber(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        1.5

    Source: Huber, "Robust estimation of a location parameter", 1964.
    """
    if not check_number("delta", delta) > 0:
        raise ValueError(f"delta must be above 0, got {delta}")
    return _regression("huber", model, lambda y, label: optax.huber_loss(y, label, delta=delta))


def _regression(name: str, model: Layer, error: Callable[[jax.Array, jax.Array], jax.Array]) -> LossFn:
    """A LossFn that computes the mean of error(y, label), elementwise."""
    model = as_layer(model)

    def loss_fn(params, state, batch, *, train, key=None):
        image, weight = inputs(batch)
        y, state = model.apply(params, state, image, train=train, key=key)
        y = masked(at_least_float32(y), weight)

        def convert(label):
            _check_same_shape(name, y.shape, jnp.shape(label))
            return masked(jnp.asarray(label).astype(y.dtype), weight)

        loss = weighted_mean(error(y, unmix(batch_entry(batch, "label"), convert)), weight)
        return loss, (state, {"loss": loss})

    output_of = output_shape(model)

    def check(name, params, state, data):
        y = output_of(params, state, data["image"])
        _check_same_shape(name, (len(data["label"]), *y.shape[1:]), np.shape(data["label"]))
        check_finite(f"{name}: label", data["label"], data.get("weight"))

    return with_check(loss_fn, check)


def _check_same_shape(name: str, output: tuple[int, ...], label: tuple[int, ...]) -> None:
    if output != label:
        raise ValueError(f"{name}: the output has shape {output}, but the labels have shape {label}")
