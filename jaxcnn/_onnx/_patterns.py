"""Recognizes normalizations that ONNX has an operator for."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxcnn._onnx._graph import Graph, Node


def recognize(graph: Graph) -> None:
    """Replace layer norms and local response norms."""
    users: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        for name in node.inputs:
            users.setdefault(name, []).append(node)
    for node in [*graph.nodes.values()]:
        graph.scope = node.scope
        if node.op == "Mul" and (found := _layer_norm(graph, node)):
            after = users.get(node.output, [])
            bias = _channels(graph, after[0].inputs[1], found) if len(after) == 1 and after[0].op == "Add" else None
            _emit_layer_norm(graph, node if bias is None else after[0], found, bias)
        elif node.op == "Div" and (norm := _response_norm(graph, node)):
            graph.nodes[node.output] = node._replace(op="LRN", inputs=node.inputs[:1], attributes=norm)
    graph.scope = ""


class _LayerNorm:
    """y = (x - mean) / sqrt(var + eps) * scale, with statistics along one axis."""

    def __init__(self, x: str, axis: int, rank: int, eps: float, scale: np.ndarray):
        self.x, self.axis, self.rank, self.eps, self.scale = x, axis, rank, eps, scale


def _layer_norm(graph: Graph, node: Node) -> _LayerNorm | None:
    """The layer norm whose last multiplication is this node.

    x1 = x - mean(x)    shift = mean(x1)    y = (x1 - shift) * (rsqrt(relu(mean(x1^2) - shift^2) + eps) * scale)
    """
    for centered, factor in _orders(node):
        scale = None
        if product := graph.producer(factor, "Mul"):
            factor, scale = product.inputs[0], graph.constants.get(product.inputs[1])
        root = _chain(graph, factor, "Reciprocal", "Sqrt", "Add")
        relu = root and _chain(graph, root.inputs[0], "Relu", "Sub")
        outer = graph.producer(centered, "Sub")
        if not (root and relu and outer and root.inputs[1] in graph.constants):
            continue
        x1, shift = outer.inputs
        inner, mean = graph.producer(x1, "Sub"), graph.producer(shift, "ReduceMean")
        squares = graph.producer(relu.inputs[0], "ReduceMean")
        second = squares and graph.producer(squares.inputs[0], "Mul")
        first = inner and graph.producer(inner.inputs[1], "ReduceMean")
        shifted = graph.producer(relu.inputs[1], "Mul")
        if not (inner and mean and squares and second and first and shifted and scale is not None):
            continue
        axes = graph.constants[first.inputs[1]]
        same = (
            first.inputs[0] == inner.inputs[0]
            and mean.inputs[0] == x1
            and second.inputs == (x1, x1)
            and shifted.inputs == (shift, shift)
            and first.inputs[1] == mean.inputs[1] == squares.inputs[1]
        )
        eps = graph.constants[root.inputs[1]]
        if same and axes.size == eps.size == 1 and scale.ndim >= 1 and scale.shape[axes.item()] == scale.size:
            return _LayerNorm(inner.inputs[0], axes.item(), scale.ndim, eps.item(), scale)
    return None


def _emit_layer_norm(graph: Graph, last: Node, found: _LayerNorm, bias: np.ndarray | None) -> None:
    rank, axis = found.rank, found.axis
    order = [at for at in range(rank) if at != axis] + [axis]
    x = found.x if axis == rank - 1 else graph.add("Transpose", found.x, perm=order)
    scale = graph.constant(np.ravel(found.scale))
    inputs = (x, scale) if bias is None else (x, scale, graph.constant(np.ravel(bias)))
    attributes: dict[str, Any] = {"axis": -1, "epsilon": found.eps}
    if axis == rank - 1:
        graph.nodes[last.output] = last._replace(op="LayerNormalization", inputs=inputs, attributes=attributes)
    else:
        y = graph.add("LayerNormalization", *inputs, **attributes)
        back = [order.index(at) for at in range(rank)]
        graph.nodes[last.output] = last._replace(op="Transpose", inputs=(y,), attributes={"perm": back})


def _channels(graph: Graph, name: str, found: _LayerNorm) -> np.ndarray | None:
    """A constant that varies along the axis only."""
    value = graph.constants.get(name)
    return value if value is not None and value.shape == found.scale.shape else None


def _response_norm(graph: Graph, node: Node) -> dict[str, Any] | None:
    """The attributes of y = x / (bias + alpha * sum)^beta, with a sum of squares over neighboring channels."""
    x, back = node.inputs[0], graph.producer(node.inputs[1], "Transpose")
    power = back and graph.producer(back.inputs[0], "Pow")
    plus = power and graph.producer(power.inputs[0], "Add")
    pool = plus and _chain(graph, plus.inputs[0], "Mul", "Mul", "AveragePool")
    moved = pool and graph.producer(pool.inputs[0], "Transpose")
    squares = moved and graph.producer(moved.inputs[0], "Mul")
    if not (back and power and plus and pool and moved and squares and squares.inputs == (x, x)):
        return None
    scaled = graph.nodes[plus.inputs[0]]
    values = [graph.constants.get(name) for name in (scaled.inputs[1], plus.inputs[1], power.inputs[1])]
    *others, size = pool.attributes["kernel_shape"]
    low, high = (size - 1) // 2, size // 2
    pads = [0] * len(others) + [low] + [0] * len(others) + [high]
    if (
        any(value is None or value.size != 1 for value in values)
        or {*others, *pool.attributes["strides"]} - {1}
        or pool.attributes["pads"] != pads
        or moved.attributes["perm"][-1] != 1
        or [moved.attributes["perm"][at] for at in back.attributes["perm"]] != [*range(len(back.attributes["perm"]))]
    ):
        return None
    alpha, bias, beta = (value.item() for value in values if value is not None)
    return {"size": size, "alpha": alpha * size, "beta": beta, "bias": bias}


def _orders(node: Node) -> Iterator[tuple[str, str]]:
    yield node.inputs[0], node.inputs[1]
    yield node.inputs[1], node.inputs[0]


def _chain(graph: Graph, name: str, *ops: str) -> Node | None:
    """Follow the first inputs through nodes of these operators, and return the last node; None if one differs."""
    node = None
    for op in ops:
        node = graph.producer(name, op)
        if not node:
            return None
        name = node.inputs[0]
    return node
