"""Validation of class, channel and layer arguments."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._jax import Tracer


def check_path(name: str, layer: Any) -> str:
    """Return the path of a layer, or raise TypeError for anything but a string."""
    if not isinstance(layer, str):
        raise TypeError(f"{name}: layer must be the path of a layer, such as 'conv1', got {short_repr(layer)}")
    return layer


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
