"""Adaptive pooling: pools to a given output size, for any input size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_integer
from jaxcnn._array import as_floating, at_least_float32, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._pool import avg_pool, check_real, first_max, max_pool


@constructor
def adaptive_avg_pool(output_size: int | Sequence[int | None] | None) -> Layer:
    """(N, *spatial, C) -> (N, *output_size, C): the mean of each bin of a grid of `output_size` bins.

    y[n, i, c] = mean of x[n, floor(i * spatial / out) : ceil((i + 1) * spatial / out), c]

    As in PyTorch, neighboring bins overlap where `out` does not divide `spatial`.

    Args:
        output_size: number of bins, one int for all spatial dimensions or one per dimension; None keeps the size.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0]).reshape(1, 7, 1)
        >>> y, _ = jaxcnn.adaptive_avg_pool(3).apply({}, {}, x, train=False)
        >>> [round(float(v), 2) for v in y.ravel()]
        [1.67, 9.67, 25.67]

    Source: He et al., "Spatial pyramid pooling in deep convolutional networks", 2014.
    """

    def mean(x, starts, ends, axis):
        at, inside = _bins(starts, ends)
        inside = inside.reshape((1,) * axis + inside.shape + (1,) * (x.ndim - axis - 1))
        total = jnp.where(inside, jnp.take(x, at, axis), 0).sum(axis + 1)
        return total / inside.sum(axis + 1).astype(total.dtype)

    return _adaptive("adaptive_avg_pool", output_size, mean, avg_pool, as_floating)


@constructor
def adaptive_max_pool(output_size: int | Sequence[int | None] | None) -> Layer:
    """(N, *spatial, C) -> (N, *output_size, C): the largest value of each bin of a grid of `output_size` bins.

    y[n, i, c] = max of x[n, floor(i * spatial / out) : ceil((i + 1) * spatial / out), c]

    Args:
        output_size: as in `adaptive_avg_pool`.

    Raises:
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([3.0, 1.0, 4.0, 1.0, 5.0]).reshape(1, 5, 1)
        >>> jaxcnn.adaptive_max_pool(2).apply({}, {}, x, train=False)[0].ravel()
        Array([4., 5.], dtype=float32)

    Source: He et al., "Spatial pyramid pooling in deep convolutional networks", 2014.
    """

    def largest(x, starts, ends, axis):
        at, _ = _bins(starts, ends)  # the positions that fill up short bins do not change the maximum
        return first_max(jnp.take(x, at, axis), axis + 1)

    return _adaptive("adaptive_max_pool", output_size, largest, max_pool, check_real)


def _bins(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of each bin, filled up to one length by repeating the last; and which of them are in the bin."""
    at = starts[:, None] + np.arange((ends - starts).max())
    return np.minimum(at, ends[:, None] - 1), at < ends[:, None]


def _adaptive(
    name: str, output_size: Any, reduce: Callable, even_pool: Callable[..., Layer], check: Callable[[Any, str], Any]
) -> Layer:
    """A pool over bins: `even_pool` if all bins have one size, else `reduce(x, starts, ends, axis)` along each axis."""
    for entry in output_size if isinstance(output_size, Sequence) else (output_size,):
        if entry is not None:
            check_integer(name, "output_size", entry)

    def fn(x):
        rank = spatial_rank(x, name)
        x = check(jnp.asarray(x), name)
        spatial = x.shape[1:-1]
        sizes = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * rank
        if len(sizes) != rank:
            raise ValueError(f"{name}: output_size={output_size!r} has {len(sizes)} entries for input {x.shape}")
        outs = [n if out is None else out for n, out in zip(spatial, sizes, strict=True)]
        if all(n % out == 0 for n, out in zip(spatial, outs, strict=True)):
            size = tuple(n // out for n, out in zip(spatial, outs, strict=True))
            return even_pool(size).apply({}, {}, x, train=False)[0]
        y = at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x  # rounded once, not per axis
        # The last axis first: of equal values, the first in the image gets the gradient.
        for axis in range(rank, 0, -1):
            n, out = spatial[axis - 1], outs[axis - 1]
            i = np.arange(out)
            y = reduce(y, i * n // out, -(-(i + 1) * n // out), axis)
        return y.astype(x.dtype)

    return as_layer(fn)
