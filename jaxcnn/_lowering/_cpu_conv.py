"""How a CPU computes a convolution and its gradients: the rules that choose among the formulations.

Each formulation carries its times; `python -m experiments.benchmarks.ops` measures all again, and `.sweep` compares
random shapes with `lax`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering import _dense, _direct, _grouped, _plain_conv, _winograd
from jaxcnn._lowering._channels import abs_sum
from jaxcnn._lowering._plain_conv import Geometry, exchanged
from jaxcnn._lowering._taps import MOST_TAPS

_Formulation = Callable[[jax.Array, jax.Array], jax.Array]


def forward(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    if geometry.groups == 1:
        return _dense_forward(x, w, geometry)
    if _direct.worth(w, geometry):
        return _direct.forward(x, w, geometry)
    if w.shape[-2] > 1:
        fast = functools.partial(_grouped.blocks, geometry=geometry, convolve=_dense_forward)
        return _if_finite(x, fast, functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    return _plain_conv.forward(x, w, geometry=geometry)


def backward_x(dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    if geometry.groups == 1:
        return _dense_backward_x(dy, w, geometry, spatial)
    if _direct.worth_phases(w, geometry):
        return _direct.backward_x(dy, w, geometry, spatial)
    if w.shape[-2] > 1 and not _direct.worth(w, geometry):
        dense = functools.partial(_dense_backward_x, spatial=spatial)
        fast = functools.partial(_grouped.blocks, geometry=geometry, convolve=dense)
        plain = lambda dy, w: _plain_backward_x(dy, w, geometry, spatial)
        return _if_finite(dy, fast, plain, dy, w)
    return forward(dy, *_as_forward(dy, w, geometry, spatial))


def backward_w(x: jax.Array, dy: jax.Array, geometry: Geometry, size: tuple[int, ...]) -> jax.Array:
    w = jax.ShapeDtypeStruct((*size, x.shape[-1] // geometry.groups, dy.shape[-1]), x.dtype)
    if geometry.groups == 1:
        return _dense_backward_w(x, dy, geometry, size)
    if _direct.worth(w, geometry):
        return _direct.backward_w(x, dy, geometry, w)
    if w.shape[-2] > 1:
        return _grouped.backward_w(x, dy, geometry, w, functools.partial(_dense_backward_w, size=size))
    return _plain_conv.backward_w(x, dy, geometry=geometry, size=size)


def _dense_forward(x: jax.Array, w: jax.Array, geometry: Geometry, *, whole: bool = True) -> jax.Array:
    """`whole` is false for a part of Winograd's, whose cost and errors would multiply."""
    if _direct.worth(w, geometry):
        return _direct.forward(x, w, geometry)
    if _by_points(w, geometry):
        return _dense.points(x, w, geometry)
    if set(geometry.lhs_dilation) != {1}:
        return _plain_conv.forward(x, w, geometry=geometry)
    if math.prod(x.shape[1:-1]) < math.prod(w.shape[:-2]):
        y = _dense.patches(x, w, geometry)  # where most of the kernel meets padding, and infinity times zero is NaN
        return _if_finite(y, lambda x, w: y, functools.partial(_plain_conv.forward, geometry=geometry), x, w)
    if w.ndim == 5:
        return _dense.slices(x, w, geometry, _dense_forward)
    out = (x.shape[0], *geometry.window(w.shape[:-2]).output(x.shape[1:-1]), w.shape[-1])
    if whole and (dim := _winograd.dimension(w, geometry, out)) is not None:
        fast = functools.partial(
            _winograd.forward, geometry=geometry, dim=dim, convolve=functools.partial(_dense_forward, whole=False)
        )
        plain = functools.partial(_plain_conv.forward, geometry=geometry)
        return lax.cond(_winograd.accurate(x, w), fast, plain, x, w)
    return _plain_conv.forward(x, w, geometry=geometry)


def _dense_backward_x(dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    if _by_products(w, geometry):
        return _dense.put_back_products(dy, w, geometry, spatial)
    return _dense_forward(dy, *_as_forward(dy, w, geometry, spatial))


def _dense_backward_w(x: jax.Array, dy: jax.Array, geometry: Geometry, size: tuple[int, ...]) -> jax.Array:
    if set(size) == {1} and _adds_nothing(geometry):
        return _dense.points_gradient(x, dy, geometry)
    if len(size) == 3 and set(geometry.lhs_dilation) == {1}:
        flat = functools.partial(_dense_backward_w, size=size[1:])
        return _dense.slices_gradient(x, dy, geometry, size[0], flat)
    if _direct.worth_outer(x, dy, geometry, size):
        return _direct.outer(x, dy, geometry, size)
    return _dense.examples_as_channels(x, dy, geometry, size)


def _if_finite(a: jax.Array, fast: _Formulation, plain: _Formulation, x: jax.Array, w: jax.Array) -> jax.Array:
    """fast(x, w) if the sum of all magnitudes of `a` is finite, else plain(x, w)."""
    return lax.cond(jnp.isfinite(abs_sum(a)), fast, plain, x, w)


def _by_products(w: jax.Array | jax.ShapeDtypeStruct, geometry: Geometry) -> bool:
    """Where a convolution with dy would meet zeros between its positions, or would have few features of its own."""
    *size, channels, _ = w.shape
    few = channels <= 8 or channels <= 16 < w.shape[-1]
    windows = 1 < math.prod(size) <= 2 * MOST_TAPS and set(geometry.lhs_dilation) == {1}
    return windows and (few or set(geometry.stride) != {1})


def _by_points(w: jax.Array | jax.ShapeDtypeStruct, geometry: Geometry) -> bool:
    """Windows of one position: either some inputs are left out, or zeros come between and around the outputs."""
    return set(w.shape[:-2]) == {1} and (_adds_nothing(geometry) or set(geometry.stride) == {1})


def _adds_nothing(geometry: Geometry) -> bool:
    """No zeros come around or between the positions of x."""
    return not any(map(any, geometry.padding)) and set(geometry.lhs_dilation) == {1}


def _plain_backward_x(dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    w, back = _as_forward(dy, w, geometry, spatial)
    return _plain_conv.forward(dy, w, geometry=back)


def _as_forward(
    dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]
) -> tuple[jax.Array, Geometry]:
    """The kernel and the geometry by which a convolution of dy is the gradient of the input.

    In the one order of dimensions that XLA computes well inside of loops, too: 3x3, 64 to 64 channels, 16 x 16,
    batch 128, in a scan: 8 ms, plain 39 ms; outside, both 8 ms.
    """
    size, groups = w.shape[:-2], geometry.groups
    w = exchanged(jnp.flip(w, range(len(size))), groups)
    pads = []
    for o, k, n, s, (low, _), d, between in zip(
        dy.shape[1:-1], size, spatial, *geometry[:2], geometry.rhs_dilation, geometry.lhs_dilation, strict=True
    ):
        span = d * (k - 1) + 1
        length, whole = (o - 1) * s + 1, (n - 1) * between + 1
        pads.append((span - 1 - low, whole + low - length))
    back = Geometry(geometry.lhs_dilation, tuple(pads), geometry.stride, geometry.rhs_dilation, groups)
    return lax.optimization_barrier(w), back
