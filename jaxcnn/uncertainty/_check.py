"""Checks of probabilities, logits and labels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._array import as_floating, at_least_float32
from jaxcnn._validate import check_labels, first_true, fraction_tolerance, is_concrete


def checked_logits(name: str, logits: Any) -> jax.Array:
    """Logits or probabilities (N, *spatial, K) in at least float32; raises an error for another shape or dtype."""
    values = at_least_float32(jnp.asarray(as_floating(logits, name)))
    if values.ndim < 2 or 0 in values.shape:
        raise ValueError(f"{name} needs (N, *spatial, classes), got {short_repr(values)}")
    return values


def checked_probs(name: str, probs: Any) -> jax.Array:
    """Class probabilities in at least float32. Invalid ones raise an error, or are NaN if their values are traced."""
    values, tolerance = checked_logits(name, probs), fraction_tolerance(jnp.asarray(probs).dtype)
    if is_concrete(probs):
        rows = np.asarray(values)
        bad = ~_is_distribution(rows, tolerance)
        if bad.any():
            index, at = first_true(bad)
            raise ValueError(
                f"{name}: probs[{at}] has the smallest value {rows[index].min():.4g} and the sum "
                f"{rows[index].sum():.4g}; probabilities must be non-negative and sum to 1: use jax.nn.softmax(logits)"
            )
    return jnp.where(_is_distribution(values, tolerance)[..., None], values, jnp.nan)


def check_not_probs(name: str, logits: Any) -> None:
    """Raise ValueError if all rows of the logits are probabilities."""
    values = np.asarray(logits)
    if _is_distribution(values.astype(np.float32), fraction_tolerance(values.dtype)).all():
        raise ValueError(f"{name} needs logits, got rows that are probabilities; use jnp.log of them")


def _is_distribution(rows: Any, tolerance: float) -> Any:
    """Which rows (.., K) are non-negative and sum to 1."""
    return (rows >= 0).all(-1) & (abs(rows.sum(-1) - 1) <= tolerance)


def checked_labels(name: str, labels: Any, probs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Probabilities (N, *spatial, K) or other values of classes, and integer classes (N, *spatial).

    Invalid classes raise an error; if their values are traced, the probabilities are NaN there.
    """
    array = jnp.asarray(labels)
    if not jnp.issubdtype(array.dtype, jnp.integer) or array.shape != probs.shape[:-1]:
        raise ValueError(
            f"{name} needs integer labels of shape {probs.shape[:-1]} for {probs.shape}, got {short_repr(array)}"
        )
    if is_concrete(labels):
        check_labels(name, labels, probs.shape[-1])
    classes = array.astype(jnp.int32)
    valid = (classes >= 0) & (classes < probs.shape[-1])
    return jnp.where(valid[..., None], probs, jnp.nan), classes


def as_number(value: Any) -> Any:
    """A scalar array with a known value as a Python number, for `check_number`; anything else unchanged."""
    is_scalar = isinstance(value, jax.Array | np.ndarray) and value.ndim == 0
    return value.item() if is_scalar and is_concrete(value) else value


def of_label(values: jax.Array, labels: jax.Array) -> jax.Array:
    """(N, *spatial, K), (N, *spatial) -> (N, *spatial): the value of the class in `labels`."""
    return jnp.take_along_axis(values, labels[..., None], -1)[..., 0]
