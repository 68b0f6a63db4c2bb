"""Resizing of one dimension as a sum over taps, so that an output depends only on the inputs under its filter.

`jax.image.resize` multiplies by a dense matrix, whose zeros turn a NaN or an infinity anywhere into NaN everywhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering._primitive import linear_in, primitive

_UNROLLED = 16  # taps; more of them are a loop, as they would take long to compile


def resample(x: jax.Array, sizes: tuple[int, ...], method: str, antialias: bool = True) -> jax.Array:
    """(N, *spatial, C) -> (N, *sizes, C): interpolated as by `jax.image.resize`."""
    for axis, size in enumerate(sizes, 1):
        if size != x.shape[axis]:
            grid = {"axis": axis, "sizes": (x.shape[axis], size), "method": method, "antialias": antialias}
            x = _resampled.bind(x, **grid, transposed=False)
    return x


def _along(
    x: jax.Array, *, axis: int, sizes: tuple[int, int], method: str, antialias: bool, transposed: bool
) -> jax.Array:
    wide = at_least_float32(x)
    indices, weights = _taps(*sizes, method, antialias, transposed, wide.dtype)
    _, length = indices.shape
    others = [d for d in range(x.ndim) if d != axis]

    def add(y, tap):
        index, weight = tap
        weight = lax.expand_dims(weight, others)
        here = jnp.take(wide, index, axis, mode="clip")
        return y + jnp.where(weight == 0, 0, weight * here), None

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
    """Indices and weights (taps, outputs): what each output is a sum of; the weights are a resize of unit vectors.

    An output with fewer taps than others has its first one again, with a weight of 0.
    """
    with jax.ensure_compile_time_eval():
        matrix = np.asarray(jax.image.resize(jnp.eye(n, dtype=dtype), (n, size), method, antialias))
    matrix = matrix.T if transposed else matrix
    used = np.abs(matrix) > 8 * jnp.finfo(dtype).eps  # at the end of the filter, 0 may come out as a rounding error
    matrix = np.where(used, matrix, 0)
    indices = np.argsort(~used, axis=0, kind="stable")[: max(1, used.sum(0).max())].astype(np.int32)
    weights = np.take_along_axis(matrix, indices, 0)
    return np.where(weights == 0, indices[0], indices), weights


_resampled = primitive("jaxcnn_resampled", _along, examples=(True,))
linear_in(0, _resampled, lambda dy, *, transposed, **grid: _resampled.bind(dy, **grid, transposed=not transposed))
