"""Training images changed at random, in ways that keep their meaning: pure, compiled, a key for each image.

An augmentation is a function `(key, image, when) -> image` on one image (H, W, C) of floats from 0 to 1, or of bytes
from 0 to 255, which stay bytes; `when` says which example it is, in which epoch. `compose` makes one of several and
gives each image of a batch its own key.
A function of your own works as well:

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
    """index: of the example in its data set; epoch: how often all were seen before; scalars."""

    index: jax.Array | int = 0  # type: ignore[assignment]  # tuple.index is not needed here
    epoch: jax.Array | int = 0


Augment = Callable[[jax.Array, jax.Array, When], jax.Array]


def _on_floats(augment: Augment) -> Augment:
    """The augmentation, which computes with float32 from 0 to 1, for bytes and low precision, too."""

    def converted(key, image, when):
        if image.dtype != jnp.uint8:
            return augment(key, at_least_float32(as_floating(image, "an augmentation")), when).astype(image.dtype)
        y = augment(key, image.astype(jnp.float32) / 255, when)
        return jnp.clip(jnp.round(y * 255), 0, 255).astype(jnp.uint8)

    return converted


def compose(*augments: Augment) -> Callable[..., jax.Array]:
    """(key, images (N, H, W, C), when=When()) -> images: one augmentation after the other, for each image by itself.

    Args:
        augments: from this module, or of the same form. `when` of the result has arrays (N,) or scalars.

    Example:
        >>> change = jaxcnn.data.augment.compose(jaxcnn.data.augment.flip(), jaxcnn.data.augment.random_crop(2))
        >>> change(jax.random.key(0), jnp.zeros((4, 8, 8, 3))).shape
        (4, 8, 8, 3)
    """

    def one(key, image, when):
        for i, augment in enumerate(augments):
            image = augment(jax.random.fold_in(key, i), image, when)
        return image

    def batch(key, images, when=When()):
        when = When(*(jnp.broadcast_to(part, len(images)) for part in when))
        return jax.vmap(one)(jax.random.split(key, len(images)), images, when) if augments else images

    return batch


def random_crop(padding: int, *, mode: str = "reflect") -> Augment:
    """A window of the image's size at a random place of the padded image.

    y[i, j] = padded[i + a, j + b],  a and b uniform from 0 to 2 * padding

    Args:
        padding: pixels on each side.
        mode: of the padding: "reflect", "constant" (zeros), "edge" or "wrap".

    Source: He et al., "Deep residual learning for image recognition", 2016 (4 pixels of zeros, for CIFAR).
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
        return rows_and_columns(image, rows, columns, inside=mode == "constant")

    return augment


def translate(pixels: int) -> Augment:
    """The image moved by up to that many pixels each way, with zeros where it came from: `random_crop` of zeros."""
    return random_crop(pixels, mode="constant")


def flip(rate: float = 0.5) -> Augment:
    """Left and right exchanged, with probability `rate`."""
    check_number("flip: rate", rate, 0, 1, closed=True)
    return lambda key, image, when: jnp.where(jax.random.bernoulli(key, jnp.float32(rate)), image[:, ::-1], image)


def alternating_flip(seed: int = 0) -> Augment:
    """Left and right exchanged in every other epoch; at random for each example in the first.

    Two epochs in a row see both sides of every image, which `flip` leaves to chance.

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """

    def augment(key, image, when):
        first = jax.random.bits(jax.random.fold_in(jax.random.key(seed), when.index)) & 1
        turned = (first.astype(jnp.int32) + jnp.asarray(when.epoch).astype(jnp.int32)) % 2 == 1
        return jnp.where(turned, image[:, ::-1], image)

    return augment


def rotate(degrees: float) -> Augment:
    """The image turned around its middle by an angle uniform in [-degrees, degrees], with zeros around it."""
    check_number("rotate: degrees", degrees, 0)

    def augment(key, image, when):
        return warped(image, rotation(jnp.deg2rad(_uniform(key, -degrees, degrees))))

    return _on_floats(augment)


def affine(degrees: float = 0.0, pixels: float = 0.0, zoom: float = 0.0, shear: float = 0.0) -> Augment:
    """The image turned, sheared, zoomed and moved at once, around its middle, with zeros where nothing was.

    y[p] = x[A (p - middle) + middle + b],  A = [[cos t, sin t], [-sin t, cos t]] [[1, s], [0, 1]] z

    Args:
        degrees: t is uniform in [-degrees, degrees].
        pixels: both of b are uniform in [-pixels, pixels].
        zoom: log z is uniform between those of 1 / (1 + zoom) and 1 + zoom.
        shear: s is uniform in [-shear, shear].
    """
    for name, value in {"degrees": degrees, "pixels": pixels, "zoom": zoom, "shear": shear}.items():
        check_number(f"affine: {name}", value, 0)

    def augment(key, image, when):
        angle, slope, size, *moves = _uniform(key, -1.0, 1.0, (5,))
        turn = rotation(jnp.deg2rad(degrees * angle))
        sheared = turn.at[:, 1].add(shear * slope * turn[:, 0])
        return warped(image, sheared * (1 + zoom) ** size, pixels * jnp.stack(moves))

    return _on_floats(augment)


def cutout(size: int) -> Augment:
    """A square of zeros, size x size pixels, around a random pixel; a part may lie outside.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017.
    """
    check_number("cutout: size", size, 0)

    def augment(key, image, when):
        height, width, _ = image.shape
        inside = jnp.ones((), bool)
        for axis, (part, n) in enumerate(zip(jax.random.split(key), (height, width), strict=True)):
            start = jax.random.randint(part, (), 0, n, jnp.int32) - size // 2
            at = jnp.arange(n, dtype=jnp.int32)
            inside = inside & jnp.expand_dims((start <= at) & (at < start + size), (1, 2) if axis == 0 else (0, 2))
        return jnp.where(inside, 0, image)

    return augment


