"""Detection of inputs unlike the training data (out of distribution)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._loss import check_output
from jaxcnn.metrics import auroc


def ood_auroc(scores_in: Any, scores_out: Any) -> jax.Array:
    """(N,), (M,) -> scalar: the probability that an unknown input has a higher score than a known one.

    AUROC = mean over n, m of [scores_in[n] < scores_out[m]] + [scores_in[n] = scores_out[m]] / 2

    1 is perfect detection, 0.5 is chance.

    Args:
        scores_in: uncertainty of inputs like the training data, such as `predictive_entropy` or -probs.max(-1).
        scores_out: uncertainty of other inputs.

    Raises:
        TypeError: for complex scores.
        ValueError: for other shapes, or no scores.

    Example:
        >>> float(jaxcnn.uncertainty.ood_auroc(jnp.array([0.1, 0.4]), jnp.array([0.35, 0.8])))
        0.75

    Source: Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural
    networks", 2017.
    """
    parts = [jnp.asarray(scores) for scores in (scores_in, scores_out)]
    for name, part in zip(("scores_in", "scores_out"), parts, strict=True):
        check_output(f"ood_auroc: {name}", part, floating=False)
    if any(part.ndim != 1 or not len(part) for part in parts):
        raise ValueError(f"ood_auroc needs scores (N,) and (M,), got shapes {parts[0].shape} and {parts[1].shape}")
    label = np.repeat([0, 1], [len(part) for part in parts])
    batch = {"label": jnp.asarray(label, jnp.int32), "weight": jnp.ones(len(label), jnp.float32)}
    metric = auroc()
    return metric.compute(metric.update(jnp.concatenate(parts)[:, None], batch))
