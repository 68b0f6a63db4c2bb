"""Calibration of probabilities: the expected calibration error, and the diagram that shows it."""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn.metrics._calibration import BinSums, bin_sums, calibration_error
from jaxcnn.uncertainty._check import checked_labels, checked_probs


class Reliability(NamedTuple):
    """Confidence against accuracy, in bins of the confidence. Each array is (bins,); both means of an empty bin are 0.

    confidence: mean of the largest probability.
    accuracy: fraction of predictions that equal the label.
    count: number of predictions.
    """

    confidence: jax.Array
    accuracy: jax.Array
    count: jax.Array  # type: ignore[assignment]  # overrides tuple.count

    def _repr_html_(self) -> str:
        """HTML for notebooks: the diagram."""
        # Not at the top: jaxcnn.report is not needed without a notebook.
        return importlib.import_module("jaxcnn.report._notebook").reliability_html(*self)


def expected_calibration_error(probs: Any, labels: Any, bins: int = 15) -> jax.Array:
    """(N, *spatial, K), (N, *spatial) -> scalar: the mean difference between confidence and accuracy.

    ECE = sum_b count_b / count |accuracy_b - confidence_b|,  bin b: confidence in (b / bins, (b + 1) / bins]

    `metrics.expected_calibration_error` is the same as a metric for `fit` and `evaluate`.

    Args:
        probs: class probabilities; the largest is the confidence.
        labels: integer classes.
        bins: number of bins of equal width.

    Raises:
        ValueError: for other shapes, probabilities that do not sum to 1, or labels out of range. Inside a compiled
            function, invalid values make the result NaN instead.

    Example:
        >>> probs = jnp.array([[0.8, 0.2], [0.8, 0.2]])
        >>> round(float(jaxcnn.uncertainty.expected_calibration_error(probs, [0, 1])), 4)  # 0.8 - 0.5
        0.3

    Source: Guo et al., "On calibration of modern neural networks", 2017.
    """
    return calibration_error(_sums("expected_calibration_error", probs, labels, bins))


def reliability_diagram(probs: Any, labels: Any, bins: int = 15) -> Reliability:
    """(N, *spatial, K), (N, *spatial) -> confidence, accuracy and count (bins,), for `plot_reliability_diagram`.

    Calibrated probabilities have equal confidence and accuracy in each bin.

    Args:
        probs, labels, bins: as for `expected_calibration_error`.

    Raises:
        ValueError: as in `expected_calibration_error`.

    Example:
        >>> probs = jnp.array([[0.75, 0.25], [0.75, 0.25]])
        >>> diagram = jaxcnn.uncertainty.reliability_diagram(probs, [0, 1], bins=2)
        >>> [array.tolist() for array in diagram]
        [[0.0, 0.75], [0.0, 0.5], [0.0, 2.0]]

    Source: DeGroot and Fienberg, "The comparison and evaluation of forecasters", 1983.
    """
    sums = _sums("reliability_diagram", probs, labels, bins)
    count = jnp.maximum(sums.weight, 1)
    return Reliability(sums.confidence / count, sums.hits / count, sums.weight)


def _sums(name: str, probs: Any, labels: Any, bins: int) -> BinSums:
    bins = check_integer(name, "bins", bins)
    probs = checked_probs(name, probs)
    probs, labels = checked_labels(name, labels, probs)
    sums = bin_sums(probs, labels, jnp.ones(labels.shape, probs.dtype), bins)
    return jax.tree.map(lambda x: jnp.where(jnp.isnan(probs).any(), jnp.nan, x), sums)
