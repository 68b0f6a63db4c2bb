"""Batches that are read during training, for more images than memory holds."""

import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn.data._decode import MAX_PIXELS, check_limits, check_size, reader
from jaxcnn.data._error import DataError
from jaxcnn.data._file_path import file_path
from jaxcnn.data._folder import Files, check_classes, list_images


class Stream(NamedTuple):
    """Batches in a deterministic order that can be read from any step on.

    batches: step -> an infinite iterator over the batches from that step on. Training resumes from any step this way.
        A batch is a dict with "image" and the entries of `others`, or a pair (image, label). "weight" (N,) is optional.
        It holds only the rows of this process.
    steps: batches per epoch.
    image: shape and dtype of the images of a global batch (all processes together).
    classes: the class names, one per label; may be empty.
    fingerprint: a string that differs for other examples, labels or orders. A run does not resume if it has changed.
        May be empty.
    others: shapes and dtypes of the other entries of a global batch, such as "label". The default is a "label" with one
        int32 class per image.
    """

    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    steps: int
    image: jax.ShapeDtypeStruct
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    others: dict[str, jax.ShapeDtypeStruct] | None = None

    def __repr__(self) -> str:
        classes = f"{len(self.classes)} classes: {short_repr(tuple(self.classes))}"
        return f"Stream({self.steps} batches of images=<{short_repr(self.image)}>, classes=<{classes}>)"


def image_stream(
    path: str | os.PathLike,
    size: tuple[int, int],
    *,
    batch_size: int,
    seed: int = 0,
    channels: int = 3,
    classes: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    shuffle: bool = True,
    threads: int = 16,
) -> Stream:
    """Stream the images of class folders, decoded in the background, in a new order each epoch.

    The images are read and resized as in `image_folder`. An incomplete last batch is dropped. With several processes,
    each process reads only its own rows of every batch.

    Args:
        path, size, channels, classes, max_pixels: as for `image_folder`.
        batch_size: rows of a global batch (all processes together).
        seed: determines the order of each epoch.
        shuffle: False for evaluation. Each epoch then has all images sorted by path, and its last batch is padded
            with images of weight 0.
        threads: the number of threads that read and decode.

    Raises:
        DataError: as for `image_folder`. An image that cannot be read stops the training.
        TypeError, ValueError: as for `image_folder`, and for a batch_size that is not a multiple of the number of
            processes or is larger than the number of images, a negative seed, or no threads.
        ImportError: without grain, `pip install 'jaxcnn[grain]'`.

    Example:
        >>> stream = jaxcnn.data.image_stream("photos", (224, 224), batch_size=64)  # doctest: +SKIP
        >>> jaxcnn.train.fit(model, stream)  # doctest: +SKIP
    """
    try:
        import grain
    except ImportError as error:
        raise MissingExtraError("streaming images needs grain", "grain") from error
    batch_size = check_integer("image_stream", "batch_size", batch_size)
    seed = check_integer("image_stream", "seed", seed, 0, below=2**64)
    threads = check_integer("image_stream", "threads", threads)
    size = check_size("image_stream", size)
    check_limits("image_stream", channels, max_pixels)
    files = list_images(file_path("image_stream: path", path), check_classes("image_stream", classes))
    if not 1 <= batch_size <= len(files.paths) or batch_size % jax.process_count():
        raise ValueError(
            f"image_stream: batch_size must be a multiple of {jax.process_count()} (processes), from 1 to "
            f"{len(files.paths)} (images), got {batch_size}"
        )
    read = reader(size, channels, max_pixels)
    local_batch_size = batch_size // jax.process_count()
    order = _Order(len(files.paths), batch_size, seed if shuffle else None)

    def row(position: int) -> dict[str, Any]:
        step, row_index = divmod(position, local_batch_size)
        index = order[step, jax.process_index() * local_batch_size + row_index]
        weight = np.float32(index >= 0)
        return {"image": read(files.paths[index]), "label": files.labels[index], "weight": weight}

    rows = grain.MapDataset.range(np.iinfo(np.int64).max // 2).map(row)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2 * local_batch_size))
    batches = lambda step: iter(rows[step * local_batch_size :].to_iter_dataset(options).batch(local_batch_size))
    image = jax.ShapeDtypeStruct((batch_size, *size, channels), np.uint8)
    return Stream(batches, order.steps, image, files.classes, _fingerprint(path, files, seed if shuffle else None))


def _fingerprint(root: str | os.PathLike, files: Files, seed: int | None) -> str:
    """Return a checksum of file names, sizes, labels and order. The contents are not read."""
    base = pathlib.Path(root).expanduser()

    def line(label: int, path: pathlib.Path) -> str:
        try:
            return f"{label} {path.relative_to(base).as_posix()} {path.stat().st_size}"
        except OSError as error:  # such as a link to a file that does not exist
            raise DataError(f"{path}: cannot be read: {error}") from error

    lines = map(line, files.labels, files.paths)
    return f"{zlib.crc32(chr(10).join(lines).encode(errors='surrogateescape')):08x} seed {seed}"


class _Order:
    """Maps (step, row) to the index of an example. Without a seed, rows after the last example map to -1."""

    def __init__(self, examples: int, batch_size: int, seed: int | None):
        self.steps = examples // batch_size if seed is not None else -(-examples // batch_size)
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._cache: tuple[int, np.ndarray | None] = (-1, None)

    def __getitem__(self, position: tuple[int, int]) -> int:
        step, row = position
        if self._seed is None:
            index = step % self.steps * self._batch_size + row
            return index if index < self._examples else -1
        epoch, step = divmod(step, self.steps)
        cached_epoch, order = self._cache  # read at once, because other threads may be in another epoch
        if cached_epoch != epoch or order is None:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._examples)
            self._cache = (epoch, order)
        return int(order[step * self._batch_size + row])
