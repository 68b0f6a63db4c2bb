"""Metrics of outputs that are quantities: both have the shape (N, *dimensions) of the labels."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.metrics._metric import Metric
from jaxcnn.metrics._sums import moments


def mean_absolute_error() -> Metric:
    """The mean of |output - label| over examples and all other dimensions; smaller is better.

    Example:
        >>> metric = jaxcnn.metrics.mean_absolute_error()
        >>> batch = {"label": jnp.array([[1.0], [2.0]]), "weight": jnp.ones(2)}
        >>> float(metric.compute(metric.update(jnp.array([[2.0], [4.0]]), batch)))
        1.5
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> dict[str, jax.Array]:
        output, label = _rows("mean_absolute_error", output, batch)
        weight = batch["weight"]
        return {"error": weight @ jnp.abs(output - label).mean(1), "weight": weight.sum()}

    return Metric(update, lambda sums: sums["error"] / jnp.maximum(sums["weight"], 1e-30))


def r2() -> Metric:
    """1 - sum (output - label)^2 / sum (label - mean label)^2, the mean over all dimensions but the first.

    1 is perfect; 0 is as good as always predicting the mean. Constant labels give 1 if the output equals them, else 0.

    Example:
        >>> metric = jaxcnn.metrics.r2()
        >>> batch = {"label": jnp.array([[1.0], [2.0], [3.0]]), "weight": jnp.ones(3)}
        >>> float(metric.compute(metric.update(jnp.array([[1.0], [2.0], [4.0]]), batch)))
        0.5
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> dict[str, Any]:
        output, label = _rows("r2", output, batch)
        return {"residual": batch["weight"] @ jnp.square(output - label), "label": moments(label, batch["weight"])}

    def compute(sums: dict[str, Any]) -> jax.Array:
        residual, squares = sums["residual"], sums["label"].squares
        ratio = residual / jnp.where(squares > 0, squares, 1)
        return jnp.where(squares > 0, 1 - ratio, (residual == 0).astype(ratio.dtype)).mean()

    return Metric(update, compute)


def _rows(name: str, output: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Output and labels as float32 (N, dimensions)."""
    label = jnp.asarray(batch["label"])
    if output.shape != label.shape:
        raise ValueError(f"{name}: the output {output.shape} and the labels {label.shape} differ in shape")
    output, label = (x.reshape(len(x), -1).astype(jnp.float32) for x in (output, label))
    counts = (batch["weight"] != 0)[:, None]  # a row of weight 0 may hold NaN
    return jnp.where(counts, output, 0), jnp.where(counts, label, 0)
