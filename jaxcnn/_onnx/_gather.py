"""Reads at given positions."""

import functools
import itertools
from typing import Any

import jax
import numpy as np

from jaxcnn._grid_sample import program_name
from jaxcnn._onnx._elementwise import Rule, cast, clamp, constant_of, emit
from jaxcnn._onnx._graph import Graph
from jaxcnn._onnx._shape import RULES as RULES_OF_ARRAYS
from jaxcnn._onnx._shape import cut, from_end, relabeled, squeeze, tensor
from jaxcnn._onnx._value import Constant, Tensor, Value, arranged, channels_first, whole
from jaxcnn._sample import BOUNDARIES


def gather(graph: Graph, params: Any, result: Any, x: Tensor, indices: Value) -> Value:
    """`take_along_axis`; indices from the input; or constant ones, such as `x[:, 1, [3, 0]]`."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    dims = numbers.start_index_map
    along_axis = numbers.operand_batching_dims == numbers.start_indices_batching_dims and not numbers.offset_dims
    along_axis = along_axis and len(indices.shape) == len(x.shape) + 1
    if along_axis and len(dims) == 1 and numbers.collapsed_slice_dims == dims:
        return _take_along_axis(graph, params, result, x, indices, dims[0])
    if not isinstance(indices, Constant) or numbers.operand_batching_dims:
        return _gather_nd(graph, params, result, x, indices)
    index = indices.full()
    axes = [[a for a in range(index.ndim - 1) if np.ptp(index[..., at], axis=a).any()] for at in range(len(dims))]
    if len({*itertools.chain(*axes)}) < sum(map(len, axes)):  # positions in several dimensions change together
        return _gather_nd(graph, params, result, x, indices)
    last = np.array([x.shape[dim] - sizes[dim] for dim in dims])
    if np.any((index < 0) | (index > last)) and "CLIP" not in str(params["mode"]):
        raise NotImplementedError("indices out of bounds")
    index = np.clip(index, 0, last)
    kept = [dim for dim in range(len(sizes)) if dim not in numbers.collapsed_slice_dims]
    new = dict(zip(kept, numbers.offset_dims, strict=True))
    batch = [at for at in range(len(result.shape)) if at not in numbers.offset_dims]
    x = whole(graph, x)
    for at, (dim, varies) in enumerate(zip(dims, axes, strict=True)):
        column = index[..., at]
        if dim not in x.dims:  # of size 1
            continue
        if not varies:
            start = int(column.flat[0])
            end = from_end(start + sizes[dim], x.shape[dim])
            x = cut(graph, x, {dim: (start, end, 1)}, x)
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
    return relabeled(x, new, result)  # broadcast along the axes in which no position changes


def _progression(values: np.ndarray) -> tuple[int, int, int] | None:
    """The start, end and step of the rows, if they are equidistant."""
    values = values.reshape(len(values), -1)[:, 0]
    start, step = int(values[0]), int(values[1] - values[0])
    if step == 0 or np.ptp(np.diff(values)) > 0:
        return None
    end = start + step * len(values)
    return start, end if end >= 0 else -(2**31), step


def _take_along_axis(graph: Graph, params: Any, result: Any, x: Tensor, indices: Any, dim: int) -> Value:
    layout = channels_first(rank := len(x.shape))
    spec = jax.ShapeDtypeStruct(indices.shape[:-1], indices.dtype)
    index = arranged(graph, squeeze(graph, {"dimensions": (rank,)}, spec, indices), layout)
    name, axis = arranged(graph, x, layout), layout.index(dim)
    cast = graph.producer(index, "Cast")
    largest = graph.producer(cast.inputs[0] if cast else index, "ArgMax")
    if largest and largest.inputs == (name,) and largest.attributes["axis"] == axis:
        return _largest(graph, result, x, dim)
    if "PROMISE_IN_BOUNDS" not in str(params["mode"]):  # for GatherElements, an index out of bounds is an error
        return _gather_nd(graph, params, result, x, indices)
    return tensor(graph.add("GatherElements", name, index, axis=axis), layout, result)


def _largest(graph: Graph, result: Any, x: Tensor, dim: int) -> Value:
    """The maximum along a dimension, which remains with size 1; of all positions, if they were one dimension before."""
    x, dims, kept = whole(graph, x), [dim], {at: at for at in range(len(x.shape)) if at != dim}
    source, layout = graph.merged.get(x.name, (None, None))
    if dim == 1 and source and x.layout == layout:  # not a transposed view
        last = len(source.shape) - 1
        x, dims, kept = source, [*range(1, last)], {0: 0, last: 2}
    axes = [at for at, dim in enumerate(x.layout) if dim in dims]
    if not axes:  # of size 1
        return relabeled(x, kept, result)
    if len(x.layout) > 2 and axes == [*range(2, len(x.layout))]:
        name = graph.add("GlobalMaxPool", x.name)
    else:
        name = graph.add("ReduceMax", x.name, graph.integers(axes), keepdims=1)
    return relabeled(x._replace(name=name), kept, result)


def _gather_nd(graph: Graph, params: Any, result: Any, x: Value, indices: Value) -> Value:
    """Elements, or slices along whole dimensions, at positions that depend on the input."""
    numbers, sizes, mode = params["dimension_numbers"], params["slice_sizes"], str(params["mode"])
    dims, batching = numbers.start_index_map, numbers.operand_batching_dims
    inner = [dim for dim in range(len(sizes)) if dim not in (*dims, *batching)]
    if any(sizes[dim] != 1 for dim in dims) or any(sizes[dim] != x.shape[dim] for dim in inner):
        raise NotImplementedError("several slices at positions that depend on the input")
    index = cast(graph, {}, jax.ShapeDtypeStruct(indices.shape, np.int64), indices)
    valid = None
    if "PROMISE_IN_BOUNDS" not in mode:
        if not all(isinstance(x.shape[dim], int) for dim in dims):
            raise NotImplementedError("positions in the batch that may be out of bounds")
        last = np.array([x.shape[dim] - 1 for dim in dims]).reshape(*[1] * (len(indices.shape) - 1), -1)
        inside = clamp(graph, {}, index, constant_of(0, index), index, Constant(last, indices.shape))
        if "FILL_OR_DROP" in mode:
            valid = emit(graph, "Equal", jax.ShapeDtypeStruct(indices.shape, np.bool_), index, inside)
        index = inside
    axes = [*range(len(indices.shape) - 1)]
    axes = [*numbers.start_indices_batching_dims, *(a for a in axes if a not in numbers.start_indices_batching_dims)]
    kept = [dim for dim in range(len(sizes)) if dim not in (*numbers.collapsed_slice_dims, *batching)]
    new = dict(zip(kept, numbers.offset_dims, strict=True))
    batch = [at for at in range(len(result.shape)) if at not in numbers.offset_dims]
    name = graph.add(
        "GatherND",
        arranged(graph, x, [*batching, *dims, *inner]),
        arranged(graph, index, [*axes, len(axes)]),
        batch_dims=len(batching),
    )
    y = tensor(name, [*(batch[axis] for axis in axes), *(new[dim] for dim in inner)], result)
    if valid is None:
        return y
    spec = jax.ShapeDtypeStruct(indices.shape[:-1], np.bool_)
    whole_index = RULES_OF_ARRAYS["reduce_and"](graph, {"axes": (len(axes),)}, spec, valid)
    kept_at = relabeled(whole_index, dict(enumerate(batch)), jax.ShapeDtypeStruct(result.shape, np.bool_))
    return emit(graph, "Where", result, kept_at, y, constant_of(params["fill_value"], result))


def grid_sample(graph: Graph, result: Any, x: Value, grid: Value, **attributes: Any) -> Value | None:
    """None for what GridSample does not support: signals and volumes, and other dtypes than float32."""
    if len(x.shape) != 4 or {x.dtype, grid.dtype} != {np.dtype(np.float32)}:
        return None
    layout = channels_first(4)
    name = graph.add("GridSample", arranged(graph, x, layout), arranged(graph, grid, range(4)), **attributes)
    return tensor(name, layout, result)


RULES: dict[str, Rule] = {"gather": gather}
PROGRAMS = {  # functions under jit, by name
    program_name(method, boundary, align): functools.partial(
        grid_sample, mode=mode, padding_mode=boundary, align_corners=int(align)
    )
    for method, mode in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic"))
    for boundary in BOUNDARIES
    for align in (False, True)
}
