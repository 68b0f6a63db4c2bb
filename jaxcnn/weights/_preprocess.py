"""Resizing and cropping of images as in the evaluation of published weights."""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.data._decode import FORMATS, MAX_PIXELS, check_png, checked_pixels, pillow, upright_rgb, with_budget

INTERPOLATIONS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's codes
CROP_MODES = ("center", "squash")


class Preprocess(NamedTuple):
    """images -> uint8 (N, size, size, 3): resize, then crop the center. The model itself normalizes.

    Equal to Pillow, with its antialiasing. Transparent pixels become white, and EXIF orientations are applied.

    size: height and width of the result. resize: the shorter side before the crop; crop_mode="squash" resizes both
        sides to it. interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
    """

    size: int
    resize: int
    interpolation: str
    crop_mode: str = "center"

    def __call__(self, images: Any) -> np.ndarray:
        """One image, or several, of any size: Pillow images, paths, or uint8 (H, W), (H, W, 1) or (H, W, 3).

        Raises:
            DataError: if a file is not an image, or is damaged.
            TypeError, ValueError: if an array has another dtype or shape, or the list is empty.
            ImportError: if pillow is not installed.
        """
        Image, _ = pillow()
        if getattr(images, "ndim", 0) == 4:  # a NumPy or JAX array
            images = list(np.asarray(images))
        several = isinstance(images, Sequence) and not isinstance(images, str)
        images = images if several else [images]
        if not len(images):
            raise ValueError("preprocess needs at least one image, got an empty list")
        return np.stack([self._one(image, i, Image) for i, image in enumerate(images)])

    def _one(self, image: Any, index: int, Image: Any) -> np.ndarray:
        if isinstance(image, str | os.PathLike):
            return with_budget(lambda path, reserve: self._file(path, reserve, Image))(pathlib.Path(image))
        if isinstance(image, Image.Image):
            return self._cropped(upright_rgb(image))
        array = np.asarray(image)
        if array.dtype != np.uint8:
            raise TypeError(
                f"preprocess needs Pillow images, paths or uint8 arrays, got {array.dtype} for image {index}"
            )
        gray = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1)
        if not array.size or not (gray or (array.ndim == 3 and array.shape[-1] == 3)):
            raise ValueError(
                f"preprocess needs arrays of shape (H, W), (H, W, 1) or (H, W, 3), got {array.shape} for image {index}"
            )
        return self._cropped(Image.fromarray(array.reshape(array.shape[:2]) if gray else array).convert("RGB"))

    def _file(self, path: pathlib.Path, reserve: Any, Image: Any) -> np.ndarray:
        with Image.open(path, formats=FORMATS) as image:
            pixels = checked_pixels(path, image, MAX_PIXELS)
            check_png(image)
            reserve(pixels)
            return self._cropped(upright_rgb(image))

    def _cropped(self, image: Any) -> np.ndarray:
        if self.crop_mode == "squash":
            width = height = self.resize
        else:
            short = min(image.size)
            width, height = (int(self.resize * side / short) for side in image.size)
        image = image.resize((width, height), INTERPOLATIONS[self.interpolation])
        values = np.asarray(image, np.uint8)
        missing = [max(self.size - side, 0) for side in values.shape[:2]]  # a crop larger than the image has a border
        values = np.pad(values, [*((m // 2, m - m // 2) for m in missing), (0, 0)])
        top, left = (round((side - self.size) / 2) for side in values.shape[:2])
        return values[top : top + self.size, left : left + self.size]


def from_timm(config: dict[str, Any]) -> Preprocess:
    """The evaluation of timm's config: the crop is a fraction `crop_pct` of the resized image."""
    size = config["input_size"][-1]
    preprocess = Preprocess(
        size, math.floor(size / config["crop_pct"]), config["interpolation"], config.get("crop_mode") or "center"
    )
    if preprocess.interpolation not in INTERPOLATIONS or preprocess.crop_mode not in CROP_MODES:
        raise ValueError(f"interpolation {preprocess.interpolation!r} or crop_mode {preprocess.crop_mode!r} is unknown")
    return preprocess
