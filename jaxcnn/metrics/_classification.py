"""Metrics of classes: of images, of positions (segmentation), and of several labels per image (multi-label).

For K classes, `output` holds logits (N, *spatial, K). Labels with the shape of the output are multi-label: class k is
predicted where its logit is positive. Other labels are integer classes (N, *spatial), and the class with the largest
logit is predicted, the first of equal ones. K = 1 is multi-label with a single label, of shape (N, *spatial) or
(N, *spatial, 1). All metrics follow from three counts for each class k, weighted by `batch["weight"]`:

    hits_k: label and prediction are k     predicted_k: the prediction is k     actual_k: the label is k
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_choice, check_integer
from jaxcnn._target import check_ignore_label
from jaxcnn.metrics._labels import Examples, class_examples, examples, label_check, predicted_class
from jaxcnn.metrics._metric import Metric, ratio
from jaxcnn.metrics._sums import bincount

Counts = dict[str, jax.Array]


def accuracy(ignore_label: int | None = None) -> Metric:
    """The fraction of examples, or positions, whose largest logit is that of the label.

    Labels are integer classes (N, *spatial), or class probabilities (N, *spatial, K), whose largest entry counts. A
    single output, K = 1, is the logit of class 1 against class 0, and labels are 0 or 1.

    Args:
        ignore_label: positions with this label do not count.

    Raises:
        TypeError: if ignore_label is not None or an int.
        ValueError: from `update`, if labels do not fit the output.

    Example:
        >>> metric = jaxcnn.metrics.accuracy()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3), batch))), 4)
        0.6667
    """
    return _accuracy("accuracy", ignore_label)


def pixel_accuracy(ignore_label: int | None = None) -> Metric:
    """The fraction of positions with the right class: `accuracy` under the name that segmentation uses.

    Args:
        ignore_label: positions with this label do not count.

    Raises:
        TypeError, ValueError: as in `accuracy`.

    Example:
        >>> metric = jaxcnn.metrics.pixel_accuracy(ignore_label=255)
        >>> batch = {"label": jnp.array([[0, 1, 255]]), "weight": jnp.ones(1)}
        >>> float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch)))
        1.0
    """
    return _accuracy("pixel_accuracy", ignore_label)


def top_k(k: int = 5) -> Metric:
    """The fraction of examples whose label has one of the k largest logits.

    Labels are as for `accuracy`.

    Args:
        k: at least 1; of equal logits the first are larger, so that `top_k(1)` is `accuracy`.

    Raises:
        TypeError, ValueError: if k is not an integer of at least 1; from `update`, if labels do not fit the output.

    Example:
        >>> metric = jaxcnn.metrics.top_k(2)
        >>> batch = {"label": jnp.array([1, 2]), "weight": jnp.ones(2)}
        >>> float(metric.compute(metric.update(jnp.array([[3.0, 2.0, 1.0]] * 2), batch)))
        0.5
    """
    k = check_integer("top_k", "k", k, 1)

    def update(output: jax.Array, batch: dict[str, Any]) -> Counts:
        found = class_examples("top_k", output, batch)
        logits, label = found.output, found.label[..., None]
        of_label = jnp.take_along_axis(logits, label, -1)
        before = lax.broadcasted_iota(label.dtype, logits.shape, logits.ndim - 1) < label
        rank = ((logits > of_label) | (logits == of_label) & before).sum(-1)
        return _hits(found, rank < k)

    return Metric(update, _hit_rate, label_check())


def precision(average: str = "macro", ignore_label: int | None = None) -> Metric:
    """hits_k / predicted_k: which fraction of the predictions of a class is right; 0 without predictions.

    A macro average is over the classes that occur as a label or a prediction; for multi-label over
    all classes, unless all labels of a class are ignored.

    Args:
        average: "macro": the mean over classes; "micro": one ratio of the counts summed over classes; "none": the value
            of each class (K,), NaN where a macro average leaves it out.
        ignore_label: positions with this label do not count.

    Raises:
        TypeError: if ignore_label is not None or an int.
        ValueError: for another average; from `update`, if labels do not fit the output.

    Example:
        >>> metric = jaxcnn.metrics.precision()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3), batch))), 4)  # (1 + 1 + 0) / 3
        0.6667
    """
    return _averaged("precision", average, ignore_label, lambda hits, predicted, actual: (hits, predicted))


def recall(average: str = "macro", ignore_label: int | None = None) -> Metric:
    """hits_k / actual_k: which fraction of the examples of a class is found; 0 without examples.

    Args:
        average, ignore_label: as for `precision`.

    Raises:
        TypeError, ValueError: as in `precision`.

    Example:
        >>> metric = jaxcnn.metrics.recall()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> float(metric.compute(metric.update(jnp.eye(3), batch)))  # (1 + 1 / 2 + 0) / 3
        0.5
    """
    return _averaged("recall", average, ignore_label, lambda hits, predicted, actual: (hits, actual))


def f1(average: str = "macro", ignore_label: int | None = None) -> Metric:
    """2 hits_k / (predicted_k + actual_k): the harmonic mean of precision and recall.

    Args:
        average, ignore_label: as for `precision`.

    Raises:
        TypeError, ValueError: as in `precision`.

    Example:
        >>> metric = jaxcnn.metrics.f1("micro")
        >>> batch = {"label": jnp.array([[1, 0], [1, 1]]), "weight": jnp.ones(2)}
        >>> round(float(metric.compute(metric.update(jnp.array([[2.0, -1.0], [1.0, -1.0]]), batch))), 4)
        0.8
    """
    return _averaged("f1", average, ignore_label, _harmonic_mean)


def dice(ignore_label: int | None = None, *, average: str = "macro") -> Metric:
    """2 hits_k / (predicted_k + actual_k): `f1` under the name that segmentation uses.

    Args:
        ignore_label, average: as for `precision`.

    Raises:
        TypeError, ValueError: as in `precision`.

    Example:
        >>> metric = jaxcnn.metrics.dice()
        >>> batch = {"label": jnp.array([[0, 1, 1]]), "weight": jnp.ones(1)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch))), 4)  # (2 / 3 + 2 / 3) / 2
        0.6667

    Source: Dice, "Measures of the amount of ecologic association between species", 1945.
    """
    return _averaged("dice", average, ignore_label, _harmonic_mean)


def mean_iou(ignore_label: int | None = None, *, average: str = "macro") -> Metric:
    """hits_k / (predicted_k + actual_k - hits_k), intersection over union, the mean over classes that occur.

    Args:
        ignore_label, average: as for `precision`; average="none" gives the value of each class.

    Raises:
        TypeError, ValueError: as in `precision`.

    Example:
        >>> metric = jaxcnn.metrics.mean_iou()
        >>> batch = {"label": jnp.array([[0, 1, 1]]), "weight": jnp.ones(1)}
        >>> float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch)))  # (1 / 2 + 1 / 2) / 2
        0.5

    Source: Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010.
    """
    union = lambda hits, predicted, actual: (hits, predicted + actual - hits)
    return _averaged("mean_iou", average, ignore_label, union)


def confusion_matrix(ignore_label: int | None = None) -> Metric:
    """(K, K): how often each class, a row, is predicted as each class, a column.

    Labels are as for `accuracy`; a single output gives (2, 2).

    Args:
        ignore_label: positions with this label do not count.

    Raises:
        TypeError, ValueError: as in `accuracy`.

    Example:
        >>> metric = jaxcnn.metrics.confusion_matrix()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> metric.compute(metric.update(jnp.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]]), batch)).tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """
    ignore_label = check_ignore_label("confusion_matrix", ignore_label)

    def update(output: jax.Array, batch: dict[str, Any]) -> jax.Array:
        logits, label, weight, _ = found = class_examples("confusion_matrix", output, batch, ignore_label)
        classes = logits.shape[-1]
        matrix = bincount(label * classes + predicted_class(logits), weight, classes * classes)
        return found.sums(matrix.reshape(classes, classes))

    return Metric(update, lambda matrix: matrix, label_check(ignore_label))


def _accuracy(name: str, ignore_label: int | None) -> Metric:
    ignore_label = check_ignore_label(name, ignore_label)

    def update(output: jax.Array, batch: dict[str, Any]) -> Counts:
        found = class_examples(name, output, batch, ignore_label)
        return _hits(found, predicted_class(found.output) == found.label)

    return Metric(update, _hit_rate, label_check(ignore_label))


def _hits(found: Examples, hit: jax.Array) -> Counts:
    return found.sums({"hits": jnp.where(hit, found.weight, 0).sum(), "weight": found.weight.sum()})


def _hit_rate(sums: Counts) -> jax.Array:
    return sums["hits"] / sums["weight"]


def _harmonic_mean(hits: jax.Array, predicted: jax.Array, actual: jax.Array) -> tuple[jax.Array, jax.Array]:
    return 2 * hits, predicted + actual


def _averaged(
    name: str, average: str, ignore_label: int | None, parts: Callable[..., tuple[jax.Array, jax.Array]]
) -> Metric:
    """The ratio of two combinations of (hits, predicted, actual), of each class or averaged over classes."""
    check_choice(name, "average", average, ("macro", "micro", "none"))
    ignore_label = check_ignore_label(name, ignore_label)

    def compute(sums: Counts) -> jax.Array:
        counts, occurs = (sums["hits"], sums["predicted"], sums["actual"]), sums["occurs"] > 0
        if average == "none":
            return jnp.where(occurs, ratio(*parts(*counts)), jnp.nan)
        if average == "micro":
            value = ratio(*parts(*(count.sum() for count in counts)))
        else:
            value = ratio(jnp.where(occurs, ratio(*parts(*counts)), 0).sum(), occurs.sum(dtype=jnp.float32))
        return jnp.where(occurs.any(), value, jnp.nan)

    update = lambda output, batch: _class_counts(name, output, batch, ignore_label)
    return Metric(update, compute, label_check(ignore_label))


def _class_counts(name: str, output: jax.Array, batch: dict[str, Any], ignore_label: int | None) -> Counts:
    """Weighted counts (K,), and "occurs": positive for classes that a macro average includes."""
    logits, label, weight, _ = found = examples(name, output, batch, ignore_label)
    classes = logits.shape[-1]
    if found.multi_label:
        predicted, actual = logits > 0, label > 0.5
        count = lambda chosen: jnp.where(chosen, weight, 0).reshape(-1, classes).sum(0)
        sums = {"hits": count(predicted & actual), "predicted": count(predicted), "actual": count(actual)}
        return found.sums(sums | {"occurs": count(True)})
    index, prediction = label.astype(jnp.int32), predicted_class(logits)
    hits = bincount(index, jnp.where(index == prediction, weight, 0), classes)
    predicted, actual = bincount(prediction, weight, classes), bincount(index, weight, classes)
    return found.sums({"hits": hits, "predicted": predicted, "actual": actual, "occurs": predicted + actual})
