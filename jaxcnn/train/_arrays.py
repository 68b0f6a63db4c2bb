"""A tree of arrays as Orbax writes it: random keys as numbers, each array under a name of its own."""

from typing import Any

import jax

from jaxcnn._path import paths


def disk_name(i: int) -> str:
    """The name of an array on disk: no path comes from the names of parameters."""
    return f"{i:06}"


def described(tree: Any) -> dict[str, list[Any]]:
    """path: [shape, dtype] of each array."""
    leaves = (jax.eval_shape(plain, leaf) for leaf in jax.tree.leaves(tree))
    return {path: [[*leaf.shape], leaf.dtype.name] for path, leaf in zip(paths(tree), leaves, strict=True)}


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf: Any) -> Any:
    """The leaf as an array of numbers."""
    return jax.random.key_data(leaf) if is_key(leaf) else jax.numpy.asarray(leaf)


def orbax_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    """What Orbax should make of an array: its shape, and the devices it goes to."""
    spec = jax.eval_shape(plain, leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    elif is_key(leaf):
        sharding = plain(leaf).sharding
    return jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)


def restored_as(like: Any, array: Any) -> Any:
    """What was read, as a leaf like this one; Orbax knows no empty arrays, so they are made anew."""
    if is_key(like):
        impls = ("threefry2x32", "rbg", "unsafe_rbg")
        dtypes = {jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype: impl for impl in impls}  # noqa: B023
        return jax.random.wrap_key_data(array, impl=dtypes[like.dtype])
    return jax.numpy.zeros(like.shape, like.dtype) if array is None else jax.numpy.asarray(array)
