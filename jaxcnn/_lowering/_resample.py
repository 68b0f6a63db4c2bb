"""Resizes one dimension with a sum over filter taps, so that an output depends only on inputs under its filter.

`jax.image.resize` multiplies by a dense matrix. Its zeros turn a single NaN or infinity into NaN in all outputs.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering._primitive import linear_in, primitive

_UNROLLED = 16  # maximum number of unrolled taps; a loop compiles faster
_ROUNDING = 1e-10  # rounding may give such a weight at the end of the filter
_RADIUS = {"linear": 1, "cubic": 2, "lanczos3": 3, "lanczos5": 5}


class Filter(NamedTuple):
    """The options of `jaxcnn.resize` for interpolation."""

    method: str = "linear"
    coordinates: str = "half_pixel"
    antialias: bool = True
    a: float = -0.5
    exclude_outside: bool = True

    @property
    def radius(self) -> int:
        return _RADIUS[self.method]

    def kernel(self, x: np.ndarray) -> np.ndarray:
        """The weight of an input at distance x >= 0, which is 0 from the radius on."""
        if self.method == "linear":
            return np.maximum(1 - x, 0)
        if self.method == "cubic":
            return np.where(x <= 1, cubic_near(x, self.a), np.where(x < 2, cubic_far(x, self.a), 0))
        return np.where(x < self.radius, np.sinc(x) * np.sinc(x / self.radius), 0)


def cubic_near(x: Any, a: float) -> Any:
    """The cubic filter of Keys (1981) at distances x from 0 to 1, of NumPy or JAX."""
    return ((a + 2) * x - (a + 3)) * x * x + 1


def cubic_far(x: Any, a: float) -> Any:
    """The same at distances from 1 to 2."""
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a


class Axis(NamedTuple):
    """The sizes along one dimension, and the scale if it is not size / spatial."""

    spatial: int
    size: int
    scale: float | None = None

    @property
    def width(self) -> float:
        """The output size, without rounding."""
        return self.size if self.scale is None else self.scale * self.spatial

    def positions(self, coordinates: str) -> np.ndarray:
        """(size,): the position in the input of each output. One division, so that ties are exact."""
        n, size, width = self.spatial, self.size, self.width
        above, below = (n, size) if self.scale is None else (1, self.scale)
        i = np.arange(size)
        if size == 1 and coordinates in ("align_corners", "pytorch_half_pixel"):
            return np.zeros(1)
        if coordinates == "align_corners":
            return i * (n - 1) / (width - 1)
        if coordinates == "asymmetric":
            return i * above / below
        center = n / 2 * (1 - size / width) if coordinates == "half_pixel_symmetric" else 0
        return (2 * i + 1) * above / (2 * below) - 0.5 + center


def resample(x: jax.Array, axes: Sequence[Axis], taps: Filter) -> jax.Array:
    """(N, *spatial, C) -> (N, *size, C): interpolated along each spatial dimension."""
    y = at_least_float32(x)  # rounded once, not per dimension
    for dim, axis in enumerate(axes, 1):
        if axis.size != axis.spatial or axis.width != axis.spatial:
            y = _resampled.bind(y, dim=dim, axis=axis, taps=taps, transposed=False)
    return y.astype(x.dtype)


def _resample_axis(x: jax.Array, *, dim: int, axis: Axis, taps: Filter, transposed: bool) -> jax.Array:
    indices, weights = _taps(axis, taps, transposed, x.dtype)
    _, length = indices.shape
    others = [d for d in range(x.ndim) if d != dim]

    def add(y, tap):
        index, weight = tap
        weight = lax.expand_dims(weight, others)
        values = jnp.take(x, index, dim, mode="clip")
        return y + jnp.where(weight == 0, 0, weight * values), None

    y = jnp.zeros((*x.shape[:dim], length, *x.shape[dim + 1 :]), x.dtype)
    if len(indices) > _UNROLLED:
        y, _ = lax.scan(add, y, (indices, weights))
    else:
        for tap in zip(indices, weights, strict=True):
            y, _ = add(y, tap)
    return y


@functools.cache
def _taps(axis: Axis, taps: Filter, transposed: bool, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Input indices and weights (taps, outputs) of each output.

    Outputs with fewer taps repeat their first index with weight 0.
    """
    matrix = weight_matrix(axis, taps)
    matrix = matrix.T if transposed else matrix
    used = matrix != 0
    indices = np.argsort(~used, axis=0, kind="stable")[: max(1, used.sum(0).max())].astype(np.int32)
    weights = np.take_along_axis(matrix, indices, 0).astype(dtype)
    return np.where(weights == 0, indices[0], indices), weights


def weight_matrix(axis: Axis, taps: Filter) -> np.ndarray:
    """(spatial, size): the weight of each input in each output."""
    n, size = axis.spatial, axis.size
    at = axis.positions(taps.coordinates)[:, None]
    shrink = min(axis.width / n, 1) if taps.antialias else 1
    support = taps.radius / shrink
    index = np.floor(at - support).astype(int) + np.arange(int(2 * support) + 3)  # (size, taps), may lie outside
    weights = taps.kernel(np.abs(index - at) * shrink)
    if taps.exclude_outside:
        inside = np.where((index >= 0) & (index < n), weights, 0)
        weights = np.where(inside.any(1, keepdims=True), inside, weights)
    matrix = np.zeros((n, size))
    np.add.at(matrix, (np.clip(index, 0, n - 1), np.arange(size)[:, None]), weights / weights.sum(1, keepdims=True))
    return np.where(np.abs(matrix) > _ROUNDING, matrix, 0)


_resampled = primitive("jaxcnn_resampled", _resample_axis, examples=(True,))
linear_in(0, _resampled, lambda dy, *, transposed, **options: _resampled.bind(dy, **options, transposed=not transposed))
