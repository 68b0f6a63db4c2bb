"""Convolution as three bilinear primitives; each is the transpose of the others.

    y = forward(x, w)    dx = input_gradient(dy, w)    dw = kernel_gradient(x, dy)

Derivatives of any order and in both modes use only these three. Each has its own rules for the fastest algorithm.
"""

from typing import Any

import jax

from jaxcnn._jax import ad
from jaxcnn._lowering import _problem
from jaxcnn._lowering._as_convolution import swap_in_out_channels
from jaxcnn._lowering._by_rules import by_rules
from jaxcnn._lowering._primitive import matmul_precision
from jaxcnn._window import Window


def convolve(x: jax.Array, w: jax.Array, window: Window, groups: int) -> jax.Array:
    """(N, *spatial, C), (*size, C / groups, F) -> (N, *spatial', F): `lax.conv_general_dilated`, channels last."""
    return _forward.bind(x, w, window=window, groups=groups, precision=matmul_precision(), models=False)


def convolve_transposed(x: jax.Array, w: jax.Array, window: Window, groups: int, spatial: tuple[int, ...]) -> jax.Array:
    """(N, *spatial', C), (*size, C / groups, F) -> (N, *spatial, F): the transpose of `convolve` from `spatial`."""
    options = {"window": window, "groups": groups, "precision": matmul_precision(), "models": False}
    return _input_gradient.bind(x, swap_in_out_channels(w, groups), **options, spatial=spatial)


_forward = by_rules("jaxcnn_conv", _problem.forward, examples=(True, False))
_input_gradient = by_rules("jaxcnn_conv_input_gradient", _problem.input_gradient, examples=(True, False))
# A batch of kernel gradients has one result per element, so examples cannot be merged.
_kernel_gradient = by_rules("jaxcnn_conv_kernel_gradient", _problem.kernel_gradient, examples=(False, False))


def _dx(dy: Any, x: Any, w: Any, *, models: bool, **options: Any) -> jax.Array:
    return _input_gradient.bind(dy, w, **options, models=models, spatial=x.aval.shape[models + 1 : -1])


ad.defbilinear(
    _forward,
    _dx,
    lambda dy, x, w, **options: _kernel_gradient.bind(x, dy, **options),
)
ad.defbilinear(
    _input_gradient,
    lambda dx, dy, w, *, spatial, **options: _forward.bind(dx, w, **options),
    lambda dx, dy, w, *, spatial, **options: _kernel_gradient.bind(dx, dy, **options),
)
ad.defbilinear(
    _kernel_gradient,
    lambda dw, x, dy, **options: _dx(dy, x, dw, **options),
    lambda dw, x, dy, **options: _forward.bind(x, dw, **options),
)
