"""Evaluation data in batches, and small versions of chosen examples for the page."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._loss import Batch
from jaxcnn.data import Dataset, Stream
from jaxcnn.data._source import as_batch
from jaxcnn.explain._figure import finite_range

Data = Dataset | Batch | tuple[Any, Any] | Stream

_BATCH, _BATCH_VALUES = 256, 2**26  # maximum images and values per batch
IMAGE, _POINTS, _CHANNELS = 96, 128, 8  # maximum pixels per side of an image, points and channels of a signal


def batches(data: Data) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images and labels, without examples of weight 0."""
    if isinstance(data, Stream):
        for batch in map(as_batch, itertools.islice(data.batches(0), data.steps)):
            weighted = np.flatnonzero(batch.get("weight", np.ones(len(batch["image"]))) > 0)
            yield _scaled(batch["image"][weighted]), _labels(batch)[weighted]
        return
    whole: Batch = as_batch((data.images, data.labels) if isinstance(data, Dataset) else data)
    images, labels = np.asarray(whole["image"]), _labels(whole)
    weighted = np.flatnonzero(np.asarray(whole.get("weight", np.ones(len(labels)))) > 0)
    count = max(1, min(_BATCH, _BATCH_VALUES // math.prod(images.shape[1:])))
    for start in range(0, len(weighted), count):
        rows = weighted[start : start + count]
        yield _scaled(images[rows]), labels[rows]


def _labels(batch: Batch) -> np.ndarray:
    """The labels; empty floats for data without labels."""
    return np.asarray(batch.get("label", np.zeros((len(batch["image"]), 0))))


def _scaled(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255) if images.dtype == np.uint8 else images


def indexed(data: Data, index: Sequence[int]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, image, label) for these indices, in the order of the data."""
    start = 0
    for images, labels in batches(data):
        for i in sorted({*index}):
            if start <= i < start + len(images):
                yield i, images[i - start], labels[i - start]
        start += len(images)
        if start > max(index, default=-1):
            break


def select(data: Data, index: Sequence[int]) -> np.ndarray:
    """The images at these indices."""
    found = {i: image for i, image, _ in indexed(data, index)}
    return np.stack([found[i] for i in index])


def thumbnails(data: Data, index: Sequence[int]) -> np.ndarray | None:
    """The examples at these indices, each reduced as soon as it is read.

    Images (H, W, C) become uint8 with 1 or 3 channels. Signals (T, C) are `thinned`. None for other examples.
    """
    found = {}
    for i, image, _ in indexed(data, index):
        if image.ndim == 3:
            found[i] = np.asarray(shrink(image[None], IMAGE)[0])
        elif image.ndim == 2:
            found[i] = thinned(image)
    if not found:
        return None
    stacked = np.stack([found[i] for i in index])
    return to_bytes(stacked) if stacked.ndim == 4 else stacked


def thinned(signal: np.ndarray) -> np.ndarray:
    """Every n-th point and the first channels of a signal (T, C)."""
    return np.asarray(signal[:: -(-len(signal) // _POINTS), :_CHANNELS], np.float32)


def shrink(x: Any, max_side: int, method: str = "linear") -> Any:
    """Images (N, H, W, C), resized if the longer side exceeds `max_side`."""
    height, width = x.shape[1:3]
    if max(height, width) <= max_side:
        return x
    size = (max(round(side * max_side / max(height, width)), 1) for side in (height, width))
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), method)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """uint8 images (N, H, W, 1 or 3). Values outside 0 to 1 are rescaled to this range."""
    x = np.asarray(images, float)
    x = x if x.shape[-1] == 3 else x.mean(-1, keepdims=True)
    smallest, largest = finite_range(x)
    low, high = min(smallest, 0.0), max(largest, 1.0)
    x = np.nan_to_num(x, nan=0.0, posinf=high, neginf=low)
    return np.round(255 * (x - low) / (high - low)).astype(np.uint8)
