"""The type of metrics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Metric(NamedTuple):
    """A metric of a whole data set. It need not be a mean over batches.

    value = compute(sum over batches of update(output, batch))

    update: (output, batch) -> a tree of arrays that are summed over batches and devices. `output` is the model's output
        in evaluation. `batch` is a dict; its "weight" (N,) is 0 for padding rows, which must not change the sums.
    compute: sums -> a scalar, or an array such as a confusion matrix.

    Example:
        >>> def update(output, batch):
        ...     error = jnp.abs(output - batch["label"]).max(-1)
        ...     return {"error": (error * batch["weight"]).sum(), "count": batch["weight"].sum()}
        >>> largest_error = jaxcnn.metrics.Metric(update, lambda sums: sums["error"] / sums["count"])
    """

    update: Callable[[Any, dict[str, Any]], Any]
    compute: Callable[[Any], Any]


def float_entry(batch: dict[str, Any], name: str) -> jax.Array:
    """An entry as float32. JAX's own conversion would wrap wide integers of NumPy, and add up narrow dtypes as such."""
    return jnp.asarray(batch[name], jnp.float32)


def row_weights(label: jax.Array, batch: dict[str, Any], ignore_label: int | None) -> jax.Array:
    """(N, *spatial), (N,) -> (N, *spatial): the weight of each position, 0 where the label is `ignore_label`."""
    weight = jnp.broadcast_to(float_entry(batch, "weight").reshape(-1, *(1,) * (label.ndim - 1)), label.shape)
    return weight if ignore_label is None else jnp.where(label == ignore_label, 0, weight)


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator; the numerator where the denominator is 0."""
    return numerator / jnp.where(denominator == 0, 1, denominator)
