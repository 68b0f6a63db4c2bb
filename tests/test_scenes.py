"""Scenes of digits: masks, presence and colors are what the docstring says."""

import re

import numpy as np
import pytest

from experiments._scenes import BACKGROUND, _interpolate, scenes
from jaxcnn import data


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist_small", "train")


def test_shapes_dtypes_and_determinism(digits):
    drawn = scenes(digits, 7, size=48, seed=3)
    for array, shape, dtype in zip(
        drawn, [(7, 48, 48, 3), (7, 48, 48), (7, 10)], [np.uint8, np.int32, np.int32], strict=True
    ):
        assert (array.shape, array.dtype) == (shape, dtype)
    for array, again, other in zip(
        drawn, scenes(digits, 7, size=48, seed=3), scenes(digits, 7, size=48, seed=4), strict=True
    ):
        np.testing.assert_array_equal(array, again)
        assert (array != other).any()


def test_present_are_the_digits_of_the_mask(digits):
    _, masks, present = scenes(digits, 250, digits_per_scene=(2, 3), seed=0)  # more than one chunk
    for mask, row in zip(masks, present, strict=True):
        assert {*np.unique(mask)} == {BACKGROUND, *(np.flatnonzero(row) + 1)}
    assert set(present.sum(1)) == {1, 2, 3}  # 1: twice the same digit
    assert 0.25 < (present.sum(1) == 3).mean() < 0.45  # 0.36: half of the scenes have 3 digits, 72 % of them different
    assert 0.6 * present.mean() < present.mean(0).min()


def test_the_size_of_a_digit_is_a_fraction_of_its_cell(digits):
    """The strokes of an MNIST digit fill 20 of 28 pixels in height or width."""
    _, masks, present = scenes(digits, 300, size=56, digits_per_scene=(1, 1), seed=0)
    assert (present.sum(1) == 1).all()
    largest = np.maximum(*(masks.any(axis).sum(1) for axis in (1, 2)))
    assert 0.9 * 0.65 * 40 < largest.min() < 0.7 * 40
    assert 40 < largest.max() < 1.1 * 1.1 * 40


def test_color_does_not_separate_digits_from_background(digits):
    """No threshold of a channel, the brightness or the distance from the median color has an IoU of one half."""
    images, masks, _ = scenes(digits, 200, seed=0)
    images, foreground = images.astype(np.float32), masks > 0
    distance = np.linalg.norm(images - np.median(images, (1, 2), keepdims=True), axis=-1)
    for feature in (*np.moveaxis(images, -1, 0), images.mean(-1), distance):
        for threshold in np.quantile(feature, np.linspace(0.05, 0.95, 10)):
            for found in (feature > threshold, feature < threshold):
                assert (found & foreground).sum() < 0.45 * (found | foreground).sum()


def test_interpolate_is_bilinear_and_zero_outside():
    rng = np.random.default_rng(0)
    images = rng.random((2, 4, 5), np.float32)
    rows, columns = rng.uniform(-1.5, 4.5, (2, 6)), rng.uniform(-1.5, 5.5, (2, 7))
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3)))
    y = _interpolate(images, rows, columns)
    for n, i, j in np.ndindex(y.shape):
        top, left = int(np.floor(rows[n, i])), int(np.floor(columns[n, j]))
        a, b = rows[n, i] - top, columns[n, j] - left
        square = padded[n, top + 3 : top + 5, left + 3 : left + 5]
        np.testing.assert_allclose(y[n, i, j], [1 - a, a] @ square @ [1 - b, b], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count must be at least 1 and size at least 16, got 0 and 64"),
        ({"size": 15}, "count must be at least 1 and size at least 16, got 1 and 15"),
        ({"digits_per_scene": (0, 2)}, "digits_per_scene must be 1 <= smallest <= largest, got (0, 2)"),
        ({"digits_per_scene": (3, 2)}, "digits_per_scene must be 1 <= smallest <= largest, got (3, 2)"),
    ],
)
def test_bad_arguments(digits, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        scenes(digits, **{"count": 1, "seed": 0} | arguments)


def test_dark_scenes_have_bright_digits(digits):
    images, masks, _ = scenes(digits, 20, dark=True, fragments=0, seed=0)
    brightness = images.mean(-1) / 255
    digit, background = brightness[masks != BACKGROUND], brightness[masks == BACKGROUND]
    assert digit.mean() > background.mean() + 0.3
    assert np.mean(digit > 0.5) > 0.8 > 0.1 > np.mean(background > 0.5)  # the edges of strokes are in between
    cluttered, _, _ = scenes(digits, 20, dark=True, fragments=6, seed=0)
    assert cluttered.mean() > images.mean()
