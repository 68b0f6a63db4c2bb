"""Random augmentations of training images. They are pure functions, can be compiled, and use one key per image.

An augmentation is a function `(key, image, when) -> image` of one image (H, W, C): floats from 0 to 1, or uint8 from
0 to 255. The dtype does not change. `when` holds the index of the example and the epoch. `compose` chains several
augmentations and applies them to a batch. Any function of this form is an augmentation:

    brighter = lambda key, image, when: image * jax.random.uniform(key, minval=0.9, maxval=1.1)

Augmentations that move pixels are of the type `Geometric`. `compose` and `train.fit` apply them to label maps, too:
random_crop, translate, flip, alternating_flip, rotate, affine, and the geometric operations of rand_augment. All others
leave labels unchanged; under the square of `cutout`, for example, each pixel keeps its label.

Signals (T, C): random_crop, translate and cutout. Volumes (D, H, W, C): these, flip, alternating_flip, brightness,
contrast and saturation. The others raise an error.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_number, check_positive, short_repr
from jaxcnn.data._augmentation import Augment as Augment
from jaxcnn.data._augmentation import Geometric as Geometric
from jaxcnn.data._augmentation import When as When
from jaxcnn.data._augmentation import check_spatial, in_float32, uniform
from jaxcnn.data._augmentation import compose as compose
from jaxcnn.data._geometric import affine as affine
from jaxcnn.data._geometric import alternating_flip as alternating_flip
from jaxcnn.data._geometric import fill_or_error
from jaxcnn.data._geometric import flip as flip
from jaxcnn.data._geometric import random_crop as random_crop
from jaxcnn.data._geometric import rotate as rotate
from jaxcnn.data._geometric import translate as translate
from jaxcnn.data._pixels import blend, gray, nearest, rotation, warped
from jaxcnn.data._pixels import equalized as equalized
from jaxcnn.data._pixels import smoothed as smoothed
from jaxcnn.data._pixels import stretched as stretched

__all__ = [
    "Augment",
    "Geometric",
    "When",
    "affine",
    "alternating_flip",
    "brightness",
    "compose",
    "contrast",
    "cutout",
    "equalized",
    "flip",
    "rand_augment",
    "random_crop",
    "random_erasing",
    "rotate",
    "saturation",
    "smoothed",
    "stretched",
    "translate",
]


def cutout(size: int) -> Augment:
    """Set a square of size x size pixels around a random pixel to zero. The square may extend beyond the image.

    In a signal, it is an interval; in a volume, a cube.

    Args:
        size: the side of the square, in pixels.

    Raises:
        TypeError, ValueError: for a size that is not an integer of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.cutout(4)
        >>> y = change(jax.random.key(0), jnp.ones((16, 16, 1)), jaxcnn.data.augment.When())
        >>> 4 <= int((y == 0).sum()) <= 16
        True

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    size = check_integer("cutout", "size", size, 0)

    def augment(key, image, when):
        spatial = check_spatial("cutout", image, (1, 2, 3))
        inside = jnp.ones((), bool)
        for axis, (axis_key, n) in enumerate(zip(jax.random.split(key, len(spatial)), spatial, strict=True)):
            start = jax.random.randint(axis_key, (), 0, n, jnp.int32) - size // 2
            positions = jnp.arange(n, dtype=jnp.int32)
            covered = (start <= positions) & (positions < start + size)
            inside = inside & jnp.expand_dims(covered, [other for other in range(image.ndim) if other != axis])
        return jnp.where(inside, 0, image)

    return augment


