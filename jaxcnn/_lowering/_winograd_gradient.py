"""Kernel gradients by Winograd's F(3, 4): for 3x3 kernels, with a quarter of the multiplications.

Along one dimension, a block has four positions of dy. Each of the three taps multiplies them by four of six positions
of x:

    dw[k] = sum over i of x[i + k] dy[i]    k = 0, 1, 2    i = 0, .., 3    12 products

Polynomials with four and three coefficients are multiplied with six products, of their values at the five points below
and of their leading coefficients. Transposed, the same six products give dw:

    dw = TAPS^T ((INPUTS x) * (GRADIENTS dy))

GRADIENTS and TAPS contain the powers of the points. INPUTS contains the coefficients of polynomials that are zero at
all points but one; their values there, the denominators of Lagrange's interpolation, divide the rows of TAPS.

Several dimensions are transformed one after the other: 36 products replace 144 in an image. Each is a matrix product
over all blocks, with x's channels as rows and dy's as columns. TAPS^T is applied to their sums.

In a block, the values of x that a tap does not read cancel only up to rounding errors. So outliers, NaN and infinity
are left to the next rule. These points have the error of a sum of products in float32; the usual ones, 0, 1, -1, 2 and
-2, have four times as much. `jax.default_matmul_precision("highest")` disables this algorithm.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016; Toom, "The complexity of a scheme of
functional elements realizing the multiplication of integers", 1963.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering import _onednn, _winograd
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import padded

_TAPS, _BLOCK = 3, 4
_POINTS = 0, 3 / 4, -3 / 4, 3 / 2, -3 / 2
_AT_ONCE = 3 * 2**17  # values of x: with its transforms, and those of dy, they fit into a cache
_MIN_BLOCKS = 64  # per matrix product, so that adding it to the sums takes little of the time
_MIN_CHANNELS = {1: 64, 2: 24}  # with fewer, the transforms cost more than the products save
_MIN_MULTIPLY_ADDS = 2**24  # with fewer, one product of large matrices is faster
_MAX_WASTE = 1.6  # maximum ratio of computed to used positions
_MAX_ARRAY = 7 * 10**6  # values: arrays above 30 MB would exceed a block of memory, see `_jit`
GROWTH = 2**13  # intermediate results are at most this much larger than the sum of |x| times the largest |dy|


def _polynomials() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """INPUTS (6, 6), GRADIENTS (6, 4) and TAPS (6, 3) of the module docstring."""
    points = np.array(_POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    values = lambda terms: np.vstack([np.vander(points, terms, increasing=True), np.eye(terms)[-1]])
    # Row i has the coefficients of the polynomial that is zero at all other points; the last row, at all points.
    inputs = np.array([[*np.poly(zeros)[::-1], 0] for zeros in others] + [np.poly(points)[::-1]])
    scales = np.array([*(np.prod(point - zeros) for point, zeros in zip(points, others, strict=True)), 1])
    return inputs, values(_BLOCK), values(_TAPS) / scales[:, None]


_INPUTS, _GRADIENTS, _TAP_VALUES = _polynomials()


def fits(problem: Problem) -> bool:
    """Three taps along each dimension of an image or a signal, without groups, stride and dilation; needs oneDNN."""
    size, stride, dilation, _, input_dilation = problem.window
    return (
        problem.groups == 1
        and problem.dtype in ("float32", "bfloat16", "float16")
        and len(size) <= 2
        and set(size) == {_TAPS}
        and {*stride, *dilation, *input_dilation} == {1}
        and problem.has_static_shapes
        and _onednn.usable()
    )


def is_faster(problem: Problem) -> bool:
    """Whether the problem has many products, few wasted positions and no array that is too large."""
    dims, blocks = len(problem.window.size), math.prod(_blocks(problem))
    waste = blocks * _BLOCK**dims / math.prod(problem.output)
    return (
        not _winograd.is_disabled()
        and min(problem.channels, problem.features) >= _MIN_CHANNELS[dims]
        and problem.multiply_adds >= _MIN_MULTIPLY_ADDS
        and waste <= _MAX_WASTE
        and _largest_array(problem, blocks) <= _MAX_ARRAY
    )


def _largest_array(problem: Problem, blocks: int) -> int:
    """The number of values of the largest of the transforms of x and dy and the sums of products."""
    channels, features = problem.channels, problem.features
    examples = -(-problem.examples // _parts(problem, blocks))
    return (
        len(_INPUTS) ** len(problem.output) * max(channels, features) * max(examples * blocks, min(channels, features))
    )


def _blocks(problem: Problem) -> list[int]:
    """The number of blocks along each dimension."""
    return [-(-n // _BLOCK) for n in problem.output]


def kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The equations of the module docstring, for some of the examples at a time."""
    blocks = _blocks(problem)
    pads_x = tuple(
        (low, _BLOCK * count + _TAPS - 1 - n - low)
        for n, count, (low, _) in zip(problem.spatial, blocks, problem.window.padding, strict=True)
    )
    pads_dy = tuple((0, _BLOCK * count - n) for n, count in zip(problem.output, blocks, strict=True))

    def products(x, dy):
        x, dy = padded(at_least_float32(x), pads_x), padded(at_least_float32(dy), pads_dy)
        return _onednn.sums_of_products(_transformed(x, _INPUTS, blocks), _transformed(dy, _GRADIENTS, blocks))

    parts = _parts(problem, math.prod(blocks))
    if parts == 1:
        sums = products(x, dy)
    else:
        shape = (len(_INPUTS) ** len(blocks), problem.channels, problem.features)
        add = lambda sums, part: (sums + products(*part), None)
        sums, _ = lax.scan(add, jnp.zeros(shape, jnp.float32), (_divided(x, parts), _divided(dy, parts)))
    taps = functools.reduce(np.kron, [_TAP_VALUES] * len(blocks)).T
    dw = jnp.asarray(taps, sums.dtype) @ sums.reshape(len(sums), -1)
    return dw.reshape(problem.kernel_shape).astype(x.dtype)


def _parts(problem: Problem, blocks: int) -> int:
    """The number of parts that the examples are divided into."""
    values = problem.examples * math.prod(problem.spatial) * max(problem.channels, problem.features)
    return max(1, min(values // _AT_ONCE, problem.examples * blocks // _MIN_BLOCKS, problem.examples))


def _divided(x: jax.Array, parts: int) -> jax.Array:
    """(N, ..) -> (parts, N / parts, ..). Zeros fill the last part."""
    length = -(-len(x) // parts)
    x = jnp.pad(x, ((0, parts * length - len(x)), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(parts, length, *x.shape[1:])


def _transformed(x: jax.Array, matrix: np.ndarray, blocks: list[int]) -> jax.Array:
    """(N, *spatial, C) -> (6^dims, N * blocks, C): the matrix times each block, along each dimension.

    XLA compiles one loop per dimension, which reads the matrix as a table, instead of one per row of the matrix.
    """
    x, (rows, columns) = x[None], matrix.shape
    for axis, count in enumerate(blocks, 2):
        x = materialized(x)
        table = jnp.asarray(matrix, x.dtype).reshape(1, rows, *(1,) * (x.ndim - 1), columns)
        positions = (
            lax.slice_in_dim(x, i, i + _BLOCK * (count - 1) + 1, _BLOCK, axis)[:, None] for i in range(columns)
        )
        x = functools.reduce(operator.add, (table[..., i] * position for i, position in enumerate(positions)))
        x = x.reshape(-1, *x.shape[2:])
    return materialized(x).reshape(len(x), -1, x.shape[-1])
