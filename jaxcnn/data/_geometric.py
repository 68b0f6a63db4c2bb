"""Augmentations that move pixels, of images and of label maps."""

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice, check_integer, check_number
from jaxcnn.data._augmentation import Augment, Geometric, check_spatial, in_float32, uniform
from jaxcnn.data._pixels import nearest, rotation, select, source_positions, warped

_ALL, _IMAGES = (1, 2, 3), (2,)  # spatial dimensions
_MOST_PIXELS = 2**30  # twice this number must be an int32


def random_crop(padding: int, *, mode: str = "reflect") -> Augment:
    """Pad the image and crop a window of the original size at a random position.

    y[i, j] = padded[i + a, j + b],  a and b uniform in {0, .., 2 * padding}

    It also works on signals (T, C) and volumes (D, H, W, C), in all spatial dimensions.

    Args:
        padding: the number of pixels on each side.
        mode: the padding mode: "reflect", "constant" (zeros), "edge" or "wrap".

    Raises:
        TypeError, ValueError: for a padding that is not an integer of at least 0, or an unknown mode; when called, for
            an image that is too small to be reflected.

    Example:
        >>> change = jaxcnn.data.augment.random_crop(2, mode="edge")
        >>> change(jax.random.key(0), jnp.ones((8, 8, 3)), jaxcnn.data.augment.When()).shape
        (8, 8, 3)

    Source: He et al., "Deep residual learning for image recognition", 2016 (4 pixels of zeros for CIFAR).
    """
    padding = check_integer("random_crop", "padding", padding, 0, below=_MOST_PIXELS)
    check_choice("random_crop", "mode", mode, ("reflect", "constant", "edge", "wrap"))
    return _crop("random_crop", padding, mode)


def translate(pixels: int) -> Augment:
    """Shift the image by up to `pixels` in each direction and fill with zeros: `random_crop` with zero padding.

    Args:
        pixels: the largest shift, in whole pixels.

    Raises:
        TypeError, ValueError: for pixels that are not an integer of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.translate(1)
        >>> y = change(jax.random.key(0), jnp.ones((4, 4, 1)), jaxcnn.data.augment.When())
        >>> float(y.sum()) in (9, 12, 16)
        True
    """
    return _crop("translate", check_integer("translate", "pixels", pixels, 0, below=_MOST_PIXELS), "constant")


def _crop(name: str, padding: int, mode: str) -> Augment:
    def crop(key, x, fill):
        spatial = check_spatial(name, x, _ALL)
        if mode == "reflect" and padding >= min(spatial):
            raise ValueError(f"{name}: an image {x.shape} cannot be reflected by {padding} pixels")
        shifts = jax.random.randint(key, (len(spatial),), 0, 2 * padding + 1, jnp.int32) - padding
        for axis, n in enumerate(spatial):
            positions = source_positions(jnp.arange(n, dtype=jnp.int32) + shifts[axis], n, mode)
            x = select(x, positions, axis, fill)
        return x

    def on_label(key, label, when, fill):
        return crop(key, label, fill_or_error(name, fill) if mode == "constant" else jnp.zeros((), label.dtype))

    return Geometric(lambda key, image, when: crop(key, image, jnp.zeros((), image.dtype)), on_label)


def flip(rate: float = 0.5) -> Augment:
    """Flip the image, or volume (D, H, W, C), horizontally, with probability `rate`.

    Args:
        rate: probability of a flip, in [0, 1].

    Raises:
        TypeError, ValueError: for a rate that is not a number in [0, 1].

    Example:
        >>> change = jaxcnn.data.augment.flip(1.0)
        >>> change(jax.random.key(0), jnp.array([[[0.0], [1.0]]]), jaxcnn.data.augment.When()).ravel().tolist()
        [1.0, 0.0]
    """
    rate = check_number("flip", "rate", rate, 0, 1, closed=True)

    def augment(key, image, when, fill=None):
        check_spatial("flip", image, (2, 3))
        return jnp.where(jax.random.bernoulli(key, jnp.float32(rate)), jnp.flip(image, -2), image)

    return Geometric(augment, augment)


