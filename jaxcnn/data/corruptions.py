"""Image corruptions at five severities, to measure how robust a classifier is. They can be compiled and vmapped.

The twelve corruptions of ImageNet-C and CIFAR-10-C that are formulas of the image and of random numbers: noise, blur,
weather and digital. The benchmark has three more: frost, which needs photos of ice, glass blur, which exchanges pixels
one after the other, and snow. They are not implemented. The images of the benchmark were created by other programs, so
results are similar to published ones, but not comparable digit by digit.

A corruption, such as `fog(3)`, is an augmentation of `data.augment`: `(key, image (H, W, C), when) -> image`. `corrupt`
applies one by its name to a batch. Images have at least 8 x 8 pixels and 1 or 3 channels: floats from 0 to 1, or uint8
from 0 to 255; the dtype does not change. Label maps do not change either, also where `elastic_transform` moves pixels.

The parameters follow from the shorter side of the image. Below 85 pixels, they are those of CIFAR-10-C (32 x 32), with
lengths in pixels. From 85 pixels on, they are those of ImageNet-C (224 x 224), with lengths proportional to the side.
The severities of CIFAR-10-C are weaker, as small images have less redundancy.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
2019.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxcnn._arguments import short_repr
from jaxcnn._array import as_floating
from jaxcnn._key import check_key
from jaxcnn._path import expected_one_of
from jaxcnn._validate import check_finite, is_concrete, values_between
from jaxcnn.data._augmentation import Augment, compose, uniform
from jaxcnn.data._corruption import at_severity
from jaxcnn.data._filters import block_means, disk, gaussian_matrix, plasma, separable
from jaxcnn.data._jpeg import jpeg
from jaxcnn.data._pixels import warped


def corrupt(images: Any, name: str, severity: int, key: jax.Array) -> jax.Array:
    """images (N, H, W, C) -> the same: corrupted, each image with random numbers of its own.

    Args:
        images: floats from 0 to 1, or uint8. Make `data.normalize` a layer of the model, not a step before.
        name: one of `CORRUPTIONS`.
        severity: from 1 to 5.
        key: the same key gives the same images.

    Raises:
        TypeError: for integers other than uint8, a severity that is not an integer, or no random key.
        ValueError: for an unknown name, a severity outside of 1 to 5, images of another shape or range, or that are not
            finite.

    Example:
        >>> from jaxcnn.data.corruptions import CORRUPTIONS, corrupt
        >>> images = jaxcnn.data.load("mnist_small", "test").images[:2]
        >>> corrupted = corrupt(images, "contrast", 3, jax.random.key(0))
        >>> len(CORRUPTIONS), corrupted.shape, corrupted.dtype
        (12, (2, 28, 28, 1), dtype('uint8'))
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corrupt: unknown corruption {name!r}; {expected_one_of(name, CORRUPTIONS)}")
    if np.ndim(images) != 4:
        raise ValueError(f"corrupt needs images (N, H, W, C), got {short_repr(images)}; add the missing dimension")
    if jnp.result_type(images) != jnp.uint8:
        images = as_floating(images, "corrupt")
    if is_concrete(images) and np.size(images):
        check_finite("corrupt: images", images)
        if not values_between(images, 0, 1):
            raise ValueError(
                f"corrupt: images have values from {np.min(images):.4g} to {np.max(images):.4g}; give floats from 0 "
                "to 1 or uint8, and make data.normalize a layer of the model"
            )
    return compose(CORRUPTIONS[name](severity))(check_key(key), jnp.asarray(images))


# Noise


def gaussian_noise(severity: int) -> Augment:
    """y = x + std * n,  n normal: the noise of a sensor in low light.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.gaussian_noise(3)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> round(float(y.std()), 2)
        0.08
    """

    def noisy(key, image, std):
        return image + std * jax.random.normal(key, image.shape, jnp.float32)

    return at_severity(severity, "gaussian_noise", noisy, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38))


def shot_noise(severity: int) -> Augment:
    """y = k / count,  k ~ Poisson(count * x): `count` photons for a value of 1.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.shot_noise(5)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> round(float(y.std()), 1)
        0.1
    """

    def noisy(key, image, count):
        return jax.random.poisson(key, count * image, dtype=jnp.int32).astype(image.dtype) / count

    return at_severity(severity, "shot_noise", noisy, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3))


