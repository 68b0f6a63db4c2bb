"""What augmentations do to the pixels of one image (H, W, C) of floats, without chance."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

_LUMA = (0.299, 0.587, 0.114)  # what red, green and blue add to brightness, ITU-R BT.601


def stretched(image: jax.Array) -> jax.Array:
    """Each channel from its darkest pixel, which becomes 0, to its brightest, 1; a channel of one value stays."""
    low, high = image.min((0, 1), keepdims=True), image.max((0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalized(image: jax.Array) -> jax.Array:
    """Each channel with a histogram as even as 256 levels allow."""

    def channel(plane):
        level = jnp.round(plane * 255).astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[level.ravel()].add(1)
        last = counts[255 - jnp.argmax(counts[::-1] > 0)]
        step = (plane.size - last) // 255  # pixels for each level, without those of the brightest
        table = jnp.clip((jnp.cumsum(counts) - counts + step // 2) // jnp.maximum(step, 1), 0, 255)
        return jnp.where(step > 0, (table[level] / 255).astype(plane.dtype), plane)

    return jax.vmap(channel, -1, -1)(image)


def smoothed(image: jax.Array) -> jax.Array:
    """Each pixel as the mean of its neighbors, itself five times; the border as it was."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    parts = [image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3)]
    return image.at[1:-1, 1:-1].set((sum(parts) + 4 * parts[4]) / 13)


def blend(base: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """base + factor * (image - base), cut to [0, 1]."""
    return jnp.clip(base + factor * (image - base), 0, 1).astype(image.dtype)


def gray(image: jax.Array) -> jax.Array:
    """Brightness (H, W, 1)."""
    if image.shape[-1] == 3:
        return (image * jnp.array(_LUMA, image.dtype)[None, None]).sum(-1, keepdims=True)
    return image.mean(-1, keepdims=True)


def source_positions(at: jax.Array, n: int, mode: str) -> jax.Array:
    """The positions of a dimension of n that stand at the positions of the padded one; -1 for those outside."""
    match mode:
        case "reflect":
            at = jnp.abs(at)
            return jnp.where(at < n, at, 2 * (n - 1) - at)
        case "edge":
            return jnp.clip(at, 0, n - 1)
        case "wrap":
            return at % n
    return jnp.where(at < n, jnp.maximum(at, -1), -1)


def rows_and_columns(image: jax.Array, rows: jax.Array, columns: jax.Array, *, inside: bool) -> jax.Array:
    """Those rows and columns; with `inside`, zeros where one is -1."""
    y = image[rows][:, columns]
    if inside:
        y = jnp.where((rows >= 0)[:, None, None] & (columns >= 0)[None, :, None], y, 0)
    return y


def rotation(angle: jax.Array) -> jax.Array:
    """[[cos t, sin t], [-sin t, cos t]]"""
    return jnp.array([[jnp.cos(angle), jnp.sin(angle)], [-jnp.sin(angle), jnp.cos(angle)]])


def warped(image: jax.Array, matrix: jax.Array, offset: jax.Array | float = 0.0) -> jax.Array:
    """y[p] = image[matrix (p - middle) + middle + offset], linear between pixels, zero outside."""
    height, width, _ = image.shape
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)[:, None]
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in (height, width))
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    at = jnp.matmul(matrix, grid - middle, precision=lax.Precision.HIGHEST) + middle + jnp.reshape(offset, (-1, 1))
    plane = lambda plane: map_coordinates(plane, list(at.reshape(2, height, width)), order=1, cval=0.0)
    return jax.vmap(plane, -1, -1)(image).astype(image.dtype)
