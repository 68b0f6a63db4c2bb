"""The matrix product of a dense layer as two bilinear primitives.

    y = product(x, w) = x w    dx = product(dy, w^T)    dw = kernel_gradient(x, dy) = x^T dy

`lax.dot_general` has the same derivatives, but it computes dw as (dy^T x)^T. A gradient for each example is then an
outer product that XLA stores transposed and copies, which takes longer than the rest of a small network.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jax import ad
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._primitive import matmul_precision, primitive


def matrix_product(x: jax.Array, w: jax.Array) -> jax.Array:
    """(..., C), (C, F) -> (..., F): x w."""
    rows = x if x.ndim > 1 else x[None]
    y = _product.bind(rows, w, precision=matmul_precision(), models=False)
    return y if x.ndim > 1 else y[0]


def _lax_product(x: jax.Array, w: jax.Array, precision: str | None) -> jax.Array:
    with jax.default_matmul_precision(precision):
        return x @ w


def _lax_kernel_gradient(x: jax.Array, dy: jax.Array, precision: str | None) -> jax.Array:
    rows = tuple(range(x.ndim - 1))
    with jax.default_matmul_precision(precision):
        return lax.dot_general(x, dy, ((rows, rows), ((), ())))


def _cpu_kernel_gradient(x: jax.Array, dy: jax.Array, precision: str | None) -> jax.Array:
    # An activation that is recomputed while it is transposed is not vectorized: a step of a ConvNeXt 700 -> 360 ms.
    return _lax_kernel_gradient(*materialized((x, dy)), precision)


def _models_kernel_gradient(x: jax.Array, dy: jax.Array, precision: str | None) -> jax.Array:
    return jax.vmap(functools.partial(_lax_kernel_gradient, precision=precision))(x, dy)


_product = primitive("jaxcnn_dense", _lax_product, examples=(True, False))
_kernel_gradient = primitive(
    "jaxcnn_dense_kernel_gradient",
    _lax_kernel_gradient,
    cpu=_cpu_kernel_gradient,
    cpu_models=_models_kernel_gradient,
    examples=(False, False),
)


def _times_transposed(dy: jax.Array, w: jax.Array, **options: Any) -> jax.Array:
    return _product.bind(dy, jnp.swapaxes(w, -1, -2), **options)


ad.defbilinear(
    _product,
    lambda dy, x, w, **options: _times_transposed(dy, w, **options),
    lambda dy, x, w, **options: _kernel_gradient.bind(x, dy, **options),
)
ad.defbilinear(
    _kernel_gradient,
    lambda dw, x, dy, **options: _times_transposed(dy, dw, **options),
    lambda dw, x, dy, **options: _product.bind(x, dw, **options),
)
