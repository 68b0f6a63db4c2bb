"""Metrics of how a score ranks positive above negative examples.

Scores come from logits (N, *spatial, K). Labels with the shape of the output are multi-label: one problem per class.
With integer classes (N, *spatial), K = 1 and K = 2 are one problem, in which class 1 is positive; K > 2 is one problem
per class against the rest. The metric is the mean over the problems that have positive and negative examples.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer
from jaxcnn.metrics._labels import Examples, examples, label_check
from jaxcnn.metrics._metric import Metric, ratio
from jaxcnn.metrics._sums import Rows, bincount


def auroc(bins: int = 0) -> Metric:
    """The area under the ROC curve: the probability that a positive example has a higher score than a negative one.

    AUROC = sum over positive i and negative j of w_i w_j ([s_i > s_j] + [s_i = s_j] / 2) / sum of w_i w_j

    Args:
        bins: 0 keeps all scores and is exact. n > 0 counts scores in n bins of equal width between probability 0 and 1,
            so that memory does not grow with the data; scores in one bin count as equal.

    Raises:
        TypeError, ValueError: if bins is not an integer of at least 0; from `update`, if labels do not fit the output.

    Example:
        >>> metric = jaxcnn.metrics.auroc()
        >>> batch = {"label": jnp.array([0, 0, 1, 1]), "weight": jnp.ones(4)}
        >>> float(metric.compute(metric.update(jnp.array([[0.1], [0.4], [0.35], [0.8]]), batch)))
        0.75

    Source: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic curve", 1982.
    """
    return _ranked("auroc", bins, _auroc)


def average_precision(bins: int = 0) -> Metric:
    """The area under the precision-recall curve as a sum of steps.

    AP = sum over positive i of w_i precision(s_i) / sum of w_i,  precision(s): that of the prediction "score >= s"

    Args:
        bins: as for `auroc`.

    Raises:
        TypeError, ValueError: as in `auroc`.

    Example:
        >>> metric = jaxcnn.metrics.average_precision()
        >>> batch = {"label": jnp.array([0, 0, 1, 1]), "weight": jnp.ones(4)}
        >>> round(float(metric.compute(metric.update(jnp.array([[0.1], [0.4], [0.35], [0.8]]), batch))), 4)
        0.8333

    Source: Zhu, "Recall, precision and average precision", 2004.
    """
    return _ranked("average_precision", bins, _average_precision)


def _ranked(name: str, bins: int, area: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> Metric:
    """The mean over problems of area(scores (M,), weights of positives (M,), weights of negatives (M,))."""
    bins = check_integer(name, "bins", bins, 0)

    def update(output: jax.Array, batch: dict[str, Any]) -> Any:
        scores, probabilities, positive, found = _problems(name, output, batch)
        weight = _rows(found.weight if found.multi_label else found.weight[..., None])
        weights = jnp.where(positive, weight, 0), jnp.where(positive, 0, weight)
        undefined = (jnp.isnan(scores) & (weight != 0)).any()  # an output is NaN, or a difference inf - inf
        found = found._replace(valid=found.valid & ~undefined)
        if not bins:
            return found.sums(Rows((scores, *weights)))
        index = jnp.clip((probabilities * bins).astype(jnp.int32), 0, bins - 1)
        count = jax.vmap(lambda index, weight: bincount(index, weight, bins), in_axes=1, out_axes=1)
        return found.sums(tuple(count(index, part) for part in weights))

    def compute(sums: Any) -> jax.Array:
        if isinstance(sums, Rows):
            scores, positive, negative = sums.arrays
        else:
            positive, negative = sums
            scores = jnp.broadcast_to(jnp.arange(bins, dtype=jnp.float32)[:, None], positive.shape)
        defined = (positive.sum(0) > 0) & (negative.sum(0) > 0)
        areas = jax.vmap(area, in_axes=1)(scores, positive, negative)
        return jnp.where(defined, areas, 0).sum() / defined.sum(dtype=jnp.float32)  # NaN if no problem is defined

    return Metric(update, compute, label_check())


def _problems(name: str, output: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array, Examples]:
    """Scores, probabilities, and whether an example is positive, each (M, problems), and the examples."""
    found = examples(name, output, batch)
    scores, label, classes = found.output.astype(jnp.float32), found.label, found.output.shape[-1]
    if found.multi_label:
        probabilities, positive = jax.nn.sigmoid(scores), label > 0.5
    elif classes == 2:
        scores = scores[..., 1:] - scores[..., :1]
        probabilities, positive = jax.nn.sigmoid(scores), label[..., None] == 1
    else:
        scores = jax.nn.log_softmax(scores)
        probabilities, positive = jnp.exp(scores), jax.nn.one_hot(label.astype(jnp.int32), classes, dtype=bool)
    return _rows(scores), _rows(probabilities), _rows(positive), found


def _rows(x: jax.Array) -> jax.Array:
    """(N, *spatial, K) -> (M, K)."""
    return x.reshape(-1, x.shape[-1])


def _sums_below(scores: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each score, the summed weights of smaller scores, and of smaller or equal ones."""
    order = jnp.argsort(scores)
    sorted_scores = scores[order]
    cumulative = jnp.concatenate([jnp.zeros(1, weights.dtype), jnp.cumsum(weights[order])])
    smaller, up_to = (jnp.searchsorted(sorted_scores, scores, side=side) for side in ("left", "right"))
    return cumulative[smaller], cumulative[up_to]


def _auroc(scores: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    positive, negative = ratio(positive, positive.sum()), ratio(negative, negative.sum())
    smaller, up_to = _sums_below(scores, negative)
    return positive @ (smaller + up_to) / 2


def _average_precision(scores: jax.Array, positive: jax.Array, negative: jax.Array) -> jax.Array:
    hits = positive.sum() - _sums_below(scores, positive)[0]
    false_alarms = negative.sum() - _sums_below(scores, negative)[0]
    return ratio(positive @ ratio(hits, hits + false_alarms), positive.sum())
