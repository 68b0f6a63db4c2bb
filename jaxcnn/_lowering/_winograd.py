"""Winograd's F(2, 3): convolution with three taps along one dimension, with two thirds of the multiplications.

Two neighboring outputs depend on four inputs, d0 to d3, and three taps, g0 to g2. Four products replace six:

    m1 = (d0 - d2) g0    m2 = (d1 + d2) (g0 + g1 + g2) / 2    m3 = (d2 - d1) (g0 - g1 + g2) / 2    m4 = (d1 - d3) g2

    y0 = m1 + m2 + m3    y1 = m2 - m3 - m4

Each product is a convolution over the other dimensions, with half of the positions. Each output depends only on inputs
in its own window. Larger tiles, such as F(4, 3), use inputs that cancel only in exact arithmetic, so an outlier or NaN
would affect outputs outside of its window.
`jax.default_matmul_precision("highest")` disables this algorithm.

Source: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", 2016.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering import _problem
from jaxcnn._lowering._channels import partial_abs_sums
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._primitive import matmul_precision
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._lowering._taps import padded
from jaxcnn._window import Window

_OUT, _TAPS, _IN = 2, 3, 4
_MIN_CHANNELS = 256  # with fewer, the input transform costs more than the products save
_MIN_CHANNELS_DEPTH = 32  # likewise along the first dimension of a volume, where the transform adds whole slices
_MAX_WASTE = 6 / 5  # maximum ratio of computed to used positions
_MAX_PEAK = 16  # of norm * sqrt(size) / sum of |x|, with the norm of sums of 16: 4 for equal values, sqrt(size) for one


def waste(problem: Problem) -> dict[int, float]:
    """The ratio of computed to used positions, for each spatial dimension that F(2, 3) applies to.

    With dilation d, neighbors have distance d, so d blocks of two outputs are interleaved. Positions beyond the end are
    wasted.
    """
    dims = enumerate(zip(problem.output, *problem.window[:3], strict=True))
    return {
        dim: -(-n // (_OUT * dilation)) * _OUT * dilation / n
        for dim, (n, size, stride, dilation) in dims
        if size == _TAPS and stride == 1 and n >= _TAPS
    }


def dimension(problem: Problem) -> int:
    """The dimension with the least waste."""
    return _least_waste(problem)[1]


def _least_waste(problem: Problem) -> tuple[float, int]:
    """The ratio, and the first dimension that has it."""
    return min((ratio, dim) for dim, ratio in waste(problem).items())


def is_disabled() -> bool:
    """Whether the user asks for the precision of a sum of products."""
    return matmul_precision() in ("highest", "float32")


def is_faster(problem: Problem) -> bool:
    """Whether the channels, and the positions per kernel transform, are numerous enough, if `waste` is not empty."""
    if is_disabled():
        return False
    ratio, dim = _least_waste(problem)
    along_depth = len(problem.spatial) == 3 and dim == 0
    channels = problem.channels, problem.features
    enough_channels = min(channels) >= (_MIN_CHANNELS_DEPTH if along_depth else _MIN_CHANNELS)
    positions = problem.examples * math.prod(problem.output)
    enough_positions = not isinstance(positions, int) or positions >= 2 * max(channels)
    return enough_channels and enough_positions and ratio <= _MAX_WASTE


def is_accurate(x: jax.Array, w: jax.Array, growth: float = 2 * _IN) -> jax.Array:
    """Whether products of x and w are as accurate as without this algorithm: no overflow, and no outliers.

    False for NaN, infinity and values whose sums may overflow, because infinity minus infinity is NaN. Outliers add
    rounding errors to outputs that should not depend on them: a large input at a tap with weight zero, as in a masked
    convolution, or a large weight whose tap reads padding. Intermediate results are at most `growth` times the sum of
    |x| times the largest |w|.
    """
    (sum_x, norm_x), (sum_w, norm_w) = _magnitudes(x), _magnitudes(w)
    few_outliers = (norm_x * _root_of_size(x) <= _MAX_PEAK * sum_x) & (norm_w * _root_of_size(w) <= _MAX_PEAK * sum_w)
    return jnp.isfinite(growth * sum_x * norm_w) & few_outliers  # the norm is at least the largest |w|


def _root_of_size(x: jax.Array) -> Any:
    """The root of the number of values."""
    if isinstance(x.size, int):
        return math.sqrt(x.size)
    examples, *rest = x.shape  # of an exported program, for any number of examples
    return math.sqrt(math.prod(rest)) * jnp.sqrt(jnp.asarray(examples).astype(at_least_float32(x).dtype))


def _magnitudes(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of |a|, and the root of the sum of squares of its partial sums, which reads `a` only once."""
    sums = partial_abs_sums(a)
    zero = np.zeros((), sums.dtype)
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])
    total, squares = lax.reduce((sums, jnp.square(sums)), (zero, zero), add, (0, 1))  # one loop compiles faster
    return total, jnp.sqrt(squares)


def forward(x: jax.Array, w: jax.Array, problem: Problem, dim: int, compute: Algorithm) -> jax.Array:
    """`compute` computes the products: convolutions with one tap along dimension `dim`."""
    out, dilation, window = problem.output[dim], problem.window.dilation[dim], _one_tap_along(problem.window, dim)
    d0, d1, d2, d3 = _block_inputs(x, problem.window, dim, -(-out // (_OUT * dilation)))
    g0, g1, g2 = jnp.split(at_least_float32(w), _TAPS, dim)
    parts = d0 - d2, d1 + d2, d2 - d1, d1 - d3
    kernels = g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
    m1, m2, m3, m4 = (compute(a, b, _problem.forward(a, b, window, 1)) for a, b in zip(parts, kernels, strict=True))
    before, after = m1.shape[: dim + 1], m1.shape[dim + 2 :]
    pairs = [y.reshape(*before, -1, 1, dilation, *after) for y in (m1 + m2 + m3, m2 - m3 - m4)]
    y = jnp.concatenate(pairs, dim + 2).reshape(*before, -1, *after)
    return materialized(lax.slice_in_dim(y, 0, out, axis=dim + 1).astype(x.dtype))


def _block_inputs(x: jax.Array, window: Window, dim: int, blocks: int) -> list[jax.Array]:
    """d0, d1, d2 and d3 of all blocks."""
    dilation, (low, _) = window.dilation[dim], window.padding[dim]
    length = (blocks - 1) * _OUT + _IN
    ends = (low, length * dilation - low - x.shape[dim + 1])
    around = tuple(ends if i == dim else (0, 0) for i in range(x.ndim - 2))
    xp = materialized(padded(at_least_float32(x), around))
    before, after = x.shape[: dim + 1], x.shape[dim + 2 :]
    xp = xp.reshape(*before, length, dilation, *after)
    parts = (lax.slice_in_dim(xp, i, i + (blocks - 1) * _OUT + 1, _OUT, dim + 1) for i in range(_IN))
    return [part.reshape(*before, blocks * dilation, *after) for part in parts]


def _one_tap_along(window: Window, dim: int) -> Window:
    """The window with one tap and no padding along dimension `dim`."""
    size = tuple(1 if i == dim else k for i, k in enumerate(window.size))
    padding = tuple((0, 0) if i == dim else ends for i, ends in enumerate(window.padding))
    return window._replace(size=size, padding=padding)
