"""A folder of pictures, with a folder for each class."""

import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._path import there_are
from jaxcnn.data._error import DataError
from jaxcnn.data._load import Dataset

# What a file may be called, and the formats it may then have. Pillow reads many more, most of them rarely tried.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MOST_PIXELS = 64_000_000


class Files(NamedTuple):
    """paths of pictures, the label of each (N,), and the classes, which are the names of their folders."""

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
    """All pictures of a folder in memory: `path/cat/1.jpg`, `path/dog/2.png`, ...

    Each picture is turned as its camera says, scaled until it covers `size`, and cut to it around its middle. They take
    height * width * channels bytes each; `image_stream` reads them as they are needed instead.

    Args:
        path: a folder with a folder of pictures (.jpg, .png, .webp, .bmp) for each class, at any depth.
        size: (height, width) in pixels.
        channels: 3 for colour, 1 for grey.
        classes: the classes in order, such as those of the training pictures; as a rule all folders, in the order of
            their names.
        on_bad_image: "raise", or "skip" to leave out a picture that cannot be read, with a warning that counts them.
        most_pixels: a picture that says it has more is bad, and is not unpacked.

    Raises:
        DataError: for a folder without pictures or classes, or a picture that cannot be read.
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
            return error

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
            raise DataError(f"{path}: none of {len(images)} pictures can be read, such as {bad[0]}")
        warnings.warn(f"{len(bad)} of {len(images)} pictures left out, such as {bad[0]}", stacklevel=2)
        images = images[good]
    return Dataset(images, files.labels[good], files.classes)


def read_image(path: str | os.PathLike, size: tuple[int, int], *, channels: int = 3) -> np.ndarray:
    """One picture, uint8 (height, width, channels), brought to `size` as `image_folder` does it.

    Args:
        path: a file (.jpg, .png, .webp, .bmp).
        size: (height, width) in pixels.
        channels: 3 for colour, 1 for grey.

    Raises:
        DataError: for a file that is no picture of these kinds, is damaged, or has more than 64 million pixels.
        ImportError: without pillow, `pip install 'jaxcnn[images]'`.

    Example: `data.read_image("cat.jpg", (256, 256))[16:240, 16:240]`, the middle, as ImageNet is evaluated.
    """
    return reader(size, channels, MOST_PIXELS)(pathlib.Path(path))


def list_images(path: str | os.PathLike, classes: tuple[str, ...] | None = None) -> Files:
    """The pictures of a folder, in the order of their names; nothing outside of it, wherever links may lead.

    Raises:
        DataError: if there are none, or folders that are none of the classes.
    """
    root = pathlib.Path(path).expanduser()
    try:
        base = root.resolve(strict=True)
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error}") from error
    if not folders:
        raise DataError(f"{root}: expected a folder for each class, found none")
    if classes is None:
        classes = tuple(folders)
    for folder in folders:
        if folder not in classes:
            raise DataError(f"{root}: unknown class {folder!r}; {there_are(folder, classes)}")
    paths, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((root / name).rglob("*")):
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file():
                if not file.resolve().is_relative_to(base):
                    raise DataError(f"{file}: leads out of {root}")
                paths.append(file)
                labels.append(label)
    if not paths:
        raise DataError(f"{root}: expected pictures ({', '.join(_SUFFIXES)}) in its folders, found none")
    return Files(paths, np.array(labels, np.int32), classes)


def reader(size: tuple[int, int], channels: int, most_pixels: int) -> Callable[[pathlib.Path], np.ndarray]:
    """A function from a picture's path to uint8 (height, width, channels)."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("pictures are read by pillow", "images") from error
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    height, width = size

    def read(path: pathlib.Path) -> np.ndarray:
        try:
            with Image.open(path, formats=_FORMATS) as picture:
                if picture.width * picture.height > most_pixels:
                    found = f"{picture.width} x {picture.height}"
                    raise DataError(f"{path}: expected at most {most_pixels:,} pixels, found {found}")
                picture.draft("RGB" if channels == 3 else "L", (width, height))  # JPEG: unpack no more than needed
                picture = ImageOps.exif_transpose(picture)
                picture = _without_alpha(picture, Image).convert("RGB" if channels == 3 else "L")
                picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
                return np.asarray(picture, np.uint8).reshape(height, width, channels)
        except DataError:
            raise
        except Exception as error:  # a damaged file makes pillow raise nearly anything
            raise DataError(f"{path}: cannot be read as a picture: {error}") from error

    return read


def _without_alpha(picture: Any, image_module: Any) -> Any:
    """Transparent parts on white; 16 bits of grey as 8."""
    if picture.mode.startswith("I"):
        return image_module.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = image_module.new("RGBA", picture.size, "white")
        return image_module.alpha_composite(white, picture)
    return picture


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
