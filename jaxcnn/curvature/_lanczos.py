"""The largest eigenvalues of a symmetric matrix that is only known by its products with vectors."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._array import at_least_float32
from jaxcnn._key import check_key
from jaxcnn._numeric import norm


class Eigenpairs(NamedTuple):
    """values (k,), largest first; vectors: a tree with the structure of the parameters and a first dimension k.

    Values are at least float32; vectors have the dtypes of the parameters.
    """

    values: jax.Array
    vectors: Any


def top_eigenvalues(
    matvec: Callable[[Any], Any], params: Any, k: int = 1, *, steps: int = 64, key: jax.Array | None = None
) -> Eigenpairs:
    """The k largest eigenvalues of a symmetric matrix A, with eigenvectors, by the Lanczos method.

    A v_j = beta_{j-1} v_{j-1} + alpha_j v_j + beta_j v_{j+1}
    eigenvalues of A ~ those of the tridiagonal matrix of alpha and beta

    Each step orthogonalizes the new vector against all earlier ones, so no eigenvalue appears twice by rounding. With
    as many steps as parameters, all eigenvalues are exact. The smallest eigenvalues are those of v -> -A v, negated.

    Args:
        matvec: v -> A v, such as functools.partial(hessian_vector_product, loss, params).
        params: a tree of floating-point arrays with the structure of v; the values are not used.
        k: number of eigenvalues.
        steps: products with A, at least k; the memory is `steps` times that of the parameters. Eigenvalues at the end
            of the spectrum converge first; double it to check the others.
        key: draws the first vector; default: jax.random.key(0).

    Raises:
        TypeError: for params that are not floating-point.
        ValueError: if k or steps is out of range, or if matvec returns other shapes than those of params.

    Example:
        >>> diagonal = jnp.arange(100.0)
        >>> values, vectors = jaxcnn.curvature.top_eigenvalues(lambda v: diagonal * v, diagonal, 2)
        >>> [round(float(value), 3) for value in values]
        [99.0, 98.0]

    Source: Lanczos, "An iteration method for the solution of the eigenvalue problem", 1950; Paige, "Accuracy and
    effectiveness of the Lanczos algorithm", 1980.
    """
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"top_eigenvalues: params must be floating-point arrays, got {short_repr(leaf)}")
    flat, unravel = ravel_pytree(params)
    size, dtype = flat.size, at_least_float32(flat).dtype
    as_tree = lambda v: unravel(v.astype(flat.dtype))
    steps = min(check_integer("top_eigenvalues", "steps", steps), size)
    if check_integer("top_eigenvalues", "k", k) > steps:
        raise ValueError(f"top_eigenvalues: k={k} must be at most steps={steps}, which is at most {size} parameters")
    key = jax.random.key(0) if key is None else check_key(key)

    def product(v):
        w, shapes = matvec(as_tree(v)), [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
        if (found := [jnp.shape(leaf) for leaf in jax.tree.leaves(w)]) != shapes:
            raise ValueError(
                f"top_eigenvalues: matvec must return a tree with the shapes of params, {shapes}, but gives {found}"
            )
        return ravel_pytree(w)[0].astype(dtype)

    def length(v):
        return norm(v, (0,))[0]

    def normal_to(basis, v):
        """v without its components in the rows of basis; twice, as the first result is not orthogonal if it is small"""
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        return v

    def unit(basis, v):
        v = normal_to(basis, v)
        return v / length(v)

    def random_unit(basis, j):
        return unit(basis, jax.random.normal(jax.random.fold_in(key, j), (size,), dtype))

    def step(j, carry):
        basis, alpha, beta, v, scale = carry
        basis = basis.at[j].set(v)
        w = product(v)
        a = v @ w
        scale = jnp.maximum(scale, length(w))
        w = normal_to(basis, w)
        b = length(w)
        ended = b <= 10 * jnp.finfo(dtype).eps * scale  # A maps the space of the basis to itself: start in another one
        next_v = lax.cond(ended, lambda: random_unit(basis, j + 1), lambda: unit(basis, w / jnp.where(ended, 1, b)))
        return basis, alpha.at[j].set(a), beta.at[j].set(b), next_v, scale

    zeros = jnp.zeros(steps, dtype)
    basis = jnp.zeros((steps, size), dtype)
    carry = basis, zeros, zeros, random_unit(basis, 0), jnp.zeros((), dtype)
    basis, alpha, beta, *_ = lax.fori_loop(0, steps, step, carry)
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    values, coefficients = jnp.linalg.eigh(tridiagonal)
    vectors = coefficients[:, ::-1][:, :k].T @ basis
    return Eigenpairs(values[::-1][:k], jax.vmap(as_tree)(vectors))