def impulse_noise(severity: int) -> Augment:
    """Set a fraction of the values, in each channel, to 0 or 1: salt and pepper, as from wrong bits.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.impulse_noise(5)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> bool(0.05 < (y != 0.5).mean() < 0.1)
        True
    """

    def noisy(key, image, fraction):
        u = uniform(key, 0.0, 1.0, image.shape)
        return jnp.where(u < fraction / 2, 0, jnp.where(u < fraction, 1, image))

    return at_severity(severity, "impulse_noise", noisy, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))


# Blur


def defocus_blur(severity: int) -> Augment:
    """The mean over a disk, smoothed by a Gaussian: a lens out of focus. The border is reflected.

    Parameters: the radius of the disk and the std of the Gaussian, in pixels.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.defocus_blur(3)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> bool(y.std() < checks.std())
        True
    """

    def blurred(key, image, radius, std):
        kernel = disk(radius, std)
        margin = len(kernel) // 2
        planes = jnp.pad(image, [(margin, margin), (margin, margin), (0, 0)], "reflect")
        planes = jnp.moveaxis(planes, -1, 0)[:, None]  # each channel is an example with one channel
        kernel = jnp.asarray(kernel, image.dtype)[None, None]
        y = lax.conv_general_dilated(planes, kernel, (1, 1), "VALID", precision=lax.Precision.HIGHEST)
        return jnp.moveaxis(y[:, 0], 0, -1)

    small = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    large = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    return at_severity(severity, "defocus_blur", blurred, small, large, powers=(1, 1))


def motion_blur(severity: int) -> Augment:
    """y[p] = sum_t w[t] x[p + round(t * direction)],  w[t] ~ exp(-t^2 / (2 std^2)),  t = 0, .., 2 * radius

    A moving camera. The angle of the direction is uniform in [-45, 45] degrees. Edge pixels are repeated outside.
    Parameters: radius and std, in pixels.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.motion_blur(3)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> bool(y.std() < checks.std())
        True
    """

    def blurred(key, image, radius, std):
        length = 2 * math.ceil(radius)
        weights = np.exp(-np.square(np.arange(length + 1) / std) / 2)
        angle = uniform(key, -np.pi / 4, np.pi / 4)
        direction = jnp.stack([jnp.sin(angle), jnp.cos(angle)])
        padded = jnp.pad(image, [(length, length), (length, length), (0, 0)], "edge")

        def add(y, tap):
            t, weight = tap
            row, column = jnp.round(t * direction).astype(jnp.int32) + length
            return y + weight * lax.dynamic_slice(padded, (row, column, jnp.int32(0)), image.shape), None

        taps = jnp.arange(length + 1, dtype=jnp.float32), jnp.asarray(weights / weights.sum(), image.dtype)
        return lax.scan(add, jnp.zeros_like(image), taps)[0]

    small = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    large = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    return at_severity(severity, "motion_blur", blurred, small, large, powers=(1, 1))


def zoom_blur(severity: int) -> Augment:
    """The mean of the image and of the image enlarged by 1, 1 + step, .., largest: a camera that moves forward.

    Parameters: the largest factor, and the step.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.zoom_blur(3)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> bool(y.std() < checks.std())
        True
    """

    def blurred(key, image, largest, step):
        factors = 1 + step * jnp.arange(round((largest - 1) / step) + 1, dtype=jnp.float32)
        enlarged = lambda total, factor: (total + warped(image, jnp.eye(2, dtype=jnp.float32) / factor), None)
        return lax.scan(enlarged, image, factors)[0] / (len(factors) + 1)

    small = ((1.05, 0.01), (1.1, 0.01), (1.15, 0.01), (1.2, 0.01), (1.25, 0.01))
    large = ((1.1, 0.01), (1.15, 0.01), (1.2, 0.02), (1.24, 0.02), (1.3, 0.03))
    return at_severity(severity, "zoom_blur", blurred, small, large)


# Weather


def fog(severity: int) -> Augment:
    """y = (x + thickness * f) * max(x) / (max(x) + thickness),  with a plasma fractal f from 0 to 1.

    Parameters: the thickness, and the decay of the fractal from one scale to the next: a small one gives finer fog.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.fog(3)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> bool(y.std() > 0)
        True
    """

    def foggy(key, image, thickness, decay):
        height, width, _ = image.shape
        density = plasma(key, 1 << (max(height, width) - 1).bit_length(), decay)[:height, :width, None]
        return (image + thickness * density) * image.max() / (image.max() + thickness)

    small = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    large = ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))
    return at_severity(severity, "fog", foggy, small, large)


