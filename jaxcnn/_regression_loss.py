"""Losses of quantities: the model's output has the shape of the labels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import _optax as optax
from jaxcnn._arguments import check_positive
from jaxcnn._array import at_least_float32
from jaxcnn._layer import Layer
from jaxcnn._loss import LossFn, check_output, loss_of_output, masked, unmix, weighted_mean
from jaxcnn._numeric import absolute


def mean_squared_error(model: Layer) -> LossFn:
    """model -> LossFn: mean squared error between the model's output and the labels.

    loss = mean of (y - label)^2 over all dimensions

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        TypeError: for an output that is not one floating-point array.
        ValueError: if the shapes differ, or weights of the batch are negative or not finite. (N,) and (N, 1) would
            broadcast to (N, N).

    Example:
        >>> loss_fn = jaxcnn.mean_squared_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        4.0
    """
    return _regression("mean_squared_error", model, optax.squared_error)


def mean_absolute_error(model: Layer) -> LossFn:
    """model -> LossFn: mean absolute error between the model's output and the labels.

    loss = mean of |y - label| over all dimensions

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        TypeError: for an output that is not one floating-point array.
        ValueError: if the shapes differ, or weights of the batch are negative or not finite.

    Example:
        >>> loss_fn = jaxcnn.mean_absolute_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        2.0
    """
    return _regression("mean_absolute_error", model, lambda y, label: absolute(y - label))


def huber(model: Layer, *, delta: float = 1.0) -> LossFn:
    """model -> LossFn: squared error for small differences, absolute error for large ones (Huber loss).

    loss = mean of d^2 / 2 where |d| <= delta, else delta * (|d| - delta / 2),  d = y - label

    Outliers count less than in the squared error.

    Args:
        model: a layer whose output has the shape of the labels.
        delta: where the square ends, in units of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        TypeError: for an output that is not one floating-point array.
        ValueError: if the shapes differ, weights of the batch are negative or not finite, or delta is not positive.

    Example:
        >>> loss_fn = jaxcnn.huber(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        1.5

    Source: Huber, "Robust estimation of a location parameter", 1964.
    """
    delta = check_positive("huber", "delta", delta)
    return _regression("huber", model, lambda y, label: optax.huber_loss(y, label, delta=delta))


def _regression(name: str, model: Layer, error: Callable[[jax.Array, jax.Array], jax.Array]) -> LossFn:
    """A LossFn that computes the mean of error(y, label), elementwise."""

    def compute(output, label, weight, train):
        check_output(f"{name}: the output of the model", output)
        y = masked(at_least_float32(output), weight)

        def convert(label):
            _check_same_shape(name, y.shape, np.shape(label))
            return masked(jnp.asarray(label, y.dtype), weight)  # without this dtype, NumPy's int64 would wrap to int32

        return weighted_mean(error(y, unmix(label, convert)), weight), {}

    def check(_, output, label, weight):
        check_output(f"{name}: the output of the model", output)
        _check_same_shape(name, output.shape, np.shape(label))

    return loss_of_output(model, compute, check)


def _check_same_shape(name: str, output: tuple[int, ...], label: tuple[int, ...]) -> None:
    if output != label:
        fix = "; use label[..., None]" if output == (*label, 1) else ""
        raise ValueError(f"{name}: the output has shape {output}, but the labels have shape {label}{fix}")
