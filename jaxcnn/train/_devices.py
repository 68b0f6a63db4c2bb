"""Data parallelism: parameters are replicated on all devices, and each batch is split over them."""

from typing import Any

import jax
import numpy as np

from jaxcnn.data import Source
from jaxcnn.train._config import ConfigError


def replicated_sharding() -> jax.NamedSharding:
    """The sharding of arrays that are replicated on all devices of all processes."""
    return jax.NamedSharding(_mesh(), jax.P())


def batch_sharding() -> jax.NamedSharding:
    """The sharding of arrays that are split along their first dimension."""
    return jax.NamedSharding(_mesh(), jax.P("data"))


def replicate(tree: Any) -> Any:
    """Replicate arrays on all devices. Every process must have the same values."""

    def copy(leaf):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        # An array cannot be moved to the devices of another process; its NumPy values can.
        return jax.device_put(leaf if jax.process_count() == 1 else np.asarray(leaf), replicated_sharding())

    return jax.tree.map(copy, tree)


def global_batch(rows: Any) -> Any:
    """The global batch of the rows of all processes, split over the devices."""
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(batch_sharding(), np.asarray(part)), rows)


def to_devices(source: Source) -> Source:
    """The source on the devices: data in memory are replicated, the batches of a stream are split.

    Raises:
        ValueError: inside `jax.set_mesh`, whose mesh would have to be that of all arrays.
    """
    if not jax.sharding.get_abstract_mesh().empty:
        raise ValueError("training splits batches over all devices by itself: call it outside of jax.set_mesh")
    if source.stream is None:
        return source._replace(arrays=replicate(source.arrays))
    return source._replace(stream=lambda step: map(global_batch, source.batches(step)))


def check_multiple_of_devices(what: str, batch_size: int) -> None:
    """Raise ConfigError for a batch size that cannot be split over the devices."""
    if batch_size % (devices := jax.device_count()):
        raise ConfigError(f"{what} must be a multiple of the number of devices, {devices}, got {batch_size}")


def all_gather(value: int) -> list[int]:
    """The values of all processes."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.int64(value)).reshape(-1).tolist()


def _mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
