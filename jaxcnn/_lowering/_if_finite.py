"""Algorithms that are exact only for some values, such as finite ones, with a slower one for the others.

Infinity times a zero weight or a zero of the padding would become NaN.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering import _lax, _matmul
from jaxcnn._lowering._channels import abs_sum
from jaxcnn._lowering._problem import Algorithm, Problem


def run_if(test: Callable[[jax.Array, jax.Array], jax.Array], fast: Algorithm, slow: Algorithm) -> Algorithm:
    """The fast algorithm if test(a, b), else the slow one."""

    def run(a, b, problem):
        options = lambda a, b: fast(a, b, problem), lambda a, b: slow(a, b, problem)
        return lax.cond(test(a, b), *options, a, b)

    return run


def if_finite(fast: Algorithm, slow: Algorithm) -> Algorithm:
    """The fast algorithm if the sum of |a| is finite, else the slow one."""
    return run_if(lambda a, _: jnp.isfinite(abs_sum(a)), fast, slow)


def im2col_if_finite(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    y = _matmul.im2col(x, w, problem)
    if not problem.window.is_padded:
        return y  # each output is the sum of its own window
    return lax.cond(jnp.isfinite(abs_sum(y)), lambda x, w: y, functools.partial(_lax.forward, problem=problem), x, w)
