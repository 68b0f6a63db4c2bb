"""The influence of single training examples on a trained model, without training again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from jaxcnn._arguments import check_integer, check_number
from jaxcnn._numeric import norm
from jaxcnn._validate import is_concrete

ExampleLoss = Callable[[Any, Any], jax.Array]  # (params, example) -> scalar


def influence(
    matvec: Callable[[Any], Any],
    loss: ExampleLoss,
    target: Callable[[Any], jax.Array],
    params: Any,
    examples: Any,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-5,
    max_steps: int = 1000,
    batch_size: int = 256,
) -> jax.Array:
    """(N,): how much the target grows if the model is trained without example n, to first order.

    influence[n] = 1 / N  grad target^T (H + damping I)^-1 grad loss(examples[n])

    params minimize the mean of the N losses, plus a regularizer; H is its Hessian. With the loss of a test example as
    the target, positive values are examples that help with it, negative ones harm. One linear system is solved for all
    examples, by conjugate gradients.

    Args:
        matvec: v -> H v, positive semidefinite. For a network whose Hessian is not, use `gauss_newton_vector_product`.
        loss: (params, example) -> scalar, such as example_loss(loss_fn, state).
        target: params -> scalar, such as the mean loss of test examples.
        params: a tree of arrays.
        examples: a tree of arrays with a first dimension N: all training data.
        damping: added to the eigenvalues of H; it must be positive if H is singular.
        tolerance: of the residual of the linear system, relative to the gradient.
        max_steps: number of conjugate gradient steps, one product with H each, at most.
        batch_size: examples per pass.

    Raises:
        ValueError: if the examples differ in length, or if the system has no solution within 100 tolerances: H +
            damping I is not positive definite. Inside a compiled function, the result of the latter is NaN instead.

    Example:
        >>> points = jnp.array([1.0, 2.0, 6.0])  # their mean, 3, has the least mean square error
        >>> values = jaxcnn.curvature.influence(
        ...     lambda v: 2 * v, lambda p, x: (p - x) ** 2, lambda p: p, jnp.array(3.0), points)
        >>> [round(float(value), 4) for value in values]  # without the last, the mean is smaller
        [0.6667, 0.3333, -1.0]

    Source: Koh and Liang, "Understanding black-box predictions via influence functions", 2017.
    """
    solve = _solver("influence", matvec, damping, tolerance, max_steps)
    direction, solved = solve(jax.grad(target)(params))
    derivative = lambda example: jax.jvp(lambda p: loss(p, example), (params,), (direction,))[1]
    return _checked("influence", _over_examples("influence", derivative, examples, batch_size), solved)


def self_influence(
    matvec: Callable[[Any], Any],
    loss: ExampleLoss,
    params: Any,
    examples: Any,
    *,
    damping: float = 0.0,
    tolerance: float = 1e-5,
    max_steps: int = 1000,
    batch_size: int = 256,
) -> jax.Array:
    """(N,): how much the loss of example n grows if the model is trained without it, to first order.

    self_influence[n] = 1 / N  grad loss(examples[n])^T (H + damping I)^-1 grad loss(examples[n])

    It is large for examples that the model had to memorize, such as mislabelled ones. It needs one linear system per
    example; for a large network, use the parameters of the last layer and its input features.

    Args:
        matvec, loss, params, examples, damping, tolerance, max_steps: as for `influence`.
        batch_size: number of linear systems that are solved at once.

    Raises:
        ValueError: as in `influence`.

    Example:
        >>> points = jnp.array([1.0, 2.0, 6.0])
        >>> values = jaxcnn.curvature.self_influence(
        ...     lambda v: 2 * v, lambda p, x: (p - x) ** 2, jnp.array(3.0), points)
        >>> [round(float(value), 4) for value in values]
        [2.6667, 0.6667, 6.0]

    Source: Koh and Liang, "Understanding black-box predictions via influence functions", 2017.
    """
    solve = _solver("self_influence", matvec, damping, tolerance, max_steps)

    def own(example):
        gradient = jax.grad(loss)(params, example)
        direction, solved = solve(gradient)
        return jnp.where(solved, _dot(gradient, direction), jnp.nan)

    values = _over_examples("self_influence", own, examples, batch_size)
    return _checked("self_influence", values, ~jnp.isnan(values).any())


def _solver(
    name: str, matvec: Callable[[Any], Any], damping: float, tolerance: float, max_steps: int
) -> Callable[[Any], tuple[Any, jax.Array]]:
    """b -> x with (A + damping I) x = b, and whether that holds."""
    damping = check_number(name, "damping", damping)
    tolerance = check_number(name, "tolerance", tolerance)
    max_steps = check_integer(name, "max_steps", max_steps)
    damped = lambda v: jax.tree.map(lambda a, x: a + damping * x, matvec(v), v)

    def solve(b):
        length = norm(ravel_pytree(b)[0], (0,))[0]
        divisor = jnp.where(length > 0, length, 1)
        b = jax.tree.map(lambda x: x / divisor.astype(x.dtype), b)  # the square of a tolerance would underflow
        x, _ = cg(damped, b, tol=tolerance, maxiter=max_steps)
        residual = jax.tree.map(jnp.subtract, damped(x), b)
        # b' A^-1 b > 0 for a positive definite A: conjugate gradients may also solve systems that are not.
        solved = (_dot(residual, residual) <= (100 * tolerance) ** 2) & ((_dot(b, x) > 0) | (length == 0))
        return jax.tree.map(lambda x: x * length.astype(x.dtype), x), solved

    return solve


def _over_examples(name: str, value: Callable[[Any], jax.Array], examples: Any, batch_size: int) -> jax.Array:
    """1 / N times the value of each example."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    if () in shapes or len({shape[0] for shape in shapes}) != 1 or 0 in shapes[0][:1]:
        raise ValueError(
            f"{name}: examples must be arrays with the same first dimension N, at least 1, got shapes {shapes}"
        )
    count = shapes[0][0]
    batch_size = check_integer(name, "batch_size", batch_size)
    return lax.map(value, jax.tree.map(jnp.asarray, examples), batch_size=min(batch_size, count)) / count


def _checked(name: str, values: jax.Array, solved: jax.Array) -> jax.Array:
    if is_concrete(solved) and not solved:
        raise ValueError(
            f"{name}: conjugate gradients found no solution; the matrix plus damping must be positive definite: "
            "increase damping, or use gauss_newton_vector_product in place of the Hessian"
        )
    return jnp.where(solved, values, jnp.nan)


def _dot(a: Any, b: Any) -> Any:
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
