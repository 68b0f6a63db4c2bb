"""Scenes of several handwritten digits on textured backgrounds, for multi-label classification and segmentation.

Fragments of strokes lie between the digits, and digits, fragments and textures draw their colors from one
distribution. Color alone therefore does not show what is a digit. The fragments follow Mnih et al., "Recurrent models
of visual attention", 2014 (cluttered MNIST).
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcnn import data
from jaxcnn.data import Dataset

FRAGMENT_SIDE = 10  # in pixels of the digit that a fragment is cut from
SCALES = (0.65, 1.1)  # height and width of a digit, as a fraction of the side of its cell
JITTER = 0.15  # largest shift of a digit from the center of its cell, as a fraction of the side
CONTRAST = 0.4  # smallest distance between two colors of a scene in RGB; white to black is 1.7
NOISE = 0.04  # std of the noise of each pixel and channel; white is 1
BACKGROUND = 0  # value of the mask; digit d has d + 1
CHUNK = 50  # scenes that are drawn at once, few enough for the processor's cache


def scenes(
    digits: Dataset,
    count: int,
    *,
    size: int = 64,
    digits_per_scene: tuple[int, int] = (1, 4),
    dark: bool = False,
    fragments: int = 6,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """-> images uint8 (count, size, size, 3), masks int32 (count, size, size), present int32 (count, 10).

    The scene is a grid of cells. Each digit has a cell of its own, but may extend into the next, where later digits
    cover earlier ones. Equal arguments give equal scenes.

    Args:
        digits: images (N, H, W, 1) and labels 0 to 9; every digit of a scene is drawn uniformly from them.
        count: number of scenes.
        size: side of a scene in pixels.
        digits_per_scene: smallest and largest number of digits, each number equally likely.
        dark: whether the textures are darker than the digits and fragments, which makes the outlines easy to find.
        fragments: number of strokes per scene that belong to no digit.
        seed: of all random choices.

    Returns:
        masks: 0 for background, d + 1 for pixels of digit d. present: 1 for each digit with a pixel in the mask.

    Raises:
        ValueError: for a count below 1, a size below 16, or numbers of digits that are not 1 <= smallest <= largest.
    """
    low, high = digits_per_scene
    if count < 1 or size < 16:
        raise ValueError(f"scenes: count must be at least 1 and size at least 16, got {count} and {size}")
    if not 1 <= low <= high:
        raise ValueError(f"scenes: digits_per_scene must be 1 <= smallest <= largest, got {digits_per_scene}")
    rng = np.random.default_rng(seed)
    images, masks = np.empty((count, size, size, 3), np.uint8), np.empty((count, size, size), np.int32)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        images[part], masks[part] = _draw(digits, part.stop - start, size, low, high, dark, fragments, rng)
    present = np.stack([(masks == digit + 1).any((1, 2)) for digit in range(10)], axis=1)
    return images, masks, present.astype(np.int32)


def train_and_test_scenes(
    settings: dict, seed: int, **options: Any
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the scenes for training, by the seed, and for testing, always the same. Their digits are disjoint.

    Args:
        settings: the "data" of a config: name, root, size, train_scenes and test_scenes.
        options: further arguments of `scenes`.
    """
    for split, split_seed in (("train", (seed, 1)), ("test", 0)):
        digits = data.load(settings["name"], split, root=settings["root"] or None)
        yield scenes(digits, settings[f"{split}_scenes"], size=settings["size"], seed=split_seed, **options)


