"""Saves only the input of an activation for the backward pass if its derivative needs more arrays.

The derivative of gelu needs erf(x) and exp(-x^2), that of silu a sigmoid. By default JAX saves these in the forward
pass, and XLA does not recompute expensive functions: three arrays instead of one. All can be recomputed from x.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._jax import Tracer
from jaxcnn._program import equations, inner_programs, jaxpr_of
from jaxcnn._shapes_only import SHAPES_ONLY

# XLA saves the results of these element-wise operations and recomputes all others where they are used.
_EXPENSIVE = {"erf", "erfc", "exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "tanh"}
_CONTRACTS = {"dot_general", "sort"}


def keeping_input(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f, saving only x for the backward pass if that needs less memory.

    The run time does not change. Results of contractions, such as matrix products, are saved too. On concrete values
    it calls f itself, which may depend on values.
    """
    recomputed = jax.checkpoint(f, policy=_is_saved)

    def g(x):
        if not isinstance(x, Tracer) or SHAPES_ONLY.value:
            return f(x)
        return recomputed(x) if _saves_more(jax.make_jaxpr(f)(x)) else f(x)

    return g


def _is_saved(primitive: Any, *operands: Any, **params: Any) -> bool:
    shapes = {operand.shape for operand in operands} - {()}
    return len(shapes) > 1 or primitive.name in _CONTRACTS


def _saves_more(program: Any) -> bool:
    """Whether an expensive value besides the result is saved: true for x * tanh(x), false for tanh(x)."""
    top = jaxpr_of(program).eqns
    if len(top) == 1 and (inner := inner_programs(top[0])):  # a jitted function
        return _saves_more(inner[0])
    return any(_is_expensive(equation) for equation in top[:-1])


def _is_expensive(equation: Any) -> bool:
    nested = (inner for program in inner_programs(equation) for inner in equations(program))
    return any(eqn.primitive.name in _EXPENSIVE for eqn in (equation, *nested))
