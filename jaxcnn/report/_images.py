"""Images that a user adds to the report: samples of a generator, figures, or any others."""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._replace import replace
from jaxcnn.data import DataError
from jaxcnn.report._examples import shrink, to_bytes
from jaxcnn.report._page import Html, figure, image, joined, tag, tiles

_FOLDER = "images"
_SIDE = 512  # maximum pixels per side
_SMALL = 128  # images up to this size are enlarged to a common width


def add_images(run_folder: str | os.PathLike, title: str, images: Any, captions: Sequence[str] = ()) -> None:
    """Save images that `report` shows as a section of their own, such as samples of a GAN or figures.

    Each title is a section, in the order in which the titles were added first. A title that exists gets the new images,
    so a callback of `train.fit` can update them after each epoch:

        def samples(event):
            if event.kind == "epoch":
                jaxcnn.report.add_images(event.run.folder, "Samples", sample(event.params))

    With several processes, only the first one writes.

    Args:
        run_folder: the folder of a `train.Run`.
        title: the heading of the section, not empty.
        images: (N, H, W, C), N at least 1: uint8, or floats from 0 to 1. Other floats are rescaled together. Channels
            other than 1 or 3 are averaged. Images larger than 512 pixels are resized.
        captions: one text per image, which also describes it to readers who cannot see it.

    Raises:
        ValueError: for another shape, an empty title, or a different number of captions.
        DataError: if an image file in the folder is damaged.

    Example:
        >>> import tempfile
        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> jaxcnn.report.add_images(run.folder, "Samples", jnp.zeros((2, 8, 8, 1)), ["first", "second"])
        >>> sorted(path.name for path in (run.folder / "images").iterdir())
        ['0.npz']
    """
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"add_images: title must be a text that is not empty, got {short_repr(title)}")
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"add_images: images must have shape (N, H, W, C), got {images.shape}")
    if captions is None or isinstance(captions, str) or len(captions) not in (0, len(images)):
        raise ValueError(f"add_images: captions must be one text per image, {len(images)}, got {short_repr(captions)}")
    if jax.process_index():
        return
    pixels = images / np.float32(255) if images.dtype == np.uint8 else images.astype(np.float32)
    folder = pathlib.Path(run_folder) / _FOLDER
    folder.mkdir(exist_ok=True)
    titles = {section_title: path for path, section_title, *_ in _saved(folder.parent)}
    last = max((int(path.stem) for path in titles.values()), default=-1)
    with replace(titles.get(title, folder / f"{last + 1}.npz")) as file:
        small = to_bytes(np.asarray(shrink(pixels, _SIDE)))
        np.savez_compressed(
            file, images=small, title=np.array(title), captions=np.array([str(c) for c in captions], str)
        )


def image_sections(run_folder: pathlib.Path) -> dict[str, Html]:
    """The sections of `add_images`, by title.

    Raises:
        DataError: if a file is damaged.
    """
    return {title: _section(title, pixels, captions) for _, title, pixels, captions in _saved(run_folder)}


def _saved(run_folder: pathlib.Path) -> list[tuple[pathlib.Path, str, np.ndarray, list[str]]]:
    """(file, title, images, captions) of each section, in the order in which they were added."""
    paths = [path for path in (run_folder / _FOLDER).glob("*.npz") if path.stem.isdecimal()]
    found = []
    for path in sorted(paths, key=lambda path: int(path.stem)):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                pixels, title, captions = arrays["images"], str(arrays["title"]), arrays["captions"].tolist()
            if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(captions) not in (0, len(pixels)):
                raise ValueError(f"images {pixels.dtype} {pixels.shape} with {len(captions)} captions")
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: expected images of report.add_images, found {error}; remove the file") from error
        found.append((path, title, pixels, captions))
    return found


def _section(title: str, images: np.ndarray, captions: Sequence[str]) -> Html:
    class_ = "large" if max(images.shape[1:3]) <= _SMALL else "full"
    items = []
    for i, pixels in enumerate(images):
        text = captions[i] if captions else ""
        view = image(pixels / 255, text or f"{title}, image {i}")
        items.append(figure(view, text) if text else view)
    return joined([tag("div", tiles(*items), class_=class_)])
