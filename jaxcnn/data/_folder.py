"""A folder of images, with a folder for each class."""

import collections
import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._path import expected_one_of
from jaxcnn.data._decode import MOST_PIXELS, reader
from jaxcnn.data._error import DataError
from jaxcnn.data._load import Dataset

_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp")
_NOTES = (".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".log", ".py")  # files about images
_OF_SYSTEMS = ("__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini")  # which leave these beside one's own files


class Files(NamedTuple):
    """paths of images, the label of each (N,), and the classes, which are the names of their folders."""

    paths: list[pathlib.Path]
    labels: np.ndarray
    classes: tuple[str, ...]


def image_folder(
    path: str | os.PathLike,
    size: tuple[int, int],
    *,
    channels: int = 3,
    classes: tuple[str, ...] | None = None,
    on_bad_image: str = "raise",
    most_pixels: int = MOST_PIXELS,
) -> Dataset:
    """All images of a folder in memory: `path/cat/1.jpg`, `path/dog/2.png`, ...

    Each image is turned as its camera says, scaled until it covers `size`, and cut to it around its middle. They take
    height * width * channels bytes each; `image_stream` reads them as they are needed instead.

    Args:
        path: a folder with a folder of images (.jpg, .png, .webp, .bmp) for each class, at any depth. Hidden files
            and those that systems leave there, such as Thumbs.db, are passed over; other files that are no images of
            these kinds are left out with a warning that counts them.
        size: (height, width) in pixels.
        channels: 3 for color, 1 for gray.
        classes: the classes in order, such as those of the training images; as a rule all folders, in the order of
            their names.
        on_bad_image: "raise", or "skip" to leave out an image that cannot be read, with a warning that counts them.
        most_pixels: an image that says it has more is bad, and is not unpacked.

    Raises:
        DataError: for a folder without images or classes, a class without images, or an image that cannot be read.
        ImportError: without pillow, `pip install 'jaxcnn[images]'`.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (40, 30), "red").save(folder / name / "1.png")
        >>> pets = jaxcnn.data.image_folder(folder, (24, 24))
        >>> pets.images.shape, pets.labels, pets.classes
        ((2, 24, 24, 3), array([0, 1], dtype=int32), ('cat', 'dog'))
    """
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(f"image_folder: on_bad_image must be 'raise' or 'skip', got {on_bad_image!r}")
    files = list_images(path, classes)
    read = reader(size, channels, most_pixels)

    def attempt(file):
        try:
            return read(file)
        except DataError as error:
            if on_bad_image == "raise":
                raise
            return DataError(str(error))  # the error itself would keep the image that it was raised for

    images = np.empty((len(files.paths), *size, channels), np.uint8)
    good = np.ones(len(images), bool)
    bad = []
    with ThreadPoolExecutor() as pool:
        for i, image in enumerate(_ahead(pool, attempt, files.paths)):
            if isinstance(image, DataError):
                bad.append(image)
                good[i] = False
            else:
                images[i] = image
    if bad:
        if len(bad) == len(images):
            raise DataError(f"{path}: none of {len(images)} images can be read, such as {bad[0]}")
        warnings.warn(f"{len(bad)} of {len(images)} images left out, such as {bad[0]}", stacklevel=2)
        images = images[good]
    return Dataset(images, files.labels[good], files.classes)


def read_image(path: str | os.PathLike, size: tuple[int, int], *, channels: int = 3) -> np.ndarray:
    """One image, uint8 (height, width, channels), brought to `size` as `image_folder` does it.

    Args:
        path: a file (.jpg, .png, .webp, .bmp).
        size: (height, width) in pixels.
        channels: 3 for color, 1 for gray.

    Raises:
        DataError: for a file that is no image of these kinds, is damaged, or has more than 64 million pixels.
        ImportError: without pillow, `pip install 'jaxcnn[images]'`.

    Example: `data.read_image("cat.jpg", (256, 256))[16:240, 16:240]`, the middle, as ImageNet is evaluated.
    """
    return reader(size, channels, MOST_PIXELS)(pathlib.Path(path))


def is_hidden(path: str | os.PathLike) -> bool:
    """Whether a file or folder is one of the system's by its name, as all readers of folders here pass over.

    Example:
        >>> [jaxcnn.data.is_hidden(name) for name in (".DS_Store", "._1.jpg", "Thumbs.db", "__MACOSX", "1.jpg")]
        [True, True, True, True, False]
    """
    name = pathlib.Path(path).name
    return name.startswith(".") or name in _OF_SYSTEMS


def list_images(path: str | os.PathLike, classes: tuple[str, ...] | None = None) -> Files:
    """The images of a folder, in the order of their names; nothing outside of it, wherever links may lead.

    A folder that is reached twice, by a link to it, counts once. What is left out is counted in a warning.

    Raises:
        DataError: if there are none, or none of some class, or folders that are none of the classes.
    """
    root = pathlib.Path(path).expanduser()
    left_out: collections.Counter[str] = collections.Counter()
    images: dict[str, list[pathlib.Path]] = {}
    try:
        seen = {root.resolve(strict=True)}
        for folder in _entries(root):
            if folder.is_dir():
                if _is_new(folder, root, seen):
                    images[folder.name] = _images(folder, root, seen, left_out)
                else:
                    left_out["link to a folder that is read already"] += 1
            elif folder.suffix.lower() in _SUFFIXES:
                left_out["image in no class folder"] += 1
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    if not images:
        raise DataError(f"{root}: expected a folder for each class, found none")
    if classes is None:
        classes = tuple(sorted(images))
    if len(set(classes)) < len(classes):
        raise DataError(f"{root}: a class is listed twice in {classes}")
    for name in sorted(images):
        if name not in classes:
            raise DataError(f"{root}: unknown class {name!r}; {expected_one_of(name, classes)}")
    counted = ", ".join(f"{count} x {what}" for what, count in sorted(left_out.items()))
    without = [name for name, files in sorted(images.items()) if not files]
    if without:
        found = f"; left out: {counted}" if left_out else ""
        raise DataError(f"{root}: expected images ({', '.join(_SUFFIXES)}) in {', '.join(without)}, found none{found}")
    if left_out:
        warnings.warn(f"{root}: left out: {counted}", stacklevel=3)
    paths = [file for name in classes for file in images.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    return Files(paths, np.array(labels, np.int32), classes)


def _images(
    folder: pathlib.Path, root: pathlib.Path, seen: set[pathlib.Path], left_out: collections.Counter[str]
) -> list[pathlib.Path]:
    """The images of a folder, at any depth, in the order of their paths."""
    found = []
    for entry in _entries(folder):
        if entry.is_dir():
            if _is_new(entry, root, seen):
                found += _images(entry, root, seen, left_out)
            else:
                left_out["link to a folder that is read already"] += 1
        elif entry.suffix.lower() not in _SUFFIXES:
            if entry.suffix.lower() not in _NOTES:
                left_out[f"file {entry.suffix.lower() or 'without a suffix'}"] += 1
        else:
            _resolved(entry, root)
            found.append(entry)
    return sorted(found)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder and not hidden, links last, so that what they lead to is read under its own name."""
    entries = (entry for entry in folder.iterdir() if not is_hidden(entry))
    return sorted(entries, key=lambda entry: (entry.is_symlink(), entry))


def _is_new(folder: pathlib.Path, root: pathlib.Path, seen: set[pathlib.Path]) -> bool:
    real = _resolved(folder, root)
    new = real not in seen
    seen.add(real)
    return new


def _resolved(path: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Where it is when links are followed, which must be in `root`."""
    real = pathlib.Path(os.path.realpath(path))
    if not real.is_relative_to(root.resolve()):
        raise DataError(f"{path}: leads out of {root}")
    return real


def _ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: list[Any]) -> Iterator[Any]:
    """The results in order, computed a little ahead of their use, so that few are in memory."""
    waiting = []
    remaining = iter(items)
    for item in itertools.islice(remaining, 64):
        waiting.append(pool.submit(function, item))
    while waiting:
        yield waiting.pop(0).result()
        for item in itertools.islice(remaining, 1):
            waiting.append(pool.submit(function, item))
