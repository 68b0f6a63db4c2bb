"""Merges operators into fewer and more recognizable ones, with the same result up to rounding."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxcnn._onnx._graph import Graph, Node
from jaxcnn._onnx._patterns import recognize
from jaxcnn._onnx._rounding import finite_product, moderate, offset_sum, product

LINEAR = ("Conv", "ConvTranspose", "Gemm")


def simplify(graph: Graph, outputs: Iterable[str]) -> None:
    """Remove unused nodes, and fold scales and offsets into convolutions, until nothing changes."""
    outputs = {*outputs}
    prune(graph, outputs)
    recognize(graph)
    prune(graph, outputs)
    changed = True
    while changed:
        uses = Counter(name for node in graph.nodes.values() for name in node.inputs)
        uses.update(outputs)
        changed = False
        for node in [*graph.nodes.values()]:
            if node.output in graph.nodes and graph.nodes[node.output] is node:
                changed |= _fold(graph, node, uses, outputs)
        prune(graph, outputs)


def prune(graph: Graph, outputs: Iterable[str]) -> None:
    """Remove nodes on which no output depends, and sort the others in order of execution."""
    kept: dict[str, Node] = {}
    stack = [*outputs]
    while stack:
        node = graph.nodes.get(name := stack[-1])
        missing = [i for i in node.inputs if i in graph.nodes and i not in kept] if node and name not in kept else []
        stack.extend(missing)
        if not missing:
            stack.pop()
            if node:
                kept[name] = node
    graph.nodes = kept


def _fold(graph: Graph, node: Node, uses: Counter[str], outputs: set[str]) -> bool:
    """Merge a multiplication or addition of a constant into the node before it."""
    if node.op not in ("Mul", "Add") or node.inputs[1] not in graph.constants:
        return False
    value = graph.constants[node.inputs[1]]
    if value.dtype.kind in "biu":
        return False
    if node.op == "Mul" and value.size == 1 and value.item() == 1 and node.output not in outputs:
        _rename(graph, node.output, node.inputs[0], uses)
        return True
    before = graph.nodes.get(node.inputs[0])
    if before is None or uses[before.output] != 1 or before.output in outputs:
        return False
    if before.op in LINEAR:
        inputs = _linear(graph, before, node.op, value)
    elif before.op in ("Mul", "Add") and before.inputs[1] in graph.constants:
        return _chain(graph, before, node, value)
    else:
        return False
    if inputs is None:
        return False
    graph.nodes[node.output] = before._replace(inputs=inputs, output=node.output)
    del graph.nodes[before.output]
    return True


def _chain(graph: Graph, before: Node, node: Node, value: np.ndarray) -> bool:
    """(x * a) * b, (x + a) + b; and (x + a) * b as x * b + a * b."""
    first = graph.constants[before.inputs[1]]
    if before.op == node.op:
        both = product(first, value) if node.op == "Mul" else offset_sum(first, value)
        if both is None:
            return False
        graph.nodes[node.output] = node._replace(inputs=(before.inputs[0], graph.constant(both)))
        del graph.nodes[before.output]
        return True
    # x + a is exact if x is close to -a, unlike x * b + a * b: x should be a rounded result, or a be trained.
    source = graph.nodes.get(before.inputs[0])
    inexact = first.size > 1 or (source is not None and source.op in (*LINEAR, "Mul"))
    offset = finite_product(first, value)
    if before.op == "Add" and node.op == "Mul" and inexact and offset is not None:
        scaled = before._replace(op="Mul", inputs=(before.inputs[0], node.inputs[1]))
        graph.nodes[before.output] = scaled
        graph.nodes[node.output] = node._replace(op="Add", inputs=(before.output, graph.constant(offset)))
        return True
    return False


def _linear(graph: Graph, node: Node, op: str, value: np.ndarray) -> tuple[str, ...] | None:
    """The inputs of a convolution or matrix product followed by a scale or offset.

    None if the constant is neither a scalar nor one value per output channel.
    """
    if node.inputs[1] not in graph.constants:
        return None
    x, kernel_name, *_ = node.inputs
    kernel: Any = graph.constants[kernel_name]
    groups = node.attributes.get("group", 1)
    features: int = {"Conv": kernel.shape[0], "ConvTranspose": kernel.shape[1] * groups, "Gemm": kernel.shape[-1]}[
        node.op
    ]
    rank = kernel.ndim
    at = rank - 1 if node.op == "Gemm" else 1
    sizes = (1,) * (rank - value.ndim) + value.shape
    others = [size for dim, size in enumerate(sizes) if dim != at]
    if len(sizes) != rank or set(others) - {1} or value.size not in (1, features):
        return None
    bias = graph.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(features, kernel.dtype)
    if op == "Add":
        total = offset_sum(bias, value.reshape(-1))
        return None if total is None else (x, kernel_name, graph.constant(total))
    vector = np.broadcast_to(value.reshape(-1), (features,))
    parts = kernel
    if node.op == "Conv":
        factor = vector.reshape(-1, *[1] * (rank - 1))
    elif node.op == "ConvTranspose":
        parts = kernel.reshape(groups, -1, *kernel.shape[1:])
        factor = vector.reshape(groups, 1, -1, *[1] * (rank - 2))
    else:
        factor = vector
    scaled, offset = finite_product(parts, factor), finite_product(bias, vector)
    if scaled is None or offset is None or not moderate(value):
        return None
    inputs = (x, graph.constant(scaled.reshape(kernel.shape)))
    return (*inputs, graph.constant(offset)) if len(node.inputs) > 2 else inputs


def _rename(graph: Graph, old: str, new: str, uses: Counter[str]) -> None:
    """Let all nodes read another value."""
    del graph.nodes[old]
    for node in [node for node in graph.nodes.values() if old in node.inputs]:
        inputs = tuple(new if name == old else name for name in node.inputs)
        graph.nodes[node.output] = node._replace(inputs=inputs)
    uses[new] += uses[old] - 1
