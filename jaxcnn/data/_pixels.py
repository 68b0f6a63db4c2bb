"""Deterministic operations on one image or label map (*spatial, C), which the augmentations use."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in ITU-R BT.601


def stretched(image: jax.Array) -> jax.Array:
    """image (H, W, C) -> (H, W, C): each channel rescaled to the range 0 to 1. A constant channel does not change.

    Example:
        >>> jaxcnn.data.augment.stretched(jnp.array([[[0.2], [0.3], [0.4]]])).ravel().round(2).tolist()
        [0.0, 0.5, 1.0]
    """
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalized(image: jax.Array) -> jax.Array:
    """image (H, W, C) in [0, 1] -> (H, W, C): the histogram of each channel equalized, in 256 levels.

    Example:
        >>> jaxcnn.data.augment.equalized(jnp.linspace(0, 1, 512).reshape(32, 16, 1) ** 2).mean().round(2).item()
        0.5
    """

    def channel(plane):
        level = jnp.round(plane * 255).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[level.ravel()].add(1)
        brightest = counts[255 - jnp.argmax(counts[::-1] > 0)]
        step = (plane.size - brightest) // 255  # pixels per level, without the brightest level
        table = jnp.clip((jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, (table[level] / 255).astype(plane.dtype), plane)

    return jax.vmap(channel, -1, -1)(image)


def smoothed(image: jax.Array) -> jax.Array:
    """image (H, W, C) -> (H, W, C): smoothed by a 3 x 3 kernel, 5 in the center and 1 elsewhere, over their sum.

    The border does not change.

    Example:
        >>> jaxcnn.data.augment.smoothed(jnp.zeros((5, 5, 1)).at[2, 2].set(13))[1:4, 1:4, 0].astype(int).tolist()
        [[1, 1, 1], [1, 5, 1], [1, 1, 1]]
    """
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    parts = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    return image.at[1:-1, 1:-1].set((sum(parts) + 4 * parts[4]) / 13)


def blend(base: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """base + factor * (image - base), clipped to [0, 1]."""
    return jnp.clip(base + factor * (image - base), 0, 1).astype(image.dtype)


def gray(image: jax.Array) -> jax.Array:
    """Return the brightness (*spatial, 1)."""
    if image.shape[-1] == 3:
        luma = jnp.array(_LUMA, image.dtype).reshape(*(1,) * (image.ndim - 1), 3)
        return (image * luma).sum(-1, keepdims=True)
    return image.mean(-1, keepdims=True)


def source_positions(positions: jax.Array, n: int, mode: str) -> jax.Array:
    """Map positions in a padded dimension to positions in the original dimension of size n; -1 is outside."""
    match mode:
        case "reflect":
            positions = jnp.abs(positions)
            return jnp.where(positions < n, positions, 2 * (n - 1) - positions)
        case "edge":
            return jnp.clip(positions, 0, n - 1)
        case "wrap":
            return positions % n
    return jnp.where(positions < n, jnp.maximum(positions, -1), -1)


def select(x: jax.Array, positions: jax.Array, axis: int, fill: jax.Array) -> jax.Array:
    """Select positions along an axis of (*spatial, C); -1 selects `fill`, a scalar or (C,)."""
    inside = (positions >= 0).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    shape = (1,) * axis + inside.shape
    fill = jnp.broadcast_to(fill, x.shape[-1:]).reshape(*(1,) * (x.ndim - 1), -1)
    return jnp.where(inside.reshape(shape), jnp.take(x, jnp.maximum(positions, 0), axis), fill)


def rotation(angle: jax.Array) -> jax.Array:
    """[[cos t, sin t], [-sin t, cos t]]"""
    return jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])


def warped(image: jax.Array, matrix: jax.Array, offset: jax.Array | float = 0.0) -> jax.Array:
    """y[p] = image[matrix (p - center) + center + offset], with bilinear interpolation and zeros outside."""
    source = _warped_positions(image, matrix, offset)
    plane = lambda plane: map_coordinates(plane, list(source), order=1, cval=0.0)
    return jax.vmap(plane, -1, -1)(image).astype(image.dtype)


def nearest(label: jax.Array, matrix: jax.Array, offset: jax.Array | float = 0.0, *, fill: jax.Array) -> jax.Array:
    """y[p] = label[matrix (p - center) + center + offset] of the nearest position, `fill` (K,) outside. Any dtype."""
    height, width, _ = label.shape
    row, column = jnp.floor(_warped_positions(label, matrix, offset) + 0.5).astype(jnp.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return jnp.where(inside[..., None], label[row.clip(0, height - 1), column.clip(0, width - 1)], fill[None, None])


def _warped_positions(x: jax.Array, matrix: jax.Array, offset: jax.Array | float) -> jax.Array:
    """(2, H, W): the row and column of x for each position of the warped image."""
    height, width, _ = x.shape
    center = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None]
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in (height, width))
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    rotated = jnp.matmul(matrix, grid - center, precision=lax.Precision.HIGHEST)
    return (rotated + center + jnp.reshape(offset, (-1, 1))).reshape(2, height, width)
