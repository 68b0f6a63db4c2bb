"""Classes and channels as they are given to a function."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._jax import Tracer


def checked_classes(name: str, values: Any, n: int, classes: int) -> Any:
    """`values` as ints (n,), if they are ints from 0 to classes - 1, or one such int for all.

    Inside of a transformation, which values they are is not known, and only type and shape are checked.
    """
    known = not isinstance(values, Tracer)
    values = np.asarray(values) if known else values
    if not jnp.issubdtype(values.dtype, jnp.integer):
        raise TypeError(f"{name} must be an int or an array of ints ({n},), got {values.dtype} of shape {values.shape}")
    if values.shape not in ((), (n,)):
        raise ValueError(f"{name} must be an int or have shape ({n},), one for each example, got shape {values.shape}")
    if known and (wrong := values[(values < 0) | (values >= classes)]).size:
        raise ValueError(f"{name} must be from 0 to {classes - 1}, got {wrong[0]}")
    return jnp.broadcast_to(values, (n,))