def random_erasing(
    rate: float = 0.5, *, area: tuple[float, float] = (0.02, 1 / 3), ratio: tuple[float, float] = (0.3, 1 / 0.3)
) -> Augment:
    """Replace a random rectangle inside the image by uniform noise, with probability `rate`.

    Args:
        rate: the probability, in [0, 1].
        area: (low, high) of the erased fraction of the image area, which is uniform; both in [0, 1].
        ratio: (low, high) of height / width, both above 0. Its logarithm is uniform.

    Raises:
        TypeError, ValueError: for an argument outside of its range, or a low above its high.

    Example:
        >>> change = jaxcnn.data.augment.random_erasing(1.0, area=(0.25, 0.25), ratio=(1, 1))
        >>> y = change(jax.random.key(0), jnp.zeros((16, 16, 1)), jaxcnn.data.augment.When())
        >>> int((y > 0).sum())
        64

    Source: Zhong et al., "Random erasing data augmentation", 2020.
    """
    rate = check_number("random_erasing", "rate", rate, 0, 1, closed=True)
    area = _checked_range("area", area, functools.partial(check_number, below=1, closed=True))
    ratio = _checked_range("ratio", ratio, check_positive)

    def augment(key, image, when):
        height, width = check_spatial("random_erasing", image, (2,))
        keys = jax.random.split(key, 6)
        fraction = uniform(keys[0], area[0], area[1])
        shape = jnp.exp(uniform(keys[1], math.log(ratio[0]), math.log(ratio[1])))
        erased = jax.random.bernoulli(keys[5], jnp.float32(rate))
        for axis, (n, side) in enumerate(((height, jnp.sqrt(shape)), (width, 1 / jnp.sqrt(shape)))):
            length = jnp.clip(jnp.round(jnp.sqrt(fraction * height * width) * side), 1, n)
            start = jnp.floor(uniform(keys[2 + axis], 0.0, 1.0) * (n - length + 1))
            positions = jnp.arange(n, dtype=jnp.float32)
            covered = (start <= positions) & (positions < start + length)
            erased = erased & jnp.expand_dims(covered, (1, 2) if axis == 0 else (0, 2))
        return jnp.where(erased, jax.random.uniform(keys[4], image.shape, image.dtype), image)

    return in_float32(augment)


