"""Conformal prediction: sets of classes that contain the label with a given probability, for any network.

The guarantee: if calibration and test examples are exchangeable, then over draws of both

    P(label in set) >= coverage,  and < coverage + 1 / (n + 1) for scores without ties,

with n calibration examples. It holds for all inputs together, not for each class.

Source: Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; Papadopoulos et al., "Inductive
confidence machines for regression", 2002 (split conformal prediction).
"""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, check_number
from jaxcnn._key import check_key
from jaxcnn.uncertainty._check import as_number, checked_labels, checked_probs, of_label

_SCORES = ("lac", "aps")


def conformal_threshold(
    probs: Any, labels: Any, *, coverage: float = 0.9, score: str = "lac", key: jax.Array | None = None
) -> jax.Array:
    """(N, K), (N,) -> the scalar threshold of scores for `conformal_sets`, from N calibration examples.

    threshold = the ceil((N + 1) coverage)-th smallest score[n, labels[n]];  infinity if that is more than N

    score "lac":  1 - probs[n, k]
    score "aps":  sum of probs[n, j] over classes j more probable than k, plus u[n] probs[n, k],  u[n] ~ U(0, 1),
                  where of equally probable classes, the first counts as more probable

    Args:
        probs: class probabilities of examples that were not used for training.
        labels: integer classes.
        coverage: probability that a set contains the label, in (0, 1).
        score: "lac" gives the smallest sets; "aps" gives larger sets to difficult inputs and smaller ones to easy
            inputs.
        key: draws u of "aps". Without a key u = 1, and the sets are larger than needed.

    Raises:
        ValueError: if an argument is out of range or of another shape. Inside a compiled function, invalid
            probabilities or labels make the threshold NaN instead.

    Example:
        >>> probs = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])
        >>> threshold = jaxcnn.uncertainty.conformal_threshold(probs, [0, 0, 1, 0], coverage=0.8)
        >>> round(float(threshold), 4)  # the 4th of 0.1, 0.2, 0.3, 0.4
        0.4

    Source: Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", 2019
    ("lac"); Romano, Sesia and Candes, "Classification with valid and adaptive coverage", 2020 ("aps").
    """
    name = "conformal_threshold"
    if not 0 < check_number(name, "coverage", coverage) < 1:
        raise ValueError(f"{name}: coverage must be above 0 and below 1, got {coverage}")
    values = of_label(*checked_labels(name, labels, _scores(name, probs, score, key)))
    rank = max(1, math.ceil((len(values) + 1) * coverage - 1e-9))  # 1e-9: (n + 1) * coverage may be rounded up
    threshold = jnp.sort(values)[rank - 1] if rank <= len(values) else jnp.full((), jnp.inf, values.dtype)
    return jnp.where(jnp.isnan(values).any(), jnp.nan, threshold)


def conformal_sets(probs: Any, threshold: Any, *, score: str = "lac", key: jax.Array | None = None) -> jax.Array:
    """(N, K) -> bool (N, K): which classes are in the prediction set of each example.

    set[n] = {k: score[n, k] <= threshold}

    A set is empty if the scores of all classes are above the threshold.

    Args:
        probs: class probabilities.
        threshold: a number, from `conformal_threshold` with the same score.
        score: as for `conformal_threshold`.
        key: draws u of "aps", if the threshold was computed with a key. Use a different key.

    Raises:
        TypeError: if threshold is not a number.
        ValueError: for an unknown score, a threshold that is NaN, or another shape, or probabilities that do not sum to
            1. Inside a compiled function, the sets of invalid probabilities are empty instead.

    Example:
        >>> jaxcnn.uncertainty.conformal_sets(jnp.array([[0.7, 0.3], [0.5, 0.5]]), 0.5).tolist()
        [[True, False], [True, True]]

    Source: as for `conformal_threshold`.
    """
    name = "conformal_sets"
    threshold = _checked_threshold(name, threshold)
    scores = _scores(name, probs, score, key)
    return scores <= jnp.asarray(threshold, scores.dtype)


def _checked_threshold(name: str, threshold: Any) -> Any:
    threshold = as_number(threshold)
    if isinstance(threshold, numbers.Real) and math.isnan(threshold):
        raise ValueError(f"{name}: threshold is NaN; use the one that conformal_threshold returned")
    return check_number(name, "threshold", threshold, -math.inf, math.inf, closed=True)


def _scores(name: str, probs: Any, score: str, key: jax.Array | None) -> jax.Array:
    """(N, K): the score of each class."""
    check_choice(name, "score", score, _SCORES)
    probs = checked_probs(name, probs)
    if probs.ndim != 2:
        raise ValueError(f"{name} needs probabilities (N, classes), got shape {probs.shape}")
    if score == "lac":
        if key is not None:
            raise ValueError(f'{name}: score="lac" is not random; omit the key, or use score="aps"')
        return 1 - probs
    order = jnp.argsort(-probs)
    ordered = jnp.take_along_axis(probs, order, -1)
    more_probable = jnp.pad(jnp.cumsum(ordered, -1)[:, :-1], ((0, 0), (1, 0)))
    u = jnp.ones((), probs.dtype) if key is None else jax.random.uniform(check_key(key), (len(probs), 1), probs.dtype)
    return jnp.put_along_axis(probs, order, more_probable + u * ordered, -1, inplace=False)
