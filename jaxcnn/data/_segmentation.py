"""Images with a class for each pixel: a folder of images and a folder of masks."""

import collections
import contextlib
import numbers
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn._arguments import check_choice, check_integer, short_repr
from jaxcnn._path import expected_one_of
from jaxcnn._validate import first_true
from jaxcnn.data._decode import (
    FORMATS,
    GRAY_STEP,
    MAX_PIXELS,
    check_limits,
    check_png,
    check_size,
    checked_pixels,
    orientation,
    pillow,
    sized_reader,
    stored_format,
    upright,
    with_budget,
)
from jaxcnn.data._error import DataError, LabelError
from jaxcnn.data._file_path import file_path, folder_path
from jaxcnn.data._folder import check_classes, counts_text, fill_rows, images_below
from jaxcnn.data._load import Dataset

Color = tuple[int, int, int]


def segmentation_folder(
    images: str | os.PathLike,
    masks: str | os.PathLike,
    size: tuple[int, int] | None = None,
    *,
    classes: Sequence[str],
    colors: Mapping[Color, int] | None = None,
    ignore: int | None = 255,
    channels: int = 3,
    on_bad_image: str = "raise",
    max_pixels: int = MAX_PIXELS,
) -> Dataset:
    """Load images and their masks into memory: `images/a.jpg` and `masks/a.png`, `images/b.jpg` and `masks/b.png`, ...

    Returns a `Dataset` with images (N, H, W, channels) and labels (N, H, W): a class number for each pixel.

    A mask is a PNG. Its palette indices or gray values are the class numbers, as in Pascal VOC, or its colors are those
    of a table. Image and mask are resized until they cover `size` and center-cropped to it: images with antialiasing,
    masks to the nearest pixel. Each file is first rotated by its own EXIF orientation.

    Args:
        images: a folder of images (.jpg, .png, .webp, .bmp), at any depth. Other files are treated as in
            `image_folder`.
        masks: a folder of PNG files with the same relative paths as the images, apart from the suffix.
        size: (height, width) in pixels. None keeps the size, which must be that of the first image, or with "skip" of
            the first pair that can be read.
        classes: a list or tuple of the class names, in the order of the class numbers.
        colors: (red, green, blue) -> class number or `ignore`, for masks in color.
        ignore: an additional class number, for pixels that do not count: the `ignore_label` of the loss; or None.
        channels: 3 for color images, 1 for gray.
        on_bad_image: "raise", or "skip" to skip files that cannot be read or have no partner, with a warning. Unknown
            class numbers and colors are always errors.
        max_pixels: a file with more pixels counts as unreadable and is not decoded. As in `image_folder`, Pillow has a
            limit of its own.

    Raises:
        DataError: for an image or mask without partner or with another size than its partner, a mask that is not a PNG,
            a file that cannot be read, and an unknown class number or color.
        TypeError, ValueError: for an invalid argument, such as an `ignore` that is one of the classes.
        ImportError: without pillow, `pip install 'jaxcnn[images]'`.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name, mode in (("images", "RGB"), ("masks", "L")):
        ...     (folder / name).mkdir()
        ...     Image.new(mode, (40, 30), 1).save(folder / name / "1.png")
        >>> roads = jaxcnn.data.segmentation_folder(
        ...     folder / "images", folder / "masks", (24, 24), classes=["sky", "road"]
        ... )
        >>> roads.images.shape, roads.labels.shape, roads.labels[0, 0, :2].tolist()
        ((1, 24, 24, 3), (1, 24, 24), [1, 1])

    Source: Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010 (palette masks, 255 at borders).
    """
    check_choice("segmentation_folder", "on_bad_image", on_bad_image, ("raise", "skip"))
    names = check_classes("segmentation_folder", classes) or ()
    if len(set(names)) < max(len(names), 1):
        raise ValueError(f"segmentation_folder: classes must be different class names, got {short_repr(classes)}")
    if ignore is not None:
        ignore = check_integer("segmentation_folder", "ignore", ignore, np.iinfo(np.int32).min)
        if 0 <= ignore < len(names):
            raise ValueError(f"segmentation_folder: ignore must not be one of the {len(names)} classes, got {ignore}")
    if size is not None:
        size = check_size("segmentation_folder", size)
    check_limits("segmentation_folder", channels, max_pixels)
    skip = on_bad_image == "skip"
    read_image = sized_reader(size, channels, max_pixels)
    read_mask = _mask_reader(size, len(names), colors, ignore, max_pixels)
    folders = [file_path(f"segmentation_folder: {name}", path) for name, path in (("images", images), ("masks", masks))]
    pairs = _pairs(folder_path(folders[0]), folder_path(folders[1]), skip)

    read_pair = _pair_reader(read_image, read_mask)
    expected = size or _first_size(read_pair, pairs, skip)

    def read(pair: tuple[pathlib.Path, pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
        image, mask = read_pair(pair)
        if image.shape[:2] != expected:
            found = f"found {_by(image.shape)}; pass size=(height, width) to resize all"
            raise DataError(f"{pair[0]}: expected the size of the first image, {_by(expected)}, {found}")
        return image, mask

    dtype = np.uint8 if max(len(names) - 1, ignore or 0) <= 255 and (ignore or 0) >= 0 else np.int32
    arrays = [np.empty((len(pairs), *expected, channels), np.uint8), np.empty((len(pairs), *expected), dtype)]
    good = fill_rows(arrays, read, pairs, images, skip=skip)
    return Dataset(arrays[0][good], arrays[1][good], names)


def _pairs(images: pathlib.Path, masks: pathlib.Path, skip: bool) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Image and mask paths with the same relative path apart from the suffix, sorted."""
    found = [_by_stem(folder) for folder in (images, masks)]
    common = sorted(found[0].keys() & found[1].keys())
    alone = [(f"image {path}", masks) for stem, path in sorted(found[0].items()) if stem not in found[1]]
    alone += [(f"mask {path}", images) for stem, path in sorted(found[1].items()) if stem not in found[0]]
    if not common:
        raise DataError(f"{images}: no image has a mask with its file name in {masks}")
    if alone:
        (file, other), count = alone[0], len(alone)
        text = f"{file} has no partner in {other}" + (f", and {count - 1} more" if count > 1 else "")
        if not skip:
            raise DataError(f'{text}; add the file, or pass on_bad_image="skip"')
        warnings.warn(f"skipped: {text}", stacklevel=3)
    return [(found[0][stem], found[1][stem]) for stem in common]


def _pair_reader(read_image: Callable[..., Any], read_mask: Callable[..., Any]) -> Callable[..., Any]:
    """A function from the paths of an image and its mask to both, after checking that they have the same size."""

    def read_pair(pair: tuple[pathlib.Path, pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
        (image, image_size), (mask, mask_size) = read_image(pair[0]), read_mask(pair[1])
        if mask_size != image_size:
            hint = ""
            if mask_size == image_size[::-1]:
                hint = "; if the EXIF orientation rotates the image, rotate the mask too, or remove the orientation"
            raise DataError(
                f"{pair[1]}: expected the size of its image, {_by(image_size)}, found {_by(mask_size)}{hint}"
            )
        return image, mask

    return read_pair


def _first_size(read_pair: Callable[..., Any], pairs: Sequence[tuple[Any, Any]], skip: bool) -> tuple[int, ...]:
    """(height, width) of the first pair; with `skip`, of the first one that can be read."""
    for pair in pairs[:-1] if skip else ():
        with contextlib.suppress(DataError):
            return read_pair(pair)[0].shape[:2]
    return read_pair(pairs[-1 if skip else 0])[0].shape[:2]


def _by_stem(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Relative path without suffix -> path of each image file of the folder."""
    skipped: collections.Counter[str] = collections.Counter()
    files: dict[str, pathlib.Path] = {}
    for path in images_below(folder, skipped):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{folder}: expected one file named {stem}, found {files[stem].name} and {path.name}")
        files[stem] = path
    if skipped:
        warnings.warn(f"{folder}: skipped: {counts_text(skipped)}", stacklevel=4)
    return files


def _mask_reader(
    size: tuple[int, int] | None, classes: int, colors: Mapping[Color, int] | None, ignore: int | None, max_pixels: int
) -> Callable[[pathlib.Path], tuple[np.ndarray, tuple[int, int]]]:
    """A thread-safe function from a mask's path to class numbers (height, width), and the file's (height, width)."""
    Image, ImageOps = pillow()
    color_numbers, color_codes = _color_table(colors, classes, ignore)

    def decode(path: pathlib.Path, reserve: Callable[[int], None]) -> tuple[np.ndarray, tuple[int, int]]:
        with Image.open(path, formats=FORMATS) as image:
            if image.format != "PNG":
                reason = "; JPEG compression changes class numbers" if image.format in ("JPEG", "MPO") else ""
                raise DataError(f"{path}: expected a mask in PNG format, found {image.format}{reason}")
            pixels, raw = checked_pixels(path, image, max_pixels), stored_format(image)
            check_png(image)
            reserve(pixels * (1 if colors is None else 4))
            mask = upright(image, orientation(image), Image)
            if colors is None:
                label = _indices(path, mask, raw)
                unknown = (label >= classes) if ignore is None else (label >= classes) & (label != ignore)
                if unknown.any():
                    at, _ = first_true(unknown)
                    expected = f"0 to {classes - 1}" + ("" if ignore is None else f", or {ignore} to ignore")
                    raise LabelError(f"{path}: class {label[at]} at {at}; expected {expected}")
            else:
                rgb = _rgb(path, mask)
                codes = (rgb[..., 0].astype(np.int32) << 16) | (rgb[..., 1].astype(np.int32) << 8) | rgb[..., 2]
                position = np.searchsorted(color_codes, codes).clip(max=len(color_codes) - 1)
                unknown = color_codes[position] != codes
                if unknown.any():
                    at, _ = first_true(unknown)
                    color = tuple(map(int, rgb[at]))
                    hint = expected_one_of(color, map(str, colors))
                    raise LabelError(f"{path}: unknown color {color} at {at}; {hint}")
                label = color_numbers[position]
            full_size = (label.shape[0], label.shape[1])
            if size is None:
                return label, full_size
            plane = Image.fromarray(label if label.dtype == np.uint8 else label.astype(np.int32))
            return np.asarray(ImageOps.fit(plane, size[::-1], Image.Resampling.NEAREST)), full_size

    return with_budget(decode)


def _color_table(colors: Mapping[Color, int] | None, classes: int, ignore: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers and color codes (red * 2^16 + green * 2^8 + blue), sorted by code."""
    if colors is not None and not isinstance(colors, Mapping):
        raise TypeError(f"segmentation_folder: colors must be a dict from colors to classes, got {short_repr(colors)}")
    table = {}
    for color, number in (colors or {}).items():
        if not _is_color(color):
            raise ValueError(f"segmentation_folder: a color must be three integers from 0 to 255, got {color!r}")
        if number not in range(classes) and (ignore is None or number != ignore):
            raise ValueError(f"segmentation_folder: color {color} has class {number}; expected 0 to {classes - 1}")
        red, green, blue = map(int, color)  # a NumPy byte would overflow
        table[red << 16 | green << 8 | blue] = number
    if colors is not None and not table:
        raise ValueError("segmentation_folder: colors is empty; pass None for masks whose values are class numbers")
    codes = np.array(sorted(table), np.int32)
    return np.array([table[code] for code in codes.tolist()], np.int32), codes


def _is_color(color: Any) -> bool:
    is_byte = lambda value: (
        isinstance(value, numbers.Integral) and not isinstance(value, bool) and 0 <= int(value) <= 255
    )
    return isinstance(color, tuple) and len(color) == 3 and all(map(is_byte, color))


def _indices(path: pathlib.Path, image: Any, raw: Any) -> np.ndarray:
    """The palette indices or gray values of a mask, at the bit depth of the file."""
    if image.mode not in ("P", "L", "1") and not image.mode.startswith("I"):
        raise DataError(f"{path}: expected palette indices or gray values, found {image.mode}; pass colors for these")
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    return values // GRAY_STEP[raw] if image.mode == "L" and raw in GRAY_STEP else values


def _rgb(path: pathlib.Path, image: Any) -> np.ndarray:
    """The colors (H, W, 3) of a mask."""
    if image.mode.startswith("I"):
        raise DataError(f"{path}: expected a mask in color, found 16-bit gray values")
    if image.mode in ("RGBA", "LA") and np.asarray(image)[..., -1].min() < 255:
        raise DataError(f"{path}: expected a mask without transparency, which hides the color of pixels")
    return np.asarray(image.convert("RGB"))


def _by(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
