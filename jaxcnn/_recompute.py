"""What an activation keeps for the way back: its input, if its derivative would take more than that.

The derivative of gelu needs erf(x) and exp(-x^2), that of silu a sigmoid. Left alone, JAX keeps these from the forward
pass, and XLA does not compute them again, as they are expensive: three arrays for one. All come from x.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._jax import Tracer
from jaxcnn._program import equations, inner_programs, jaxpr_of

# XLA computes these once and keeps the result; all other element-wise operations it repeats where they are needed.
_EXPENSIVE = {"erf", "erfc", "exp", "exp2", "expm1", "log", "log1p", "logistic", "pow", "tanh"}
_CONTRACTS = {"dot_general", "sort"}


def keeping_input(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """f, of which x is kept for the way back if that is less: in a ConvNeXt 261 MB for 412, in the same time.

    Products of matrices and the like are kept, too. Outside of transformations it is f, which may look at values.
    """
    recomputed = jax.checkpoint(f, policy=_kept)

    def g(x):
        if not isinstance(x, Tracer):
            return f(x)
        return recomputed(x) if _keeps_more(jax.make_jaxpr(f)(x)) else f(x)

    return g


def _kept(primitive: Any, *operands: Any, **params: Any) -> bool:
    shapes = {operand.shape for operand in operands} - {()}
    return len(shapes) > 1 or primitive.name in _CONTRACTS


def _keeps_more(program: Any) -> bool:
    """Whether something expensive is not the result itself, which is kept as it is: tanh, but not x * tanh(x)."""
    top = jaxpr_of(program).eqns
    if len(top) == 1 and (inner := inner_programs(top[0])):  # a jitted function
        return _keeps_more(inner[0])
    return any(_is_expensive(equation) for equation in top[:-1])


def _is_expensive(equation: Any) -> bool:
    inside = (each for program in inner_programs(equation) for each in equations(program))
    return any(each.primitive.name in _EXPENSIVE for each in (equation, *inside))
