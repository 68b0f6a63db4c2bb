"""Random augmentations of training images. They are pure functions, can be compiled, and use one key per image.

An augmentation is a function `(key, image, when) -> image` of one image (H, W, C): floats from 0 to 1, or uint8 from
0 to 255. The dtype does not change. `when` holds the index of the example and the epoch. `compose` chains several
augmentations and applies them to a batch. Any function of this form is an augmentation:

    brighter = lambda key, image, when: image * jax.random.uniform(key, minval=0.9, maxval=1.1)
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._layer import as_floating, at_least_float32, check_number
from jaxcnn.data._pixels import blend, gray, rotation, rows_and_columns, source_positions, warped
from jaxcnn.data._pixels import equalized as equalized
from jaxcnn.data._pixels import smoothed as smoothed
from jaxcnn.data._pixels import stretched as stretched


class When(NamedTuple):
    """index: position of the example in its data set; epoch: the number of completed epochs; both scalars."""

    index: jax.Array | int = 0  # type: ignore[assignment]  # tuple.index is not needed here
    epoch: jax.Array | int = 0


Augment = Callable[[jax.Array, jax.Array, When], jax.Array]


def _in_float32(augment: Augment) -> Augment:
    """Wrap an augmentation of float32 images from 0 to 1, so that it accepts uint8 and low-precision images."""

    def converted(key, image, when):
        if image.dtype != jnp.uint8:
            return augment(key, at_least_float32(as_floating(image, "an augmentation")), when).astype(image.dtype)
        y = augment(key, image.astype(jnp.float32) / 255, when)
        return jnp.clip(jnp.round(y * 255), 0, 255).astype(jnp.uint8)

    return converted


def compose(*augments: Augment) -> Callable[..., jax.Array]:
    """(key, images (N, H, W, C), when=When()) -> images: chain augmentations and apply them with one key per image.

    Args:
        augments: augmentations, applied in this order. The fields of `when` are arrays (N,) or scalars.

    Example:
        >>> change = jaxcnn.data.augment.compose(jaxcnn.data.augment.flip(), jaxcnn.data.augment.random_crop(2))
        >>> change(jax.random.key(0), jnp.zeros((4, 8, 8, 3))).shape
        (4, 8, 8, 3)
    """

    def augment_image(key, image, when):
        for i, augment in enumerate(augments):
            image = augment(jax.random.fold_in(key, i), image, when)
        return image

    def augment_batch(key, images, when=When()):
        when = When(*(jnp.broadcast_to(field, len(images)) for field in when))
        return jax.vmap(augment_image)(jax.random.split(key, len(images)), images, when) if augments else images

    return augment_batch


def random_crop(padding: int, *, mode: str = "reflect") -> Augment:
    """Pad the image and crop a window of the original size at a random position.

    y[i, j] = padded[i + a, j + b],  a and b uniform in {0, .., 2 * padding}

    Args:
        padding: the number of pixels on each side.
        mode: the padding mode: "reflect", "constant" (zeros), "edge" or "wrap".

    Source: He et al., "Deep residual learning for image recognition", 2016 (4 pixels of zeros for CIFAR).
    """
    check_number("random_crop: padding", padding, 0)
    if mode not in ("reflect", "constant", "edge", "wrap"):
        raise ValueError(f"random_crop: mode must be 'reflect', 'constant', 'edge' or 'wrap', got {mode!r}")

    def augment(key, image, when):
        height, width, _ = image.shape
        if mode == "reflect" and padding >= min(height, width):
            raise ValueError(f"random_crop: an image {image.shape} cannot be reflected by {padding} pixels")
        row, column = jax.random.randint(key, (2,), 0, 2 * padding + 1, jnp.int32)
        rows = source_positions(jnp.arange(height, dtype=jnp.int32) + row - padding, height, mode)
        columns = source_positions(jnp.arange(width, dtype=jnp.int32) + column - padding, width, mode)
        return rows_and_columns(image, rows, columns, zero_outside=mode == "constant")

    return augment


def translate(pixels: int) -> Augment:
    """Shift the image by up to `pixels` in each direction and fill with zeros: `random_crop` with zero padding."""
    return random_crop(pixels, mode="constant")


def flip(rate: float = 0.5) -> Augment:
    """Flip the image horizontally, with probability `rate`."""
    check_number("flip: rate", rate, 0, 1, closed=True)
    return lambda key, image, when: jnp.where(jax.random.bernoulli(key, jnp.float32(rate)), image[:, ::-1], image)


def alternating_flip(seed: int = 0) -> Augment:
    """Flip each image horizontally in every second epoch. Whether an image is flipped in the first epoch is random.

    Two consecutive epochs contain both versions of every image. `flip` does not guarantee this.

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """

    def augment(key, image, when):
        first = jax.random.bits(jax.random.fold_in(jax.random.key(seed), when.index)) & 1
        flipped = (first.astype(jnp.int32) + jnp.asarray(when.epoch).astype(jnp.int32)) % 2 == 1
        return jnp.where(flipped, image[:, ::-1], image)

    return augment


def rotate(degrees: float) -> Augment:
    """Rotate the image around its center by an angle uniform in [-degrees, degrees], and fill with zeros."""
    check_number("rotate: degrees", degrees, 0)

    def augment(key, image, when):
        return warped(image, rotation(jnp.deg2rad(_uniform(key, -degrees, degrees))))

    return _in_float32(augment)


def affine(degrees: float = 0.0, pixels: float = 0.0, zoom: float = 0.0, shear: float = 0.0) -> Augment:
    """Rotate, shear, zoom and shift the image around its center, in one interpolation, and fill with zeros.

    y[p] = x[A (p - center) + center + b],  A = [[cos t, sin t], [-sin t, cos t]] [[1, s], [0, 1]] z

    Args:
        degrees: t is uniform in [-degrees, degrees].
        pixels: both entries of b are uniform in [-pixels, pixels].
        zoom: log z is uniform in [-log(1 + zoom), log(1 + zoom)].
        shear: s is uniform in [-shear, shear].
    """
    for name, value in {"degrees": degrees, "pixels": pixels, "zoom": zoom, "shear": shear}.items():
        check_number(f"affine: {name}", value, 0)

    def augment(key, image, when):
        angle, slope, size, *shifts = _uniform(key, -1.0, 1.0, (5,))
        rotated = rotation(jnp.deg2rad(degrees * angle))
        sheared = rotated.at[:, 1].add(shear * slope * rotated[:, 0])
        return warped(image, sheared * (1 + zoom) ** size, pixels * jnp.stack(shifts))

    return _in_float32(augment)


def cutout(size: int) -> Augment:
    """Set a square of size x size pixels around a random pixel to zero. The square may extend beyond the image.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    check_number("cutout: size", size, 0)

    def augment(key, image, when):
        height, width, _ = image.shape
        inside = jnp.ones((), bool)
        for axis, (axis_key, n) in enumerate(zip(jax.random.split(key), (height, width), strict=True)):
            start = jax.random.randint(axis_key, (), 0, n, jnp.int32) - size // 2
            positions = jnp.arange(n, dtype=jnp.int32)
            covered = (start <= positions) & (positions < start + size)
            inside = inside & jnp.expand_dims(covered, (1, 2) if axis == 0 else (0, 2))
        return jnp.where(inside, 0, image)

    return augment


