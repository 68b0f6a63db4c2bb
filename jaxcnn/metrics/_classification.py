"""Metrics of classes: of images, of positions (segmentation), and of several labels per image (multi-label).

For K classes, `output` holds logits (N, *spatial, K). Labels with the shape of the output are multi-label: class k is
predicted where its logit is positive. Other labels are integer classes (N, *spatial), and the class with the largest
logit is predicted. All metrics follow from three counts for each class k, weighted by `batch["weight"]`:

    hits_k: label and prediction are k     predicted_k: the prediction is k     actual_k: the label is k
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._window import check_choice, check_integer
from jaxcnn.metrics._metric import Metric, row_weights

Counts = dict[str, jax.Array]


def accuracy(ignore_label: int | None = None) -> Metric:
    """The fraction of examples, or positions, whose largest logit is that of the label.

    Args:
        ignore_label: positions with this label do not count.

    Labels are integer classes (N, *spatial), or class probabilities (N, *spatial, K), whose largest entry counts.

    Example:
        >>> metric = jaxcnn.metrics.accuracy()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3), batch))), 4)
        0.6667
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> Counts:
        label = jnp.asarray(batch["label"])
        label = label.argmax(-1) if label.ndim == output.ndim else label
        weight = row_weights(label, batch["weight"], ignore_label)
        return {"hits": jnp.where(output.argmax(-1) == label, weight, 0).sum(), "weight": weight.sum()}

    return Metric(update, lambda sums: _ratio(sums["hits"], sums["weight"]))


def pixel_accuracy(ignore_label: int | None = None) -> Metric:
    """The fraction of positions with the right class: `accuracy` under the name that segmentation uses.

    Args:
        ignore_label: positions with this label do not count.

    Example:
        >>> metric = jaxcnn.metrics.pixel_accuracy(ignore_label=255)
        >>> batch = {"label": jnp.array([[0, 1, 255]]), "weight": jnp.ones(1)}
        >>> float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch)))
        1.0
    """
    return accuracy(ignore_label)


def top_k(k: int = 5) -> Metric:
    """The fraction of examples whose label has one of the k largest logits.

    Args:
        k: at least 1.

    Example:
        >>> metric = jaxcnn.metrics.top_k(2)
        >>> batch = {"label": jnp.array([1, 2]), "weight": jnp.ones(2)}
        >>> float(metric.compute(metric.update(jnp.array([[3.0, 2.0, 1.0]] * 2), batch)))
        0.5
    """
    k = check_integer("top_k", "k", k, 1)

    def update(output: jax.Array, batch: dict[str, Any]) -> Counts:
        label = jnp.asarray(batch["label"])
        weight = row_weights(label, batch["weight"], None)
        of_label = jnp.take_along_axis(output, label[..., None].astype(jnp.int32), -1)
        rank = (output > of_label).sum(-1)
        return {"hits": jnp.where(rank < k, weight, 0).sum(), "weight": weight.sum()}

    return Metric(update, lambda sums: _ratio(sums["hits"], sums["weight"]))


def precision(average: str = "macro", ignore_label: int | None = None) -> Metric:
    """hits_k / predicted_k: which fraction of the predictions of a class is right; 0 without predictions.

    Args:
        average: "macro": the mean over classes; "micro": one ratio of the counts summed over classes.
        ignore_label: positions with this label do not count.

    A macro average is over the classes that occur as a label or a prediction; for multi-label over all classes.

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

    Example:
        >>> metric = jaxcnn.metrics.f1("micro")
        >>> batch = {"label": jnp.array([[1, 0], [1, 1]]), "weight": jnp.ones(2)}
        >>> round(float(metric.compute(metric.update(jnp.array([[2.0, -1.0], [1.0, -1.0]]), batch))), 4)
        0.8
    """
    return _averaged("f1", average, ignore_label, lambda hits, predicted, actual: (2 * hits, predicted + actual))


def dice(ignore_label: int | None = None) -> Metric:
    """2 hits_k / (predicted_k + actual_k), the mean over classes: macro `f1` under the name that segmentation uses.

    Args:
        ignore_label: positions with this label do not count.

    Example:
        >>> metric = jaxcnn.metrics.dice()
        >>> batch = {"label": jnp.array([[0, 1, 1]]), "weight": jnp.ones(1)}
        >>> round(float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch))), 4)  # (2 / 3 + 2 / 3) / 2
        0.6667

    Source: Dice, "Measures of the amount of ecologic association between species", 1945.
    """
    return f1("macro", ignore_label)


