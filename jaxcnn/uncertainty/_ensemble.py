"""Uncertainty of an ensemble, from the class probabilities of its members: networks, or passes with dropout.

    predictive entropy = expected entropy + mutual information

The expected entropy is large for ambiguous inputs (aleatoric uncertainty). The mutual information is large where the
members disagree, as on inputs unlike the training data (epistemic uncertainty). All are in nats; log K is the largest.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr

from jaxcnn.uncertainty._check import checked_probs


def predictive_entropy(probs: Any) -> jax.Array:
    """(members, N, *spatial, K) -> (N, *spatial): the entropy of the mean probabilities.

    H(mean_m p[m]),  H(p) = -sum_k p[k] log p[k]

    Args:
        probs: class probabilities of each member; probs[None] for one network.

    Raises:
        ValueError: for other shapes, or probabilities that do not sum to 1. Inside a compiled function, the result is
            NaN where they do not.

    Example:
        >>> probs = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two members that disagree
        >>> round(float(jaxcnn.uncertainty.predictive_entropy(probs)[0]), 4)  # log 2
        0.6931

    Source: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", 2017.
    """
    return _entropy(_members("predictive_entropy", probs).mean(0))


def expected_entropy(probs: Any) -> jax.Array:
    """(members, N, *spatial, K) -> (N, *spatial): the mean of the members' entropies.

    mean_m H(p[m])

    Args:
        probs: as for `predictive_entropy`.

    Raises:
        ValueError: as in `predictive_entropy`.

    Example:
        >>> probs = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two members that disagree, each of them certain
        >>> jaxcnn.uncertainty.expected_entropy(probs).tolist()
        [0.0]

    Source: Depeweg et al., "Decomposition of uncertainty in Bayesian deep learning", 2018.
    """
    return _entropy(_members("expected_entropy", probs)).mean(0)


def mutual_information(probs: Any) -> jax.Array:
    """(members, N, *spatial, K) -> (N, *spatial): how much the members disagree.

    H(mean_m p[m]) - mean_m H(p[m]) = mean_m KL(p[m] || mean_m p[m])

    Args:
        probs: as for `predictive_entropy`.

    Raises:
        ValueError: as in `predictive_entropy`.

    Example:
        >>> probs = jnp.array([[[0.5, 0.5]], [[0.5, 0.5]]])  # two members that agree on not knowing
        >>> jaxcnn.uncertainty.mutual_information(probs).tolist()
        [0.0]

    Source: Houlsby et al., "Bayesian active learning for classification and preference learning", 2011.
    """
    members = _members("mutual_information", probs)
    mean = members.mean(0, keepdims=True)
    # Of a tiny probability, the mean may count as 0, which would make the divergence infinite.
    least = len(members) * jnp.finfo(members.dtype).tiny
    p = jnp.where(members < least, 0, members)
    divergence = rel_entr(p, jnp.broadcast_to(mean, members.shape)).sum(-1).mean(0)
    # Rounding may make it negative. Of NaN, rel_entr is infinity.
    return jnp.where(jnp.isnan(mean[0]).any(-1), jnp.nan, jnp.maximum(divergence, 0))


def _entropy(p: jax.Array) -> jax.Array:
    """-sum_k p[k] log p[k], with 0 log 0 = 0 and gradient 0 there: an infinite one, times that of softmax, is NaN."""
    log_p = jnp.log(jnp.where(p < jnp.finfo(p.dtype).tiny, 1, p))
    return (-p * log_p).sum(-1)


def _members(name: str, probs: Any) -> jax.Array:
    probs = checked_probs(name, probs)
    if probs.ndim < 3:
        raise ValueError(
            f"{name} needs probabilities (members, N, *spatial, classes), got shape {probs.shape}; "
            "use probs[None] for one network"
        )
    return probs
