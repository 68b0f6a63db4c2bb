"""Convolution without groups on a CPU: products of matrices, and other convolutions that XLA computes well.

The times are medians on 2 cores of an AMD EPYC (Zen 5), jaxlib 0.10.2 without YNNPACK, PyTorch 2.13.0, one run each;
`python -m experiments.benchmarks.ops` measures all again.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import widened
from jaxcnn._lowering import _plain_conv
from jaxcnn._lowering._plain_conv import Geometry
from jaxcnn._lowering._taps import Phases, added, padded, put_together, shifts

_TAPS_AT_ONCE = 9  # whose products with all of dy are one matrix
_COLUMNS = 30  # of such a matrix, about, where there are more taps

Convolve = Callable[[jax.Array, jax.Array, Geometry], jax.Array]


def points(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """A window of one position: a product of two matrices.

    1x1, 128 to 128 channels, 16 x 16, batch 64: 1.5 ms, as a convolution 1.9, PyTorch 1.7 ms.
    """
    y = _every(x, geometry.stride) @ w.reshape(w.shape[-2:])
    return padded(y, geometry.padding, geometry.lhs_dilation)


def patches(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """What each window sees as a row of a matrix, times the kernel as another one.

    3x3, 512 to 512 channels, 2 x 2, batch 16: 2.1 ms, plain 117, PyTorch 2.8 ms.
    """
    xp = padded(x, geometry.padding)
    seen = [here for _, here in shifts(xp, w.shape[:-2], geometry.stride, geometry.rhs_dilation)]
    return jnp.concatenate(seen, -1) @ w.reshape(-1, w.shape[-1])


def put_back_products(dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    """The input's gradient: dy times the taps of the kernel as a product of matrices, each put where its tap was.

    3x3, 3 to 64 channels, 32 x 32, batch 64: 1.0 ms, plain 6.2, PyTorch 3.2; 3x3/2, 64 to 128: 6.9, 10.8, 9.8. Large
    windows take one product after the other, so that no array of all of them is needed: 5x5, 6 to 16 channels,
    14 x 14, batch 128: 0.6 ms, at once 0.8, PyTorch 0.5.
    """
    *size, channels, features = w.shape
    window = geometry.window(tuple(size))
    taps = list(np.ndindex(*size))
    in_one = len(taps) if len(taps) <= _TAPS_AT_ONCE else max(1, round(_COLUMNS / channels))
    wide, columns = widened(dy), widened(jnp.moveaxis(w, -1, 0).reshape(features, -1))
    sums: Phases = {}
    for start in range(0, len(taps), in_one):
        some = taps[start : start + in_one]
        # The first barrier keeps a product waiting until those before are used; without the second, the products are
        # part of each sum that they go into.
        sums, wide = lax.optimization_barrier((sums, wide))
        products = wide @ columns[:, start * channels : (start + len(some)) * channels]
        parts = jnp.split(lax.optimization_barrier(products), len(some), -1)
        sums = added(sums, parts, some, window, spatial)
    # As in all formulations, the last barrier keeps the users of the result from computing it each for itself.
    return lax.optimization_barrier(put_together(sums, window, spatial).astype(dy.dtype))


def slices(x: jax.Array, w: jax.Array, geometry: Geometry, convolve: Convolve) -> jax.Array:
    """A volume as pictures: one convolution of all its slices for each tap of the first dimension.

    3x3x3, 16 to 16 channels, 16 x 16 x 16, batch 4: 1.3 ms, plain 8.1, PyTorch 0.6.
    """
    flat = _flat(geometry)
    terms = []
    for here, tap in zip(_along_depth(x, len(w), geometry), w, strict=True):
        part = convolve(here.reshape(-1, *here.shape[2:]), tap, flat)
        terms.append(widened(part).reshape(*here.shape[:2], *part.shape[1:]))
    return functools.reduce(operator.add, terms).astype(x.dtype)


def slices_gradient(x: jax.Array, dy: jax.Array, geometry: Geometry, depth: int, gradient: Convolve) -> jax.Array:
    """The gradient of `slices` for the kernel, of which each tap of the first dimension has its own."""
    dy = dy.reshape(-1, *dy.shape[2:])
    seen = _along_depth(x, depth, geometry)
    return jnp.stack([gradient(here.reshape(-1, *here.shape[2:]), dy, _flat(geometry)) for here in seen])


def _along_depth(x: jax.Array, depth: int, geometry: Geometry) -> list[jax.Array]:
    """What each tap of the first spatial dimension sees."""
    first = (geometry.padding[0], *((0, 0),) * (x.ndim - 3))
    xp = lax.optimization_barrier(padded(x, first))
    one = (1,) * (x.ndim - 3)
    return [here for _, here in shifts(xp, (depth, *one), (geometry.stride[0], *one), (geometry.rhs_dilation[0], *one))]


def _flat(geometry: Geometry) -> Geometry:
    """The geometry of a slice."""
    stride, padding, lhs_dilation, rhs_dilation, groups = geometry
    return Geometry(stride[1:], padding[1:], lhs_dilation[1:], rhs_dilation[1:], groups)


def examples_as_channels(x: jax.Array, dy: jax.Array, geometry: Geometry, size: tuple[int, ...]) -> jax.Array:
    """The kernel's gradient as a convolution over examples: channels of x are its examples, examples its channels.

    In the one order of dimensions that XLA computes well inside of loops, too: 3x3, 64 to 64 channels, 16 x 16,
    batch 128, in a scan: 15 ms, plain 2,700 ms; outside, both 11 ms.
    """
    # Without the barrier, XLA computes x and dy anew while it transposes them, value by value: 30 ms for 1.
    x, dy = lax.optimization_barrier((x, dy))
    pads = []
    for n, o, k, s, (low, _), b, d in zip(x.shape[1:-1], dy.shape[1:-1], size, *geometry[:4], strict=True):
        # At the end, as much as gives the kernel's size: a stride may not have used all that the forward pass added.
        pads.append((low, d * (k - 1) + (o - 1) * s - (n - 1) * b - low))
    one = Geometry(geometry.rhs_dilation, tuple(pads), geometry.lhs_dilation, geometry.stride, 1)
    dw = _plain_conv.forward(jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2), geometry=one)
    return jnp.moveaxis(dw, 0, -2)


def points_gradient(x: jax.Array, dy: jax.Array, geometry: Geometry) -> jax.Array:
    """The gradient of `points`, if they add nothing: x^T dy, with the wider of the two on the right.

    1x1, 256 to 64 channels, 28 x 28, batch 16: 1.7 ms, the other way round 2.9, PyTorch 1.1.
    """
    x, dy = lax.optimization_barrier((_every(x, geometry.stride), dy))
    positions = tuple(range(x.ndim - 1))
    product = lambda a, b: lax.dot_general(a, b, ((positions, positions), ((), ())))
    turned = lambda: lax.optimization_barrier(product(dy, x)).T  # without the barrier, XLA turns it round again
    dw = turned() if x.shape[-1] > dy.shape[-1] else product(x, dy)
    return dw.reshape(*(1,) * (x.ndim - 2), *dw.shape)


def _every(x: jax.Array, stride: tuple[int, ...]) -> jax.Array:
    return x[(slice(None), *(slice(None, None, step) for step in stride))]
