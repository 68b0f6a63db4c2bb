"""Deterministic operations on one floating-point image (H, W, C), which the augmentations use."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in ITU-R BT.601


def stretched(image: jax.Array) -> jax.Array:
    """Rescale each channel to the range 0 to 1. A constant channel does not change."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalized(image: jax.Array) -> jax.Array:
    """Equalize the histogram of each channel, in 256 levels."""

    def channel(plane):
        level = jnp.round(plane * 255).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[level.ravel()].add(1)
        brightest = counts[255 - jnp.argmax(counts[::-1] > 0)]
        step = (plane.size - brightest) // 255  # pixels per level, without the brightest level
        table = jnp.clip((jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, (table[level] / 255).astype(plane.dtype), plane)

    return jax.vmap(channel, -1, -1)(image)


def smoothed(image: jax.Array) -> jax.Array:
    """Smooth with a 3 x 3 kernel with weight 5 in the center and 1 elsewhere. The border does not change."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    parts = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    return image.at[1:-1, 1:-1].set((sum(parts) + 4 * parts[4]) / 13)


def blend(base: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """base + factor * (image - base), clipped to [0, 1]."""
    return jnp.clip(base + factor * (image - base), 0, 1).astype(image.dtype)


def gray(image: jax.Array) -> jax.Array:
    """Return the brightness (H, W, 1)."""
    if image.shape[-1] == 3:
        return (image * jnp.array(_LUMA, image.dtype)[None, None]).sum(-1, keepdims=True)
    return image.mean(-1, keepdims=True)


def source_positions(positions: jax.Array, n: int, mode: str) -> jax.Array:
    """Map positions in a padded dimension to positions in the original dimension of size n; -1 is a zero."""
    match mode:
        case "reflect":
            positions = jnp.abs(positions)
            return jnp.where(positions < n, positions, 2 * (n - 1) - positions)
        case "edge":
            return jnp.clip(positions, 0, n - 1)
        case "wrap":
            return positions % n
    return jnp.where(positions < n, jnp.maximum(positions, -1), -1)


def rows_and_columns(image: jax.Array, rows: jax.Array, columns: jax.Array, *, zero_outside: bool) -> jax.Array:
    """Select rows and columns. With `zero_outside`, an index of -1 selects zeros."""
    y = image[rows][:, columns]
    if zero_outside:
        y = jnp.where((rows >= 0)[:, None, None] & (columns >= 0)[None, :, None], y, 0)
    return y


def rotation(angle: jax.Array) -> jax.Array:
    """[[cos t, sin t], [-sin t, cos t]]"""
    return jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])


def warped(image: jax.Array, matrix: jax.Array, offset: jax.Array | float = 0.0) -> jax.Array:
    """y[p] = image[matrix (p - center) + center + offset], with bilinear interpolation and zeros outside."""
    height, width, _ = image.shape
    center = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None]
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in (height, width))
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    rotated = jnp.matmul(matrix, grid - center, precision=lax.Precision.HIGHEST)
    source = rotated + center + jnp.reshape(offset, (-1, 1))
    plane = lambda plane: map_coordinates(plane, list(source.reshape(2, height, width)), order=1, cval=0.0)
    return jax.vmap(plane, -1, -1)(image).astype(image.dtype)
