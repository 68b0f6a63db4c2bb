"""All names of jax that its public documentation does not list. No other module imports such names."""

from typing import Any

import jax
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


class LocalPrimitive(Primitive):
    """A primitive that computes on each device of `jax.shard_map` by itself.

    jax tracks over which axes of the mesh an array varies. The operands must vary over the same axes: one that is
    equal on all devices becomes one that varies, and the transpose of this is the sum over devices.
    """

    def bind(self, *args: Any, **params: Any) -> Any:
        axes = [_varying(jax.typeof(arg)) for arg in args]
        if len({*axes}) > 1:
            missing = [tuple(frozenset().union(*axes) - own) for own in axes]
            args = tuple(jax.lax.pcast(arg, new, to="varying") for arg, new in zip(args, missing, strict=True))
        return super().bind(*args, **params)


def result_type(shape: tuple[int, ...], dtype: Any, operand: ShapedArray, batch: int | None) -> ShapedArray:
    """The type of the result of a `LocalPrimitive`, which varies over the axes over which its operands vary.

    batch: the dimension of the examples, which are sharded as those of `operand`; None if the result has none.
    """
    spec = [None] * len(shape)
    if batch is not None and batch < len(spec):  # a scalar has no dimension
        spec[batch] = operand.sharding.spec[batch]
    if not _varying(operand) and not any(spec):
        return ShapedArray(shape, dtype)
    sharding = operand.sharding.update(spec=jax.sharding.PartitionSpec(*spec))
    return ShapedArray(shape, dtype, sharding=sharding, manual_axis_type=operand.manual_axis_type)


def on_one_device(aval: ShapedArray) -> ShapedArray:
    """The type of an array without the axes of a mesh over which it varies or is sharded."""
    return ShapedArray(aval.shape, aval.dtype, aval.weak_type)


def _varying(aval: Any) -> frozenset[Any]:
    return aval.manual_axis_type.varying
