"""Products of curvature matrices with vectors, each for the cost of a few gradients."""

from collections.abc import Callable
from typing import Any

import jax

Vector = Any  # a tree of arrays with the structure of the parameters


def hessian_vector_product(loss: Callable[[Any], jax.Array], params: Any, v: Vector) -> Vector:
    """The product of the Hessian of a loss with v: the derivative of the gradient in the direction v.

    H v = d/dt grad loss(params + t v) at t = 0,  forward over reverse mode

    Args:
        loss: params -> scalar.
        params: a tree of arrays.
        v: a tree with the structure, shapes and dtypes of `params`.

    Example:
        >>> loss = lambda params: params["kernel"] ** 3
        >>> params, v = {"kernel": jnp.array(2.0)}, {"kernel": jnp.array(1.0)}
        >>> float(jaxcnn.curvature.hessian_vector_product(loss, params, v)["kernel"])  # 6 * 2
        12.0

    Source: Pearlmutter, "Fast exact multiplication by the Hessian", 1994.
    """
    return jax.jvp(jax.grad(loss), (params,), (v,))[1]


def gauss_newton_vector_product(
    output: Callable[[Any], Any], loss: Callable[[Any], jax.Array], params: Any, v: Vector
) -> Vector:
    """The product of the generalized Gauss-Newton matrix of loss(output(params)) with v.

    G v = J^T H J v,  J: the Jacobian of the output,  H: the Hessian of the loss with respect to the output

    G is the Hessian of the loss for a linearized network. It is positive semidefinite for a convex loss such as
    cross-entropy, for which it is also the Fisher matrix; the Hessian need not be.

    Args:
        output: params -> output, such as lambda params: model.apply(params, state, x, train=False)[0].
        loss: output -> scalar.
        params: a tree of arrays.
        v: a tree with the structure, shapes and dtypes of `params`.

    Example:
        >>> G_v = jaxcnn.curvature.gauss_newton_vector_product(jnp.sin, jnp.square, jnp.array(0.0), jnp.array(1.0))
        >>> float(G_v)  # cos(0) * 2 * cos(0)
        2.0

    Source: Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", 2002.
    """
    y, transpose = jax.vjp(output, params)
    _, J_v = jax.jvp(output, (params,), (v,))
    return transpose(hessian_vector_product(loss, y, J_v))[0]
