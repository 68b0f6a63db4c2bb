"""The shapes and options of an operation, from which the rules select an algorithm."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcnn._window import Window


class Problem(NamedTuple):
    """One convolution or pool, or one of its gradients.

    Sizes refer to the forward pass, x (examples, *spatial, channels) -> y (examples, *output, features), also for
    gradients. A pool has one group per channel.
    """

    operation: str  # "forward", "input gradient", "kernel gradient", "max pool", "sum pool", "max pool gradient", ..
    examples: Any  # an int, or in `jax.export` a symbolic dimension
    spatial: tuple[int, ...]
    channels: int
    features: int
    window: Window
    groups: int
    dtype: str
    precision: str | None = None  # of products on a GPU or TPU, as in `jax.default_matmul_precision`
    models: Any = 1  # several under `vmap`, each with its own kernel; all other sizes refer to one

    @property
    def output(self) -> tuple[int, ...]:
        """The spatial shape of y."""
        return self.window.output(self.spatial)

    @property
    def has_static_shapes(self) -> bool:
        """Whether all sizes are positive integers: none is 0, or symbolic as in `jax.export`."""
        sizes = (self.examples, *self.spatial, self.channels, self.features, *self.output)
        return all(isinstance(size, int) and size > 0 for size in sizes)

    @property
    def channels_per_group(self) -> int:
        return self.channels // self.groups

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        return (*self.window.size, self.channels_per_group, self.features)

    @property
    def result_shape(self) -> tuple[Any, ...]:
        """The shape of the operation's result, for one model."""
        if self.operation == "kernel gradient":
            return self.kernel_shape
        if self.operation.endswith("gradient"):
            return (self.examples, *self.spatial, self.channels)
        return (self.examples, *self.output, self.features)

    @property
    def multiply_adds(self) -> Any:
        """For all models and examples: each weight is used once per output position."""
        return self.models * self.examples * math.prod(self.output) * math.prod(self.kernel_shape)


# (x, w, problem) -> y, (dy, w, problem) -> dx, or (x, dy, problem) -> dw
Algorithm = Callable[[Any, Any, Problem], Any]


def forward(x: Any, w: Any, window: Window, groups: int, precision: str | None = None) -> Problem:
    """The problem for x (N, *spatial, C) and w (*size, C / groups, F)."""
    sizes = (x.shape[0], x.shape[1:-1], x.shape[-1], w.shape[-1])
    return Problem("forward", *sizes, window, groups, x.dtype.name, precision)


def input_gradient(
    dy: Any, w: Any, window: Window, groups: int, spatial: tuple[int, ...], precision: str | None = None
) -> Problem:
    """The problem for dy (N, *output, F) and w (*size, C / groups, F)."""
    sizes = (dy.shape[0], spatial, w.shape[-2] * groups, w.shape[-1])
    return Problem("input gradient", *sizes, window, groups, dy.dtype.name, precision)


def kernel_gradient(x: Any, dy: Any, window: Window, groups: int, precision: str | None = None) -> Problem:
    """The problem for x (N, *spatial, C) and dy (N, *output, F)."""
    sizes = (x.shape[0], x.shape[1:-1], x.shape[-1], dy.shape[-1])
    return Problem("kernel gradient", *sizes, window, groups, x.dtype.name, precision)


def pool(operation: str, x: Any, window: Window, spatial: tuple[int, ...] = ()) -> Problem:
    """The problem for x (N, *spatial, C); for a gradient, dy (N, *output, C) and the spatial shape of the input."""
    channels = x.shape[-1]
    return Problem(operation, x.shape[0], spatial or x.shape[1:-1], channels, channels, window, channels, x.dtype.name)
