"""Resizes one dimension with a sum over filter taps, so that an output depends only on inputs under its filter.

`jax.image.resize` multiplies by a dense matrix. Its zeros turn a single NaN or infinity into NaN in all outputs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering._primitive import linear_in, primitive

_UNROLLED = 16  # maximum number of unrolled taps; a loop compiles faster


def resample(x: jax.Array, sizes: tuple[int, ...], method: str, antialias: bool = True) -> jax.Array:
    """(N, *spatial, C) -> (N, *sizes, C): interpolated as by `jax.image.resize`."""
    for axis, size in enumerate(sizes, 1):
        if size != x.shape[axis]:
            grid = {"axis": axis, "sizes": (x.shape[axis], size), "method": method, "antialias": antialias}
            x = _resampled.bind(x, **grid, transposed=False)
    return x


def _resample_axis(
    x: jax.Array, *, axis: int, sizes: tuple[int, int], method: str, antialias: bool, transposed: bool
) -> jax.Array:
    wide = at_least_float32(x)
    indices, weights = _taps(*sizes, method, antialias, transposed, wide.dtype)
    _, length = indices.shape
    others = [d for d in range(x.ndim) if d != axis]

    def add(y, tap):
        index, weight = tap
        weight = lax.expand_dims(weight, others)
        values = jnp.take(wide, index, axis, mode="clip")
        return y + jnp.where(weight == 0, 0, weight * values), None

    y = jnp.zeros((*x.shape[:axis], length, *x.shape[axis + 1 :]), wide.dtype)
    if len(indices) > _UNROLLED:
        y, _ = lax.scan(add, y, (indices, weights))
    else:
        for tap in zip(indices, weights, strict=True):
            y, _ = add(y, tap)
    return y.astype(x.dtype)


@functools.cache
def _taps(
    n: int, size: int, method: str, antialias: bool, transposed: bool, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Input indices and weights (taps, outputs) of each output. The weights result from resizing unit vectors.

    Outputs with fewer taps repeat their first index with weight 0.
    """
    with jax.ensure_compile_time_eval():
        matrix = np.asarray(jax.image.resize(jnp.eye(n, dtype=dtype), (n, size), method, antialias))
    matrix = matrix.T if transposed else matrix
    used = np.abs(matrix) > 8 * jnp.finfo(dtype).eps  # rounding may give a nonzero weight at the end of the filter
    matrix = np.where(used, matrix, 0)
    indices = np.argsort(~used, axis=0, kind="stable")[: max(1, used.sum(0).max())].astype(np.int32)
    weights = np.take_along_axis(matrix, indices, 0)
    return np.where(weights == 0, indices[0], indices), weights


_resampled = primitive("jaxcnn_resampled", _resample_axis, examples=(True,))
linear_in(0, _resampled, lambda dy, *, transposed, **grid: _resampled.bind(dy, **grid, transposed=not transposed))
