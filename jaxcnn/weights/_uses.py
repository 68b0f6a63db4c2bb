"""Where a network applies each parameter: found in its jaxpr, for networks whose layers have no table of names."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxcnn._layer import Params, State
from jaxcnn._path import paths
from jaxcnn._program import inner_programs, interpret, jaxpr_of

Leaf = tuple[int, str]  # (0, path) in the parameters or (1, path) in the state
DATA = 1  # the bit of the input in a bit set; bit 1 + k is that of leaf k
# their output features are not their input features
MIXING = ("dot_general", "conv_general_dilated", "jaxcnn_conv", "jaxcnn_dense")


class Use(NamedTuple):
    """The first operation that combines a leaf with data."""

    position: int  # in order of execution
    bit: int
    sources: int  # the bits of the leaves on which the data depend
    flattened: tuple[int, ...]  # (*spatial, C) if the data are a flattened feature map
    transposed_groups: int  # groups of a transposed convolution, 0 for other operations


class _Value(NamedTuple):
    bits: int
    flattened: tuple[int, ...] = ()


def leaf_uses(apply: Any, trees: tuple[Params, State], x: Any) -> dict[Leaf, Use]:
    """Return the first use of each leaf of (params, state) in evaluation, in order of execution."""
    program = jax.make_jaxpr(lambda params, state, x: apply(params, state, x, train=False)[0])(*trees, x)
    leaves = [(i, path) for i, tree in enumerate(trees) for path in paths(tree)]
    uses: dict[Leaf, Use] = {}

    def rule(equation: Any, operands: list[_Value]) -> Sequence[_Value]:
        programs = inner_programs(equation)
        if len(programs) == 1 and len(jaxpr_of(programs[0]).invars) == len(operands):
            return interpret(programs[0], operands, rule, lambda _: _Value(0))
        sources, weights = 0, 0
        flattened: tuple[int, ...] = ()
        for value in operands:
            if value.bits & DATA:
                sources |= value.bits
                flattened = flattened or value.flattened
            else:
                weights |= value.bits
        if sources:
            transposed = equation.primitive.name == "jaxcnn_conv_input_gradient"
            groups = equation.params["groups"] if transposed else 0
            for k in _indices(weights):
                uses.setdefault(leaves[k], Use(len(uses), DATA << k + 1, sources, flattened, groups))
        return [_Value(sources | weights, _flattened(equation, out, flattened)) for out in equation.outvars]

    inputs = [_Value(DATA << k + 1) for k in range(len(leaves))] + [_Value(DATA)] * len(jax.tree.leaves(x))
    interpret(program, inputs, rule, lambda _: _Value(0))
    return uses


def _indices(bits: int) -> Iterator[int]:
    return (k for k in range(bits.bit_length() - 1) if bits >> k + 1 & 1)


def _flattened(equation: Any, out: Any, flattened: tuple[int, ...]) -> tuple[int, ...]:
    """Return (*spatial, C) if the output is a flattened feature map: after a reshape, and operations per feature."""
    shape, name = out.aval.shape, equation.primitive.name
    before: tuple[int, ...] = equation.invars[0].aval.shape if equation.invars else ()
    if name == "reshape" and len(before) > 2 and shape == (before[0], math.prod(before[1:])):
        return before[1:]
    keeps = len(shape) == 2 and shape[1] == math.prod(flattened) and not name.startswith(MIXING)
    return flattened if flattened and keeps else ()
