"""3-D convolution as a sum of 2-D convolutions: one per tap of the first dimension, over all slices of the volume.

With few channels, one 2-D convolution does the same work faster. Its channels are those of all taps.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxcnn._array import at_least_float32
from jaxcnn._lowering import _problem
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._lowering._taps import padded, tap_slices
from jaxcnn._window import Window

_FEW_CHANNELS = 16  # with more, copying the slices once per tap costs as much as it saves


def forward(x: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """`compute` computes the convolutions of the slices."""
    slice_window = _slice_window(problem.window)
    volumes, taps = _depth_taps(x, problem.window), list(w)
    if problem.channels <= _FEW_CHANNELS:
        volumes, taps = [jnp.concatenate(volumes, -1)], [jnp.concatenate(taps, -2)]
    terms = []
    for volume, tap in zip(volumes, taps, strict=True):
        images = volume.reshape(-1, *volume.shape[2:])
        part = compute(images, tap, _problem.forward(images, tap, slice_window, 1))
        terms.append(at_least_float32(part).reshape(*volume.shape[:2], *part.shape[1:]))
    return functools.reduce(operator.add, terms).astype(x.dtype)


def kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """`compute` computes the gradients for the taps of the first dimension."""
    dy, slice_window = dy.reshape(-1, *dy.shape[2:]), _slice_window(problem.window)
    volumes = _depth_taps(x, problem.window)
    few_channels = problem.channels <= _FEW_CHANNELS
    if few_channels:
        volumes = [jnp.concatenate(volumes, -1)]
    batches = (volume.reshape(-1, *volume.shape[2:]) for volume in volumes)
    parts = [compute(x, dy, _problem.kernel_gradient(x, dy, slice_window, 1)) for x in batches]
    return jnp.stack(jnp.split(parts[0], problem.window.size[0], -2) if few_channels else parts)


def _depth_taps(x: jax.Array, window: Window) -> list[jax.Array]:
    """The slice of the input that each tap of the first spatial dimension reads."""
    ones, padding = (1,) * (x.ndim - 3), (window.padding[0], *((0, 0),) * (x.ndim - 3))
    depth = Window((window.size[0], *ones), (window.stride[0], *ones), (window.dilation[0], *ones), padding, (1, *ones))
    return [part for _, part in tap_slices(materialized(padded(x, padding)), depth)]


def _slice_window(window: Window) -> Window:
    size, stride, dilation, padding, input_dilation = window
    return Window(size[1:], stride[1:], dilation[1:], padding[1:], input_dilation[1:])
