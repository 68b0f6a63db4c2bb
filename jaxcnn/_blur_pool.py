"""Blur pooling: anti-aliased subsampling."""

import functools
import math
import operator
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxcnn._array import as_floating, at_least_float32, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._window import check_window_options, per_dimension


@constructor
def blur_pool(size: int | Sequence[int] = 3, *, stride: int | Sequence[int] = 2) -> Layer:
    """(N, *spatial, C) -> (N, ceil(spatial / stride), C): a binomial low-pass filter, then every stride-th position.

    y[n, i, c] = sum_k x[n, stride * i + k - (size - 1) // 2, c] * b[k],  b = binomial(size - 1, k) / 2^(size - 1)

    with reflect padding. Subsampling without a low-pass filter turns fine detail into coarse patterns (aliasing).

    Args:
        size: size of the filter; 3 is [1, 2, 1] / 4.
        stride: step between outputs, in positions.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([0.0, 0.0, 4.0, 0.0, 0.0]).reshape(1, 5, 1)
        >>> jaxcnn.blur_pool(3, stride=2).apply({}, {}, x, train=False)[0].ravel()
        Array([0., 2., 0.], dtype=float32)

    Source: Zhang, "Making convolutional networks shift-invariant again", 2019.
    """
    check_window_options("blur_pool", size=size, stride=stride)

    def fn(x):
        x = as_floating(x, "blur_pool")
        rank = spatial_rank(x, "blur_pool")
        sizes = per_dimension("blur_pool", "size", size, rank)
        pads = [(0, 0), *(((k - 1) // 2, k // 2) for k in sizes), (0, 0)]
        y = jnp.pad(at_least_float32(x), pads, "reflect")
        # The filter is separable: it can be applied to one dimension after the other.
        steps = per_dimension("blur_pool", "stride", stride, rank)
        for axis, (taps, step) in enumerate(zip(sizes, steps, strict=True), 1):
            last = y.shape[axis] - taps + 1
            weights = [math.comb(taps - 1, k) / 2 ** (taps - 1) for k in range(taps)]
            terms = [lax.slice_in_dim(y, k, k + last, step, axis) * weight for k, weight in enumerate(weights)]
            y = functools.reduce(operator.add, terms)
        return y.astype(x.dtype)

    return as_layer(fn)
