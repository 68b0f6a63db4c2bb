"""Loading of the built-in data sets."""

import importlib
import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._path import expected_one_of
from jaxcnn.data._cifar import read_cifar, unpack
from jaxcnn.data._download import Remote, fetch
from jaxcnn.data._error import DataError
from jaxcnn.data._file_path import folder_path
from jaxcnn.data._idx import read_idx
from jaxcnn.data._sources import SOURCES, SPLITS, Digits, Images

_MAX_MEMBER_BYTES = 200_000_000  # of a file in an archive


class Dataset(NamedTuple):
    """Images (or signals, or volumes) and labels in memory.

    images: uint8 or floating-point (N, *spatial, C). labels: one row per image: int32 classes (N,), label maps
        (N, *spatial), or numbers of any shape. classes: the class names, one per label; may be empty.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        classes = f"{len(self.classes)} classes: {short_repr(tuple(self.classes))}"
        return f"Dataset(images=<{short_repr(self.images)}>, labels=<{short_repr(self.labels)}>, classes=<{classes}>)"

    def _repr_html_(self) -> str:
        """HTML for notebooks: examples of each class."""
        # Not at the top: jaxcnn.report imports this package.
        return importlib.import_module("jaxcnn.report._notebook").dataset_html(self)


def load(name: str, split: str, *, root: str | os.PathLike | None = None) -> Dataset:
    """Load a data set by name.

    "mnist_small": 8,000 training and 2,000 test images of handwritten digits (28, 28, 1), included in this package.
    "mnist", "fashion_mnist", "kmnist": 60,000 training and 10,000 test images (28, 28, 1), read from the original
    IDX files (`train-images-idx3-ubyte`, ...), plain or gzip-compressed.
    "cifar10", "cifar100": 50,000 training and 10,000 test images (32, 32, 3), read from the original binary version.

    The files are looked up in the folder named by the environment variable JAXCNN_DATA, then in ~/.cache/jaxcnn. In
    each, they may be in a subfolder named after the data set; MNIST files may also be in the folder itself, and CIFAR
    files in the folder of their archive. Missing files are downloaded to ~/.cache/jaxcnn, which needs
    `pip install 'jaxcnn[download]'`.

    Args:
        name: the data set.
        split: "train" or "test".
        root: the only folder to search; nothing is downloaded. Not allowed for "mnist_small".

    Raises:
        DataError: for an unknown name or split, or a missing or damaged file. The message lists the searched folders.

    Example:
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> digits.images.shape, digits.images.dtype, digits.labels[:5]
        ((2000, 28, 28, 1), dtype('uint8'), array([0, 6, 2, 0, 6], dtype=int32))

    Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998; Xiao, Rasul and Vollgraf,
    "Fashion-MNIST", 2017; Clanuwat et al., "Deep learning for classical Japanese literature", 2018 (KMNIST);
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009 (CIFAR).
    """
    for kind, value, choices in (("data set", name, ("mnist_small", *SOURCES)), ("split", split, SPLITS)):
        if value not in choices:
            raise DataError(f"unknown {kind} {value!r}; {expected_one_of(value, choices)}")
    if name == "mnist_small":
        if root is not None:
            raise DataError(f"mnist_small is included in the package; do not set root={str(root)!r}")
        folder = pathlib.Path(__file__).parent / "mnist_small"
        images, labels = (folder / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        return _digits(images, labels, SOURCES["mnist"].classes)
    source = SOURCES[name]
    if isinstance(source, Digits):
        images, labels = _idx_files(name, source, split, root)
        return _digits(images, labels, source.classes)
    parts = [read_cifar(p, source.label_bytes, len(source.classes)) for p in _cifar_files(name, source, split, root)]
    return Dataset(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), source.classes)


def _digits(images_path: pathlib.Path, labels_path: pathlib.Path, classes: tuple[str, ...]) -> Dataset:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: expected a label for each of {len(images)} images, found {len(labels)}")
    if len(labels) and labels.max() >= len(classes):
        raise DataError(f"{labels_path}: expected labels from 0 to {len(classes) - 1}, found {labels.max()}")
    return Dataset(images[..., None], labels.astype(np.int32), classes)


def _idx_files(name: str, source: Digits, split: str, root: str | os.PathLike | None) -> list[pathlib.Path]:
    """Return the paths of the images and of the labels."""
    # All MNIST-like data sets have the same file names. Files directly in a shared folder count as MNIST.
    without_subfolder = ("",) if root is not None or name == "mnist" else ()
    folders = [base / inner for base in base_folders(root) for inner in (name, *without_subfolder)]
    paths = []
    for remote in source.files[split]:
        plain = remote.name.removesuffix(".gz")
        path = next((p for folder in folders for p in (folder / plain, folder / remote.name) if p.is_file()), None)
        paths.append(path or _fetched(remote, name, f"{plain} or {remote.name}", folders, root))
    return paths


def _cifar_files(name: str, source: Images, split: str, root: str | os.PathLike | None) -> list[pathlib.Path]:
    """Return the paths of the record files, in order."""
    folders = [
        base / inner for base in base_folders(root) for inner in (source.folder, name, f"{name}/{source.folder}", "")
    ]
    for folder in folders:
        paths = [folder / file for file in source.files[split]]
        if any(path.is_file() for path in paths):
            return paths
    archive = _fetched(source.archive, name, source.files[split][0], folders, root)
    members = tuple(f"{source.folder}/{file}" for files in source.files.values() for file in files)
    unpack(archive, members, _MAX_MEMBER_BYTES)
    return [archive.parent / source.folder / file for file in source.files[split]]


def _fetched(
    remote: Remote, name: str, file_names: str, searched: list[pathlib.Path], root: str | os.PathLike | None
) -> pathlib.Path:
    """Download a missing file, unless `root` forbids it, and return its path."""
    missing = f"{file_names}: not found in {', '.join(map(str, searched))}"
    hint = "copy it there, or set JAXCNN_DATA to its folder"
    if root is not None:
        raise DataError(f"{missing}, which root selects; copy it there, or leave out root to search JAXCNN_DATA")
    try:
        return fetch(remote, _cache() / name)
    except DataError as error:
        raise DataError(f"{missing}, and {error}; {hint}") from error


def base_folders(root: str | os.PathLike | None) -> list[pathlib.Path]:
    """Return the folders to search, in order."""
    if root is not None:
        return [folder_path(root)]
    configured = os.environ.get("JAXCNN_DATA")
    return [*([folder_path(configured)] if configured else []), _cache()]


def _cache() -> pathlib.Path:
    return pathlib.Path.home() / ".cache" / "jaxcnn"
