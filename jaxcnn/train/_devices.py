"""Data parallelism: each device has all parameters and its rows of every batch."""

from typing import Any

import jax
import numpy as np

from jaxcnn.data import Source


def replicated_sharding() -> jax.NamedSharding:
    """The sharding of what each device of each process has a copy of."""
    return jax.NamedSharding(_mesh(), jax.P())


def batch_sharding() -> jax.NamedSharding:
    """The sharding of what is split along its first dimension."""
    return jax.NamedSharding(_mesh(), jax.P("data"))


def replicate(tree: Any) -> Any:
    """The arrays, which all processes have, on each device."""

    def copy(leaf):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(copy(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        # An array of one process cannot be put on devices of another; its values can.
        return jax.device_put(leaf if jax.process_count() == 1 else np.asarray(leaf), replicated_sharding())

    return jax.tree.map(copy, tree)


def global_batch(rows: Any) -> Any:
    """One batch of the rows that each process has, split over the devices."""
    return jax.tree.map(lambda part: jax.make_array_from_process_local_data(batch_sharding(), np.asarray(part)), rows)


def to_devices(source: Source) -> Source:
    """The source on the devices: data in memory are copied to each, the batches of a stream are split over them."""
    if source.stream is None:
        return source._replace(arrays=replicate(source.arrays))
    # Rows have their weights, if they need some, before they are split.
    return source._replace(stream=lambda step: map(global_batch, source.batches(step)), shuffle=True)


def all_gather(value: int) -> list[int]:
    """The value that each process has."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.int64(value)).reshape(-1).tolist()


def _mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
