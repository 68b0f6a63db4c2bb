"""The order of features in a network: where it is jaxcnn's (*spatial, C) and PyTorch's is (C, *spatial)."""

import math
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Order(NamedTuple):
    """What is known about the features of an intermediate result.

    Kinds:
        plain: both orders agree.
        uniform: constant along the last dimension, so that order has no meaning.
        flattened: a flattened feature map of the shape (*spatial, C).
        unflattened: features reshaped to a map of the shape (*spatial, C).
        channels_first: a feature map whose dimensions the network itself permutes to PyTorch's order.
        lost: features of a feature map whose order in PyTorch cannot be followed.
    """

    kind: str
    shape: Shape = ()


PLAIN, UNIFORM, LOST = Order("plain"), Order("uniform"), Order("lost")
# their output features are not their input features
MIXING = ("dot_general", "conv_general_dilated", "jaxcnn_conv", "jaxcnn_dense")
WINDOWED = ("conv_general_dilated", "jaxcnn_conv", "jaxcnn_pool", "jaxcnn_window", "jaxcnn_resampled", "reduce_window")
_MOVING = ("cum", "dynamic", "gather", "rev", "scatter", "sort", "split", "top_k", "transpose")


def merged(orders: list[tuple[Order, Shape]], shape: Shape) -> Order:
    """Return the order of operands with these shapes together, for a result of this shape."""
    varying = {order for order, own in orders if not _is_uniform(order, own, shape)}
    if len(varying) > 1:
        varying = {*map(_known, varying)}
    if len(varying) > 1 and varying <= {PLAIN, *(order for order in varying if order.kind == "channels_first")}:
        return PLAIN
    if len(varying) > 1:  # (N, L, C) may be a list of vectors, which has the same order in PyTorch
        is_list = len(shape) == 3 and all(order.kind in ("plain", "unflattened") for order in varying)
        return PLAIN if is_list else LOST
    return next(iter(varying), UNIFORM if orders else PLAIN)


def is_lost_before(name: str, order: Order, rank: int) -> bool:
    """Whether the weights of an operation cannot be converted, as the order of its input is unknown."""
    if order.kind == "unflattened":
        return name.startswith(WINDOWED) or (rank > 3 and name.startswith(MIXING))
    return order == LOST and (rank < 3 or name.startswith(MIXING))


def after(equation: Any, order: Order, before: Shape, shape: Shape) -> Order:
    """Return the order of a result of this shape, whose operand has an order and the shape `before`."""
    name = equation.primitive.name
    if name.startswith(MIXING):
        return LOST if order == LOST else PLAIN
    if name == "reshape":
        return _after_reshape(order, before, shape)
    if name == "broadcast_in_dim":
        return _after_broadcast(equation.params["broadcast_dimensions"], order, before, shape)
    if name == "transpose":
        return _after_transpose(equation.params["permutation"], order)
    if order.kind in ("plain", "uniform"):
        return PLAIN if name == "concatenate" else order
    if order.kind in ("unflattened", "channels_first"):
        if shape[1:] == before[1:] and not name.startswith(_MOVING):
            return order
        return LOST if order.kind == "unflattened" and (len(before) > 3 or name.startswith(WINDOWED)) else PLAIN
    if name.startswith(("reduce_", "arg")) and len(before) - 1 in equation.params.get("axes", ()):
        return UNIFORM
    keeps = shape[-1:] == before[-1:] and not name.startswith(_MOVING)
    return order if keeps else LOST


def _after_reshape(order: Order, before: Shape, shape: Shape) -> Order:
    if _without_ones(before) == _without_ones(shape):
        return order
    if order == UNIFORM:
        order = PLAIN
    if len(before) > 2 and shape == (before[0], math.prod(before[1:])):
        if order == PLAIN:
            return Order("flattened", before[1:])
        is_back = order.kind == "channels_first" or order == Order("unflattened", before[1:])
        return PLAIN if is_back else LOST
    if len(before) == 2 and len(shape) > 2 and shape[:1] == before[:1]:
        if order == Order("flattened", shape[1:]):
            return PLAIN
        if order == PLAIN:
            return PLAIN if _is_same_in_both(shape[1:]) else Order("unflattened", shape[1:])
    if order == PLAIN:
        return LOST if len(before) > 2 and len(shape) == 1 else PLAIN
    return order if shape[-1:] == before[-1:] else LOST


def _after_broadcast(dims: tuple[int, ...], order: Order, before: Shape, shape: Shape) -> Order:
    if dims and dims[-1] == len(shape) - 1 and before[-1] == shape[-1]:
        return order
    is_scattered = order.kind in ("flattened", "lost") and len(before) > 1 and before[-1] != 1
    return LOST if is_scattered else UNIFORM


def _after_transpose(permutation: tuple[int, ...], order: Order) -> Order:
    rank = len(permutation)
    if rank > 2 and permutation == (0, rank - 1, *range(1, rank - 1)) and order == PLAIN:
        return Order("channels_first")
    if rank > 2 and permutation == (0, *range(2, rank), 1) and order.kind in ("unflattened", "channels_first"):
        return PLAIN
    if order.kind == "unflattened":
        return LOST if rank > 3 else PLAIN
    return LOST if order.kind in ("flattened", "lost") else PLAIN


def _known(order: Order) -> Order:
    """A flattened map of one position or one channel has the same order in PyTorch."""
    return PLAIN if order.kind == "flattened" and _is_same_in_both(order.shape) else order


def _is_uniform(order: Order, shape: Shape, result: Shape) -> bool:
    return order == UNIFORM or (shape[-1:] in ((), (1,)) and result[-1:] not in ((), (1,)))


def _is_same_in_both(shape: Shape) -> bool:
    return shape[-1] == 1 or math.prod(shape[:-1]) == 1


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
