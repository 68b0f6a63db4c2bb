"""Convolution and its two gradients as `lax` has them: what a backend gets unless a faster form was measured."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering._taps import padded
from jaxcnn._window import Window


class Geometry(NamedTuple):
    """All of a convolution but its arrays, as `lax.conv_general_dilated` calls it; one entry for each dimension."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    lhs_dilation: tuple[int, ...]
    rhs_dilation: tuple[int, ...]
    groups: int

    def window(self, size: tuple[int, ...]) -> Window:
        """The window of a kernel of that size."""
        return Window(size, self.stride, self.rhs_dilation, self.padding)


def exchanged(w: jax.Array, groups: int) -> jax.Array:
    """(*size, C / groups, F) -> (*size, F / groups, C): each group the other way round."""
    *size, channels, _ = w.shape
    w = jnp.swapaxes(w.reshape(*size, channels, groups, -1), -1, -3)
    return w.reshape(*size, -1, groups * channels)


def forward(x: jax.Array, w: jax.Array, *, geometry: Geometry) -> jax.Array:
    spatial = "DHW"[-(x.ndim - 2) :]
    padding = geometry.padding
    if set(geometry.lhs_dilation) == {1} and any(min(ends) < 0 for ends in padding):
        # On a CPU, XLA reads beyond the end of a 1-D input that is cropped at the start and padded at the end.
        x = padded(x, tuple((min(low, 0), min(high, 0)) for low, high in padding))
        padding = tuple((max(low, 0), max(high, 0)) for low, high in padding)
    return lax.conv_general_dilated(
        x,
        w,
        geometry.stride,
        padding,
        geometry.lhs_dilation,
        geometry.rhs_dilation,
        (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
        geometry.groups,
    )


def backward_x(dy: jax.Array, w: jax.Array, *, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *spatial, w.shape[-2] * geometry.groups), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, w, geometry=geometry), x)(dy)[0]


def backward_w(x: jax.Array, dy: jax.Array, *, geometry: Geometry, size: tuple[int, ...]) -> jax.Array:
    w = jax.ShapeDtypeStruct((*size, x.shape[-1] // geometry.groups, dy.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w, geometry=geometry), w)(dy)[0]
