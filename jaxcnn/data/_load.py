"""Data sets by name."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxcnn._path import there_are
from jaxcnn.data._idx import DataError, read_idx


class Dataset(NamedTuple):
    """images uint8 (N, H, W, C), labels int32 (N,), classes: the name of each label."""

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def load(name: str, split: str, *, root: str | os.PathLike | None = None) -> Dataset:
    """A data set by name.

    "mnist_small": 8,000 training and 2,000 test pictures of handwritten digits, part of this package.
    "mnist": all 60,000 and 10,000, from the files of the original, `train-images-idx3-ubyte` and so on, compressed
    with gzip or not, in `root`, the folder in the environment variable JAXCNN_DATA, or ~/.cache/jaxcnn; there
    itself or in a folder `mnist`.

    Args:
        name: "mnist_small" or "mnist".
        split: "train" or "test".
        root: a folder to look in, and in no other.

    Raises:
        DataError: for an unknown name or split, a missing file (it says where it was looked for), or a damaged one.

    Example:
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> digits.images.shape, digits.images.dtype, digits.labels[:5]
        ((2000, 28, 28, 1), dtype('uint8'), array([0, 6, 2, 0, 6], dtype=int32))

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998.
    """
    for kind, value, known in (("data set", name, ("mnist_small", "mnist")), ("split", split, ("train", "test"))):
        if value not in known:
            raise DataError(f"unknown {kind} {value!r}; {there_are(value, known)}")
    if name == "mnist_small":
        folders, prefix = [pathlib.Path(__file__).parent / "mnist_small"], split
    else:
        folders, prefix = _folders(root, name), {"train": "train", "test": "t10k"}[split]
    images = read_idx(_find(folders, f"{prefix}-images-idx3-ubyte"), 3)
    labels_path = _find(folders, f"{prefix}-labels-idx1-ubyte")
    labels = read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: expected a label for each of {len(images)} pictures, found {len(labels)}")
    if len(labels) and labels.max() > 9:
        raise DataError(f"{labels_path}: expected labels from 0 to 9, found {labels.max()}")
    return Dataset(images[..., None], labels.astype(np.int32), tuple("0123456789"))


def _folders(root: str | os.PathLike | None, name: str) -> list[pathlib.Path]:
    """Where to look for a data set, in order."""
    if root is not None:
        roots = [pathlib.Path(root).expanduser()]
    else:
        named = os.environ.get("JAXCNN_DATA")
        roots = ([pathlib.Path(named)] if named else []) + [pathlib.Path.home() / ".cache" / "jaxcnn"]
    return [folder for base in roots for folder in (base / name, base)]


def _find(folders: list[pathlib.Path], name: str) -> pathlib.Path:
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    looked = ", ".join(str(folder) for folder in folders)
    raise DataError(f"{name} or {name}.gz: not found in {looked}; put it there, or name its folder in JAXCNN_DATA")
