"""The values of a program in ONNX: tensors with a layout, and constants.

A layout states for each dimension of the ONNX tensor which dimension of the array it is, or None for one of size 1. So
(0, 3, 1, 2) is an array (N, H, W, C) stored as (N, C, H, W). A dimension of the array that the layout lacks has size 1
in the tensor; operators broadcast it. Transposing, adding and removing dimensions of size 1, and broadcasting an array
therefore only change its layout. A node is added where an operator needs another layout.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._onnx._graph import Graph

Layout = tuple[int | None, ...]
Order = tuple[int, ...]  # a layout with all dimensions


class Tensor(NamedTuple):
    """An array that depends on the input of the model."""

    name: str
    layout: Layout
    shape: tuple[Any, ...]  # of the array
    dtype: np.dtype

    @property
    def dims(self) -> set[int]:
        """The dimensions of the array that the tensor has."""
        return {dim for dim in self.layout if dim is not None}


class Constant(NamedTuple):
    """An array that does not depend on the input. Dimensions of size 1 are broadcast to the shape."""

    array: np.ndarray
    shape: tuple[Any, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def dims(self) -> set[int]:
        """The dimensions along which the array varies."""
        return {dim for dim, size in enumerate(self.array.shape) if size != 1}

    @property
    def scalar(self) -> float | None:
        """The value of an array with one element."""
        return self.array.item() if self.array.size == 1 else None

    def full(self) -> np.ndarray:
        """The array in its shape."""
        if not all(isinstance(size, int) for size in self.shape):
            raise NotImplementedError(f"a constant array of shape {self.shape}, which depends on the batch size")
        return np.broadcast_to(self.array, self.shape)


Value = Tensor | Constant


def channels_first(rank: int) -> Order:
    """The layout (N, C, *spatial) of an array (N, *spatial, C)."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def common_layout(values: Sequence[Value]) -> Layout:
    """A layout with all dimensions of the values, if possible that of one of them."""
    needed = set().union(*(value.dims for value in values))
    rank = max(len(value.shape) for value in values)
    layouts = [value.layout for value in values if isinstance(value, Tensor) and needed <= value.dims]
    if not layouts:
        return channels_first(rank)
    return next((layout for layout in layouts if layout == channels_first(rank)), layouts[0])


def aligned(graph: Graph, value: Value, layout: Layout) -> str:
    """The name of the value with each dimension at the position in the layout, or of size 1."""
    if isinstance(value, Constant):
        if not value.dims:
            return graph.constant(value.array.reshape(()))
        order = [dim for dim in layout if dim is not None]
        order += [dim for dim in range(value.array.ndim) if dim not in order]
        shape = [1 if dim is None else value.array.shape[dim] for dim in layout]
        return graph.constant(np.ascontiguousarray(value.array.transpose(order)).reshape(shape))
    if len(value.layout) == len(layout) and all(
        have == want or (have is None and want not in value.dims)
        for have, want in zip(value.layout, layout, strict=True)
    ):
        return value.name
    have, name = value.layout, value.name
    # A single transposition, if the dimensions of size 1 suffice.
    if len(have) == len(layout):
        spare = [at for at, dim in enumerate(have) if dim is None]
        order = [have.index(dim) if dim in value.dims else spare.pop(0) for dim in layout]
        return graph.add("Transpose", name, perm=order)
    kept = [dim for dim in have if dim is not None]
    if len(kept) < len(have):
        name = graph.add("Squeeze", name, graph.integers([at for at, dim in enumerate(have) if dim is None]))
    wanted = [dim for dim in layout if dim in value.dims]
    if kept != wanted:
        name = graph.add("Transpose", name, perm=[kept.index(dim) for dim in wanted])
    if len(wanted) < len(layout):
        added = [at for at, dim in enumerate(layout) if dim not in value.dims]
        name = graph.add("Unsqueeze", name, graph.integers(added))
    return name


def arranged(graph: Graph, value: Value, layout: Sequence[int]) -> str:
    """The name of the whole array, without broadcasting, in a layout with all its dimensions."""
    layout = tuple(layout)
    if not value.shape:
        return graph.constant(value.array) if isinstance(value, Constant) else aligned(graph, value, layout)
    if isinstance(value, Constant) and all(isinstance(size, int) for size in value.shape):
        return aligned(graph, Constant(value.full(), value.shape), layout)
    name = aligned(graph, value, layout)
    missing = [dim for dim in layout if dim not in value.dims and value.shape[dim] != 1]
    if not missing:
        return name
    sizes = [value.shape[dim] if dim in missing else 1 for dim in layout]
    if all(isinstance(size, int) for size in sizes):
        return graph.add("Expand", name, graph.integers(sizes))
    if any(str(size) != "batch" for size in sizes if not isinstance(size, int)):
        raise NotImplementedError(f"an array of shape {value.shape}")
    parts = [graph.integers([size]) if isinstance(size, int) else batch_size(graph) for size in sizes]
    return graph.add("Expand", name, graph.add("Concat", *parts, axis=0))


def batch_size(graph: Graph) -> str:
    """The name of the batch size, an array of one element."""
    return graph.add("Shape", "x", start=0, end=1)


def whole(graph: Graph, value: Tensor) -> Tensor:
    """The tensor with all dimensions of its array."""
    if all(dim in value.dims or value.shape[dim] == 1 for dim in range(len(value.shape))):
        return value
    layout = channels_first(len(value.shape))
    return value._replace(name=arranged(graph, value, layout), layout=layout)