def random_erasing(
    rate: float = 0.5, *, area: tuple[float, float] = (0.02, 1 / 3), ratio: tuple[float, float] = (0.3, 1 / 0.3)
) -> Augment:
    """Replace a random rectangle inside the image by uniform noise, with probability `rate`.

    Args:
        rate: the probability.
        area: (low, high) of the erased fraction of the image area, which is uniform.
        ratio: (low, high) of height / width. Its logarithm is uniform.

    Source: Zhong et al., "Random erasing data augmentation", 2020.
    """
    check_number("random_erasing: rate", rate, 0, 1, closed=True)

    def augment(key, image, when):
        height, width, _ = image.shape
        keys = jax.random.split(key, 6)
        fraction = _uniform(keys[0], area[0], area[1])
        shape = jnp.exp(_uniform(keys[1], math.log(ratio[0]), math.log(ratio[1])))
        erased = jax.random.bernoulli(keys[5], jnp.float32(rate))
        for axis, (n, side) in enumerate(((height, jnp.sqrt(shape)), (width, 1 / jnp.sqrt(shape)))):
            length = jnp.clip(jnp.round(jnp.sqrt(fraction * height * width) * side), 1, n)
            start = jnp.floor(_uniform(keys[2 + axis], 0.0, 1.0) * (n - length + 1))
            positions = jnp.arange(n, dtype=jnp.float32)
            covered = (start <= positions) & (positions < start + length)
            erased = erased & jnp.expand_dims(covered, (1, 2) if axis == 0 else (0, 2))
        return jnp.where(erased, jax.random.uniform(keys[4], image.shape, image.dtype), image)

    return _in_float32(augment)


