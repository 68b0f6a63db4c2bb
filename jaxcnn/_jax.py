"""Every name of jax that is not in its public documentation, with what it is for. Nothing else imports such names."""

from jax.core import ShapedArray as ShapedArray  # the type that a primitive gives its result
from jax.core import Tracer as Tracer  # tells a value that a transformation stands for from one that is known
from jax.extend.core import ClosedJaxpr as ClosedJaxpr  # a program with its constants: the body of jit, scan, cond
from jax.extend.core import Jaxpr as Jaxpr  # a program without them: the body of remat
from jax.extend.core import Literal as Literal  # a constant that stands among the operands of an equation
from jax.extend.core import Primitive as Primitive  # convolution, pooling and sums are primitives of their own
from jax.interpreters import ad as ad  # where their derivatives and transposes are registered
from jax.interpreters import batching as batching  # where their vmap is registered
from jax.interpreters import mlir as mlir  # where their lowering is registered, by platform
from jax.interpreters.partial_eval import dce_jaxpr as dce_jaxpr  # which inputs of a program its results need