def alternating_flip(seed: int = 0) -> Augment:
    """Flip each image horizontally in every second epoch. Whether an image is flipped in the first epoch is random.

    Two consecutive epochs contain both versions of every image. `flip` does not guarantee this.

    Args:
        seed: determines which images are flipped in the first epoch.

    Raises:
        TypeError, ValueError: for a seed that is not an integer of at least 0.

    Example:
        >>> change, image = jaxcnn.data.augment.alternating_flip(), jnp.array([[[0.0], [1.0]]])
        >>> y = [change(jax.random.key(0), image, jaxcnn.data.augment.When(0, epoch)) for epoch in (0, 1)]
        >>> sorted(one.ravel().tolist() for one in y)
        [[0.0, 1.0], [1.0, 0.0]]

    Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024.
    """
    seed = check_integer("alternating_flip", "seed", seed, 0, below=2**32)

    def augment(key, image, when, fill=None):
        check_spatial("alternating_flip", image, (2, 3))
        first = jax.random.bits(jax.random.fold_in(jax.random.key(seed), when.index), dtype=jnp.uint32) & 1
        flipped = (first.astype(jnp.int32) + jnp.asarray(when.epoch).astype(jnp.int32)) % 2 == 1
        return jnp.where(flipped, jnp.flip(image, -2), image)

    return Geometric(augment, augment)


def rotate(degrees: float) -> Augment:
    """Rotate the image around its center by an angle uniform in [-degrees, degrees], and fill with zeros.

    Args:
        degrees: the largest angle, in degrees.

    Raises:
        TypeError, ValueError: for degrees that are not a finite number of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.rotate(15)
        >>> change(jax.random.key(0), jnp.ones((8, 8, 3)), jaxcnn.data.augment.When()).shape
        (8, 8, 3)
    """
    degrees = check_number("rotate", "degrees", degrees, 0)
    return _warping("rotate", lambda key: (rotation(jnp.deg2rad(uniform(key, -degrees, degrees))), 0.0))


def affine(degrees: float = 0.0, pixels: float = 0.0, zoom: float = 0.0, shear: float = 0.0) -> Augment:
    """Rotate, shear, zoom and shift the image around its center, in one interpolation, and fill with zeros.

    y[p] = x[A (p - center) + center + b],  A = [[cos t, sin t], [-sin t, cos t]] [[1, s], [0, 1]] z

    Args:
        degrees: t is uniform in [-degrees, degrees].
        pixels: both entries of b are uniform in [-pixels, pixels].
        zoom: log z is uniform in [-log(1 + zoom), log(1 + zoom)]; 0.1 zooms in or out by up to 10%.
        shear: s, in pixels per pixel, is uniform in [-shear, shear].

    Raises:
        TypeError, ValueError: for an argument that is not a finite number of at least 0.

    Example:
        >>> change = jaxcnn.data.augment.affine(degrees=15, pixels=2, zoom=0.1)
        >>> change(jax.random.key(0), jnp.ones((8, 8, 3)), jaxcnn.data.augment.When()).shape
        (8, 8, 3)
    """
    options = {"degrees": degrees, "pixels": pixels, "zoom": zoom, "shear": shear}
    degrees, pixels, zoom, shear = (check_number("affine", name, value, 0) for name, value in options.items())

    def draw(key):
        angle, slope, size, *shifts = uniform(key, -1.0, 1.0, (5,))
        rotated = rotation(jnp.deg2rad(degrees * angle))
        sheared = rotated.at[:, 1].add(shear * slope * rotated[:, 0])
        return sheared * (1 + zoom) ** size, pixels * jnp.stack(shifts)

    return _warping("affine", draw)


def _warping(name, draw) -> Geometric:
    """An augmentation that warps by a random matrix and offset: draw(key)."""

    def on_image(key, image, when):
        check_spatial(name, image, _IMAGES)
        return warped(image, *draw(key))

    def on_label(key, label, when, fill):
        return nearest(label, *draw(key), fill=fill_or_error(name, fill))

    return Geometric(in_float32(on_image), on_label)


def fill_or_error(name: str, fill: jax.Array | None) -> jax.Array:
    """`fill`, or an error that says how to set it."""
    if fill is None:
        raise ValueError(
            f"{name} moves label maps: set label_fill, the label of positions outside of the map, such as the "
            "ignore_label of the loss, or set augment_labels to False"
        )
    return fill
