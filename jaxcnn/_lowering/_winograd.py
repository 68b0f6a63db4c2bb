"""A window of three along one dimension for two thirds of the multiplications: Winograd's F(2, 3).

Two neighboring outputs see four inputs, d0 to d3, through three taps, g0 to g2, and need four products instead of six:

    m1 = (d0 - d2) g0    m2 = (d1 + d2) (g0 + g1 + g2) / 2    m3 = (d2 - d1) (g0 - g1 + g2) / 2    m4 = (d1 - d3) g2

    y0 = m1 + m2 + m3    y1 = m2 - m3 - m4

Each output depends on inputs in its own window only. Larger tiles, such as F(4, 3), and the form for the gradient of
the kernel, F(3, 2), contain inputs that cancel only in exact arithmetic: an outlier or a NaN reaches outputs that do
not see it. Here the products are convolutions over the other dimensions, with half of the positions each.
`jax.default_matmul_precision("highest")` has the plain form.

Source: S. Winograd (1980), Arithmetic Complexity of Computations; A. Lavin and S. Gray (2016), Fast Algorithms for
Convolutional Neural Networks.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering import _problem
from jaxcnn._lowering._channels import abs_sum, square_sum
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._lowering._taps import padded
from jaxcnn._window import Window

_OUT, _TAPS, _IN = 2, 3, 4
_MIN_CHANNELS = 256  # with fewer, transforming the inputs costs as much as the products save
_MAX_WASTE = 6 / 5  # computed positions for each one that is kept
_MAX_PEAK = 16  # root mean square of the kernel or of the inputs for a mean magnitude of 1


def waste(problem: Problem) -> dict[int, float]:
    """Computed positions for each one that is kept, by the spatial dimensions that F(2, 3) can be used along.

    With a dilation d, neighbors are d apart, so d blocks of two outputs are interleaved. Blocks that extend beyond
    the end are wasted.
    """
    dims = enumerate(zip(problem.output, *problem.window[:3], strict=True))
    return {
        dim: -(-n // (_OUT * dilation)) * _OUT * dilation / n
        for dim, (n, size, stride, dilation) in dims
        if size == _TAPS and stride == 1 and n >= _TAPS
    }


def dimension(problem: Problem) -> int:
    """The dimension with the least waste."""
    wasted = waste(problem)
    return min(wasted, key=lambda dim: wasted[dim])


def pays(problem: Problem) -> bool:
    """Whether there are enough channels, and enough positions to make up for transforming the kernel."""
    channels = problem.channels, problem.features
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # jax adds it when it is imported
    few = isinstance(problem.examples, int) and problem.examples * math.prod(problem.output) < 4 * max(channels)
    if few or min(channels) < _MIN_CHANNELS or precision in ("highest", "float32"):
        return False
    return min(waste(problem).values()) <= _MAX_WASTE


def accurate(x: jax.Array, w: jax.Array) -> jax.Array:
    """Whether `forward` is as accurate as a sum of products: nothing overflows, no value is larger than all others.

    NaN and infinite values, and values whose sums may overflow, give false: infinity minus infinity would be a NaN.
    An output whose window holds a large input at a tap of weight zero, as in a masked convolution, would have its
    rounding error, and one at the edge, where a tap meets padding, that of a large weight.
    """
    finite = jnp.isfinite(2 * _IN * abs_sum(x) * _norm(w))  # the norm is at least the largest weight
    return finite & _even(x) & _even(w)


def _even(a: jax.Array) -> jax.Array:
    """Whether the root mean square is at most `_MAX_PEAK` times the mean magnitude."""
    return _norm(a) * jnp.sqrt(jnp.asarray(a.size, jnp.float32)) <= _MAX_PEAK * abs_sum(a)


def _norm(a: jax.Array) -> jax.Array:
    return jnp.sqrt(square_sum(a))


def forward(x: jax.Array, w: jax.Array, problem: Problem, dim: int, compute: Algorithm) -> jax.Array:
    """`compute` is for the products: convolutions with a window of one position along the dimension."""
    out, dilation, across = problem.output[dim], problem.window.dilation[dim], _across(problem.window, dim)
    d0, d1, d2, d3 = _inputs(x, problem.window, dim, -(-out // (_OUT * dilation)))
    g0, g1, g2 = jnp.split(at_least_float32(w), _TAPS, dim)
    parts = d0 - d2, d1 + d2, d2 - d1, d1 - d3
    kernels = g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
    m1, m2, m3, m4 = (compute(a, b, _problem.forward(a, b, across, 1)) for a, b in zip(parts, kernels, strict=True))
    before, after = m1.shape[: dim + 1], m1.shape[dim + 2 :]
    pairs = [y.reshape(*before, -1, 1, dilation, *after) for y in (m1 + m2 + m3, m2 - m3 - m4)]
    y = jnp.concatenate(pairs, dim + 2).reshape(*before, -1, *after)
    return materialized(lax.slice_in_dim(y, 0, out, axis=dim + 1).astype(x.dtype))


def _inputs(x: jax.Array, window: Window, dim: int, blocks: int) -> list[jax.Array]:
    """The first inputs of all blocks, the second ones, and so on."""
    dilation, (low, _) = window.dilation[dim], window.padding[dim]
    length = (blocks - 1) * _OUT + _IN
    ends = (low, length * dilation - low - x.shape[dim + 1])
    around = tuple(ends if i == dim else (0, 0) for i in range(x.ndim - 2))
    xp = materialized(padded(at_least_float32(x), around))
    before, after = x.shape[: dim + 1], x.shape[dim + 2 :]
    xp = xp.reshape(*before, length, dilation, *after)
    parts = (lax.slice_in_dim(xp, i, i + (blocks - 1) * _OUT + 1, _OUT, dim + 1) for i in range(_IN))
    return [part.reshape(*before, blocks * dilation, *after) for part in parts]


def _across(window: Window, dim: int) -> Window:
    """The window of the other dimensions: one position along this one, without padding."""
    size = tuple(1 if i == dim else k for i, k in enumerate(window.size))
    padding = tuple((0, 0) if i == dim else ends for i, ends in enumerate(window.padding))
    return window._replace(size=size, padding=padding)
