"""Corruptions against NumPy, SciPy, pillow and colorsys, with the random numbers they drew; and what all must keep."""

import colorsys
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
from PIL import Image

from jaxcnn import data
from jaxcnn.data import _filters, _jpeg, augment, corruptions
from jaxcnn.data.augment import When
from jaxcnn.data.corruptions import CORRUPTIONS, corrupt

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)
NOISE = RNG.random((3, 16, 24, 3), np.float32)
DETERMINISTIC = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
KEEPS_CONSTANTS = {
    *{"defocus_blur", "motion_blur", "zoom_blur", "contrast"},
    *{"elastic_transform", "pixelate", "jpeg_compression"},
}


def scene(size, count=4):
    """Images (count, size, size, 3) of smooth color with edges and texture."""
    rng = np.random.default_rng(1)
    smooth = scipy.ndimage.gaussian_filter(rng.random((count, size, size, 3)), (0, size / 8, size / 8, 0), mode="wrap")
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    edges = scipy.ndimage.gaussian_filter(rng.random((count, size, size, 1)), (0, size / 12, size / 12, 0)) > 0.5
    return np.clip(0.7 * smooth + 0.2 * edges + 0.1 * rng.random(smooth.shape), 0, 1).astype(np.float32)


@functools.cache
def compiled(name, severity):
    return jax.jit(lambda images, key: corrupt(images, name, severity, key))


@functools.cache
def compiled_severities(name):
    """The same random numbers at all severities are compiled once."""
    return jax.jit(lambda images, key: [corrupt(images, name, severity, key) for severity in range(1, 6)])


def one(name, severity, image, key=KEY):
    """The corrupted image (H, W, C), as an augmentation."""
    return np.asarray(jax.jit(lambda key, image: CORRUPTIONS[name](severity)(key, image, When()))(key, image))


def small_shape(name):
    """For each corruption another one, odd or even, not square."""
    return (3, 9 + 2 * len(name) % 13, 8 + len(name) % 7, 1 if len(name) % 2 else 3)


@pytest.mark.sample(4)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_keeps_shape_dtype_and_range_and_is_a_function_of_the_key(name):
    images = jax.random.uniform(jax.random.key(0), small_shape(name))
    images = images.at[1].set(images[0])
    y = compiled(name, 5)(images, KEY)
    assert y.shape == images.shape
    assert y.dtype == images.dtype
    assert np.isfinite(y).all()
    assert 0 <= y.min() <= y.max() <= 1
    np.testing.assert_array_equal(y, compiled(name, 5)(images, KEY))
    np.testing.assert_allclose(y, corrupt(images, name, 5, KEY), atol=1e-5)  # not compiled
    other = compiled(name, 5)(images, jax.random.key(6))
    assert (y != images).any()
    assert ((y == other).all(), (y[0] == y[1]).all()) == ((True, True) if name in DETERMINISTIC else (False, False))
    bytes_ = np.asarray(jnp.round(255 * images)).astype(np.uint8)
    from_bytes = compiled(name, 5)(bytes_, KEY)
    assert from_bytes.dtype == jnp.uint8
    expected = np.round(255 * np.asarray(compiled(name, 5)(bytes_ / np.float32(255), KEY)))
    np.testing.assert_allclose(from_bytes, expected, atol=1)
    low = jax.eval_shape(compiled(name, 5), images.astype(jnp.bfloat16), KEY)
    assert low.dtype == jnp.bfloat16


def test_dozen():
    assert len(CORRUPTIONS) == 12
    assert list(CORRUPTIONS) == [function.__name__ for function in CORRUPTIONS.values()]


@pytest.mark.sample(8)
@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"elastic_transform"}))
def test_distance_grows_with_the_severity(name, size):
    images = scene(size)
    distances = [float(abs(y - images).mean()) for y in compiled_severities(name)(images, KEY)]
    if (name, size) == ("motion_blur", 32):  # of (6, 2) and (8, 2), only the weights beyond 6 stds differ
        distances[2] *= 0.999
    assert distances == sorted(set(distances))
    assert 0.001 < distances[0] < distances[-1] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 224])