def brightness(severity: int) -> Augment:
    """v' = min(v + amount, 1): raise the value v of HSV, the largest channel of a pixel; keep hue and saturation.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.brightness(5)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> round(float(y.mean()), 2)
        0.8
    """

    def brighter(key, image, amount):
        value = image.max(-1, keepdims=True)
        raised = jnp.minimum(value + amount, 1)
        return jnp.where(value > 0, image * (raised / jnp.where(value > 0, value, 1)), raised)

    return at_severity(severity, "brightness", brighter, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5))


# Digital


def contrast(severity: int) -> Augment:
    """y = m + factor * (x - m),  with the mean m of each channel of the image.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.contrast(5)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> round(float(y.max() - y.min()), 2)
        0.15
    """

    def flatter(key, image, factor):
        mean = image.mean((0, 1), keepdims=True)
        return mean + factor * (image - mean)

    return at_severity(severity, "contrast", flatter, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))


def elastic_transform(severity: int) -> Augment:
    """y[p] = x[p + a(p) + amount * smooth(u)[p]],  u uniform in [-1, 1] for each pixel and direction.

    a(p) is the affine displacement that moves three corners of a centered square, whose side is 2/3 of the shorter
    side, by up to `shift` in each direction. Interpolation is bilinear, and the border is reflected. Parameters:
    amount, the std of the Gaussian in pixels, and shift in pixels. From severity 1 to 5, the distortion changes from
    affine to local. The distance to the image does not grow with the severity, because `shift` decreases.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.elastic_transform(3)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> bool((y != checks).any())
        True
    """

    def distorted(key, image, amount, std, shift):
        height, width, _ = image.shape
        affine_key, local_key = jax.random.split(key)
        first, second, third = uniform(affine_key, -shift, shift, (3, 2, 1, 1))
        rows = jnp.arange(height, dtype=jnp.float32)[:, None]
        columns = jnp.arange(width, dtype=jnp.float32)[None, :]
        between = 2 * (min(height, width) // 3)  # pixels between two of the points, which are corners of a square
        down, right = (rows - height // 2) / between, (columns - width // 2) / between
        moved = (first + third) / 2 + (second - third) * down[None] + (first - second) * right[None]
        if amount:
            noise = uniform(local_key, -1.0, 1.0, (height, width, 2))
            smooth = separable(gaussian_matrix(height, std), gaussian_matrix(width, std), noise)
            moved = moved + amount * jnp.moveaxis(smooth, -1, 0)
        at = [rows + moved[0], columns + moved[1]]
        return jax.vmap(lambda plane: map_coordinates(plane, at, order=1, mode="mirror"), -1, -1)(image)

    small = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
    large = ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88))
    # Smoothing divides white noise by the std, so the amount grows with the square of the side.
    return at_severity(severity, "elastic_transform", distorted, small, large, powers=(2, 1, 1))


def pixelate(severity: int) -> Augment:
    """Replace blocks of pixels by their means: as if resized to `fraction` of the size and back.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> checks = jnp.indices((32, 32)).sum(0)[..., None] % 2.0  # 0 and 1
        >>> y = jaxcnn.data.corruptions.pixelate(5)(jax.random.key(0), checks, jaxcnn.data.augment.When())
        >>> bool(y.std() < checks.std())
        True
    """

    def pixelated(key, image, fraction):
        rows, columns = (block_means(n, int(n * fraction)) for n in image.shape[:2])
        return separable(rows, columns, image)

    return at_severity(severity, "pixelate", pixelated, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))


def jpeg_compression(severity: int) -> Augment:
    """Round the coefficients of the discrete cosine transform of 8 x 8 blocks, as JPEG does at a quality.

    Args:
        severity: from 1 to 5.

    Raises:
        TypeError, ValueError: for another severity.

    Example:
        >>> gray = jnp.full((32, 32, 3), 0.5)
        >>> y = jaxcnn.data.corruptions.jpeg_compression(3)(jax.random.key(0), gray, jaxcnn.data.augment.When())
        >>> bool(jnp.allclose(y, 0.5, atol=0.01))  # flat areas do not change
        True
    """

    def compressed(key, image, quality):
        return jpeg(image, quality)

    return at_severity(severity, "jpeg_compression", compressed, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7))


CORRUPTIONS: dict[str, Callable[[int], Augment]] = {
    corruption.__name__: corruption
    for corruption in (
        *(gaussian_noise, shot_noise, impulse_noise),
        *(defocus_blur, motion_blur, zoom_blur),
        *(fog, brightness),
        *(contrast, elastic_transform, pixelate, jpeg_compression),
    )
}
