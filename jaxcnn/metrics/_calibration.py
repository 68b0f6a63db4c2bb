"""Calibration: whether predictions with probability p are right in a fraction p of the cases."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn._array import at_least_float32
from jaxcnn._target import check_ignore_label
from jaxcnn.metrics._labels import class_examples, label_check, predicted_class
from jaxcnn.metrics._metric import Metric
from jaxcnn.metrics._sums import bincount


class BinSums(NamedTuple):
    """Sums (bins,) over the predictions with a confidence in each bin."""

    weight: jax.Array
    confidence: jax.Array
    hits: jax.Array


def expected_calibration_error(bins: int = 15, ignore_label: int | None = None) -> Metric:
    """The mean difference between confidence and accuracy, over bins of the confidence; smaller is better.

    ECE = sum_b weight_b / weight |accuracy_b - confidence_b|,  bin b: confidence in (b / bins, (b + 1) / bins]

    The confidence is the largest probability of the softmax. Labels are as for `accuracy`.

    Args:
        bins: number of bins of equal width.
        ignore_label: positions with this label do not count.

    Raises:
        TypeError, ValueError: if bins is not an integer of at least 1, ignore_label not None or an int, or, from
            `update`, if labels do not fit the output.

    Example:
        >>> metric = jaxcnn.metrics.expected_calibration_error()
        >>> batch = {"label": jnp.array([0, 1]), "weight": jnp.ones(2)}
        >>> logits = jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2]]))
        >>> round(float(metric.compute(metric.update(logits, batch))), 4)  # 0.8 - 0.5
        0.3

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    name = "expected_calibration_error"
    bins, ignore_label = check_integer(name, "bins", bins), check_ignore_label(name, ignore_label)

    def update(output: jax.Array, batch: dict[str, Any]) -> BinSums:
        logits, label, weight, _ = found = class_examples(name, output, batch, ignore_label)
        return found.sums(bin_sums(jax.nn.softmax(at_least_float32(logits)), label, weight, bins))

    return Metric(update, calibration_error, label_check(ignore_label))


def bin_sums(probs: jax.Array, label: jax.Array, weight: jax.Array, bins: int) -> BinSums:
    """Probabilities (N, *spatial, K), integer classes and weights (N, *spatial) -> sums (bins,)."""
    counts = weight > 0  # a row of weight 0 may hold NaN
    confidence = jnp.where(counts, probs.max(-1), 0)
    edges = jnp.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1]
    index = jnp.searchsorted(edges, confidence.ravel())
    weight = weight.astype(confidence.dtype)
    hits = jnp.where(counts & (predicted_class(probs) == label.astype(jnp.int32)), weight, 0)
    return BinSums(*(bincount(index, values.ravel(), bins) for values in (weight, weight * confidence, hits)))


def calibration_error(sums: BinSums) -> jax.Array:
    return jnp.abs(sums.hits - sums.confidence).sum() / sums.weight.sum()