def test_local_distance_of_elastic_transform_grows(size, monkeypatch):
    """Without the affine part. In large images, severity 2 is stronger than 3, as published."""
    monkeypatch.setattr(corruptions, "uniform", lambda key, low, high, shape: _uniform(key, low, high, shape))
    images = scene(size, 2)
    distances = [float(abs(y - images).mean()) for y in compiled_severities("elastic_transform")(images, KEY)]
    compiled_severities.cache_clear()
    first = 0 if size == 32 else 2
    assert distances[first:] == sorted(set(distances[first:]))
    assert distances[0] < (1e-6 if size == 32 else distances[1])


def _uniform(key, low, high, shape):
    """Zeros for the three points; uniform values for the pixels."""
    return jnp.zeros(shape) if shape == (3, 2, 1, 1) else jax.random.uniform(key, shape, jnp.float32, low, high)


@pytest.mark.sample(3)
@pytest.mark.parametrize("name", sorted(KEEPS_CONSTANTS))
def test_constants_do_not_change(name):
    images = np.broadcast_to(np.array([51, 128, 204], np.float32) / 255, (2, 19, 13, 3))
    for y in compiled_severities(name)(images, KEY):
        np.testing.assert_allclose(y, images, atol=1e-5 if name != "jpeg_compression" else 4 / 255)


def test_each_image_has_a_key():
    images = np.broadcast_to(NOISE[0], NOISE.shape)
    y = compiled("impulse_noise", 5)(images, KEY)
    key = jax.random.fold_in(jax.random.split(KEY, 3)[2], 0)  # as in `augment.compose`
    np.testing.assert_allclose(y[2], one("impulse_noise", 5, images[2], key), atol=1e-6)
    chained = augment.compose(corruptions.contrast(1), corruptions.brightness(2))(KEY, images)
    np.testing.assert_allclose(chained[0], one("brightness", 2, one("contrast", 1, images[0])), atol=1e-6)


@pytest.mark.parametrize(("side", "std"), [(84, 0.04), (85, 0.08)])
def test_table_by_the_shorter_side(side, std):
    y = one("gaussian_noise", 1, np.full((side, 120, 1), 0.5, np.float32))
    np.testing.assert_allclose(np.std(y), std, rtol=0.05)


# Noise


@pytest.mark.parametrize("severity", [1, 5])
def test_gaussian_noise(severity):
    noise = np.asarray(jax.random.normal(KEY, NOISE[0].shape))
    expected = np.clip(NOISE[0] + {1: 0.04, 5: 0.1}[severity] * noise, 0, 1)
    np.testing.assert_allclose(one("gaussian_noise", severity, NOISE[0]), expected, atol=1e-6)


def test_shot_noise():
    """Of a Poisson distribution: counts are integers, and mean and variance are equal."""
    y = one("shot_noise", 5, np.full((80, 80, 3), 0.3, np.float32)) * 50
    np.testing.assert_allclose(y, np.round(y), atol=1e-4)
    np.testing.assert_allclose(y.mean(), 15, rtol=0.01)
    np.testing.assert_allclose(y.var(), 15, rtol=0.04)
    large = one("shot_noise", 1, np.full((90, 90, 3), 0.1, np.float32)) * 60
    np.testing.assert_allclose([large.mean(), large.var()], 6, rtol=0.04)


def test_impulse_noise():
    image = np.full((84, 84, 3), 0.5, np.float32)
    y = one("impulse_noise", 5, image)
    np.testing.assert_allclose([(y == 0).mean(), (y == 1).mean()], 0.035, rtol=0.1)
    assert set(np.unique(y)) == {0, 0.5, 1}
    assert (y[..., 0] != y[..., 1]).any()  # channels are independent


# Blur