def _draw(
    digits: Dataset,
    count: int,
    size: int,
    low: int,
    high: int,
    dark: bool,
    fragments: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    first = rng.random((count, 1, 3), np.float32)
    colors = np.concatenate([first, _distinct_color(first, rng)[:, None]], axis=1)
    stroke_color = functools.partial(_distinct_color, colors, rng)
    if dark:
        colors = colors / 2
        stroke_color = lambda: (1 + rng.random((count, 3), np.float32)) / 2
    canvas = np.broadcast_to(colors[:, 0, :, None, None], (count, 3, size, size)).copy()  # channels first is faster
    _paint(canvas, _texture(count, size, rng), colors[:, 1])
    masks = np.full((count, size, size), BACKGROUND, np.int32)
    grid = math.ceil(math.sqrt(high))
    cell = size / grid
    for strokes in _fragments(digits, count, fragments, rng):
        cover = _place(strokes, rng.uniform(0, size, (count, 2)), cell * rng.uniform(*SCALES, (count, 2)), size)
        _paint(canvas, cover, stroke_color())
    cells = rng.permuted(np.tile(np.arange(grid * grid), (count, 1)), axis=1)
    numbers = rng.integers(low, high + 1, count)
    for slot in range(high):
        chosen = rng.integers(0, len(digits.images), count)
        strokes = digits.images[chosen, ..., 0] / np.float32(255)
        position = np.stack(np.divmod(cells[:, slot], grid), axis=1) + 0.5 + rng.uniform(-JITTER, JITTER, (count, 2))
        cover = _place(strokes, cell * position, cell * rng.uniform(*SCALES, (count, 2)), size)
        cover *= (slot < numbers)[:, None, None]
        _paint(canvas, cover, stroke_color())
        masks = np.where(cover > 0.5, digits.labels[chosen, None, None] + 1, masks)
    canvas += NOISE * rng.standard_normal(canvas.shape, np.float32)
    return np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8).transpose(0, 2, 3, 1), masks


def _texture(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(count, size, size), from 0 to 1: smooth noise plus stripes, each with a random scale, direction and weight."""
    knots = 16
    noise = rng.random((count, knots + 1, knots + 1), np.float32)
    positions = np.linspace(0, rng.uniform(3, knots, (count, 2)), size, axis=-1)
    smooth = _interpolate(noise, positions[:, 0], positions[:, 1])
    frequency = rng.uniform(1, 10, count) / size
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count))
    rows, columns = (np.multiply.outer(frequency * f(angle), np.arange(size)) for f in (np.sin, np.cos))
    waves = np.sin(2 * np.pi * (rows[:, :, None] + columns[:, None]) + phase[:, None, None])
    weight = rng.random((count, 1, 1), np.float32)
    texture = weight * smooth + (1 - weight) * waves.astype(np.float32)
    low, high = (f(texture, (1, 2), keepdims=True) for f in (np.min, np.max))
    return (texture - low) / (high - low)


def _fragments(digits: Dataset, count: int, fragments: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield (count, H, W): digits that are zero outside a random square."""
    for _ in range(fragments):
        strokes = digits.images[rng.integers(0, len(digits.images), count), ..., 0] / np.float32(255)
        for axis in (1, 2):
            length = strokes.shape[axis]
            start = rng.integers(length // 4, 3 * length // 4 - FRAGMENT_SIDE + 1, count)
            inside = (np.arange(length) >= start[:, None]) & (np.arange(length) < start[:, None] + FRAGMENT_SIDE)
            strokes = strokes * np.expand_dims(inside, 3 - axis)
        yield strokes


def _distinct_color(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(count, 3): the first of 16 random colors with enough contrast to all colors (count, n, 3) of the texture."""
    candidates = rng.random((len(colors), 16, 3), np.float32)
    distances = np.linalg.norm(candidates[:, :, None] - colors[:, None], axis=-1).min(-1)
    return candidates[np.arange(len(colors)), (distances > CONTRAST).argmax(1)]


def _place(strokes: np.ndarray, center: np.ndarray, side: np.ndarray, size: int) -> np.ndarray:
    """(count, size, size): images (count, H, W) scaled to `side` pixels around `center`, both (count, 2), else 0."""
    positions = []
    for axis, length in enumerate(strokes.shape[1:]):
        from_center = np.arange(size) + 0.5 - center[:, axis, None]
        positions.append(from_center * length / side[:, axis, None] + (length - 1) / 2)
    return _interpolate(strokes, *positions)


def _interpolate(images: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(n, H, W) at rows (n, h) and columns (n, w) -> (n, h, w), bilinear, and 0 outside."""
    row_weights, column_weights = (
        np.maximum(1 - np.abs(positions[..., None] - np.arange(length)), 0).astype(np.float32)
        for positions, length in zip((rows, columns), images.shape[1:], strict=True)
    )
    return row_weights @ images @ column_weights.transpose(0, 2, 1)


def _paint(canvas: np.ndarray, cover: np.ndarray, color: np.ndarray) -> None:
    """canvas = canvas * (1 - cover) + color * cover, in place."""
    canvas += cover[:, None] * (color[:, :, None, None] - canvas)
