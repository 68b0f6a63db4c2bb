"""Random keys: one for each child, derived from its name."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr


def child_key(key: jax.Array, name: str) -> jax.Array:
    """The key for the child `name`. It depends only on the name, so adding a sibling changes no other key."""
    return fold_in(check_key(key), np.uint32(zlib.crc32(name.encode())))


def transform_keys(key: jax.Array, name: str) -> tuple[jax.Array, jax.Array]:
    """A key for a transform and a key for the layer inside it. Child names have no leading slash, so no key repeats."""
    return child_key(key, f"/{name}"), child_key(key, "/inside")


def key_spec() -> Any:
    """The shape and dtype of a random key, for `jax.eval_shape`."""
    return jax.eval_shape(lambda: jax.random.key(0))


def check_key(key: Any) -> jax.Array:
    """Return `key` if it is one random key, else raise TypeError."""
    dtype = getattr(key, "dtype", None)
    new_style = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not new_style and dtype != jnp.uint32:
        raise TypeError(f"key must be a random key such as jax.random.key(0), got {short_repr(key)}")
    if key.ndim != (0 if new_style else 1):  # jax.random.PRNGKey(0) has a dimension for its numbers
        raise TypeError(
            f"key must be one random key such as jax.random.key(0), got {short_repr(key)}; for several, use jax.vmap"
        )
    return key


def require_key(key: jax.Array | None, layer: str) -> jax.Array:
    """Return the key that a random layer needs in training, or raise an error that says how to pass one."""
    if key is None:
        raise ValueError(f"{layer} is random in training: call apply(..., train=True, key=jax.random.key(...))")
    return check_key(key)


fold_in = jax.jit(jax.random.fold_in, inline=True)  # outside of jit, it takes a tenth of the time
