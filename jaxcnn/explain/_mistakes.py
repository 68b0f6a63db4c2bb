"""Which classes a network takes for which, and where it is most wrong."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import as_floating, at_least_float32, short_repr
from jaxcnn._window import check_integer
from jaxcnn.explain._labels import checked_classes


class Mistakes(NamedTuple):
    """Examples that were put into a wrong class, the largest loss first: one value of each array for each of them."""

    index: jax.Array  # type: ignore[assignment]  # among all examples; tuples have a method of this name
    label: jax.Array
    predicted: jax.Array
    label_probability: jax.Array  # of its class
    predicted_probability: jax.Array  # of the class it was put into


def confusion_matrix(labels: Any, predictions: Any, classes: int) -> jax.Array:
    """(N,), (N,) -> (classes, classes): how many examples of each class were put into which.

    matrix[i, j] = number of n with labels[n] = i and predictions[n] = j

    Args:
        labels: the classes of the examples, ints (N,).
        predictions: the classes they were put into, such as logits.argmax(-1).
        classes: their number.

    Raises:
        TypeError: for labels or predictions that are not ints.
        ValueError: for other shapes, or a class that is not there.

    Example:
        >>> jaxcnn.explain.confusion_matrix([0, 0, 1], [0, 1, 1], 2)
        Array([[1, 1],
               [0, 1]], dtype=int32)
    """
    check_integer("confusion_matrix", "classes", classes)
    labels = checked_classes("confusion_matrix: labels", labels, np.size(labels), classes)
    predictions = checked_classes("confusion_matrix: predictions", predictions, len(labels), classes)
    return jnp.zeros((classes, classes), jnp.int32).at[labels, predictions].add(1, wrap_negative_indices=False)


def worst_mistakes(logits: Any, labels: Any, n: int) -> Mistakes:
    """(N, classes), (N,) -> the at most n examples in a wrong class whose own class has the smallest probability.

    loss[i] = -log softmax(logits[i])[labels[i]],  over the i with argmax(logits[i]) other than labels[i]

    Not for `jax.jit`: how many mistakes there are, and so the shapes, depends on the values.

    Args:
        logits: the model's outputs, (N, classes).
        labels: the classes of the examples, ints (N,).
        n: how many, at most.

    Raises:
        TypeError: for logits that are not floating-point or labels that are not ints.
        ValueError: for other shapes, or a class that is not there.

    Example:
        >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
        >>> mistakes = jaxcnn.explain.worst_mistakes(logits, [1, 0, 0], 10)
        >>> [(int(i), f"{p:.1%}") for i, p in zip(mistakes.index, mistakes.label_probability)]
        [(0, '10.0%'), (2, '30.0%')]
    """
    check_integer("worst_mistakes", "n", n)
    logits = at_least_float32(as_floating(logits, "worst_mistakes"))
    if logits.ndim != 2:
        raise ValueError(f"worst_mistakes needs logits (N, classes), got {short_repr(logits)}")
    labels = checked_classes("worst_mistakes: labels", labels, *logits.shape)
    predicted = logits.argmax(-1)
    log_probability = jax.nn.log_softmax(logits)
    of_label = jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]
    wrong = jnp.flatnonzero(predicted != labels)
    index = wrong[jnp.argsort(of_label[wrong])][:n]
    return Mistakes(
        index, labels[index], predicted[index], jnp.exp(of_label[index]), jnp.exp(log_probability.max(-1)[index])
    )
