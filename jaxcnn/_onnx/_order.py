"""Sorting, and the largest elements."""

from typing import Any

import numpy as np

from jaxcnn._onnx._elementwise import Rule, cast
from jaxcnn._onnx._graph import SECOND, Graph
from jaxcnn._onnx._shape import tensor
from jaxcnn._onnx._value import Constant, Tensor, Value, arranged, channels_first

SORTABLE = ("float32", "float64", "int32", "int64")  # in onnxruntime


def sort(graph: Graph, params: Any, results: Any, *operands: Value) -> list[Value]:
    """Equal elements keep their order."""
    if params["num_keys"] != 1:
        raise NotImplementedError("a sort by several arrays")
    dim = params["dimension"]
    values, indices = _top_k(graph, operands[0], operands[0].shape[dim], dim, largest=0)
    pairs = zip(operands[1:], results[1:], strict=True)
    return [values, *(_reordered(graph, operand, indices, dim, result) for operand, result in pairs)]


def top_k(graph: Graph, params: Any, results: Any, x: Tensor) -> list[Value]:
    values, indices = _top_k(graph, x, params["k"], params.get("axis", -1) % len(x.shape), largest=1)
    return [values, cast(graph, {}, results[1], indices)]


def _top_k(graph: Graph, x: Value, k: Any, dim: int, *, largest: int) -> tuple[Tensor, Tensor]:
    """The values and their int64 positions. Of equal elements, the first one comes first."""
    if not isinstance(k, int):
        raise NotImplementedError("a sort along the batch")
    if str(x.dtype) not in SORTABLE:
        raise NotImplementedError(f"a sort of {x.dtype}; convert it to one of: {', '.join(SORTABLE)}")
    layout = channels_first(len(x.shape))
    name, axis = arranged(graph, x, layout), layout.index(dim)
    name = graph.add("TopK", name, graph.integers([k]), axis=axis, largest=largest)
    values = Tensor(name, layout, (*x.shape[:dim], k, *x.shape[dim + 1 :]), x.dtype)
    return values, values._replace(name=graph.add(SECOND, name), dtype=np.dtype(np.int64))


def _reordered(graph: Graph, x: Value, indices: Tensor, dim: int, result: Any) -> Value:
    """The elements of x at the positions; the positions themselves for 0, 1, 2, .., as of argsort."""
    if isinstance(x, Constant) and x.dims <= {dim}:
        row = np.broadcast_to(np.ravel(x.array), (x.shape[dim],))
        if np.array_equal(row, np.arange(len(row))):
            return cast(graph, {}, result, indices)
        return tensor(graph.add("Gather", graph.constant(np.array(row)), indices.name), indices.layout, result)
    layout = channels_first(len(x.shape))
    name = graph.add("GatherElements", arranged(graph, x, layout), indices.name, axis=layout.index(dim))
    return tensor(name, layout, result)


RULES: dict[str, Rule] = {"sort": sort, "top_k": top_k}
