"""The type of metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._loss import batch_entry, valid_weights


class Metric(NamedTuple):
    """A metric of a whole data set. It need not be a mean over batches.

    value = compute(sum over batches of update(output, batch))

    update: (output, batch) -> a tree of arrays that are summed over batches and devices. `output` is the model's output
        in evaluation. `batch` is a dict; its "weight" (N,) is 0 for padding rows, which must not change the sums.
    compute: sums -> a scalar, or an array such as a confusion matrix.
    check: (name, output, data), optional: raises ValueError, with this name, if the labels of the data do not fit.
        `output` is a `jax.ShapeDtypeStruct`. `fit` and `evaluate` call it on the host before they compute the metric.

    Example:
        >>> def update(output, batch):
        ...     error = jnp.abs(output - batch["label"]).max(-1)
        ...     return {"error": (error * batch["weight"]).sum(), "count": batch["weight"].sum()}
        >>> largest_error = jaxcnn.metrics.Metric(update, lambda sums: sums["error"] / sums["count"])
    """

    update: Callable[[Any, dict[str, Any]], Any]
    compute: Callable[[Any], Any]
    check: Callable[[str, Any, dict[str, Any]], None] | None = None


def float_entry(batch: dict[str, Any], name: str) -> jax.Array:
    """An entry as float32. JAX's own conversion would wrap wide integers of NumPy, and add up narrow dtypes as such."""
    return jnp.asarray(batch_entry(batch, name), jnp.float32)


def example_weights(name: str, batch: dict[str, Any], count: int) -> jax.Array:
    """(N,): the weight of each example, 1 without the entry "weight", and NaN where it is negative or not finite."""
    if "weight" not in batch:
        return jnp.ones(count, jnp.float32)
    weight = float_entry(batch, "weight")
    if weight.shape != (count,):
        raise ValueError(
            f"{name}: the weights of a batch must have shape ({count},), one per example, got {weight.shape}"
        )
    return jnp.where(valid_weights(weight), weight, jnp.nan)


def position_weights(name: str, label: jax.Array, batch: dict[str, Any], ignore_label: int | None) -> jax.Array:
    """(N, *spatial): the weight of each position, that of its example, or 0 where the label is `ignore_label`."""
    weight = example_weights(name, batch, len(label)).reshape(-1, *(1,) * (label.ndim - 1))
    weight = jnp.broadcast_to(weight, label.shape)
    return weight if ignore_label is None else jnp.where(label == ignore_label, 0, weight)


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator; the numerator where the denominator is 0."""
    return numerator / jnp.where(denominator == 0, 1, denominator)
