"""Validation of class and channel arguments."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._jax import Tracer


def checked_classes(name: str, values: Any, n: int, classes: int) -> Any:
    """Return `values`, one int or ints (n,) from 0 to classes - 1, as an array (n,).

    Under a JAX transformation the values are unknown; only dtype and shape are checked.
    """
    is_concrete = not isinstance(values, Tracer)
    values = np.asarray(values) if is_concrete else values
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"{name} must be an int or an array of ints ({n},), got {values.dtype} of shape {values.shape}")
    if values.shape not in ((), (n,)):
        raise ValueError(f"{name} must be an int or have shape ({n},), one per example, got shape {values.shape}")
    if is_concrete and (invalid := values[(values < 0) | (values >= classes)]).size:
        raise ValueError(f"{name} must be from 0 to {classes - 1}, got {invalid[0]}")
    return jnp.broadcast_to(values, (n,))
