"""Batches that are read while the network trains: for more images than memory holds."""

import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import short_repr
from jaxcnn.data._decode import MOST_PIXELS, reader
from jaxcnn.data._folder import Files, list_images


class Stream(NamedTuple):
    """Batches in a fixed order, that can be read from any place on.

    batches: step -> an iterator over the batches from that step on, without end. A batch is a dict with "image" and
        "label", and "weight" if some rows count less, or a pair (image, label), of this process's share of the rows. As
        it is a function of the step, training resumes where it was.
    steps: batches in an epoch.
    image: the shape and dtype of a batch's images, all processes' rows together.
    classes: the name of each label.
    fingerprint: another for other examples, labels or orders; a run does not go on with another one. May be empty.
    others: the shapes and dtypes of a batch's other entries, of all processes together; by default only "label", an
        integer class for each image.
    """

    batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
    steps: int
    image: jax.ShapeDtypeStruct
    classes: tuple[str, ...]
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
    classes: tuple[str, ...] | None = None,
    most_pixels: int = MOST_PIXELS,
    shuffle: bool = True,
    threads: int = 16,
) -> Stream:
    """The images of a folder as `image_folder` reads them, in a new order each epoch, decoded in the background.

    A last partial batch is left out; the next epoch has other images at its end. With several processes, each reads
    its own share of every batch.

    Args:
        path, size, channels, classes, most_pixels: as for `image_folder`.
        batch_size: rows of a batch, of all processes together.
        seed: of the orders.
        shuffle: False for evaluation: each epoch has all images in the order of their names, and fills its last batch
            up with images of weight 0.
        threads: that read and decode.

    Raises:
        DataError: as `image_folder`; an image that cannot be read ends the training.
        ImportError: without grain, `pip install 'jaxcnn[grain]'`.

    Example:
        >>> stream = jaxcnn.data.image_stream("photos", (224, 224), batch_size=64)  # doctest: +SKIP
        >>> jaxcnn.train.fit(model, stream)  # doctest: +SKIP
    """
    try:
        import grain
    except ImportError as error:
        raise MissingExtraError("images are streamed by grain", "grain") from error
    files = list_images(path, classes)
    if not 1 <= batch_size <= len(files.paths) or batch_size % jax.process_count():
        raise ValueError(
            f"image_stream: batch_size must be a multiple of {jax.process_count()} processes, from 1 to "
            f"{len(files.paths)} images, got {batch_size}"
        )
    read = reader(size, channels, most_pixels)
    share = batch_size // jax.process_count()
    order = _Order(len(files.paths), batch_size, seed if shuffle else None)

    def row(at: int) -> dict[str, Any]:
        step, place = divmod(at, share)
        index = order[step, jax.process_index() * share + place]
        weight = np.float32(index >= 0)
        return {"image": read(files.paths[index]), "label": files.labels[index], "weight": weight}

    rows = grain.MapDataset.range(np.iinfo(np.int64).max // 2).map(row)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * share)
    batches = lambda step: iter(rows[step * share :].to_iter_dataset(options).batch(share))
    image = jax.ShapeDtypeStruct((batch_size, *size, channels), np.uint8)
    return Stream(batches, order.steps, image, files.classes, _fingerprint(path, files, seed if shuffle else None))


def _fingerprint(root: str | os.PathLike, files: Files, seed: int | None) -> str:
    """Of the names, sizes and labels of all files, and of their order; their content is not read."""
    base = pathlib.Path(root).expanduser()
    lines = [
        f"{label} {path.relative_to(base).as_posix()} {path.stat().st_size}"
        for label, path in zip(files.labels, files.paths, strict=True)
    ]
    return f"{zlib.crc32(chr(10).join(lines).encode(errors='surrogateescape')):08x} seed {seed}"


class _Order:
    """Which example stands in which row of which batch; -1 after the last, for a seed of None."""

    def __init__(self, examples: int, batch_size: int, seed: int | None):
        self.steps = examples // batch_size if seed is not None else -(-examples // batch_size)
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._last: tuple[int, np.ndarray | None] = (-1, None)

    def __getitem__(self, at: tuple[int, int]) -> int:
        step, row = at
        if self._seed is None:
            place = step % self.steps * self._batch_size + row
            return place if place < self._examples else -1
        epoch, step = divmod(step, self.steps)
        known, order = self._last  # in one piece, as other threads may be in another epoch
        if known != epoch or order is None:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._examples)
            self._last = (epoch, order)
        return int(order[step * self._batch_size + row])