def _checked_range(name: str, values: Any, check: Callable[[str, str, Any], Any]) -> tuple[float, float]:
    """Return `values` as (low, high), two numbers that `check` accepts, or raise an error that names the argument."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise TypeError(f"random_erasing: {name} must be two numbers, (low, high), got {short_repr(values)}")
    low, high = (check("random_erasing", name, value) for value in values)
    if low > high:
        raise ValueError(f"random_erasing: {name} must be (low, high) with low <= high, got {values}")
    return low, high


def brightness(amount: float) -> Augment:
    """Multiply the image by a factor uniform in [1 - amount, 1 + amount], and clip to [0, 1].

    Args:
        amount: the largest relative change of the brightness: 0.2 for factors from 0.8 to 1.2.

    Raises:
        TypeError, ValueError: for an amount that is not a finite number of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.brightness(0.2)
        >>> y = change(jax.random.key(0), jnp.full((8, 8, 3), 0.5), jaxcnn.data.augment.When())
        >>> bool((y >= 0.4).all() and (y <= 0.6).all())
        True
    """
    return _jitter("brightness", amount, jnp.zeros_like)


def contrast(amount: float) -> Augment:
    """Scale the difference from the mean brightness by a factor uniform in [1 - amount, 1 + amount]; clip to [0, 1].

    Args:
        amount: the largest relative change of the difference: 0.2 for factors from 0.8 to 1.2.

    Raises:
        TypeError, ValueError: for an amount that is not a finite number of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.contrast(0.2)
        >>> y = change(jax.random.key(0), jnp.full((8, 8, 3), 0.5), jaxcnn.data.augment.When())
        >>> bool(jnp.allclose(y, 0.5))  # no difference from the mean
        True
    """
    return _jitter("contrast", amount, _mean_brightness)


def saturation(amount: float) -> Augment:
    """Scale the difference from the gray image by a factor uniform in [1 - amount, 1 + amount]; clip to [0, 1].

    Args:
        amount: the largest relative change of the difference: 0.2 for factors from 0.8 to 1.2.

    Raises:
        TypeError, ValueError: for an amount that is not a finite number of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.saturation(0.2)
        >>> y = change(jax.random.key(0), jnp.full((8, 8, 3), 0.5), jaxcnn.data.augment.When())
        >>> bool(jnp.allclose(y, 0.5))  # gray stays gray
        True
    """
    return _jitter("saturation", amount, _gray_image)


def rand_augment(count: int = 2, magnitude: float = 9.0) -> Augment:
    """Apply `count` random operations out of 14, at a strength of `magnitude` from 0 to 30.

    The operations: identity, autocontrast, equalize, rotate, shear (x, y), translate (x, y), brightness, contrast,
    color, sharpness, posterize, solarize. The direction of an operation is random. All 14 are computed for every
    image, so this costs about as much as a small network.

    Args:
        count: the number of operations, one after the other.
        magnitude: their strength, in [0, 30]. At 30, the image is rotated by 30 degrees or shifted by 45% of its side.

    Raises:
        TypeError, ValueError: for a count that is not an integer of at least 0, or a magnitude outside [0, 30].

    Example:
        >>> change = jaxcnn.data.augment.rand_augment(1, 9)
        >>> change(jax.random.key(0), jnp.ones((8, 8, 3)), jaxcnn.data.augment.When()).shape
        (8, 8, 3)

    Source: Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020.
    """
    count = check_integer("rand_augment", "count", count, 0)
    strength = check_number("rand_augment", "magnitude", magnitude, 0, 30, closed=True) / 30

    def apply_random(key, x, operations):
        for step_key in jax.random.split(key, count) if count else ():
            index_key, sign_key = jax.random.split(step_key)
            index = jax.random.randint(index_key, (), 0, len(operations), jnp.int32)
            sign = jax.random.rademacher(sign_key, (), jnp.float32)
            x = lax.switch(index, list(operations.values()), x, sign)
        return x

    def on_image(key, image, when):
        check_spatial("rand_augment", image, (2,))
        return apply_random(key, image, _rand_augment_operations(strength))

    def on_label(key, label, when, fill):
        operations = _rand_augment_operations(
            strength, functools.partial(nearest, fill=fill_or_error("rand_augment", fill))
        )
        moving = {name: f if name in _MOVING else operations["identity"] for name, f in operations.items()}
        return apply_random(key, label, moving)

    return Geometric(in_float32(on_image), on_label)


_MOVING = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}  # operations that move pixels


def _rand_augment_operations(
    strength: float, warped: Callable[..., jax.Array] = warped
) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """Return the 14 operations of RandAugment by name: (image, -1 or 1) -> image."""

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
    return {
        "identity": lambda image, sign: image,
        "autocontrast": lambda image, sign: stretched(image),
        "equalize": lambda image, sign: equalized(image),
        "rotate": rotated,
        "shear_y": shear(1, 0),
        "shear_x": shear(0, 1),
        "translate_y": translate_along(0),
        "translate_x": translate_along(1),
        "brightness": away_from(jnp.zeros_like),
        "contrast": away_from(_mean_brightness),
        "color": away_from(_gray_image),
        "sharpness": away_from(smoothed),
        "posterize": lambda image, sign: jnp.floor(image * 255 / (256 // levels) + 1e-3) * (256 // levels) / 255,
        "solarize": lambda image, sign: jnp.where(image < 1 - strength, image, 1 - image),
    }


def _mean_brightness(image: jax.Array) -> jax.Array:
    return jnp.broadcast_to(gray(image).mean(), image.shape)


def _gray_image(image: jax.Array) -> jax.Array:
    return jnp.broadcast_to(gray(image), image.shape)


def _jitter(name: str, amount: float, base: Callable[[jax.Array], jax.Array]) -> Augment:
    amount = check_number(name, "amount", amount, 0)

    def augment(key, image, when):
        check_spatial(name, image, (2, 3))
        return blend(base(image), image, 1 + uniform(key, -amount, amount))

    return in_float32(augment)