def test_defocus_blur():
    """Kernels that can be written down: a plus of five pixels, a square of nine, and a disk of radius 4."""
    plus = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]) / 5
    square = np.ones((3, 3)) / 9
    disk = np.array([[np.hypot(i, j) <= 4 for j in range(-6, 7)] for i in range(-6, 7)]) / 49
    disk = scipy.ndimage.gaussian_filter(disk, 0.5, truncate=3)
    cases = [(4, NOISE[0], plus, 1e-4), (5, NOISE[0], square, 1e-5)]
    cases += [(1, RNG.random((112, 130, 1), np.float32), square, 1e-5)]  # radius 3 / 2
    cases += [(2, RNG.random((224, 224, 1), np.float32), disk, 1e-4)]
    for severity, image, kernel, tolerance in cases:
        expected = scipy.ndimage.correlate(image, kernel[..., None], mode="mirror")
        np.testing.assert_allclose(one("defocus_blur", severity, image), expected, atol=tolerance)


@pytest.mark.parametrize("std", [0.3, 1.0, 7.0])
def test_gaussian_matrix(std):
    radius = int(np.ceil(3 * std))
    expected = scipy.ndimage.gaussian_filter1d(np.eye(10), std, axis=0, mode="reflect", radius=radius)
    np.testing.assert_allclose(_filters.gaussian_matrix(10, std), expected, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_motion_blur(seed):
    key = jax.random.key(seed)
    angle = float(jax.random.uniform(key, minval=-np.pi / 4, maxval=np.pi / 4))
    weights = np.exp(-(np.arange(19) ** 2) / (2 * 2.5**2))
    expected = np.zeros(NOISE[0].shape)
    for t, weight in enumerate(weights / weights.sum()):
        rows = np.clip(np.arange(16) + round(t * np.sin(angle)), 0, 15)
        columns = np.clip(np.arange(24) + round(t * np.cos(angle)), 0, 23)
        expected += weight * NOISE[0][rows][:, columns]
    np.testing.assert_allclose(one("motion_blur", 5, NOISE[0], key), expected, atol=1e-5)


def test_zoom_blur():
    image, center = NOISE[0].astype(float), np.array([7.5, 11.5, 0])
    enlarged = [image]
    for factor in 1 + np.arange(11) / 100:
        scale = np.array([1 / factor, 1 / factor, 1])
        moved = scipy.ndimage.affine_transform(image, scale, center * (1 - scale), order=1, mode="nearest")
        enlarged.append(moved)
    np.testing.assert_allclose(one("zoom_blur", 2, NOISE[0]), np.mean(enlarged, 0), atol=1e-5)


# Weather


def test_plasma():
    """The algorithm point by point, with indices modulo the size."""
    size, decay = 16, 1.7
    noise = np.asarray(jax.random.uniform(KEY, (size, size), minval=-1, maxval=1), float)
    heights, step, amplitude = {(0, 0): 0.0}, size, 1.0
    while step > 1:
        half = step // 2
        diagonal = [(a, b) for a in (-half, half) for b in (-half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        centers = [(i, j) for i in range(half, size, step) for j in range(half, size, step)]
        edges = [(i, j) for i in range(0, size, half) for j in range(0, size, half) if (i + j) // half % 2]
        for points, neighbors in ((centers, diagonal), (edges, straight)):
            for i, j in points:
                mean = np.mean([heights[(i + a) % size, (j + b) % size] for a, b in neighbors])
                heights[i, j] = mean + amplitude * noise[i, j]
        step, amplitude = half, amplitude / decay**2
    expected = np.array([[heights[i, j] for j in range(size)] for i in range(size)])
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    np.testing.assert_allclose(_filters.plasma(KEY, size, decay), expected, atol=1e-5)


def test_fog():
    image = NOISE[0] * 0.8
    density = np.asarray(_filters.plasma(KEY, 32, 2.5))[:16, :24, None]
    expected = (image + 0.75 * density) * image.max() / (image.max() + 0.75)
    np.testing.assert_allclose(one("fog", 3, image), expected, atol=1e-5)
    np.testing.assert_array_equal(one("fog", 3, np.zeros((9, 9, 1), np.float32)), np.zeros((9, 9, 1)))


def test_brightness():
    image = NOISE[0].copy()
    image[0, :2] = [[0, 0, 0], [1, 0.5, 0.5]]
    expected = [
        [colorsys.hsv_to_rgb(h, s, min(v + 0.3, 1)) for h, s, v in (colorsys.rgb_to_hsv(*map(float, p)) for p in row)]
        for row in image
    ]
    np.testing.assert_allclose(one("brightness", 5, image), expected, atol=1e-5)
    gray = image[..., :1]
    np.testing.assert_allclose(one("brightness", 2, gray), np.minimum(gray + 0.1, 1), atol=1e-6)


# Digital


def test_contrast():
    mean = NOISE[0].mean((0, 1))
    np.testing.assert_allclose(one("contrast", 2, NOISE[0]), mean + (NOISE[0] - mean) / 2, atol=1e-6)
    large = RNG.random((90, 85, 1), np.float32)
    np.testing.assert_allclose(one("contrast", 5, large), large.mean() + 0.05 * (large - large.mean()), atol=1e-6)


@pytest.mark.parametrize(
    ("severity", "shape", "amount", "std", "shift"),
    [(1, (16, 24), 0, 1, 2.56), (3, (16, 24), 2.56, 1.92, 1.92), (4, (112, 90), 17.08, 2.44, 4.88)],
)
def test_elastic_transform(severity, shape, amount, std, shift):
    height, width = shape
    if min(shape) > 85:
        scale = min(shape) / 224
        amount, std, shift = amount * scale**2, std * scale, shift * scale
    image = RNG.random((height, width, 1), np.float32)
    points_key, pixels_key = jax.random.split(KEY)
    moves = np.asarray(jax.random.uniform(points_key, (3, 2, 1, 1), minval=-1, maxval=1), float).reshape(3, 2) * shift
    half, center = min(shape) // 3, np.array([height // 2, width // 2])
    corners = center + half * np.array([[1, 1], [1, -1], [-1, -1]])
    affine = np.linalg.solve(np.c_[corners, np.ones(3)], corners + moves)  # (3, 2)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    at = np.moveaxis(np.stack([rows, columns, np.ones(shape)], -1) @ affine, -1, 0)
    noise = np.asarray(jax.random.uniform(pixels_key, (height, width, 2), minval=-1, maxval=1), float)
    smooth = [scipy.ndimage.gaussian_filter(noise[..., i], std, radius=int(np.ceil(3 * std))) for i in range(2)]
    expected = scipy.ndimage.map_coordinates(image[..., 0], at + amount * np.stack(smooth), order=1, mode="mirror")
    np.testing.assert_allclose(one("elastic_transform", severity, image)[..., 0], expected, atol=2e-3)


@pytest.mark.parametrize(("severity", "shape"), [(5, (32, 32)), (4, (16, 24)), (5, (224, 224)), (1, (100, 96))])
def test_pixelate_is_pillows_box_filter(severity, shape):
    fraction = (
        (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1] if min(shape) < 85 else (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    )
    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    small = Image.fromarray(pixels).resize((int(shape[1] * fraction), int(shape[0] * fraction)), Image.BOX)
    expected = np.asarray(small.resize(shape[::-1], Image.BOX), float)
    np.testing.assert_allclose(255 * one("pixelate", severity, pixels / np.float32(255)), expected, atol=1.01)


def test_pixelate_to_block_means():
    y = one("pixelate", 5, image := RNG.random((88, 96, 1), np.float32))  # a quarter: blocks of 4 x 4
    means = image.reshape(22, 4, 24, 4).mean((1, 3))
    np.testing.assert_allclose(y[..., 0], means.repeat(4, 0).repeat(4, 1), atol=1e-6)


def pillow_jpeg(pixels, quality):
    """The compressed image of pillow, and its tables of quantization steps."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    found = Image.open(file)
    return np.asarray(found, float), found.quantization


def test_dct_is_orthonormal():
    matrix = _jpeg.dct_matrix()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-12)
    np.testing.assert_allclose(matrix, scipy.fft.dct(np.eye(8), axis=0, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("quality", [7, 10, 25, 50, 80, 100])
def test_quantization_is_that_of_pillow(quality):
    tables = pillow_jpeg(np.zeros((8, 8, 3), np.uint8), quality)[1]
    for i, table in enumerate(_jpeg._TABLES):
        np.testing.assert_array_equal(_jpeg.quantization(table, quality), np.reshape(tables[i], (8, 8)))


@pytest.mark.parametrize(("quality", "channels"), [(10, 1), (80, 1), (10, 3), (50, 3), (100, 3)])
def test_jpeg_is_that_of_pillow(quality, channels):
    """Up to the rounding of pillow's integers, which now and then rounds a coefficient to the other side."""
    pixels = np.round(255 * scene(37)[0, :, :27]).astype(np.uint8)
    pixels = pixels if channels == 3 else pixels[..., 0]
    expected, _ = pillow_jpeg(pixels, quality)
    image = jnp.asarray(pixels.reshape(37, 27, channels) / np.float32(255))
    found = 255 * np.asarray(_jpeg.jpeg(image, quality)).reshape(expected.shape)
    difference = abs(np.clip(found, 0, 255) - expected)
    assert np.median(difference) < 1
    assert difference.mean() < 0.15 * abs(pixels - expected).mean() + 0.6


def test_jpeg_of_the_best_quality_is_almost_the_identity():
    gray, color = scene(32)[0, ..., :1], scene(32)[0]
    np.testing.assert_allclose(_jpeg.jpeg(gray, 100), gray, atol=2.5 / 255)
    flat = np.asarray(color).reshape(8, 4, 8, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1)  # colors of 4 x 4 pixels
    assert abs(_jpeg.jpeg(flat, 100) - flat).mean() < 0.02
    one_color = np.broadcast_to(color[0, 0], (16, 16, 3))
    np.testing.assert_allclose(_jpeg.jpeg(one_color, 100), one_color, atol=2 / 255)


# Errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: corrupt(NOISE, "fgo", 1, KEY), ValueError, r"unknown corruption 'fgo'; .*did you mean 'fog'\?"),
        (lambda: corrupt(NOISE, "fog", 0, KEY), ValueError, "fog: severity must be at least 1, got 0"),
        (lambda: corrupt(NOISE, "fog", 6, KEY), ValueError, "fog: severity must be from 1 to 5, got 6"),
        (lambda: corrupt(NOISE, "fog", 1.5, KEY), TypeError, "fog: severity must be an int"),
        (lambda: corrupt(NOISE, "fog", 1, 0), TypeError, "key must be a random key"),
        (lambda: corrupt(NOISE[0], "fog", 1, KEY), ValueError, r"needs images \(N, H, W, C\), got .*\(16, 24, 3\)"),
        (
            lambda: corrupt(9 * NOISE, "fog", 1, KEY),
            ValueError,
            r"values from 0.\d+ to \d.\d+; give floats from 0 to 1",
        ),
        (
            lambda: corrupt(np.where(np.arange(3) == 1, np.nan, NOISE), "contrast", 1, KEY),
            ValueError,
            r"images\[0, 0, 0, 1\] is nan; all values must be finite",
        ),
        (lambda: corrupt(jnp.full((1, 8, 8, 1), jnp.inf), "fog", 1, KEY), ValueError, "is inf; all values must be fin"),
        (lambda: corrupt(NOISE.astype(int), "fog", 1, KEY), TypeError, "needs floating-point input, got int"),
        (lambda: corrupt(NOISE[:, :7], "contrast", 1, KEY), ValueError, r"at least 8 x 8 .* got \(7, 24, 3\)"),
        (lambda: corrupt(NOISE[..., :2], "contrast", 1, KEY), ValueError, r"1 or 3 channels, got \(16, 24, 2\)"),
        (lambda: corruptions.fog(2)(KEY, jnp.zeros((9, 3)), When()), ValueError, r"fog needs an image \(H, W, C\)"),
    ],
)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_is_part_of_the_data_package():
    assert data.corruptions is corruptions
