"""All names of jax that its public documentation does not list. No other module imports such names."""

from typing import Any

from jax.core import ShapedArray as ShapedArray  # abstract value: the result type of a primitive
from jax.core import Tracer as Tracer  # distinguishes traced from concrete values
from jax.extend.core import ClosedJaxpr as ClosedJaxpr  # a program with its constants: the body of jit, scan, cond
from jax.extend.core import Jaxpr as Jaxpr  # a program without constants: the body of remat
from jax.extend.core import Literal as Literal  # a constant operand of an equation
from jax.extend.core import Primitive as Primitive  # base of our convolution, pooling and sum primitives
from jax.interpreters import ad as ad  # registers derivatives and transposes
from jax.interpreters import batching as batching  # registers vmap rules
from jax.interpreters import mlir as mlir  # registers lowerings per platform
from jax.interpreters.partial_eval import dce_jaxpr as dce_jaxpr  # dead code elimination: which inputs the results need


def scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan, from the parameters of its equation."""
    if "num_consts" in params:  # jax 0.10 and 0.11
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(constants), len(carried)
