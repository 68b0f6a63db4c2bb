"""Image files as arrays of bytes: turned, scaled, cut, on white, and few at a time."""

import contextlib
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn.data._error import DataError

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow reads many more, most of them rarely tried
MOST_PIXELS = 64_000_000
DECODED_PIXELS = 64_000_000  # at the same time, by all threads together
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # of EXIF, and its values for a quarter turn


def reader(size: tuple[int, int], channels: int, most_pixels: int) -> Callable[[pathlib.Path], np.ndarray]:
    """A function from an image's path to uint8 (height, width, channels), for any number of threads."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("images are read by pillow", "images") from error
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    height, width = size
    mode = "RGB" if channels == 3 else "L"
    room = _Room(DECODED_PIXELS)

    def as_stored(image: Any) -> tuple[int, int]:
        """(width, height) that becomes `size` when the image is turned as its camera says."""
        return (height, width) if image.getexif().get(_ORIENTATION) in _SIDEWAYS else (width, height)

    def decode(path: pathlib.Path, take: Callable[[int], None]) -> np.ndarray:
        with Image.open(path, formats=_FORMATS) as image:
            pixels = image.width * image.height
            if pixels > most_pixels:
                found = f"{image.width} x {image.height}"
                raise DataError(f"{path}: expected at most {most_pixels:,} pixels, found {found}")
            raw = image.tile[0].args if image.tile else None
            if image.format in ("JPEG", "MPO"):
                image.draft(mode, as_stored(image))  # unpack no more than needed
            if not image.info.get("progressive"):  # which is unpacked as a whole
                pixels = image.width * image.height
            take(pixels)
            stored = as_stored(image)  # which reads all of a PNG
            fitted = ImageOps.fit(_in_mode(image, mode, raw, Image), stored, Image.Resampling.BILINEAR)
            fitted = _on_white(ImageOps.exif_transpose(fitted), Image).convert(mode)
            return np.asarray(fitted, np.uint8).reshape(height, width, channels)

    def read(path: pathlib.Path) -> np.ndarray:
        try:
            with room.some() as take:  # until `decode` has let go of its images
                return decode(path, take)
        except DataError:
            raise
        except Exception as error:  # a damaged file makes pillow raise nearly anything
            raise DataError(f"{path}: cannot be read as an image: {error}") from error

    return read


class _Room:
    """Limits how many pixels are decoded at a time; a larger image is decoded alone."""

    def __init__(self, pixels: int):
        self._most = self._free = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def some(self) -> Iterator[Callable[[int], None]]:
        """A function that waits until this many pixels fit, and gives the room back at the end."""
        taken = 0

        def take(pixels: int) -> None:
            nonlocal taken
            wanted = min(pixels, self._most)
            with self._changed:
                self._changed.wait_for(lambda: self._free >= wanted)
                self._free -= wanted
            taken = wanted

        try:
            yield take
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()


def _in_mode(image: Any, mode: str, raw: Any, image_module: Any) -> Any:
    """In 8 bits a channel; in RGBA if parts are transparent, else in `mode`.

    `raw` is how a PNG has its pixels; its transparent value is in these bits.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        gray = image_module.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        gray.info = {key: value for key, value in image.info.items() if key != "transparency"}
        if transparent is not None:
            gray.putalpha(image_module.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return gray.convert(mode if transparent is None else "RGBA")
    if transparent is not None and raw in ("L;2", "L;4"):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}[raw]
    elif transparent is not None and raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode in ("RGBA", "LA", "PA") or transparent is not None:
        mode = "RGBA"
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Any, image_module: Any) -> Any:
    if image.mode != "RGBA":
        return image
    return image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
