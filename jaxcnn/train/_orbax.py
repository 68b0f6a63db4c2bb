"""Conversion of a tree to and from what Orbax writes: random keys as integers, each array under a numbered name."""

from typing import Any

import jax

from jaxcnn._path import leaves_by_path


def disk_name(i: int) -> str:
    """The file name of array number i. Parameter names are not used, as they may not be valid file names."""
    return f"{i:06}"


def shapes_and_dtypes(tree: Any) -> dict[str, list[Any]]:
    """path -> [shape, dtype] of each array."""
    specs = {path: jax.eval_shape(without_key_type, leaf) for path, leaf in leaves_by_path(tree).items()}
    return {path: [[*spec.shape], spec.dtype.name] for path, spec in specs.items()}


def is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def without_key_type(leaf: Any) -> Any:
    """The leaf as an array; a random key as its uint32 data."""
    return jax.random.key_data(leaf) if is_key(leaf) else jax.numpy.asarray(leaf)


def orbax_spec(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape, dtype and sharding that Orbax restores the leaf with."""
    spec = jax.eval_shape(without_key_type, leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    elif is_key(leaf):
        sharding = without_key_type(leaf).sharding
    return jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=sharding)


def restored_leaf(like: Any, array: Any) -> Any:
    """The restored array as a leaf of the type of `like`. Orbax cannot save empty arrays: None gives an empty one."""
    if is_key(like):
        impls = ("threefry2x32", "rbg", "unsafe_rbg")
        dtypes = {jax.eval_shape(lambda: jax.random.key(0, impl=impl)).dtype: impl for impl in impls}  # noqa: B023
        return jax.random.wrap_key_data(array, impl=dtypes[like.dtype])
    return jax.numpy.zeros(like.shape, like.dtype) if array is None else jax.numpy.asarray(array)
