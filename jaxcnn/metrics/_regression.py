"""Metrics of outputs that are quantities: both have the shape (N, *dimensions) of the labels."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._loss import check_output
from jaxcnn.metrics._metric import Metric, example_weights, float_entry, ratio
from jaxcnn.metrics._sums import moments, squares


def mean_absolute_error() -> Metric:
    """The mean of |output - label| over examples and all other dimensions; smaller is better.

    Raises:
        TypeError: from `update`, if the output is not one array of real numbers.
        ValueError: from `update`, if the shapes of output and labels differ.

    Example:
        >>> metric = jaxcnn.metrics.mean_absolute_error()
        >>> batch = {"label": jnp.array([[1.0], [2.0]]), "weight": jnp.ones(2)}
        >>> float(metric.compute(metric.update(jnp.array([[2.0], [4.0]]), batch)))
        1.5
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> dict[str, jax.Array]:
        output, label, weight = _rows("mean_absolute_error", output, batch)
        return {"error": weight @ jnp.abs(output - label).mean(1), "weight": weight.sum()}

    return Metric(update, lambda sums: sums["error"] / sums["weight"])


def r2() -> Metric:
    """1 - sum (output - label)^2 / sum (label - mean label)^2, the mean over all dimensions but the first.

    1 is perfect; 0 is as good as always predicting the mean. Constant labels give 1 if the output equals them, else 0.

    Raises:
        TypeError: from `update`, if the output is not one array of real numbers.
        ValueError: from `update`, if the shapes of output and labels differ.

    Example:
        >>> metric = jaxcnn.metrics.r2()
        >>> batch = {"label": jnp.array([[1.0], [2.0], [3.0]]), "weight": jnp.ones(3)}
        >>> float(metric.compute(metric.update(jnp.array([[1.0], [2.0], [4.0]]), batch)))
        0.5
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> dict[str, Any]:
        output, label, weight = _rows("r2", output, batch)
        return {"residual": squares(output - label, weight), "label": moments(label, weight)}

    def compute(sums: dict[str, Any]) -> jax.Array:
        residual = sums["residual"]
        explainable = sums["label"].squares
        unexplained = ratio(residual.total, explainable.total) * jnp.square(residual.scale / explainable.scale)
        unexplained = jnp.where(explainable.total == 0, jnp.sign(residual.total), unexplained)
        return jnp.where(sums["label"].weight == 0, jnp.nan, (1 - unexplained).mean())

    return Metric(update, compute)


def _rows(name: str, output: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Output and labels (N, dimensions), and weights (N,), as float32."""
    check_output(f"{name}: the output", output, floating=False)
    label = float_entry(batch, "label")
    if output.shape != label.shape:
        raise ValueError(f"{name}: the output {output.shape} and the labels {label.shape} differ in shape")
    if not label.ndim:
        raise ValueError(f"{name} needs outputs and labels (N, *dimensions), got scalars")
    weight = example_weights(name, batch, len(label))
    output, label = (x.reshape(len(x), math.prod(x.shape[1:])).astype(jnp.float32) for x in (output, label))
    counts = (weight != 0)[:, None]  # a row of weight 0 may hold NaN
    return jnp.where(counts, output, 0), jnp.where(counts, label, 0), weight
