"""Filters of the corruptions: constant matrices and kernels, computed by NumPy, and a plasma fractal."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.data._augmentation import uniform


def separable(rows: np.ndarray, columns: np.ndarray, x: jax.Array) -> jax.Array:
    """(H, W, ..) -> (H', W', ..): multiply by the matrices rows (H', H) and columns (W', W)."""
    matrices = (jnp.asarray(matrix, x.dtype) for matrix in (rows, columns))
    return jnp.einsum("hi,wj,ij...->hw...", *matrices, x, precision="highest")


def block_means(n: int, blocks: int) -> np.ndarray:
    """(n, n): the matrix that replaces n values by the means of contiguous blocks, of equal size if possible.

    Like pillow's resizing to `blocks` values and back with its box filter.
    """
    block = np.floor((np.arange(n) + 0.5) * blocks / n)
    same = block[:, None] == block
    return same / same.sum(1, keepdims=True)


def gaussian_matrix(n: int, std: float) -> np.ndarray:
    """(n, n): the matrix that smooths n values by a Gaussian. Reflects at the border (d c b a | a b c d | d c b a)."""
    taps = gaussian_taps(std)
    positions = (np.arange(n)[:, None] + np.arange(len(taps)) - len(taps) // 2) % (2 * n)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], np.minimum(positions, 2 * n - 1 - positions)), taps)
    return matrix


def gaussian_taps(std: float) -> np.ndarray:
    """The weights of a Gaussian with this std in pixels, up to 3 stds, with sum 1."""
    radius = math.ceil(3 * std)
    taps = np.exp(-np.square(np.arange(-radius, radius + 1) / std) / 2)
    return taps / taps.sum()


def disk(radius: float, std: float) -> np.ndarray:
    """A kernel with sum 1: equal weights up to `radius` pixels from the center, smoothed by a Gaussian."""
    margin = int(radius) + math.ceil(3 * std)
    position = np.arange(-margin, margin + 1)
    kernel = (np.square(position)[:, None] + np.square(position) <= radius**2).astype(float)
    smooth = gaussian_matrix(len(position), std)
    kernel = smooth @ kernel @ smooth.T
    return kernel / kernel.sum()


def plasma(key: jax.Array, size: int, decay: float) -> jax.Array:
    """(size, size): a periodic plasma fractal with values from 0 to 1, by the diamond-square algorithm.

    The grid is doubled until it has `size` rows, a power of 2. A new point is the mean of its four neighbors plus
    uniform noise, whose amplitude is divided by decay^2 at each doubling.

    Source: Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", 1982.
    """
    noise = uniform(key, -1.0, 1.0, (size, size))  # of each point, at its place in the last grid
    grid, amplitude, step = jnp.zeros((1, 1), jnp.float32), 1.0, size
    while step > 1:
        half = step // 2
        right, below = jnp.roll(grid, -1, 1), jnp.roll(grid, -1, 0)
        center = (grid + right + below + jnp.roll(right, -1, 0)) / 4 + amplitude * noise[half::step, half::step]
        # between grid and right, and between grid and below
        top = (grid + right + center + jnp.roll(center, 1, 0)) / 4 + amplitude * noise[::step, half::step]
        left = (grid + below + center + jnp.roll(center, 1, 1)) / 4 + amplitude * noise[half::step, ::step]
        pairs = jnp.stack([jnp.stack([grid, top], -1), jnp.stack([left, center], -1)], 1)
        grid = pairs.reshape(2 * len(grid), 2 * len(grid))
        amplitude, step = amplitude / decay**2, half
    return (grid - grid.min()) / (grid.max() - grid.min())
