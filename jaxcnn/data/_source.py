"""A common interface to all kinds of training data: batches by step."""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._arguments import check_integer, has_spec, short_repr
from jaxcnn._array import readable, readable_dtype, spec_of
from jaxcnn._key import child_key
from jaxcnn._validate import check_batch
from jaxcnn.data._error import DataError
from jaxcnn.data._load import Dataset
from jaxcnn.data._stream import Stream

Batch = dict[str, Any]


class Source(NamedTuple):
    """Training data as batches by step, from arrays in memory or from a stream. Created by `source`.

    spec: shape and dtype of each entry of a global batch (all processes together).
    steps: batches per epoch.
    shuffle: True for a new order in each epoch. False for all rows in order: all batches have weights, and the last
        batch of an epoch is padded with rows of weight 0. A stream defines its own order.
    arrays: all rows of data in memory; None for a stream.
    stream: step -> iterator over the batches from that step on; None for data in memory.
    description: the fingerprint of a stream.
    """

    spec: dict[str, jax.ShapeDtypeStruct]
    steps: int
    shuffle: bool
    arrays: dict[str, Any] | None = None
    stream: Callable[[int], Iterator[Batch]] | None = None
    description: str = ""

    @property
    def batch_size(self) -> int:
        return next(iter(self.spec.values())).shape[0]

    @property
    def fingerprint(self) -> str:
        """A checksum of values, shapes and dtypes. For a stream: batch shape, dtype and the stream's fingerprint."""
        if self.arrays is None:
            image = self.spec["image"]
            return f"{self.steps} batches {_shape_text(image.shape)} {image.dtype} {self.description}".rstrip()
        return " ".join(array_fingerprint(name, self.arrays[name]) for name in sorted(self.arrays))

    def batches(self, step: int = 0, key: jax.Array | None = None) -> Iterator[Batch]:
        """Yield the batches from a step on, forever.

        key: determines the order of shuffled data in memory; `jax.random.key(0)` by default.
        """
        if self.stream is not None:
            batches = map(_as_read, _unending(self.stream, step))
            return batches if self.shuffle else map(_weighted, batches)
        return self._shuffled(step, key) if self.shuffle else self._in_order(step)

    def order(self, key: jax.Array, epoch: Any) -> jax.Array:
        """Return the row indices of data in memory in the order of an epoch."""
        if self.arrays is None:
            raise ValueError("a stream defines its own order")
        rows = len(next(iter(self.arrays.values())))
        return jax.random.permutation(jax.random.fold_in(child_key(key, "order"), epoch), rows)

    def _shuffled(self, step: int, key: jax.Array | None) -> Iterator[Batch]:
        arrays, size = self.arrays or {}, self.batch_size
        key = jax.random.key(0) if key is None else key
        for epoch in itertools.count(step // self.steps):
            order = np.asarray(self.order(key, epoch))[: self.steps * size].reshape(self.steps, size)
            for rows in order[step % self.steps :]:
                yield {name: value[rows] for name, value in arrays.items()}
            step = 0

    def _in_order(self, step: int) -> Iterator[Batch]:
        arrays, size = self.arrays or {}, self.batch_size
        count = len(next(iter(arrays.values())))
        arrays = _weighted(arrays)
        for position in itertools.count(step):
            rows = position % self.steps * size + np.arange(size)
            valid = rows < count
            batch = {name: value[np.where(valid, rows, 0)] for name, value in arrays.items()}
            yield batch | {"weight": batch["weight"] * valid}


def source(data: Any, batch_size: int = 128, *, shuffle: bool = True, name: str = "data") -> Source:
    """Convert any data that `train.fit` accepts to a `Source`.

    Args:
        data: a `Dataset`, a `Stream`, a dict of arrays of equal length with "image" and the entries that the loss
            needs, such as "label", or a pair (image, label).
        batch_size: rows per batch, reduced to the number of rows if that is smaller. A stream has its own batch size.
        shuffle: True for a new order in each epoch, without an incomplete last batch. False for all rows in order,
            with the last batch padded with rows of weight 0. A stream defines its own order.
        name: the name of the data in messages.

    Raises:
        TypeError, ValueError: for data of other types, entries of different lengths, negative weights, a batch_size
            below 1, or a Stream with invalid fields, such as steps below 1.

    Example:
        >>> train = jaxcnn.data.source((jnp.zeros((5, 8, 8, 1)), jnp.zeros(5, int)), 2)
        >>> train.steps, train.spec["image"].shape, next(train.batches())["label"].shape
        (2, (2, 8, 8, 1), (2,))
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, Stream):
        return Source(_stream_spec(name, data), data.steps, shuffle, stream=data.batches, description=data.fingerprint)
    if isinstance(data, Dataset):
        data = {"image": data.images, "label": data.labels}
    data = _as_read(data)
    if not isinstance(data, dict):
        raise TypeError(
            f'{name} must be a Dataset, a Stream, a dict with "image", or a pair (image, label), got {short_repr(data)}'
        )
    batch_size = check_integer("source", "batch_size", batch_size)
    check_batch(name, data, required=("image",))
    if np.size(data["image"]) == 0:
        raise ValueError(f"{name}: images of shape {np.shape(data['image'])} are empty")
    return in_memory({name: np.asarray(value) for name, value in data.items()}, batch_size, shuffle=shuffle)


def check_not_source(name: str, data: Any) -> None:
    """Raise TypeError for a `Source`, where the caller converts the data by itself."""
    if isinstance(data, Source):
        raise TypeError(f"{name}: pass the arrays or the stream itself, not a Source of them")


def _stream_spec(name: str, stream: Stream) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shape and dtype of each entry of a batch, after checking the fields of a stream."""
    check_integer(name, "steps of a Stream", stream.steps)
    if not callable(stream.batches):
        raise TypeError(
            f"{name}: batches of a Stream must be a function from a step to an iterator over batches, "
            f"got {short_repr(stream.batches)}"
        )
    if not isinstance(stream.others, dict | None):
        raise TypeError(f"{name}: others of a Stream must be a dict or None, got {short_repr(stream.others)}")
    for field, spec in {"image": stream.image, **(stream.others or {})}.items():
        if not has_spec(spec):
            raise TypeError(
                f"{name}: {field} of a Stream must be the jax.ShapeDtypeStruct of a batch, got {short_repr(spec)}"
            )
        if not spec.shape or 0 in spec.shape:
            raise ValueError(f"{name}: {field} of a Stream must have a batch dimension and values, got {spec.shape}")
    class_label = {"label": jax.ShapeDtypeStruct(stream.image.shape[:1], np.int32)}
    specs = {"image": stream.image} | (class_label if stream.others is None else stream.others)
    return {entry: jax.ShapeDtypeStruct(spec.shape, readable_dtype(spec.dtype)) for entry, spec in specs.items()}


def in_memory(arrays: Batch, batch_size: int, *, shuffle: bool) -> Source:
    """Return a `Source` of arrays that are already validated. The names are arbitrary."""
    count = len(next(iter(arrays.values())))
    size = min(batch_size, count)
    return Source(spec_of(arrays, size), count // size if shuffle else -(-count // size), shuffle, arrays)


def as_batch(batch: Any) -> Any:
    """Convert a pair (image, label) to a dict. Other values are returned unchanged."""
    return {"image": batch[0], "label": batch[1]} if isinstance(batch, tuple) and len(batch) == 2 else batch


def _as_read(batch: Any) -> Any:
    """`as_batch`, with NumPy arrays in dtypes that JAX reads."""
    batch = as_batch(batch)
    return {name: readable(value) for name, value in batch.items()} if isinstance(batch, dict) else batch


def _unending(stream: Callable[[int], Iterator[Batch]], step: int) -> Iterator[Batch]:
    """The batches of a stream from a step on. Raises DataError when it ends, where training would wait forever."""
    batches = stream(step)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches of a Stream must return an iterator over batches, got {short_repr(batches)}")
    for batch in batches:
        yield batch
        step += 1
    raise DataError(f"the stream has no batch for step {step}; its `batches` must continue, epoch after epoch")


def _weighted(batch: Batch) -> Batch:
    """Add a weight of 1 for each row, unless the batch has weights."""
    return {"weight": np.ones(len(next(iter(batch.values()))), np.float32)} | batch


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def array_fingerprint(name: str, array: Any) -> str:
    array = np.ascontiguousarray(array)
    return f"{name} {array.dtype} {_shape_text(array.shape)} {zlib.crc32(array.reshape(-1).view(np.uint8)):08x}"
