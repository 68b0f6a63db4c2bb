"""Images in class folders: a folder with one subfolder per class."""

import collections
import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._arguments import check_choice, short_repr
from jaxcnn._path import expected_one_of
from jaxcnn.data._decode import MAX_PIXELS, check_limits, check_size, reader
from jaxcnn.data._error import DataError, LabelError
from jaxcnn.data._file_path import file_path, folder_path
from jaxcnn.data._load import Dataset

_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp")
_TEXT_SUFFIXES = (".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".log", ".py")  # no warning
# Created by operating systems and network storage.
_SYSTEM_FILES = (
    "__MACOSX",
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "@eaDir",
    "#recycle",
)


class Files(NamedTuple):
    """Image paths, their labels (N,), and the class names, which are the folder names."""

    paths: list[pathlib.Path]
    labels: np.ndarray
    classes: tuple[str, ...]


def image_folder(
    path: str | os.PathLike,
    size: tuple[int, int],
    *,
    channels: int = 3,
    classes: Sequence[str] | None = None,
    on_bad_image: str = "raise",
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load all images of class folders into memory: `path/cat/1.jpg`, `path/dog/2.png`, ...

    Each image is rotated by its EXIF orientation, resized until it covers `size`, and center-cropped to `size`. An
    image takes height * width * channels bytes. Use `image_stream` for more images than memory holds.

    Args:
        path: a folder with one subfolder per class. A class folder holds images (.jpg, .png, .webp, .bmp) at any
            depth. Hidden files, system files (Thumbs.db) and text files (.csv, ..) are ignored. All other files,
            pipes, sockets, devices and links to other images of the folder are skipped with a warning.
        size: (height, width) in pixels.
        channels: 3 for color, 1 for gray.
        classes: a list or tuple of the class names in label order, for example those of the training images. By
            default, all subfolders, sorted by name.
        on_bad_image: "raise", or "skip" to skip images that cannot be read, with a warning.
        max_pixels: an image with more pixels counts as unreadable and is not decoded. Pillow has a limit of its own:
            it warns above PIL.Image.MAX_IMAGE_PIXELS, 89 million, and refuses twice as many.

    Raises:
        DataError: if the folder has no class folders, a class has no images or none that can be read, a class is
            unknown, or an image cannot be read.
        TypeError, ValueError: if path, size, channels, classes, on_bad_image or max_pixels is invalid.
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
    check_choice("image_folder", "on_bad_image", on_bad_image, ("raise", "skip"))
    size = check_size("image_folder", size)
    check_limits("image_folder", channels, max_pixels)
    files = list_images(file_path("image_folder: path", path), check_classes("image_folder", classes))
    images = np.empty((len(files.paths), *size, channels), np.uint8)
    good = fill_rows([images], reader(size, channels, max_pixels), files.paths, path, skip=on_bad_image == "skip")
    labels = files.labels[good]
    unread = np.setdiff1d(files.labels, labels)
    if len(unread):
        raise DataError(f"{path}: no image of {', '.join(files.classes[label] for label in unread)} can be read")
    return Dataset(images[good], labels, files.classes)


def check_classes(name: str, classes: Any) -> tuple[str, ...] | None:
    """Return `classes` as a tuple, or raise TypeError if it is neither None nor a list or tuple of names.

    A set is refused because its order, which gives the labels, changes from process to process.
    """
    if classes is None:
        return None
    if not isinstance(classes, list | tuple) or not all(isinstance(label, str) for label in classes):
        raise TypeError(f"{name}: classes must be a list or tuple of class names, got {short_repr(classes)}")
    return tuple(classes)


def fill_rows(
    arrays: Sequence[np.ndarray], read: Callable[[Any], Any], items: list[Any], path: str | os.PathLike, *, skip: bool
) -> np.ndarray | slice:
    """Read each item into one row of each array. Returns which rows were read.

    `read` returns one array, or one for each of `arrays`. With `skip`, items that raise a DataError are left out with a
    warning, unless it is a LabelError.
    """

    def attempt(item):
        try:
            return read(item)
        except DataError as error:
            if not skip or isinstance(error, LabelError):
                raise
            return DataError(str(error))  # a copy, because the original's traceback keeps the image in memory

    good = np.ones(len(items), bool)
    bad = []
    with ThreadPoolExecutor() as pool:
        for i, result in enumerate(_map_ahead(pool, attempt, items)):
            if isinstance(result, DataError):
                bad.append(result)
                good[i] = False
                continue
            for array, row in zip(arrays, result if isinstance(result, tuple) else (result,), strict=True):
                array[i] = row
    if not bad:
        return slice(None)  # does not copy
    if len(bad) == len(items):
        raise DataError(f"{path}: none of {len(items)} images can be read; first error: {bad[0]}")
    warnings.warn(f"skipped {len(bad)} of {len(items)} images; first error: {bad[0]}", stacklevel=3)
    return good


def read_image(path: Any, size: tuple[int, int], *, channels: int = 3) -> np.ndarray:
    """Read one image as uint8 (height, width, channels), rotated, resized and cropped as in `image_folder`.

    Args:
        path: a file (.jpg, .png, .webp, .bmp), or an open binary file.
        size: (height, width) in pixels.
        channels: 3 for color, 1 for gray.

    Raises:
        DataError: if the file is not an image of these formats, is damaged, or has more than 64 million pixels.
        TypeError, ValueError: for a path that is neither a path nor an open file, a size other than two positive
            integers, or channels other than 1 or 3.
        ImportError: without pillow, `pip install 'jaxcnn[images]'`.

    Example: `data.read_image("cat.jpg", (256, 256))[16:240, 16:240]` is the center crop of ImageNet evaluation.
    """
    size = check_size("read_image", size)
    check_limits("read_image", channels, MAX_PIXELS)
    return reader(size, channels, MAX_PIXELS)(path if hasattr(path, "read") else file_path("read_image: path", path))


def is_hidden(path: str | os.PathLike) -> bool:
    """Return whether a file or folder name is hidden or a system file. All folder readers here ignore these.

    Example:
        >>> [jaxcnn.data.is_hidden(name) for name in (".DS_Store", "._1.jpg", "Thumbs.db", "__MACOSX", "1.jpg")]
        [True, True, True, True, False]
    """
    name = pathlib.Path(path).name
    return name.startswith(".") or name in _SYSTEM_FILES


def list_images(path: str | os.PathLike, classes: tuple[str, ...] | None = None) -> Files:
    """List the images of class folders, sorted by path. A warning counts the files that were skipped.

    A folder or an image that links reach again is listed once, an image in the class of its file.

    Raises:
        DataError: if the folder has no class folders, a class has no images, a class is unknown, or a link points
            outside the folder.
    """
    root = folder_path(path)
    skipped: collections.Counter[str] = collections.Counter()
    images: dict[str, list[pathlib.Path]] = {}
    try:
        visited = {root.resolve(strict=True)}
        for folder in _entries(root):
            if folder.is_dir():
                if _is_new(folder, root, visited):
                    images[folder.name] = _images(folder, root, visited, skipped)
                else:
                    skipped["link to a folder that was already read"] += 1
            elif folder.suffix.lower() in _SUFFIXES:
                skipped["image outside the class folders"] += 1
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    images = _without_repeats(images, skipped)
    if not images:
        raise DataError(f"{root}: expected a folder for each class, found none")
    if classes is None:
        classes = tuple(sorted(images))
    if len(set(classes)) < len(classes):
        raise DataError(f"{root}: the classes contain a duplicate: {classes}")
    for name in classes:
        if name != pathlib.PurePath(name).name:
            raise DataError(f"{root}: a class must be the name of a folder, got {name!r}")
    for name in sorted(images):
        if name not in classes:
            raise DataError(f"{root}: unknown class {name!r}; {expected_one_of(name, classes)}")
    counts = counts_text(skipped)
    empty = [name for name, files in sorted(images.items()) if not files]
    if empty:
        hint = f"; skipped: {counts}" if skipped else ""
        raise DataError(f"{root}: expected images ({', '.join(_SUFFIXES)}) in {', '.join(empty)}, found none{hint}")
    if skipped:
        warnings.warn(f"{root}: skipped: {counts}", stacklevel=3)
    paths = [file for name in classes for file in images.get(name, ())]
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    return Files(paths, np.array(labels, np.int32), classes)


def _without_repeats(
    images: dict[str, list[pathlib.Path]], skipped: collections.Counter[str]
) -> dict[str, list[pathlib.Path]]:
    """Leave out links to images that are listed themselves or by an earlier link."""
    links = {file for files in images.values() for file in files if file.is_symlink()}
    if not links:
        return images
    owners = {os.path.realpath(file): name for name, files in images.items() for file in files if file not in links}

    def is_new(name: str, link: pathlib.Path) -> bool:
        target = os.path.realpath(link)
        if target not in owners:
            owners[target] = name
            return True
        owner = owners[target]
        reason = "link to another image" if owner == name else f"link in class {name} to an image of class {owner}"
        skipped[reason] += 1
        return False

    return {name: [file for file in files if file not in links or is_new(name, file)] for name, files in images.items()}


def counts_text(skipped: collections.Counter[str]) -> str:
    """The numbers of skipped files, with the reasons, as text."""
    return ", ".join(f"{count} x {reason}" for reason, count in sorted(skipped.items()))


def images_below(folder: pathlib.Path, skipped: collections.Counter[str]) -> list[pathlib.Path]:
    """Return the images of a folder at any depth, sorted by path, and count the files that are not images.

    Raises:
        DataError: if the folder cannot be read, or a link points outside the folder.
    """
    try:
        return _images(folder, folder, {folder.resolve(strict=True)}, skipped)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error}") from error


def _images(
    folder: pathlib.Path, root: pathlib.Path, visited: set[pathlib.Path], skipped: collections.Counter[str]
) -> list[pathlib.Path]:
    """Return the images of a folder at any depth, sorted by path."""
    images = []
    for entry in _entries(folder):
        if entry.is_dir():
            if _is_new(entry, root, visited):
                images += _images(entry, root, visited, skipped)
            else:
                skipped["link to a folder that was already read"] += 1
        elif entry.suffix.lower() not in _SUFFIXES:
            if entry.suffix.lower() not in _TEXT_SUFFIXES:
                skipped[f"file {entry.suffix.lower() or 'without a suffix'}"] += 1
        elif entry.exists() and not entry.is_file():  # for example a named pipe, on which reading waits forever
            skipped[f"{entry.suffix.lower()} that is not a regular file"] += 1
        else:
            _resolved(entry, root)  # raises if it is outside the root
            images.append(entry)
    return sorted(images)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the visible entries of a folder. Links come last, so that targets keep their real names."""
    entries = (entry for entry in folder.iterdir() if not is_hidden(entry))
    return sorted(entries, key=lambda entry: (entry.is_symlink(), entry))


def _is_new(folder: pathlib.Path, root: pathlib.Path, visited: set[pathlib.Path]) -> bool:
    resolved = _resolved(folder, root)
    new = resolved not in visited
    visited.add(resolved)
    return new


def _resolved(path: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """Return the path with all links resolved. Raises DataError if it is outside `root`."""
    resolved = pathlib.Path(os.path.realpath(path))
    if not resolved.is_relative_to(root.resolve()):
        raise DataError(f"{path}: points outside {root}")
    return resolved


def _map_ahead(pool: ThreadPoolExecutor, function: Callable[[Any], Any], items: list[Any]) -> Iterator[Any]:
    """Yield the results in order. At most 64 are computed ahead, to limit memory."""
    pending = []
    remaining = iter(items)
    for item in itertools.islice(remaining, 64):
        pending.append(pool.submit(function, item))
    while pending:
        yield pending.pop(0).result()
        for item in itertools.islice(remaining, 1):
            pending.append(pool.submit(function, item))
