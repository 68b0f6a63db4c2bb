"""Checks and conversions of arrays and of their shapes and dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import has_spec, short_repr


def check_array(x: Any, layer: str) -> None:
    """Raise TypeError for anything else than an array or a ShapeDtypeStruct. jnp.asarray would stack a tuple."""
    if not has_spec(x):
        raise TypeError(f"{layer} needs an array, or for init a jax.ShapeDtypeStruct, got {short_repr(x)}")


def as_floating(x: Any, layer: str) -> Any:
    """Return `x` after checking that it is a floating-point array or the ShapeDtypeStruct of one."""
    check_array(x, layer)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        integers = jnp.issubdtype(x.dtype, jnp.integer)
        hint = ": convert and scale it first, as in x.astype(jnp.float32) / 255" if integers else ""
        raise TypeError(f"{layer} needs floating-point input, got {short_repr(x)}{hint}")
    return x if isinstance(x, jax.ShapeDtypeStruct) else as_array(x)


def at_least_float32(x: jax.Array) -> jax.Array:
    """`x` as float32, float64 unchanged: bfloat16 has too few digits for sums and statistics."""
    wide = jnp.issubdtype(x.dtype, jnp.inexact) and jnp.finfo(x.dtype).bits >= 32
    return x if wide else x.astype(jnp.float32)


def spatial_rank(x: Any, layer: str) -> int:
    """The number of spatial dimensions of x (N, *spatial, C), which must be 1 to 3, and not empty."""
    check_array(x, layer)
    rank = len(x.shape) - 2
    if not 1 <= rank <= 3:
        hint = "; for signals (N, T), pass x[..., None]" if rank == 0 else ""
        raise ValueError(
            f"{layer} needs (N, *spatial, C) with 1 to 3 spatial dimensions, such as images (N, H, W, C), "
            f"got shape {x.shape}{hint}"
        )
    if 0 in x.shape[1:-1]:
        raise ValueError(f"{layer} needs at least one position in each spatial dimension, got shape {x.shape}")
    return rank


def spec_of(x: Any, batch: Any = None) -> Any:
    """The `jax.ShapeDtypeStruct` of each array in a tree, of another batch size if given.

    Without jax_enable_x64, 64 bits become 32. NumPy arrays get the dtype of `readable`.
    """

    def spec(leaf):
        dtype = readable_dtype(leaf.dtype) if isinstance(leaf, np.ndarray) else leaf.dtype
        dtype = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct(leaf.shape if batch is None else (batch, *leaf.shape[1:]), dtype)

    return jax.tree.map(spec, x)


def readable(value: Any) -> Any:
    """A NumPy array in its `readable_dtype`. Other values are returned unchanged."""
    return value.astype(readable_dtype(value.dtype), copy=False) if isinstance(value, np.ndarray) else value


def readable_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in the byte order of this machine, as JAX does not swap bytes; float64 for a longer float."""
    dtype = dtype.newbyteorder("=")
    return np.dtype(np.float64) if dtype == np.longdouble else dtype


def as_array(x: Any) -> jax.Array:
    """As `jnp.asarray`, also for NumPy arrays in another byte order or of long doubles."""
    return jnp.asarray(readable(x))
