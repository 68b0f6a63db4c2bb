"""Where a network applies each parameter: found in its jaxpr, for networks whose layers have no table of names."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxcnn._key import key_spec
from jaxcnn._layer import Params, State
from jaxcnn._path import leaves_by_path
from jaxcnn._program import inner_programs, interpret, jaxpr_of
from jaxcnn.weights._feature_order import LOST, MIXING, PLAIN, UNIFORM, Order, after, is_lost_before, merged

Leaf = tuple[int, str]  # (0, path) in the parameters or (1, path) in the state


class Use(NamedTuple):
    """The first operation that combines a leaf with data."""

    position: int  # in order of execution
    sources: frozenset[Leaf]  # the leaves on which the data depend
    flattened: tuple[int, ...]  # (*spatial, C) if the data are a flattened feature map
    transposed_groups: int  # groups of a transposed convolution, 0 for other operations
    is_lost: bool = False  # whether the order of the features in PyTorch cannot be followed
    is_map: bool = False  # whether the leaf is a map (*spatial, C), which PyTorch has as (C, *spatial)


class _Value(NamedTuple):
    """What an intermediate result depends on."""

    leaves: frozenset[Leaf] = frozenset()
    is_data: bool = False  # whether it depends on the input
    order: Order = PLAIN


def leaf_uses(apply: Any, trees: tuple[Params, State], x: Any) -> dict[Leaf, Use]:
    """Return the first use of each leaf of (params, state), in order of execution.

    It is that in evaluation, or in training for leaves that evaluation does not use, such as those of auxiliary heads.
    """
    shapes = {(i, path): leaf.shape for i, tree in enumerate(trees) for path, leaf in leaves_by_path(tree).items()}
    uses = _uses(lambda params, state, x: apply(params, state, x, train=False)[0], trees, x, shapes)
    if missing := shapes.keys() - uses.keys():
        in_training = _uses(lambda *args: apply(*args[:3], train=True, key=args[3])[0], trees, x, shapes, key_spec())
        uses |= {leaf: use for leaf, use in in_training.items() if leaf in missing}
    return uses


def _uses(
    function: Callable[..., Any], trees: tuple[Params, State], x: Any, shapes: Mapping[Leaf, tuple[int, ...]], *key: Any
) -> dict[Leaf, Use]:
    """Return the first use of each leaf in function(params, state, x, *key)."""
    program = jax.make_jaxpr(function)(*trees, x, *key)
    uses: dict[Leaf, Use] = {}
    undecided: set[Leaf] = set()  # maps that have met only data without an order, such as the scale of each example

    def rule(equation: Any, operands: list[_Value]) -> Sequence[_Value]:
        programs = inner_programs(equation)
        if len(programs) == 1 and len(jaxpr_of(programs[0]).invars) == len(operands):
            return interpret(programs[0], operands, rule, lambda _: _Value())
        data = [value for value in operands if value.is_data]
        sources = frozenset().union(*(value.leaves for value in data))
        weights = frozenset().union(*(value.leaves for value in operands if not value.is_data))
        name, order, before = equation.primitive.name, *_input_order(equation, operands)
        if data:
            transposed = name == "jaxcnn_conv_input_gradient"
            groups = equation.params["groups"] if transposed else 0
            for leaf in (leaf for leaf in shapes if leaf in weights and leaf not in uses):
                flattened, is_lost = _order_of(shapes[leaf], name, order, len(before))
                uses[leaf] = Use(len(uses), sources, flattened, groups, is_lost)
                if _is_map(leaf, shapes[leaf], equation, operands):
                    undecided.add(leaf)
            for leaf in undecided & (sources | weights) if order != UNIFORM else ():
                uses[leaf] = uses[leaf]._replace(is_map=order == PLAIN, is_lost=uses[leaf].is_lost or order == LOST)
                undecided.remove(leaf)
        leaves = sources | weights
        return [
            _Value(leaves, bool(data), after(equation, order, before, out.aval.shape) if data else PLAIN)
            for out in equation.outvars
        ]

    inputs = [_Value(frozenset({leaf})) for leaf in shapes] + [_Value(is_data=True)] * len(jax.tree.leaves(x))
    inputs += [_Value()] * len(key)
    results = interpret(program, inputs, rule, lambda _: _Value())
    outputs: list[Any] = program.out_avals
    for value, output in zip(results, outputs, strict=True):
        if value.order.kind in ("unflattened", "lost") and len(output.shape) > 3 and value.leaves:
            last = max(value.leaves, key=lambda leaf: uses[leaf].position)
            uses[last] = uses[last]._replace(is_lost=True)
    return uses


def _is_map(leaf: Leaf, shape: tuple[int, ...], equation: Any, operands: list[_Value]) -> bool:
    """Whether an operation applies a leaf to each example, element by element."""
    name = leaf[1].rsplit("/", 1)[-1]
    if name == "kernel" or equation.primitive.name.startswith(MIXING):
        return False
    # Another array (L, C), such as one of positions, belongs to a list of vectors, which has the same order in PyTorch.
    if len(shape) < 2 or (len(shape) == 2 and name not in ("scale", "bias")):
        return False
    pairs = zip(operands, equation.invars, strict=True)
    return any(leaf in value.leaves and not value.is_data and var.aval.shape[1:] == shape for value, var in pairs)


def _input_order(equation: Any, operands: list[_Value]) -> tuple[Order, tuple[int, ...]]:
    """Return the order of the data that an operation reads, and their shape."""
    count = 1 if equation.primitive.name == "gather" else len(operands)  # positions in an array are no features
    pairs = zip(operands[:count], equation.invars[:count], strict=True)
    data = [(value.order, var.aval.shape) for value, var in pairs if value.is_data]
    largest = max((shape for _, shape in data), key=math.prod, default=())
    return merged(data, largest), largest


def _order_of(shape: tuple[int, ...], name: str, order: Order, rank: int) -> tuple[tuple[int, ...], bool]:
    """Return the shape of the flattened map that the rows of a leaf follow, and whether their order is unknown."""
    if math.prod(shape) == 1:
        return (), False
    if order.kind != "flattened":
        return (), is_lost_before(name, order, rank)
    size = math.prod(order.shape)
    if shape[:1] == (size,) and (len(shape) > 1 or not name.startswith(MIXING)):
        return order.shape, False
    return (), size in shape
