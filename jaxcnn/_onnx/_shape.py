"""Operators that move, combine or reduce elements."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._onnx._elementwise import Rule, cast
from jaxcnn._onnx._graph import Graph, element_type
from jaxcnn._onnx._value import Constant, Tensor, Value, arranged, channels_first, common_layout, whole


def tensor(name: str, layout: Sequence[int | None], result: Any) -> Tensor:
    return Tensor(name, tuple(layout), result.shape, np.dtype(result.dtype))


def relabeled(x: Tensor, new: dict[int, int], result: Any) -> Tensor:
    """The same tensor for an array whose dimensions have other numbers."""
    return tensor(x.name, [None if dim is None else new.get(dim) for dim in x.layout], result)


def transpose(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return relabeled(x, {old: new for new, old in enumerate(params["permutation"])}, result)


def broadcast_in_dim(graph: Graph, params: Any, result: Any, x: Tensor, *sizes: Value) -> Value:
    new = {old: new for old, new in enumerate(params["broadcast_dimensions"]) if _same(x.shape[old], result.shape[new])}
    return relabeled(x, new, result)


def squeeze(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    kept = [dim for dim in range(len(x.shape)) if dim not in params["dimensions"]]
    return relabeled(x, {old: new for new, old in enumerate(kept)}, result)


def reshape(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    if (order := params["dimensions"]) is not None:  # `vmap` of a convolution transposes in a reshape
        transposed = jax.ShapeDtypeStruct(tuple(x.shape[dim] for dim in order), x.dtype)
        x = relabeled(x, {old: new for new, old in enumerate(order)}, transposed)
    groups = _groups(x.shape, result.shape)
    if groups and all(len(old) == len(new) == 1 for old, new in groups):
        return relabeled(x, {old[0]: new[0] for old, new in groups}, result)
    x = whole(graph, x)
    if groups:  # split and merge dimensions where they are
        starts = sorted(groups, key=lambda group: x.layout.index(group[0][0]) if group[0][0] in x.layout else -1)
    else:
        starts = [([*range(len(x.shape))], [*range(len(result.shape))])]
    before = [dim for old, _ in starts for dim in old]
    after = [dim for _, new in starts for dim in new]
    sizes = [result.shape[dim] if isinstance(result.shape[dim], int) else -1 for dim in after]
    name = arranged(graph, x, [*before, *(dim for dim in range(len(x.shape)) if dim not in before)])
    y = tensor(graph.add("Reshape", name, graph.integers(sizes)), after, result)
    complete = x.layout[0] == 0 and sorted(x.dims) == [*range(len(x.layout))] == [*range(len(x.shape))]
    if groups and groups[0] == ([0], [0]) and y.layout == (0, 1) and complete:
        graph.flattened[y.name] = x
    if groups and [old for old, _ in sorted(groups)] == [[0], [*range(1, len(x.shape) - 1)], [len(x.shape) - 1]]:
        graph.merged[y.name] = x, y.layout
    return y


def _groups(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[list[int], list[int]]] | None:
    """Pairs of runs of dimensions with the same number of elements, without those of size 1; None if not found."""
    olds = [dim for dim, size in enumerate(old) if not _same(size, 1)]
    news = [dim for dim, size in enumerate(new) if not _same(size, 1)]
    groups = []
    while olds and news:
        left, right = [olds.pop(0)], [news.pop(0)]
        while not _same(a := math.prod(old[dim] for dim in left), b := math.prod(new[dim] for dim in right)):
            if not (isinstance(a, int) and isinstance(b, int)) or not (olds if a < b else news):
                return None
            if a < b:
                left.append(olds.pop(0))
            else:
                right.append(news.pop(0))
        groups.append((left, right))
    return None if olds or news else groups


def _same(a: Any, b: Any) -> bool:
    """Whether two sizes are equal for all batch sizes."""
    return bool(a == b)


def concatenate(graph: Graph, params: Any, result: Any, *parts: Value) -> Value:
    parts = tuple(part for part in parts if not _same(part.shape[params["dimension"]], 0))
    tensors = [whole(graph, part) for part in parts if isinstance(part, Tensor)]
    if padding := _as_padding(parts, dim := params["dimension"]):
        return padded(graph, tensors[0], {dim: padding[0]}, padding[1], result)
    layout = [dim for dim in common_layout(tensors) if dim is not None]
    layout = layout if len(layout) == len(result.shape) else [*channels_first(len(result.shape))]
    names = [arranged(graph, part, layout) for part in parts]
    return tensor(graph.add("Concat", *names, axis=layout.index(dim)), layout, result)


def _as_padding(parts: Sequence[Value], dim: int) -> tuple[tuple[int, int], Constant] | None:
    """The sizes before and after the only tensor, and their value, if all other parts have this one value."""
    at = [isinstance(part, Tensor) for part in parts].index(True)
    others = [part for part in parts if isinstance(part, Constant)]
    if len(others) != len(parts) - 1 or len({part.scalar for part in others} - {None}) != 1:
        return None
    if any(part.scalar is None for part in others):
        return None
    low, high = (sum(part.shape[dim] for part in side) for side in (parts[:at], parts[at + 1 :]))
    return (low, high), others[0]


def stack(graph: Graph, params: Any, result: Any, *parts: Value) -> Value:
    axis, rank = params["axis"], len(result.shape)
    row = jax.ShapeDtypeStruct((*result.shape[:axis], 1, *result.shape[axis + 1 :]), result.dtype)
    new = dict(enumerate(dim for dim in range(rank) if dim != axis))
    rows = [
        Constant(np.expand_dims(part.array, axis), row.shape)
        if isinstance(part, Constant)
        else relabeled(part, new, row)
        for part in parts
    ]
    return concatenate(graph, {"dimension": axis}, result, *rows)


def cut(graph: Graph, x: Tensor, ranges: dict[int, tuple[int, int, int]], result: Any) -> Tensor:
    """Start, end and step for some dimensions of the array."""
    ranges = {dim: bounds for dim, bounds in ranges.items() if dim in x.dims}
    if not ranges:
        return tensor(x.name, x.layout, result)
    columns = [graph.integers(column) for column in zip(*ranges.values(), strict=True)]
    axes = graph.integers([x.layout.index(dim) for dim in ranges])
    return tensor(graph.add("Slice", x.name, *columns[:2], axes, columns[2]), x.layout, result)


def slice_(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    steps = params["strides"] or [1] * len(x.shape)
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    ranges = {
        dim: (from_end(low, size), from_end(high, size), step)
        for dim, ((low, high, step), size) in enumerate(zip(bounds, x.shape, strict=True))
        if not _same(size, result.shape[dim])
    }
    return cut(graph, x, ranges, result)


def from_end(bound: Any, size: Any) -> int:
    """A bound that depends on the batch size, as a negative number."""
    if isinstance(bound, int):
        return bound
    if not isinstance(distance := size - bound, int):
        raise NotImplementedError(f"the position {bound} in {size} elements, which depends on the batch size")
    return -distance or 2**31 - 1


def dynamic_slice(graph: Graph, params: Any, result: Any, x: Tensor, *starts: Value) -> Value:
    ranges = {}
    for dim, (size, start) in enumerate(zip(params["slice_sizes"], starts, strict=True)):
        if not _same(size, x.shape[dim]):
            if isinstance(start, Constant):
                at = min(max(int(start.array), 0), x.shape[dim] - size)
                ranges[dim] = (at, at + size, 1)
            else:
                x = _moving_slice(graph, x, dim, size, start)
    return cut(graph, x, ranges, result)


def _moving_slice(graph: Graph, x: Tensor, dim: int, size: int, start: Tensor) -> Tensor:
    """The slice at a position that depends on the input, moved to the inside as in jax."""
    x = whole(graph, x)
    low, high = graph.constant(0, start.dtype), _last_start(graph, x, dim, size, start.dtype)
    at = graph.add("Min", graph.add("Max", arranged(graph, start, ()), low), high)
    index = graph.add("Add", at, graph.constant(np.arange(size), start.dtype))
    name = graph.add("Gather", x.name, index, axis=x.layout.index(dim))
    return x._replace(name=name, shape=(*x.shape[:dim], size, *x.shape[dim + 1 :]))


def _last_start(graph: Graph, x: Tensor, dim: int, size: int, dtype: np.dtype) -> str:
    """The last position at which a slice is inside."""
    if isinstance(last := x.shape[dim] - size, int):
        return graph.constant(last, dtype)
    axis = x.layout.index(dim)
    whole_size = graph.add("Squeeze", graph.add("Shape", x.name, start=axis, end=axis + 1))
    return graph.add("Sub", graph.add("Cast", whole_size, to=element_type(dtype)), graph.constant(size, dtype))


def split(graph: Graph, params: Any, result: Any, x: Tensor) -> Any:
    ends = np.cumsum(params["sizes"]).tolist()
    bounds = zip([0, *ends], ends, strict=False)
    return [cut(graph, x, {params["axis"]: (*b, 1)}, part) for b, part in zip(bounds, result, strict=True)]


def rev(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return cut(graph, x, dict.fromkeys(params["dimensions"], (-1, -(2**31), -1)), result)


def tile(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    repeats = [1 if dim is None else params["reps"][dim] for dim in x.layout]
    name = x.name if all(_same(n, 1) for n in repeats) else graph.add("Tile", x.name, graph.integers(repeats))
    return tensor(name, x.layout, result)


def cumsum(graph: Graph, params: Any, result: Any, x: Any) -> Value:
    if x.dtype.kind in "iu" and x.dtype.itemsize < 8:  # onnxruntime has few types
        wide = jax.ShapeDtypeStruct(x.shape, np.int64)
        return cast(graph, {}, result, cumsum(graph, params, wide, cast(graph, {}, wide, x)))
    x, dim = whole(graph, x), params["axis"]
    if dim not in x.layout:  # of size 1
        return x
    axis = graph.constant(x.layout.index(dim), np.int64)
    return tensor(graph.add("CumSum", x.name, axis, reverse=int(params["reverse"])), x.layout, result)


def pad(graph: Graph, params: Any, result: Any, x: Tensor, value: Value) -> Value:
    config = params["padding_config"]
    if any(inner for _, _, inner in config) or not isinstance(value, Constant):
        raise NotImplementedError("padding between the elements, or with a value that depends on the input")
    return padded(graph, x, {dim: (low, high) for dim, (low, high, _) in enumerate(config)}, value, result)


def padded(graph: Graph, x: Tensor, pads: dict[int, tuple[int, int]], value: Constant, result: Any) -> Tensor:
    """Add elements at the ends of dimensions; negative numbers remove them."""
    x = whole(graph, x)
    if any(any(ends) and dim not in x.layout for dim, ends in pads.items()):  # of size 1
        x = x._replace(name=arranged(graph, x, range(len(x.shape))), layout=(*range(len(x.shape)),))
    ends = [pads.get(-1 if dim is None else dim, (0, 0)) for dim in x.layout]
    if not any(map(any, ends)):
        return tensor(x.name, x.layout, result)
    sizes = graph.integers([low for low, _ in ends] + [high for _, high in ends])
    name = graph.add("Pad", x.name, sizes, graph.constant(value.array.reshape(())), mode="constant")
    return tensor(name, x.layout, result)


def reduction(op: str) -> Rule:
    """Booleans and small integers are reduced as int32."""

    def reduce(graph: Graph, params: Any, result: Any, x: Any) -> Value:
        if x.dtype.kind in "biu" and x.dtype.itemsize < 4:
            integers = cast(graph, {}, jax.ShapeDtypeStruct(x.shape, np.int32), x)
            reduced = reduce(graph, params, jax.ShapeDtypeStruct(result.shape, np.int32), integers)
            return cast(graph, {}, result, reduced)
        x, dims = whole(graph, x), params["axes"]
        axes = [at for at, dim in enumerate(x.layout) if dim in dims]
        kept = [dim for dim in range(len(x.shape)) if dim not in dims]
        if not axes:
            return relabeled(x, {old: new for new, old in enumerate(kept)}, result)
        name = graph.add(op, x.name, graph.integers(axes), keepdims=1)
        sizes = [x.shape[dim] for dim in dims]
        if op == "ReduceSum" and all(isinstance(size, int) for size in sizes):
            graph.terms[name] = math.prod(sizes)
        return relabeled(x._replace(name=name), {old: new for new, old in enumerate(kept)}, result)

    return reduce


def arg_reduction(op: str) -> Rule:
    def reduce(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
        x, (dim,) = whole(graph, x), params["axes"]
        name = arranged(graph, x, layout := channels_first(len(x.shape)))
        name = graph.add(op, name, axis=layout.index(dim), keepdims=1)
        kept = {old: new for new, old in enumerate(d for d in range(len(x.shape)) if d != dim)}
        index = tensor(name, [kept.get(-1 if d is None else d) for d in layout], result)._replace(
            dtype=np.dtype(np.int64)
        )
        return cast(graph, {}, result, index)

    return reduce


def dot_general(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    rank = len(x.shape)
    single = len(y.shape) == 2 and len(right) == 1 and not right_batch and rank >= 2
    if isinstance(y, Constant) and single and result.dtype.kind == "f":  # integers have Einsum only
        kernel = y.full() if right == (0,) else y.full().T
        if rank == 2:
            name = arranged(graph, x, (1 - left[0], left[0]))
            if source := graph.flattened.get(name):  # permute the rows of the kernel, not the input
                rows = np.arange(len(kernel)).reshape(source.shape[1:])
                kernel = kernel[rows.transpose([dim - 1 for dim in source.layout[1:]]).ravel()]
                name = graph.add("Reshape", source.name, graph.integers([-1, len(kernel)]))
            return tensor(graph.add("Gemm", name, graph.constant(np.ascontiguousarray(kernel))), (0, 1), result)
        if left == (rank - 1,) and rank <= 5:
            layout = channels_first(rank)
            weight = np.ascontiguousarray(kernel.T).reshape(*kernel.T.shape, *[1] * (rank - 2))
            name = graph.add("Conv", arranged(graph, x, layout), graph.constant(weight), kernel_shape=[1] * (rank - 2))
            return tensor(name, layout, result)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    xs = [next(letters) for _ in x.shape]
    ys = [next(letters) for _ in y.shape]
    for a, b in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        ys[b] = xs[a]
    out = [xs[a] for a in left_batch]
    out += [xs[a] for a in range(rank) if a not in (*left, *left_batch)]
    out += [ys[b] for b in range(len(y.shape)) if b not in (*right, *right_batch)]
    names = (arranged(graph, value, range(len(value.shape))) for value in (x, y))
    name = graph.add("Einsum", *names, equation=f"{''.join(xs)},{''.join(ys)}->{''.join(out)}")
    return tensor(name, range(len(result.shape)), result)


RULES: dict[str, Rule] = {
    "argmax": arg_reduction("ArgMax"),
    "argmin": arg_reduction("ArgMin"),
    "broadcast_in_dim": broadcast_in_dim,
    "concatenate": concatenate,
    "cumsum": cumsum,
    "dot_general": dot_general,
    "dynamic_slice": dynamic_slice,
    "jaxcnn_channel_sum": lambda graph, params, result, x: reduction("ReduceSum")(
        graph, {"axes": tuple(range(len(x.shape) - 1))}, result, x
    ),
    "pad": pad,
    "reduce_and": reduction("ReduceMin"),
    "reduce_max": reduction("ReduceMax"),
    "reduce_min": reduction("ReduceMin"),
    "reduce_or": reduction("ReduceMax"),
    "reduce_prod": reduction("ReduceProd"),
    "reduce_sum": reduction("ReduceSum"),
    "reshape": reshape,
    "rev": rev,
    "slice": slice_,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
