"""Convolution as three bilinear primitives, of which each is the transpose of the others.

    y = forward(x, w)    dx = backward_x(dy, w)    dw = backward_w(x, dy)

so that derivatives of any order and in both modes stay among them, and each can be computed in its own best way.
"""

from typing import Any

import jax
from jax.interpreters import ad

from jaxcnn._lowering import _cpu_conv, _plain_conv
from jaxcnn._lowering._plain_conv import Geometry, exchanged
from jaxcnn._lowering._primitive import primitive


def convolve(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """(N, *spatial, C), (*size, C / groups, F) -> (N, *spatial', F): `lax.conv_general_dilated`, channels last."""
    return _forward.bind(x, w, geometry=geometry)


def convolve_transposed(x: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    """(N, *spatial', C), (*size, C / groups, F) -> (N, *spatial, F): the transpose of `convolve` on that shape."""
    return _backward_x.bind(x, exchanged(w, geometry.groups), geometry=geometry, spatial=spatial)


_forward = primitive("jaxcnn_conv", _plain_conv.forward, cpu=_cpu_conv.forward, examples=(True, False))
_backward_x = primitive(
    "jaxcnn_conv_backward_x", _plain_conv.backward_x, cpu=_cpu_conv.backward_x, examples=(True, False)
)
_backward_w = primitive(  # each kernel's gradient is its own: examples cannot be merged
    "jaxcnn_conv_backward_w", _plain_conv.backward_w, cpu=_cpu_conv.backward_w, examples=(False, False)
)


def _dx(dy: Any, x: Any, w: Any, geometry: Geometry) -> jax.Array:
    return _backward_x.bind(dy, w, geometry=geometry, spatial=x.aval.shape[1:-1])


def _dw(dy: Any, x: Any, w: Any, geometry: Geometry) -> jax.Array:
    return _backward_w.bind(x, dy, geometry=geometry, size=w.aval.shape[:-2])


ad.defbilinear(
    _forward,
    lambda dy, x, w, *, geometry: _dx(dy, x, w, geometry),
    lambda dy, x, w, *, geometry: _dw(dy, x, w, geometry),
)
ad.defbilinear(
    _backward_x,
    lambda dx, dy, w, *, geometry, spatial: _forward.bind(dx, w, geometry=geometry),
    lambda dx, dy, w, *, geometry, spatial: _dw(dy, dx, w, geometry),
)
ad.defbilinear(
    _backward_w,
    lambda dw, x, dy, *, geometry, size: _dx(dy, x, dw, geometry),
    lambda dw, x, dy, *, geometry, size: _forward.bind(x, dw, geometry=geometry),
)
