"""Augmentations against NumPy and pillow, with the random numbers they drew; and what all of them must keep."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from jaxcnn.data import augment
from jaxcnn.data.augment import When

BYTES = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
IMAGE = jnp.asarray(BYTES, jnp.float32) / 255
NUMPY_MODE = {"reflect": "reflect", "constant": "constant", "edge": "edge", "wrap": "wrap"}
ALL = {
    "random_crop": augment.random_crop(3),
    "translate": augment.translate(3),
    "flip": augment.flip(),
    "alternating_flip": augment.alternating_flip(),
    "rotate": augment.rotate(30),
    "affine": augment.affine(30, 3, 0.3, 0.2),
    "cutout": augment.cutout(4),
    "random_erasing": augment.random_erasing(1.0),
    "brightness": augment.brightness(0.5),
    "contrast": augment.contrast(0.5),
    "saturation": augment.saturation(0.5),
    "rand_augment": augment.rand_augment(2, 15),
}


def keys(n):
    return jax.random.split(jax.random.key(7), n)


@functools.cache
def compiled(name):
    return jax.jit(lambda key, image, index, epoch: ALL[name](key, image, When(index, epoch)))


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_keeps_shape_dtype_and_range_and_is_a_function_of_the_key(name, channels):
    image = jax.random.uniform(jax.random.key(0), (10, 8, channels))
    y = [compiled(name)(key, image, 3, 1) for key in keys(4)]
    again = [compiled(name)(key, image, 3, 1) for key in keys(4)]
    for one, other in zip(y, again, strict=True):
        assert one.shape == image.shape
        assert one.dtype == image.dtype
        assert float(one.min()) >= 0
        assert float(one.max()) <= 1
        np.testing.assert_array_equal(one, other)
    if name != "alternating_flip" and (name, channels) != ("saturation", 1):
        assert any((one != image).any() for one in y)
    assert ALL[name](keys(1)[0], image.astype(jnp.bfloat16), When()).dtype == jnp.bfloat16


@pytest.mark.parametrize("mode", NUMPY_MODE)
def test_random_crop(mode):
    seen = set()
    for key in keys(40):
        row, column = np.asarray(jax.random.randint(key, (2,), 0, 7))
        padded = np.pad(BYTES, ((3, 3), (3, 3), (0, 0)), mode)
        expected = padded[row : row + 9, column : column + 12] / np.float32(255)
        np.testing.assert_allclose(augment.random_crop(3, mode=mode)(key, IMAGE, When()), expected, atol=1e-7)
        seen.add((row, column))
    assert {row for row, _ in seen} == {column for _, column in seen} == set(range(7))


def test_translate_is_a_crop_of_zeros():
    for key in keys(5):
        expected = augment.random_crop(2, mode="constant")(key, IMAGE, When())
        np.testing.assert_array_equal(augment.translate(2)(key, IMAGE, When()), expected)


def test_flip():
    for key in keys(10):
        expected = BYTES[:, ::-1] if jax.random.bernoulli(key, 0.5) else BYTES
        np.testing.assert_allclose(augment.flip()(key, IMAGE, When()), expected / np.float32(255))
        np.testing.assert_array_equal(augment.flip(0.0)(key, IMAGE, When()), IMAGE)
        np.testing.assert_array_equal(augment.flip(1.0)(key, IMAGE, When()), IMAGE[:, ::-1])


def test_alternating_flip_shows_both_sides_in_two_epochs():
    change = augment.alternating_flip()
    turned = np.array(
        [[bool((change(k, IMAGE, When(i, e)) != IMAGE).any()) for e in range(4)] for i, k in enumerate(keys(40))]
    )
    assert (turned[:, 0] != turned[:, 1]).all()
    np.testing.assert_array_equal(turned[:, :2], turned[:, 2:])
    assert 8 < turned[:, 0].sum() < 32
    other = augment.alternating_flip(seed=1)
    assert any((other(k, IMAGE, When(i, 0)) != change(k, IMAGE, When(i, 0))).any() for i, k in enumerate(keys(40)))


def bilinear(image, matrix, offset=(0, 0)):
    """Value by value: where each pixel comes from, and the four around it."""
    height, width, _ = image.shape
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    y = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            row, column = matrix @ (np.array([i, j]) - middle) + middle + offset
            top, left = int(np.floor(row)), int(np.floor(column))
            for a in (top, top + 1):
                for b in (left, left + 1):
                    if 0 <= a < height and 0 <= b < width:
                        y[i, j] += (1 - abs(row - a)) * (1 - abs(column - b)) * image[a, b]
    return y


def test_rotate():
    for key in keys(4):
        angle = np.deg2rad(float(jax.random.uniform(key, minval=-30, maxval=30)))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        y = augment.rotate(30)(key, IMAGE, When())
        np.testing.assert_allclose(y, bilinear(np.asarray(IMAGE), turn), atol=1e-4)
    np.testing.assert_allclose(augment.rotate(0)(key, IMAGE, When()), IMAGE, atol=1e-6)


def test_affine():
    for key in keys(4):
        angle, slope, size, *moves = np.asarray(jax.random.uniform(key, (5,), minval=-1, maxval=1), float)
        angle = np.deg2rad(20 * angle)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.array([[1, 0.3 * slope], [0, 1]]) * 1.5**size
        y = augment.affine(20, 2, 0.5, 0.3)(key, IMAGE, When())
        np.testing.assert_allclose(y, bilinear(np.asarray(IMAGE), matrix, 2 * np.array(moves)), atol=1e-4)
    np.testing.assert_allclose(augment.affine()(key, IMAGE, When()), IMAGE, atol=1e-6)


def test_cutout():
    image = jnp.ones((9, 12, 2))
    covered = np.zeros((9, 12), int)
    for key in keys(60):
        row, column = (
            int(jax.random.randint(k, (), 0, n)) for k, n in zip(jax.random.split(key), (9, 12), strict=True)
        )
        expected = np.ones((9, 12, 2))
        expected[max(row - 2, 0) : row + 2, max(column - 2, 0) : column + 2] = 0
        np.testing.assert_array_equal(augment.cutout(4)(key, image, When()), expected)
        covered += expected[..., 0] == 0
    assert covered.min() > 0  # the corners, too


def test_random_erasing_has_the_given_ratio_and_fills_with_noise():
    change = augment.random_erasing(1.0, area=(0.25, 0.25), ratio=(4, 4))
    y = np.asarray(change(jax.random.key(0), jnp.full((32, 32, 1), 2.0), When()))[..., 0]
    rows, columns = np.nonzero(y != 2)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (32, 8, 256)  # height / width
    noise = y[y != 2]
    assert 0 <= noise.min() < 0.1
    assert 0.9 < noise.max() < 1
    assert noise.std() > 0.2


def test_random_erasing():
    image = jnp.full((16, 20, 3), 2.0)  # outside of the noise's range
    areas, ratios = [], []
    for key in keys(50):
        erased = np.asarray(augment.random_erasing(1.0)(key, image, When()) != 2)[..., 0]
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased.sum() == len(rows) * len(columns)  # one rectangle
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
        areas.append(erased.mean())
        ratios.append(len(rows) / len(columns))
    assert 0.01 < min(areas) < 0.1
    assert 0.25 < max(areas) < 0.4
    assert min(ratios) < 0.7
    assert max(ratios) > 1.4
    changed = [(augment.random_erasing(0.25)(key, image, When()) != 2).any() for key in keys(100)]
    assert 12 < sum(changed) < 40


def pillow(y):
    return np.asarray(y, np.float32) / 255


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_jitter(name, enhance):
    for key in keys(5):
        factor = float(1 + jax.random.uniform(key, minval=-0.6, maxval=0.6))
        y = getattr(augment, name)(0.6)(key, IMAGE, When())
        np.testing.assert_allclose(y, pillow(enhance(Image.fromarray(BYTES)).enhance(factor)), atol=2.5 / 255)


@pytest.mark.slow
def test_whole_histogram():
    dark = Image.fromarray(BYTES // 3 + 40)
    image = jnp.asarray(dark, jnp.float32) / 255
    np.testing.assert_allclose(augment.stretched(image), pillow(ImageOps.autocontrast(dark)), atol=1.01 / 255)
    for size in (30, 9):
        noise = np.random.default_rng(1).normal(120, 25, (size, size, 3)).clip(0, 255).astype(np.uint8)
        expected = pillow(ImageOps.equalize(Image.fromarray(noise)))
        np.testing.assert_allclose(augment.equalized(jnp.asarray(noise, jnp.float32) / 255), expected, atol=1e-6)
    np.testing.assert_array_equal(augment.stretched(jnp.full((4, 4, 1), 0.3)), jnp.full((4, 4, 1), 0.3))
    np.testing.assert_array_equal(augment.equalized(jnp.full((4, 4, 1), 0.3)), jnp.full((4, 4, 1), 0.3))


def test_smoothed():
    expected = pillow(Image.fromarray(BYTES).filter(ImageFilter.SMOOTH))
    np.testing.assert_allclose(augment.smoothed(IMAGE), expected, atol=1.01 / 255)


def test_the_operations_of_rand_augment():
    operations = augment._rand_augment_operations(0.5)
    assert len(operations) == 14
    image = np.asarray(IMAGE)
    expected = {
        "identity": image,
        "rotate": bilinear(image, np.array([[np.cos(a := np.deg2rad(15)), np.sin(a)], [-np.sin(a), np.cos(a)]])),
        "shear_y": bilinear(image, np.array([[1, 0.15], [0, 1]])),
        "shear_x": bilinear(image, np.array([[1, 0], [0.15, 1]])),
        "translate_y": bilinear(image, np.eye(2), (0.225 * 9, 0)),
        "translate_x": bilinear(image, np.eye(2), (0, 0.225 * 12)),
        "brightness": pillow(ImageEnhance.Brightness(Image.fromarray(BYTES)).enhance(1.45)),
        "contrast": pillow(ImageEnhance.Contrast(Image.fromarray(BYTES)).enhance(1.45)),
        "color": pillow(ImageEnhance.Color(Image.fromarray(BYTES)).enhance(1.45)),
        "sharpness": pillow(ImageEnhance.Sharpness(Image.fromarray(BYTES)).enhance(1.45)),
        "posterize": pillow(ImageOps.posterize(Image.fromarray(BYTES), 6)),
        "solarize": pillow(ImageOps.solarize(Image.fromarray(BYTES), 128)),
    }
    for name, y in expected.items():
        np.testing.assert_allclose(operations[name](IMAGE, jnp.float32(1)), y, atol=2.5 / 255, err_msg=name)


def test_rand_augment_draws_all_and_needs_none():
    np.testing.assert_array_equal(augment.rand_augment(0)(keys(1)[0], IMAGE, When()), IMAGE)
    change = jax.jit(lambda key: augment.rand_augment(1, 10)(key, IMAGE, When()))
    distinct = {np.asarray(change(key)).round(4).tobytes() for key in keys(120)}
    assert 20 <= len(distinct) <= 28  # 14, most with two directions, some of which look the same


def test_compose_gives_each_image_a_key_and_its_place():
    change = augment.compose(augment.flip(), augment.brightness(0.5), lambda key, image, when: image + when.index)
    images = jnp.stack([IMAGE] * 6)
    y = change(jax.random.key(0), images, When(jnp.arange(6), 2))
    assert len({np.asarray(one - i).tobytes() for i, one in enumerate(y)}) > 3
    key = jax.random.split(jax.random.key(0), 6)[4]
    one = augment.flip()(jax.random.fold_in(key, 0), IMAGE, When())
    one = augment.brightness(0.5)(jax.random.fold_in(key, 1), one, When())
    np.testing.assert_allclose(y[4], one + 4, atol=1e-6)
    np.testing.assert_array_equal(augment.compose()(jax.random.key(0), images), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.random_crop(-1), "padding must be at least 0"),
        (lambda: augment.random_crop(2, mode="mirror"), "unknown mode 'mirror'; expected one of: reflect"),
        (lambda: augment.random_crop(9)(keys(1)[0], IMAGE, When()), r"\(9, 12, 3\) cannot be reflected by 9"),
        (lambda: augment.flip(1.5), "rate must be at least 0 and at most 1, got 1.5"),
        (lambda: augment.flip("often"), "rate must be a number"),
        (lambda: augment.cutout(-2), "size must be at least 0"),
        (lambda: augment.brightness(-0.1), "amount must be at least 0"),
        (lambda: augment.brightness(1e99), "amount must be at least 0 and finite, got 1e"),
        (lambda: augment.translate(10**10), "pixels must be below 1073741824, got 10000000000"),
        (lambda: augment.cutout(10**30), "size must be below 2147483648, got 1000000"),
        (lambda: augment.alternating_flip("a"), "alternating_flip: seed must be an int, got 'a'"),
        (lambda: augment.random_erasing(area=(-1, 2)), "random_erasing: area must be at least 0 and at most 1, got -1"),
        (lambda: augment.random_erasing(area=(np.nan, 1)), "random_erasing: area must be at least 0 .*, got nan"),
        (lambda: augment.random_erasing(area=(0.4, 0.2)), r"area must be \(low, high\) with low <= high, got \(0.4, 0"),
        (lambda: augment.random_erasing(area=(0.1, 0.2, 0.3)), r"area must be two numbers, \(low, high\), got \(0.1"),
        (lambda: augment.random_erasing(area=0.3), r"area must be two numbers, \(low, high\), got 0.3"),
        (lambda: augment.random_erasing(area=("a", "b")), "random_erasing: area must be a number, got 'a'"),
        (lambda: augment.random_erasing(ratio=(0, 1)), "random_erasing: ratio must be above 0, got 0"),
        (lambda: augment.random_erasing(ratio=(2, 1)), r"ratio must be \(low, high\) with low <= high, got \(2, 1\)"),
        (lambda: augment.compose("flip"), "compose needs augmentations, such as .*, got 'flip'"),
        (lambda: augment.compose([augment.flip()]), r"got \[Geometric\(.*pass a list as \*list"),
        (lambda: augment.rand_augment(2, 31), "magnitude must be at least 0 and at most 30"),
    ],
)
def test_refuses(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
