"""Convolutions, pools and their gradients with plain `lax` operations: the last rule of each table."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import padded


def forward(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    window, letters = problem.window, "DHW"[-len(problem.spatial) :]
    padding = window.padding
    if set(window.input_dilation) == {1} and any(min(ends) < 0 for ends in padding):
        # XLA on a CPU reads out of bounds if a 1-D input is cropped at the start and padded at the end.
        x = padded(x, tuple((min(low, 0), min(high, 0)) for low, high in padding))
        padding = tuple((max(low, 0), max(high, 0)) for low, high in padding)
    return lax.conv_general_dilated(
        x,
        w,
        window.stride,
        padding,
        window.input_dilation,
        window.dilation,
        (f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        problem.groups,
    )


def input_gradient(dy: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    x = jax.ShapeDtypeStruct((problem.examples, *problem.spatial, problem.channels), dy.dtype)
    return jax.linear_transpose(lambda x: forward(x, w, problem), x)(dy)[0]


def kernel_gradient(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    w = jax.ShapeDtypeStruct(problem.kernel_shape, x.dtype)
    return jax.linear_transpose(lambda w: forward(x, w, problem), w)(dy)[0]


def window_sum(x: jax.Array, problem: Problem) -> jax.Array:
    return _reduce_window(x, problem, np.zeros((), x.dtype), lax.add)


def window_sum_gradient(dy: jax.Array, problem: Problem) -> jax.Array:
    x = jax.ShapeDtypeStruct((problem.examples, *problem.spatial, problem.channels), dy.dtype)
    return jax.linear_transpose(lambda x: window_sum(x, problem), x)(dy)[0]


def window_extreme(x: jax.Array, problem: Problem) -> jax.Array:
    return _reduce_window(x, problem, identity_element(x.dtype, problem), lax.max if is_max(problem) else lax.min)


def window_extreme_gradient(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    return jax.vjp(lambda x: window_extreme(x, problem), x)[1](dy)[0]


def is_max(problem: Problem) -> bool:
    """Whether the pool is a maximum, not a minimum."""
    return problem.operation.startswith("max")


def identity_element(dtype: Any, problem: Problem) -> np.ndarray:
    """The identity of the maximum or minimum."""
    if jnp.issubdtype(dtype, jnp.floating):
        return np.array(-np.inf if is_max(problem) else np.inf, dtype)
    return np.array(jnp.iinfo(dtype).min if is_max(problem) else jnp.iinfo(dtype).max, dtype)


def _reduce_window(
    x: jax.Array, problem: Problem, start: np.ndarray, combine: Callable[[Any, Any], jax.Array]
) -> jax.Array:
    window = problem.window
    return lax.reduce_window(
        x,
        start,
        combine,
        window_dimensions=(1, *window.size, 1),
        window_strides=(1, *window.stride, 1),
        padding=((0, 0), *window.padding, (0, 0)),
        window_dilation=(1, *window.dilation, 1),
    )
