"""A volume as a batch of images: one 2-D convolution of all its slices for each tap of the first dimension."""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering import _problem
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Algorithm, Problem
from jaxcnn._lowering._taps import padded, tap_slices
from jaxcnn._window import Window


def forward(x: jax.Array, w: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """`compute` is for the slices."""
    flat = _in_slice(problem.window)
    terms = []
    for here, tap in zip(_along_depth(x, problem.window), w, strict=True):
        images = here.reshape(-1, *here.shape[2:])
        part = compute(images, tap, _problem.forward(images, tap, flat, 1))
        terms.append(at_least_float32(part).reshape(*here.shape[:2], *part.shape[1:]))
    return functools.reduce(operator.add, terms).astype(x.dtype)


def kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem, compute: Algorithm) -> jax.Array:
    """Each tap of the first dimension has its own gradient; `compute` is for the slices."""
    dy, flat = dy.reshape(-1, *dy.shape[2:]), _in_slice(problem.window)
    images = (here.reshape(-1, *here.shape[2:]) for here in _along_depth(x, problem.window))
    return jnp.stack([compute(here, dy, _problem.kernel_gradient(here, dy, flat, 1)) for here in images])


def _along_depth(x: jax.Array, window: Window) -> list[jax.Array]:
    """What each tap of the first spatial dimension sees."""
    one, padding = (1,) * (x.ndim - 3), (window.padding[0], *((0, 0),) * (x.ndim - 3))
    depth = Window((window.size[0], *one), (window.stride[0], *one), (window.dilation[0], *one), padding, (1, *one))
    return [here for _, here in tap_slices(materialized(padded(x, padding)), depth)]


def _in_slice(window: Window) -> Window:
    size, stride, dilation, padding, input_dilation = window
    return Window(size[1:], stride[1:], dilation[1:], padding[1:], input_dilation[1:])
