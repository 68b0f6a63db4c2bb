"""The gradients of a convolution as other convolutions, in the order of dimensions (N, *spatial, C) that XLA computes
well inside of loops, too: with channels or examples elsewhere, a loop on a CPU gets scalar code.
"""

import jax
import jax.numpy as jnp

from jaxcnn._lowering import _lax, _problem
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._window import Window


def swap_in_out_channels(w: jax.Array, groups: int) -> jax.Array:
    """(*size, C / groups, F) -> (*size, F / groups, C): each group the other way round."""
    *size, channels, _ = w.shape
    w = jnp.swapaxes(w.reshape(*size, channels, groups, -1), -1, -3)
    return w.reshape(*size, -1, groups * channels)


def rotated(dy: jax.Array, w: jax.Array, problem: Problem) -> tuple[Problem, jax.Array]:
    """The convolution of dy with a rotated kernel that is the gradient of the input: the problem and the kernel."""
    window, groups = problem.window, problem.groups
    w = swap_in_out_channels(jnp.flip(w, range(len(window.size))), groups)
    pads = []
    for o, n, s, span, (low, _), apart in zip(
        dy.shape[1:-1],
        problem.spatial,
        window.stride,
        window.span,
        window.padding,
        window.input_dilation,
        strict=True,
    ):
        length, whole = (o - 1) * s + 1, (n - 1) * apart + 1
        pads.append((span - 1 - low, whole + low - length))
    back = Window(window.size, window.input_dilation, window.dilation, tuple(pads), window.stride)
    return _problem.forward(dy, w, back, groups), materialized(w)


def over_examples(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """The kernel's gradient without groups: channels of x are the examples, examples the channels, dy is the kernel."""
    x, dy = materialized((x, dy))  # otherwise computed anew, value by value, while they are transposed
    window, pads = problem.window, []
    for n, o, k, s, d, (low, _), apart in zip(x.shape[1:-1], dy.shape[1:-1], *window, strict=True):
        # At the end, as much as gives the kernel's size: a stride may not have used all that the forward pass added.
        pads.append((low, d * (k - 1) + (o - 1) * s - (n - 1) * apart - low))
    one = Window(dy.shape[1:-1], window.dilation, window.stride, tuple(pads), window.input_dilation)
    x, w = jnp.moveaxis(x, (0, -1), (-1, 0)), jnp.moveaxis(dy, 0, -2)
    return jnp.moveaxis(_lax.forward(x, w, _problem.forward(x, w, one, 1)), 0, -2)
