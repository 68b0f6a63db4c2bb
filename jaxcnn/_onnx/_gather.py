"""Reads at given positions."""

from typing import Any

import jax
import numpy as np

from jaxcnn._onnx._elementwise import Rule
from jaxcnn._onnx._graph import Graph
from jaxcnn._onnx._shape import cut, relabeled, squeeze, tensor
from jaxcnn._onnx._value import Constant, Tensor, Value, arranged, channels_first, whole


def gather(graph: Graph, params: Any, result: Any, x: Tensor, indices: Value) -> Value:
    """Constant indices, each of one dimension, as of `x[:, 1, ::2]` and `x[:, [3, 0]]`; or `take_along_axis`."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    dims = numbers.start_index_map
    along_axis = numbers.operand_batching_dims == numbers.start_indices_batching_dims and not numbers.offset_dims
    if along_axis and len(dims) == 1 and numbers.collapsed_slice_dims == dims:
        return _take_along_axis(graph, result, x, indices, dims[0])
    if not isinstance(indices, Constant) or numbers.operand_batching_dims:
        raise NotImplementedError("indices that depend on the input")
    index = indices.full()
    last = np.array([x.shape[dim] - sizes[dim] for dim in dims])
    if np.any((index < 0) | (index > last)) and "CLIP" not in str(params["mode"]):
        raise NotImplementedError("indices out of bounds")
    index = np.clip(index, 0, last)
    kept = [dim for dim in range(len(sizes)) if dim not in numbers.collapsed_slice_dims]
    new = dict(zip(kept, numbers.offset_dims, strict=True))
    batch = [at for at in range(len(result.shape)) if at not in numbers.offset_dims]
    x = whole(graph, x)
    free = [axis for axis, size in enumerate(index.shape[:-1]) if size > 1]
    for at, dim in enumerate(dims):
        column = index[..., at]
        varies = [axis for axis in free if np.ptp(column, axis=axis).any()]
        if dim not in x.dims:  # of size 1
            continue
        if not varies:
            start = int(column.flat[0])
            x = cut(graph, x, {dim: (start, start + sizes[dim], 1)}, x)
        elif dim in kept:
            raise NotImplementedError("several slices")
        elif len(varies) == 1 and (values := _progression(np.moveaxis(column, varies[0], 0))):
            x = cut(graph, x, {dim: values}, x)
            new[dim] = batch[varies[0]]
        else:  # its dimensions get the numbers -1, -2, ..
            rows = column.transpose([*varies, *(axis for axis in range(column.ndim) if axis not in varies)])
            rows = rows.reshape(*rows.shape[: len(varies)], -1)[..., 0].astype(np.int64)
            axis = x.layout.index(dim)
            name = graph.add("Gather", x.name, graph.constant(rows), axis=axis)
            x = x._replace(name=name, layout=(*x.layout[:axis], *(-1 - v for v in varies), *x.layout[axis + 1 :]))
            new |= {-1 - axis: batch[axis] for axis in varies}
        free = [axis for axis in free if axis not in varies]
    if free:
        raise NotImplementedError("indices that repeat")
    return relabeled(x, new, result)


def _progression(values: np.ndarray) -> tuple[int, int, int] | None:
    """The start, end and step of the rows, if they are equidistant."""
    values = values.reshape(len(values), -1)[:, 0]
    start, step = int(values[0]), int(values[1] - values[0])
    if step == 0 or np.ptp(np.diff(values)) > 0:
        return None
    end = start + step * len(values)
    return start, end if end >= 0 else -(2**31), step


def _take_along_axis(graph: Graph, result: Any, x: Tensor, indices: Any, dim: int) -> Value:
    """An index out of bounds is an error of the runtime."""
    layout = channels_first(rank := len(x.shape))
    spec = jax.ShapeDtypeStruct(indices.shape[:-1], indices.dtype)
    index = arranged(graph, squeeze(graph, {"dimensions": (rank,)}, spec, indices), layout)
    name = arranged(graph, x, layout)
    return tensor(graph.add("GatherElements", name, index, axis=layout.index(dim)), layout, result)


RULES: dict[str, Rule] = {"gather": gather}
