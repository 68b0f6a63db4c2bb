"""Decoding of image files into uint8 arrays, with a limit on the pixels that are decoded at the same time."""

import contextlib
import pathlib
import re
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcnn._arguments import check_integer, check_positive, short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn._window import per_dimension
from jaxcnn.data._error import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # Pillow supports more, but most of its other decoders are little tested
MAX_PIXELS = 64_000_000
DECODED_PIXELS = 64_000_000  # at the same time, in all threads together
GRAY_STEP = {"L;2": 85, "L;4": 17}  # Pillow multiplies gray values of 2 and 4 bits by these
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
_PNG_SIGNATURE = 8  # bytes before the first chunk
_BLOCK = 1 << 16  # bytes of a file in memory at a time
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


def check_size(name: str, size: Any) -> tuple[int, int]:
    """Return `size` as (height, width), or raise an error that names the function if it is not that."""
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise TypeError(f"{name}: size must be (height, width), got {short_repr(size)}")
    height, width = per_dimension(name, "size", size, 2)
    return height, width


def check_limits(name: str, channels: Any, max_pixels: Any) -> None:
    """Raise an error that names the function unless channels is 1 or 3 and max_pixels a positive number."""
    if check_integer(name, "channels", channels, 0) not in (1, 3):
        raise ValueError(f"{name}: channels must be 1 or 3, got {channels}")
    check_positive(name, "max_pixels", max_pixels)


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
    mode = "RGB" if channels == 3 else "L"

    def stored_size(image: Any, turn: int) -> tuple[int, int]:
        """(width, height) in the file, which becomes `size` once the EXIF orientation is applied."""
        if size is None:
            return image.size
        return size if turn in _SIDEWAYS else (size[1], size[0])

    def decode(path: pathlib.Path, reserve: Callable[[int], None]) -> tuple[np.ndarray, tuple[int, int]]:
        with Image.open(path, formats=FORMATS) as image:
            pixels, full_size, raw = checked_pixels(path, image, max_pixels), image.size, stored_format(image)
            check_png(image)
            is_jpeg = image.format in ("JPEG", "MPO")
            if not is_jpeg:
                reserve(pixels)  # before `orientation`, which decodes all of a PNG
            turn = orientation(image)
            stored = stored_size(image, turn)
            if is_jpeg:
                if size is not None:
                    # Decode at a reduced size if possible. At twice the size or more, the result is about that of the
                    # filter below on all pixels, as for other formats; the decoder's own filter is another one.
                    image.draft(mode, (2 * stored[0], 2 * stored[1]))
                # A progressive JPEG is always decoded at full size.
                reserve(pixels if image.info.get("progressive") else image.width * image.height)
            fitted = ImageOps.fit(_converted(image, mode, raw, Image), stored, Image.Resampling.BILINEAR)
            fitted = _composited_on_white(upright(fitted, turn, Image), Image).convert(mode)
            values = np.asarray(fitted, np.uint8)
            upright_size = full_size if turn in _SIDEWAYS else full_size[::-1]
            return values.reshape(*values.shape[:2], channels), upright_size

    return with_budget(decode)


def upright_rgb(image: Any) -> Any:
    """A Pillow image in RGB: its EXIF orientation applied, transparent pixels white, 16 bits reduced to 8."""
    Image, _ = pillow()
    raw = stored_format(image)
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
        except (DataError, MemoryError):
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


def check_png(image: Any) -> None:
    """Raise ValueError if a chunk of a PNG does not match its checksum. Pillow ignores the checksums of the pixels."""
    if image.format != "PNG":
        return
    file = image.fp
    position = file.tell()  # where Pillow continues
    file.seek(_PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        remaining, kind = int.from_bytes(head[:4]), head[4:]
        checksum = zlib.crc32(kind)
        while block := file.read(min(remaining, _BLOCK)):
            remaining -= len(block)
            checksum = zlib.crc32(block, checksum)
        if len(stored := file.read(4)) < 4:
            raise ValueError("the PNG is truncated")
        if stored != checksum.to_bytes(4):
            raise ValueError(f"the PNG is damaged: the checksum of a chunk {short_repr(kind)} is wrong")
    file.seek(position)


def stored_format(image: Any) -> Any:
    """The pixel format in the file of an image that is not decoded yet, such as "L;2"; None if it has no file."""
    return image.tile[0].args if getattr(image, "tile", None) else None


def _name(path: Any) -> str:
    """The path, for messages. An open file may have none."""
    return "image" if hasattr(path, "read") else str(path)


def _reason(path: Any, error: Exception) -> str:
    """Why a file cannot be read: its format if that is another one, else the error."""
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"more than {limit:,} pixels, the limit of Pillow, which is twice PIL.Image.MAX_IMAGE_PIXELS"
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

    `raw` is the `stored_format` of a PNG file. The transparent value of a PNG has the bit depth of that format.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        gray = image_module.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
        gray.info = {key: value for key, value in image.info.items() if key != "transparency"}
        if transparent is not None:
            gray.putalpha(image_module.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return gray.convert(mode if transparent is None else "RGBA")
    if transparent is not None and raw in GRAY_STEP:
        image.info["transparency"] = transparent * GRAY_STEP[raw]
    elif transparent is not None and raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.mode in ("RGBA", "LA", "PA") or transparent is not None:
        mode = "RGBA"
    return image if image.mode == mode else image.convert(mode)


def _composited_on_white(image: Any, image_module: Any) -> Any:
    if image.mode != "RGBA":
        return image
    return image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
