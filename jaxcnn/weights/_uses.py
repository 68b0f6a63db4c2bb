"""Where a network applies each parameter: found in its jaxpr, for networks whose layers have no table of names."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jaxcnn._layer import Params, State
from jaxcnn._path import paths
from jaxcnn._program import inner_programs, interpret, jaxpr_of

Leaf = tuple[int, str]  # (0, path) in the parameters or (1, path) in the state
# their output features are not their input features
MIXING = ("dot_general", "conv_general_dilated", "jaxcnn_conv", "jaxcnn_dense")


class Use(NamedTuple):
    """The first operation that combines a leaf with data."""

    position: int  # in order of execution
    sources: frozenset[Leaf]  # the leaves on which the data depend
    flattened: tuple[int, ...]  # (*spatial, C) if the data are a flattened feature map
    transposed_groups: int  # groups of a transposed convolution, 0 for other operations


class _Value(NamedTuple):
    """What an intermediate result depends on."""

    leaves: frozenset[Leaf] = frozenset()
    is_data: bool = False  # whether it depends on the input
    flattened: tuple[int, ...] = ()


def leaf_uses(apply: Any, trees: tuple[Params, State], x: Any) -> dict[Leaf, Use]:
    """Return the first use of each leaf of (params, state) in evaluation, in order of execution."""
    program = jax.make_jaxpr(lambda params, state, x: apply(params, state, x, train=False)[0])(*trees, x)
    leaves = [(i, path) for i, tree in enumerate(trees) for path in paths(tree)]
    uses: dict[Leaf, Use] = {}

    def rule(equation: Any, operands: list[_Value]) -> Sequence[_Value]:
        programs = inner_programs(equation)
        if len(programs) == 1 and len(jaxpr_of(programs[0]).invars) == len(operands):
            return interpret(programs[0], operands, rule, lambda _: _Value())
        data = [value for value in operands if value.is_data]
        sources = frozenset().union(*(value.leaves for value in data))
        weights = frozenset().union(*(value.leaves for value in operands if not value.is_data))
        flattened = next((value.flattened for value in data if value.flattened), ())
        if data:
            transposed = equation.primitive.name == "jaxcnn_conv_input_gradient"
            groups = equation.params["groups"] if transposed else 0
            for leaf in filter(weights.__contains__, leaves):
                uses.setdefault(leaf, Use(len(uses), sources, flattened, groups))
        return [_Value(sources | weights, bool(data), _flattened(equation, out, flattened)) for out in equation.outvars]

    inputs = [_Value(frozenset({leaf})) for leaf in leaves] + [_Value(is_data=True)] * len(jax.tree.leaves(x))
    interpret(program, inputs, rule, lambda _: _Value())
    return uses


def _flattened(equation: Any, out: Any, flattened: tuple[int, ...]) -> tuple[int, ...]:
    """Return (*spatial, C) if the output is a flattened feature map: after a reshape, and operations per feature."""
    shape, name = out.aval.shape, equation.primitive.name
    before: tuple[int, ...] = equation.invars[0].aval.shape if equation.invars else ()
    if name == "reshape" and len(before) > 2 and shape == (before[0], math.prod(before[1:])):
        return before[1:]
    keeps = len(shape) == 2 and shape[1] == math.prod(flattened) and not name.startswith(MIXING)
    return flattened if flattened and keeps else ()
