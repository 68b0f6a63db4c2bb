"""Decoding of image files into uint8 arrays, with a limit on the pixels that are decoded at the same time."""

import contextlib
import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import short_repr
from jaxcnn._window import check_integer
from jaxcnn.data._error import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow supports more, but most of its other decoders are little tested
MAX_PIXELS = 64_000_000
DECODED_PIXELS = 64_000_000  # at the same time, in all threads together
OTHER_FORMATS = {  # by their first bytes
    rb"GIF8": "GIF",
    rb"II[*+]\0|MM\0[*+]": "TIFF",
    rb".{4}ftyp(avif|avis)": "AVIF",
    rb".{4}ftyp(hei|hev|mif1|msf1)": "HEIC",
    rb".{4}ftyp": "a video",
    rb"\xff\x0a|\0\0\0\x0cJXL": "JPEG XL",
    rb"%PDF": "PDF",
    rb"\Z": "an empty file",
}
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)  # EXIF tag, and its values with a quarter turn
_UPRIGHT = {  # EXIF orientation -> the operation of Pillow that undoes it
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def reader(size: tuple[int, int], channels: int, max_pixels: int) -> Callable[[pathlib.Path], np.ndarray]:
    """Return a thread-safe function from an image path to a uint8 array (height, width, channels)."""
    read = sized_reader(size, channels, max_pixels)
    return lambda path: read(path)[0]


def pillow() -> tuple[Any, Any]:
    """The modules Image and ImageOps of Pillow."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError("reading images needs pillow", "images") from error
    return Image, ImageOps


def sized_reader(
    size: tuple[int, int] | None, channels: int, max_pixels: int
) -> Callable[[pathlib.Path], tuple[np.ndarray, tuple[int, int]]]:
    """As `reader`; the function also returns (height, width) of the file's image, which None does not change."""
    Image, ImageOps = pillow()
    if size is not None:
        if isinstance(size, int) or len(size) != 2:
            raise TypeError(f"size must be (height, width), got {short_repr(size)}")
        size = (check_integer("size", "height", size[0]), check_integer("size", "width", size[1]))
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    mode = "RGB" if channels == 3 else "L"

    def stored_size(image: Any) -> tuple[int, int]:
        """(width, height) in the file, which becomes `size` once the EXIF orientation is applied."""
        if size is None:
            return image.size
        return size if orientation(image) in _SIDEWAYS else (size[1], size[0])

    def decode(path: pathlib.Path, reserve: Callable[[int], None]) -> tuple[np.ndarray, tuple[int, int]]:
        with Image.open(path, formats=FORMATS) as image:
            pixels, full_size = checked_pixels(path, image, max_pixels), image.size
            raw = image.tile[0].args if image.tile else None
            if image.format in ("JPEG", "MPO") and size is not None:
                image.draft(mode, stored_size(image))  # decode at a reduced size if possible
            if not image.info.get("progressive"):  # a progressive JPEG is always decoded at full size
                pixels = image.width * image.height
            reserve(pixels)
            stored = stored_size(image)  # after `reserve`, because it decodes all of a PNG
            fitted = ImageOps.fit(_converted(image, mode, raw, Image), stored, Image.Resampling.BILINEAR)
            turn = orientation(image)
            fitted = _composited_on_white(upright(fitted, turn, Image), Image).convert(mode)
            values = np.asarray(fitted, np.uint8)
            upright_size = full_size if turn in _SIDEWAYS else full_size[::-1]
            return values.reshape(*values.shape[:2], channels), upright_size

    return with_budget(decode)


def upright_rgb(image: Any) -> Any:
    """A Pillow image in RGB: its EXIF orientation applied, transparent pixels white, 16 bits reduced to 8."""
    Image, _ = pillow()
    raw = image.tile[0].args if getattr(image, "tile", None) else None
    image.load()  # some PNGs have their transparency after the pixels
    rgb = upright(_converted(image, "RGB", raw, Image), orientation(image), Image)
    return _composited_on_white(rgb, Image).convert("RGB")


def with_budget(decode: Callable[[pathlib.Path, Callable[[int], None]], Any]) -> Callable[[pathlib.Path], Any]:
    """A thread-safe function from a path to decode(path, reserve). All errors of damaged files become DataError.

    decode: calls `reserve` with a number of pixels before it decodes them.
    """
    budget = PixelBudget(DECODED_PIXELS)

    def read(path: pathlib.Path) -> Any:
        try:
            with budget.reservation() as reserve:  # held until `decode` has released its images
                return decode(path, reserve)
        except DataError:
            raise
        except Exception as error:  # pillow raises many types of errors for damaged files
            raise DataError(f"{_name(path)}: cannot be read as an image: {_reason(path, error)}") from error

    return read


def checked_pixels(path: pathlib.Path, image: Any, max_pixels: int) -> int:
    """The number of pixels of an image that is not decoded yet. Raises DataError if they are too many."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise DataError(f"{_name(path)}: expected at most {max_pixels:,} pixels, found {image.width} x {image.height}")
    return pixels


def _name(path: Any) -> str:
    """The path, for messages. An open file may have none."""
    return "image" if hasattr(path, "read") else str(path)


def _reason(path: Any, error: Exception) -> str:
    """Why a file cannot be read: its format if that is another one, else the error."""
    from PIL import UnidentifiedImageError

    if not isinstance(error, UnidentifiedImageError):
        return str(error)
    with contextlib.ExitStack() as stack:
        file = path if hasattr(path, "read") else stack.enter_context(open(path, "rb"))
        file.seek(0)
        head = file.read(16)
    found = (name for pattern, name in OTHER_FORMATS.items() if re.match(pattern, head, re.DOTALL))
    return f"expected JPEG, PNG, WebP or BMP, found {next(found, 'other or damaged content')}"


def orientation(image: Any) -> int:
    """The EXIF orientation, from 1 (upright) to 8; 1 if the EXIF data are missing or damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # pillow raises many types of errors for damaged EXIF data; the pixels may be good
        return 1


def upright(image: Any, orientation: int, image_module: Any) -> Any:
    """The image without the rotation and reflection of its EXIF orientation."""
    name = _UPRIGHT.get(orientation)
    return image if name is None else image.transpose(getattr(image_module.Transpose, name))


class PixelBudget:
    """Limits the number of pixels that are decoded at the same time. A larger image is decoded alone."""

    def __init__(self, pixels: int):
        self._total = self._free = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that waits for n free pixels and reserves them. They are released on exit."""
        reserved = 0

        def reserve(pixels: int) -> None:
            nonlocal reserved
            needed = min(pixels, self._total)
            with self._changed:
                self._changed.wait_for(lambda: self._free >= needed)
                self._free -= needed
            reserved = needed

        try:
            yield reserve
        finally:
            with self._changed:
                self._free += reserved
                self._changed.notify_all()


def _converted(image: Any, mode: str, raw: Any, image_module: Any) -> Any:
    """Convert to 8 bits per channel: RGBA if the image has transparency, else `mode`.

    `raw` is the pixel format in a PNG file. The transparent value of a PNG has the bit depth of that format.
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


def _composited_on_white(image: Any, image_module: Any) -> Any:
    if image.mode != "RGBA":
        return image
    return image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
