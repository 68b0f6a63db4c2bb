"""The type of metrics, and accuracy."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Metric(NamedTuple):
    """A metric of a whole data set. It need not be a mean over batches.

    value = compute(sum over batches of update(output, batch))

    update: (output, batch) -> a tree of arrays that are summed over batches and devices. `output` is the model's output
        in evaluation. `batch` is a dict; its "weight" (N,) is 0 for padding rows, which must not change the sums.
    compute: sums -> a scalar.

    Example:
        >>> def update(output, batch):
        ...     error = jnp.abs(output - batch["label"]).max(-1)
        ...     return {"error": (error * batch["weight"]).sum(), "count": batch["weight"].sum()}
        >>> largest_error = jaxcnn.metrics.Metric(update, lambda sums: sums["error"] / sums["count"])
    """

    update: Callable[[Any, dict[str, Any]], Any]
    compute: Callable[[Any], Any]


def accuracy() -> Metric:
    """The fraction of examples whose largest logit belongs to the label's class.

    Labels are classes (N,) or class probabilities (N, classes).

    Example:
        >>> metric = jaxcnn.metrics.accuracy()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3), batch))), 4)
        0.6667
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> dict[str, jax.Array]:
        label, weight = batch["label"], batch["weight"]
        correct = output.argmax(-1) == (label.argmax(-1) if label.ndim == 2 else label)
        return {"correct": (correct * weight).sum(), "weight": weight.sum()}

    return Metric(update, lambda sums: sums["correct"] / jnp.maximum(sums["weight"], 1e-30))
