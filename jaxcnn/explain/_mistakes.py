"""The confusion matrix and the worst mistakes of a classifier."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._array import as_floating, at_least_float32
from jaxcnn.explain._labels import checked_classes


class Mistakes(NamedTuple):
    """Misclassified examples, largest loss first. Each array has one value per example."""

    index: jax.Array  # type: ignore[assignment]  # among all examples; overrides tuple.index
    label: jax.Array
    predicted: jax.Array
    label_probability: jax.Array  # of the true class
    predicted_probability: jax.Array  # of the predicted class


def confusion_matrix(labels: Any, predictions: Any, classes: int) -> jax.Array:
    """(N,), (N,) -> (classes, classes): count the examples for each pair of true and predicted class.

    matrix[i, j] = number of n with labels[n] = i and predictions[n] = j

    Args:
        labels: true classes, ints (N,).
        predictions: predicted classes, ints (N,), for example logits.argmax(-1).
        classes: number of classes.

    Raises:
        TypeError: if labels or predictions are not ints.
        ValueError: if a shape is wrong or a class is out of range.

    Example:
        >>> jaxcnn.explain.confusion_matrix([0, 0, 1], [0, 1, 1], 2)
        Array([[1, 1],
               [0, 1]], dtype=int32)
    """
    classes = check_integer("confusion_matrix", "classes", classes)
    if np.ndim(labels) > 1:
        raise ValueError(
            f"confusion_matrix: labels must be ints of shape (N,), got {short_repr(labels)}; the order of the "
            "arguments is (labels, predictions, classes), and predictions are logits.argmax(-1)"
        )
    labels = checked_classes("confusion_matrix: labels", labels, np.size(labels), classes)
    predictions = checked_classes("confusion_matrix: predictions", predictions, len(labels), classes)
    return jnp.zeros((classes, classes), jnp.int32).at[labels, predictions].add(1, wrap_negative_indices=False)


def worst_mistakes(logits: Any, labels: Any, n: int) -> Mistakes:
    """(N, classes), (N,) -> up to n misclassified examples, lowest probability of the true class first.

    loss[i] = -log softmax(logits[i])[labels[i]],  for all i with argmax(logits[i]) != labels[i]

    Examples whose probabilities are NaN, as one of their logits is NaN or infinity, are mistakes and come first.

    Does not work under `jax.jit`, because the output shapes depend on the number of mistakes.

    Args:
        logits: outputs of the model, (N, classes).
        labels: true classes, ints (N,).
        n: maximum number of mistakes.

    Raises:
        TypeError: if logits are not floating-point or labels are not ints.
        ValueError: if a shape is wrong or a class is out of range.

    Example:
        >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
        >>> mistakes = jaxcnn.explain.worst_mistakes(logits, [1, 0, 0], 10)
        >>> [(int(i), f"{p:.1%}") for i, p in zip(mistakes.index, mistakes.label_probability)]
        [(0, '10.0%'), (2, '30.0%')]
    """
    n = check_integer("worst_mistakes", "n", n)
    logits = at_least_float32(as_floating(logits, "worst_mistakes"))
    if logits.ndim != 2:
        raise ValueError(f"worst_mistakes needs logits (N, classes), got {short_repr(logits)}")
    labels = checked_classes("worst_mistakes: labels", labels, *logits.shape)
    predicted = lax.argmax(logits, 1, jnp.int32)
    log_probability = jax.nn.log_softmax(logits)
    of_label = jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]
    undefined = jnp.isnan(of_label)
    wrong = jnp.flatnonzero((predicted != labels.astype(jnp.int32)) | undefined)
    index = wrong[jnp.lexsort((of_label[wrong], ~undefined[wrong]))][:n]
    return Mistakes(
        index, labels[index], predicted[index], jnp.exp(of_label[index]), jnp.exp(log_probability.max(-1)[index])
    )