def random_erasing(
    rate: float = 0.5, *, area: tuple[float, float] = (0.02, 1 / 3), ratio: tuple[float, float] = (0.3, 1 / 0.3)
) -> Augment:
    """A rectangle of uniform noise somewhere inside of the image, with probability `rate`.

    Args:
        rate: the probability.
        area: the least and largest share of the image's area; uniform.
        ratio: the least and largest height / width; uniform in its logarithm.

    Source: Zhong et al., "Random erasing data augmentation", 2020.
    """
    check_number("random_erasing: rate", rate, 0, 1, closed=True)

    def augment(key, image, when):
        height, width, _ = image.shape
        keys = jax.random.split(key, 6)
        share = _uniform(keys[0], area[0], area[1])
        shape = jnp.exp(_uniform(keys[1], math.log(ratio[0]), math.log(ratio[1])))
        erased = jax.random.bernoulli(keys[5], jnp.float32(rate))
        for axis, (n, side) in enumerate(((height, jnp.sqrt(shape)), (width, 1 / jnp.sqrt(shape)))):
            length = jnp.clip(jnp.round(jnp.sqrt(share * height * width) * side), 1, n)
            start = jnp.floor(_uniform(keys[2 + axis], 0.0, 1.0) * (n - length + 1))
            at = jnp.arange(n, dtype=jnp.float32)
            erased = erased & jnp.expand_dims((start <= at) & (at < start + length), (1, 2) if axis == 0 else (0, 2))
        return jnp.where(erased, jax.random.uniform(keys[4], image.shape, image.dtype), image)

    return _on_floats(augment)


def brightness(amount: float) -> Augment:
    """image * factor, factor uniform in [1 - amount, 1 + amount], cut to [0, 1]."""
    return _jitter("brightness", amount, lambda image: jnp.zeros_like(image))


def contrast(amount: float) -> Augment:
    """The distance from the mean brightness of the image times a factor, uniform in [1 - amount, 1 + amount]."""
    return _jitter("contrast", amount, lambda image: jnp.broadcast_to(gray(image).mean(), image.shape))


def saturation(amount: float) -> Augment:
    """The distance from gray of each pixel times a factor, uniform in [1 - amount, 1 + amount]."""
    return _jitter("saturation", amount, lambda image: jnp.broadcast_to(gray(image), image.shape))


def rand_augment(count: int = 2, magnitude: float = 9.0) -> Augment:
    """`count` changes one after the other, drawn from 14: nothing, and 13 at the strength `magnitude`, from 0 to 30.

    Turned, sheared and moved each way, brighter or darker, of more or less contrast, color and sharpness, with fewer
    bits, with bright pixels inverted, stretched to the full range, and with an even histogram; where a change has a
    direction, it is drawn. All 14 are computed for each image, so it costs about as much as a small network.

    Source: Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020.
    """
    check_number("rand_augment: count", count, 0)
    strength = check_number("rand_augment: magnitude", magnitude, 0, 30, closed=True) / 30
    changes = _changes(strength)

    def augment(key, image, when):
        for part in jax.random.split(key, count) if count else ():
            which, direction = jax.random.split(part)
            sign = jax.random.rademacher(direction, (), jnp.float32)
            image = lax.switch(jax.random.randint(which, (), 0, len(changes), jnp.int32), changes, image, sign)
        return image

    return _on_floats(augment)


def _changes(strength: float) -> list[Callable[[jax.Array, jax.Array], jax.Array]]:
    """The 14 of RandAugment: (image, -1 or 1) -> image."""

    def toward(base):  # 0.9 is the largest change of the factor
        return lambda image, sign: blend(base(image), image, 1 + 0.9 * strength * sign)

    def shear(row, column):
        slope = 0.3 * strength * jnp.array([[0, row], [column, 0]], jnp.float32)
        return lambda image, sign: warped(image, jnp.eye(2, dtype=jnp.float32) + sign * slope)

    def move(axis):
        def change(image, sign):
            offset = jnp.zeros(2, jnp.float32).at[axis].set(0.45 * strength * image.shape[axis] * sign)
            return warped(image, jnp.eye(2, dtype=jnp.float32), offset)

        return change

    def turn(image, sign):
        return warped(image, rotation(math.radians(30) * strength * sign))

    levels = 2 ** (8 - round(4 * strength))
    return [
        lambda image, sign: image,
        lambda image, sign: stretched(image),
        lambda image, sign: equalized(image),
        turn,
        shear(1, 0),
        shear(0, 1),
        move(0),
        move(1),
        toward(lambda image: jnp.zeros_like(image)),
        toward(lambda image: jnp.broadcast_to(gray(image).mean(), image.shape)),
        toward(lambda image: jnp.broadcast_to(gray(image), image.shape)),
        toward(smoothed),
        lambda image, sign: jnp.floor(image * 255 / (256 // levels) + 1e-3) * (256 // levels) / 255,
        lambda image, sign: jnp.where(image < 1 - strength, image, 1 - image),
    ]


def _uniform(key: jax.Array, low: float, high: float, shape: tuple[int, ...] = ()) -> jax.Array:
    """The same draws with and without 64-bit types."""
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def _jitter(name: str, amount: float, base: Callable[[jax.Array], jax.Array]) -> Augment:
    check_number(f"{name}: amount", amount, 0)

    def augment(key, image, when):
        return blend(base(image), image, 1 + _uniform(key, -amount, amount))

    return _on_floats(augment)