def mean_iou(ignore_label: int | None = None) -> Metric:
    """hits_k / (predicted_k + actual_k - hits_k), intersection over union, the mean over classes that occur.

    Args:
        ignore_label: positions with this label do not count.

    Example:
        >>> metric = jaxcnn.metrics.mean_iou()
        >>> batch = {"label": jnp.array([[0, 1, 1]]), "weight": jnp.ones(1)}
        >>> float(metric.compute(metric.update(jnp.eye(3)[None, :, :2], batch)))  # (1 / 2 + 1 / 2) / 2
        0.5

    Source: Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010.
    """
    union = lambda hits, predicted, actual: (hits, predicted + actual - hits)
    return _averaged("mean_iou", "macro", ignore_label, union)


def confusion_matrix(ignore_label: int | None = None) -> Metric:
    """(K, K): how often each class, a row, is predicted as each class, a column.

    Args:
        ignore_label: positions with this label do not count.

    Example:
        >>> metric = jaxcnn.metrics.confusion_matrix()
        >>> batch = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}
        >>> metric.compute(metric.update(jnp.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]]), batch)).tolist()
        [[1.0, 0.0], [1.0, 1.0]]
    """

    def update(output: jax.Array, batch: dict[str, Any]) -> jax.Array:
        classes, label = output.shape[-1], jnp.asarray(batch["label"])
        weight = row_weights(label, batch["weight"], ignore_label)
        pairs = _class_index(label, weight) * classes + output.argmax(-1)
        return _bincount(pairs, weight, classes * classes).reshape(classes, classes)

    return Metric(update, lambda matrix: matrix)


def _averaged(
    name: str, average: str, ignore_label: int | None, ratio: Callable[..., tuple[jax.Array, jax.Array]]
) -> Metric:
    """The ratio of two combinations of (hits, predicted, actual), averaged over classes."""
    check_choice(name, "average", average, ("macro", "micro"))

    def compute(sums: Counts) -> jax.Array:
        counts = sums["hits"], sums["predicted"], sums["actual"]
        if average == "micro":
            return _ratio(*ratio(*(count.sum() for count in counts)))
        occurs = sums["occurs"] > 0
        return _ratio(jnp.where(occurs, _ratio(*ratio(*counts)), 0).sum(), occurs.sum(dtype=jnp.float32))

    return Metric(lambda output, batch: _class_counts(output, batch, ignore_label), compute)


def _class_counts(output: jax.Array, batch: dict[str, Any], ignore_label: int | None) -> Counts:
    """Weighted counts (K,), and "occurs": positive for classes that a macro average includes."""
    classes, label = output.shape[-1], jnp.asarray(batch["label"])
    weight = row_weights(label, batch["weight"], ignore_label)
    if label.shape == output.shape:
        predicted, actual = jnp.where(output > 0, weight, 0), jnp.where(label > 0.5, weight, 0)
        counts = {"hits": jnp.where(label > 0.5, predicted, 0), "predicted": predicted, "actual": actual}
        sums = {name: values.reshape(-1, classes).sum(0) for name, values in counts.items()}
        return sums | {"occurs": jnp.ones(classes, weight.dtype)}
    index, prediction = _class_index(label, weight), output.argmax(-1)
    hits = _bincount(index, jnp.where(index == prediction, weight, 0), classes)
    predicted, actual = _bincount(prediction, weight, classes), _bincount(index, weight, classes)
    return {"hits": hits, "predicted": predicted, "actual": actual, "occurs": predicted + actual}


def _class_index(label: jax.Array, weight: jax.Array) -> jax.Array:
    """The labels, 0 where they do not count: an ignored label may be any integer."""
    return jnp.where(weight > 0, label, 0).astype(jnp.int32)


def _bincount(index: jax.Array, weight: jax.Array, length: int) -> jax.Array:
    return jnp.zeros(length, weight.dtype).at[index.ravel()].add(weight.ravel())


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator; 0 where the denominator is 0."""
    return numerator / jnp.where(denominator > 0, denominator, 1)
