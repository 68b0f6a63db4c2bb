"""A window of three along one dimension for two thirds of the multiplications: Winograd's F(2, 3).

Two neighbouring outputs see four inputs, d0 to d3, through three taps, g0 to g2, and need four products instead of six:

    m1 = (d0 - d2) g0    m2 = (d1 + d2) (g0 + g1 + g2) / 2    m3 = (d2 - d1) (g0 - g1 + g2) / 2    m4 = (d1 - d3) g2

    y0 = m1 + m2 + m3    y1 = m2 - m3 - m4

Each output is made of inputs in its own window only. Larger tiles, such as F(4, 3), and the form for the gradient of
the kernel, F(3, 2), contain inputs that cancel only in exact arithmetic: an outlier or a NaN reaches outputs that do
not see it. Here the products are convolutions over the other dimensions, with half of the positions each.
`jax.default_matmul_precision("highest")` has the plain form.

Source: S. Winograd (1980), Arithmetic Complexity of Computations; A. Lavin and S. Gray (2016), Fast Algorithms for
Convolutional Neural Networks.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._layer import widened
from jaxcnn._lowering._channels import abs_sum, square_sum
from jaxcnn._lowering._plain_conv import Geometry
from jaxcnn._lowering._taps import padded

_OUT, _TAPS, _IN = 2, 3, 4
_MIN_CHANNELS = 256  # with fewer, transforming the inputs costs as much as the products save
_MAX_WASTE = 6 / 5  # computed positions for each one that is kept
_MAX_PEAK = 16  # root mean square of the kernel or of the inputs for a mean magnitude of 1


def dimension(w: jax.Array | jax.ShapeDtypeStruct, geometry: Geometry, y: tuple[int, ...]) -> int | None:
    """The spatial dimension to use F(2, 3) along for an output of shape y, or None.

    It needs three taps, enough channels, and enough positions to make up for transforming the kernel. With a dilation
    d, neighbours are d apart, so d blocks of two outputs are interleaved. Blocks that extend beyond the end are wasted.
    """
    examples, *out, _ = y
    few = isinstance(examples, int) and examples * math.prod(out) < 4 * max(w.shape[-2:])
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # jax adds it when it is imported
    if few or min(w.shape[-2:]) < _MIN_CHANNELS or precision in ("highest", "float32"):
        return None
    waste = {
        i: -(-n // (_OUT * apart)) * _OUT * apart / n
        for i, (n, size, apart, *steps) in enumerate(
            zip(out, w.shape[:-2], geometry.rhs_dilation, geometry.stride, geometry.lhs_dilation, strict=True)
        )
        if size == _TAPS and set(steps) == {1} and n >= _TAPS
    }
    best = min(waste, key=lambda i: waste[i], default=None)
    return best if best is not None and waste[best] <= _MAX_WASTE else None


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


def forward(x: jax.Array, w: jax.Array, geometry: Geometry, dim: int, convolve: Callable[..., jax.Array]) -> jax.Array:
    """`convolve` is for the rest: (x, w, geometry) with a window of one position along the dimension."""
    out = geometry.window(w.shape[:-2]).output(x.shape[1:-1])[dim]
    apart = geometry.rhs_dilation[dim]
    d0, d1, d2, d3 = _inputs(x, geometry, dim, -(-out // (_OUT * apart)))
    g0, g1, g2 = jnp.split(widened(w), _TAPS, dim)
    parts = d0 - d2, d1 + d2, d2 - d1, d1 - d3
    kernels = g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2
    m1, m2, m3, m4 = (convolve(a, b, _across(geometry, dim)) for a, b in zip(parts, kernels, strict=True))
    before, after = m1.shape[: dim + 1], m1.shape[dim + 2 :]
    pairs = [y.reshape(*before, -1, 1, apart, *after) for y in (m1 + m2 + m3, m2 - m3 - m4)]
    y = jnp.concatenate(pairs, dim + 2).reshape(*before, -1, *after)
    # Without the barrier, each of the users of y would put it together for itself.
    return lax.optimization_barrier(lax.slice_in_dim(y, 0, out, axis=dim + 1).astype(x.dtype))


def _inputs(x: jax.Array, geometry: Geometry, dim: int, blocks: int) -> list[jax.Array]:
    """The first inputs of all blocks, the second ones, and so on."""
    apart, (low, _) = geometry.rhs_dilation[dim], geometry.padding[dim]
    length = (blocks - 1) * _OUT + _IN
    ends = (low, length * apart - low - x.shape[dim + 1])
    around = tuple(ends if i == dim else (0, 0) for i in range(x.ndim - 2))
    # Without the barrier, what made x is computed anew for each of the parts.
    xp = lax.optimization_barrier(padded(widened(x), around))
    before, after = x.shape[: dim + 1], x.shape[dim + 2 :]
    xp = xp.reshape(*before, length, apart, *after)
    parts = (lax.slice_in_dim(xp, i, i + (blocks - 1) * _OUT + 1, _OUT, dim + 1) for i in range(_IN))
    return [part.reshape(*before, blocks * apart, *after) for part in parts]


def _across(geometry: Geometry, dim: int) -> Geometry:
    """The geometry of the other dimensions: nothing is added along this one."""
    padding = tuple((0, 0) if i == dim else ends for i, ends in enumerate(geometry.padding))
    return geometry._replace(padding=padding)
