"""The matrix product of a dense layer as three bilinear primitives; each is the transpose of the others.

    y = product(x, w) = x w    dx = input_gradient(dy, w) = dy w^T    dw = kernel_gradient(x, dy) = x^T dy

On a CPU, oneDNN computes them if it is available.

`lax.dot_general` has the same derivatives, but it computes dw as (dy^T x)^T. A gradient for each example is then an
outer product that XLA stores transposed and copies, which takes longer than the rest of a small network.
"""

import functools
from typing import Any

import jax
from jax import lax

from jaxcnn._jax import Primitive, ad
from jaxcnn._lowering import _onednn
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


def _lax_input_gradient(dy: jax.Array, w: jax.Array, precision: str | None) -> jax.Array:
    return _lax_product(dy, w.T, precision)


def _lax_kernel_gradient(x: jax.Array, dy: jax.Array, precision: str | None) -> jax.Array:
    rows = tuple(range(x.ndim - 1))
    with jax.default_matmul_precision(precision):
        return lax.dot_general(x, dy, ((rows, rows), ((), ())))


def _materialized_kernel_gradient(x: jax.Array, dy: jax.Array, precision: str | None) -> jax.Array:
    # XLA does not vectorize an activation that it recomputes while it transposes.
    return _lax_kernel_gradient(*materialized((x, dy)), precision)


def _primitive(name: str, plain: Any, onednn: Any, otherwise: Any, examples: tuple[bool, bool]) -> Primitive:
    """`plain`, or on a CPU `onednn` if it is available, else `otherwise`. Several models use `plain`."""

    def cpu(a, b, precision):
        return onednn(a, b) if _onednn.can_multiply(a, b) else otherwise(a, b, precision)

    models = lambda a, b, precision: jax.vmap(functools.partial(plain, precision=precision))(a, b)
    return primitive(name, plain, cpu=cpu, cpu_models=models, examples=examples)


_product = _primitive("jaxcnn_dense", _lax_product, _onednn.product, _lax_product, (True, False))
_input_gradient = _primitive(
    "jaxcnn_dense_input_gradient",
    _lax_input_gradient,
    _onednn.product_transposed,
    _lax_input_gradient,
    (True, False),
)
_kernel_gradient = _primitive(
    "jaxcnn_dense_kernel_gradient",
    _lax_kernel_gradient,
    _onednn.sum_of_products,
    _materialized_kernel_gradient,
    (False, False),
)

ad.defbilinear(
    _product,
    lambda dy, x, w, **options: _input_gradient.bind(dy, w, **options),
    lambda dy, x, w, **options: _kernel_gradient.bind(x, dy, **options),
)
ad.defbilinear(
    _input_gradient,
    lambda dx, dy, w, **options: _product.bind(dx, w, **options),
    lambda dx, dy, w, **options: _kernel_gradient.bind(dx, dy, **options),
)
ad.defbilinear(
    _kernel_gradient,
    lambda dw, x, dy, **options: _input_gradient.bind(dy, dw, **options),
    lambda dw, x, dy, **options: _product.bind(x, dw, **options),
)