def brightness(amount: float) -> Augment:
    """Multiply the image by a factor uniform in [1 - amount, 1 + amount], and clip to [0, 1]."""
    return _jitter("brightness", amount, lambda image: jnp.zeros_like(image))


def contrast(amount: float) -> Augment:
    """Scale the difference from the mean brightness by a factor uniform in [1 - amount, 1 + amount]; clip to [0, 1]."""
    return _jitter("contrast", amount, lambda image: jnp.broadcast_to(gray(image).mean(), image.shape))


def saturation(amount: float) -> Augment:
    """Scale the difference from the gray image by a factor uniform in [1 - amount, 1 + amount]; clip to [0, 1]."""
    return _jitter("saturation", amount, lambda image: jnp.broadcast_to(gray(image), image.shape))


def rand_augment(count: int = 2, magnitude: float = 9.0) -> Augment:
    """Apply `count` random operations out of 14, at a strength of `magnitude` from 0 to 30.

    The operations: identity, autocontrast, equalize, rotate, shear (x, y), translate (x, y), brightness, contrast,
    color, sharpness, posterize, solarize. The direction of an operation is random. All 14 are computed for every
    image, so this costs about as much as a small network.

    Source: Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020.
    """
    check_number("rand_augment: count", count, 0)
    strength = check_number("rand_augment: magnitude", magnitude, 0, 30, closed=True) / 30
    operations = _rand_augment_operations(strength)

    def augment(key, image, when):
        for step_key in jax.random.split(key, count) if count else ():
            index_key, sign_key = jax.random.split(step_key)
            index = jax.random.randint(index_key, (), 0, len(operations), jnp.int32)
            sign = jax.random.rademacher(sign_key, (), jnp.float32)
            image = lax.switch(index, operations, image, sign)
        return image

    return _in_float32(augment)


def _rand_augment_operations(strength: float) -> list[Callable[[jax.Array, jax.Array], jax.Array]]:
    """Return the 14 operations of RandAugment: (image, -1 or 1) -> image."""

    def away_from(base):  # blends with a factor from 0.1 to 1.9
        return lambda image, sign: blend(base(image), image, 1 + 0.9 * strength * sign)

    def shear(row, column):
        slope = 0.3 * strength * jnp.array([[0, row], [column, 0]], jnp.float32)
        return lambda image, sign: warped(image, jnp.eye(2, dtype=jnp.float32) + sign * slope)

    def translate_along(axis):
        def apply(image, sign):
            offset = jnp.zeros(2, jnp.float32).at[axis].set(0.45 * strength * image.shape[axis] * sign)
            return warped(image, jnp.eye(2, dtype=jnp.float32), offset)

        return apply

    def rotated(image, sign):
        return warped(image, rotation(math.radians(30) * strength * sign))

    levels = 2 ** (8 - round(4 * strength))
    return [
        lambda image, sign: image,
        lambda image, sign: stretched(image),
        lambda image, sign: equalized(image),
        rotated,
        shear(1, 0),
        shear(0, 1),
        translate_along(0),
        translate_along(1),
        away_from(lambda image: jnp.zeros_like(image)),
        away_from(lambda image: jnp.broadcast_to(gray(image).mean(), image.shape)),
        away_from(lambda image: jnp.broadcast_to(gray(image), image.shape)),
        away_from(smoothed),
        lambda image, sign: jnp.floor(image * 255 / (256 // levels) + 1e-3) * (256 // levels) / 255,
        lambda image, sign: jnp.where(image < 1 - strength, image, 1 - image),
    ]


def _uniform(key: jax.Array, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """Draw float32, so that the values do not depend on jax_enable_x64."""
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def _jitter(name: str, amount: float, base: Callable[[jax.Array], jax.Array]) -> Augment:
    check_number(f"{name}: amount", amount, 0)

    def augment(key, image, when):
        return blend(base(image), image, 1 + _uniform(key, -amount, amount))

    return _in_float32(augment)
