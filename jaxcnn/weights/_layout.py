"""Names and layouts: the PyTorch name of a leaf, and the order of the dimensions of its PyTorch array."""

import math
import re
from typing import NamedTuple

import numpy as np

from jaxcnn._weights_error import WeightsError
from jaxcnn.weights._tables import Table
from jaxcnn.weights._uses import Use

LEAF_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


class Layout(NamedTuple):
    """The PyTorch array is `x.reshape(view).transpose(axes).reshape(torch_shape)`, for x of shape `shape`."""

    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    torch_shape: tuple[int, ...]

    @property
    def transposed_shape(self) -> tuple[int, ...]:
        """The shape before the last reshape: (out, C, H, W) for a dense layer after a flatten."""
        return tuple(self.view[axis] for axis in self.axes)

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.reshape(self.view).transpose(self.axes)).reshape(self.torch_shape)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(self.transposed_shape).transpose(np.argsort(self.axes)).reshape(self.shape)


def torch_name(path: str, table: Table) -> str:
    if path in table.names:
        return table.names[path]
    for pattern, replacement in table.renames:
        path = re.sub(pattern, replacement, path)
    *modules, leaf = path.split("/")
    return ".".join([*modules, LEAF_NAMES.get(leaf, leaf)])


def layout(path: str, shape: tuple[int, ...], table: Table, use: Use | None = None) -> Layout:
    """Return the layout of a leaf. Without a table, `use` determines it."""
    window = tuple(range(len(shape) - 2))
    view, axes = shape, tuple(range(len(shape)))
    if path.endswith("kernel"):
        axes = (len(shape) - 1, len(shape) - 2, *window)
    elif use and use.is_map:
        axes = (len(shape) - 1, *axes[:-1])
    torch_shape = tuple(view[axis] for axis in axes)
    flattened = use.flattened if use else ()
    if path in table.flattened:
        channels, *spatial = table.flattened[path]
        expected = channels * math.prod(spatial)
        if expected != shape[0]:
            raise WeightsError(
                f"{path} has shape {shape}, but {expected} inputs for images of the size that the model was designed "
                "for; pass the layer, such as models.lenet5(), and x"
            )
        flattened = (*spatial, channels)
    if flattened:  # the first dimension is (*spatial, C) here and (C, *spatial) in PyTorch
        view = (*flattened, *shape[1:])
        rank = len(flattened)
        axes = (*range(rank, len(view)), rank - 1, *range(rank - 1))
    groups = use.transposed_groups if use else int(bool(re.fullmatch(table.transposed, path)))
    if groups and path.endswith("kernel"):  # of a transposed convolution: (in, out / groups, *window)
        view = (*shape[:-1], groups, shape[-1] // groups)
        axes = (len(window) + 1, len(window), len(window) + 2, *window)
        torch_shape = (shape[-2] * groups, shape[-1] // groups, *shape[:-2])
    for pattern, count in table.trailing_ones.items():
        if re.fullmatch(pattern, path):
            torch_shape += (1,) * count
    return Layout(shape, view, axes, torch_shape)


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
