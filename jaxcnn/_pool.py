"""Pooling: reduces each window of a feature map to one value, separately for each channel.

Pooling has no parameters. It makes the map smaller, so later layers have larger receptive fields, and it makes the
network tolerant to small translations: the output stays the same while a pattern moves within a window.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_number, short_repr
from jaxcnn._array import as_array, as_floating, at_least_float32, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._lowering import window_max, window_min, window_sum
from jaxcnn._numeric import norm
from jaxcnn._window import Padding, Window, check_window_options, make_window


@constructor
def max_pool(
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): the largest value in each window.

    y[n, i, c] = max_k x[n, stride * i + dilation * k - low, c]

    with spatial' as in `conv`; low is the padding before the input. Padding is never the largest value. Of equal
    values, the first one gets the whole gradient. A NaN in the window makes the output NaN.

    Args:
        size: window size, one int for all spatial dimensions or one int per dimension.
        stride: step between windows, in positions; None means `size`, for windows that do not overlap.
        padding: as in `conv`.
        dilation: step between the elements of a window, in positions.
        ceil_mode: whether to add a last window that extends beyond the end. As in PyTorch, it must start inside the
            input or the leading padding.

    Raises:
        TypeError: for booleans or complex numbers.
        ValueError: for a wrong rank, a window larger than the input, or one that covers only padding.

    Example:
        >>> x = jnp.array([[12.0, 20.0, 30.0, 0.0], [8.0, 12.0, 2.0, 0.0]]).reshape(1, 2, 4, 1)
        >>> y, _ = jaxcnn.max_pool(2).apply({}, {}, x, train=False)
        >>> y.ravel()
        Array([20., 30.], dtype=float32)

    Source: Zhou and Chellappa, "Computation of optical flow using a neural network", 1988.
    """

    def largest(x, window, padding):
        # Equals lax.reduce_window(x, -inf, lax.max, ..), with the gradient described above.
        return window_max(check_real(x, "max_pool"), window)

    return make_pool("max_pool", largest, size, stride, padding, dilation, ceil_mode)


@constructor
def min_pool(
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): the smallest value in each window.

    y[n, i, c] = min_k x[n, stride * i + dilation * k - low, c]

    Padding, equal values and NaN are treated as in `max_pool`.

    Args:
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Raises:
        TypeError, ValueError: as in `max_pool`.

    Example:
        >>> jaxcnn.min_pool(2).apply({}, {}, jnp.array([3.0, 1.0, 4.0, 1.5]).reshape(1, 4, 1), train=False)[0].ravel()
        Array([1. , 1.5], dtype=float32)
    """

    def smallest(x, window, padding):
        return window_min(check_real(x, "min_pool"), window)

    return make_pool("min_pool", smallest, size, stride, padding, dilation, ceil_mode)


@constructor
def avg_pool(
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): the mean of each window.

    y[n, i, c] = 1 / count(i) sum_k x[n, stride * i + dilation * k - low, c]

    Args:
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.
        count_include_pad: whether count(i) includes padding (PyTorch's default is True). Positions beyond the end in
            ceil mode are never counted.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: as in `max_pool`.

    Example:
        >>> jaxcnn.avg_pool(2).apply({}, {}, jnp.array([3.0, 1.0, 4.0, 2.0]).reshape(1, 4, 1), train=False)[0].ravel()
        Array([2., 3.], dtype=float32)

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998 (subsampling).
    """

    def mean(x, window, padding):
        # Equals lax.reduce_window(x, 0.0, lax.add, ..).
        total = window_sum(at_least_float32(as_floating(x, "avg_pool")), window)
        counted = padding if count_include_pad else ((0, 0),) * len(padding)
        count = functools.reduce(operator.mul, np.ix_(*_counts(x.shape[1:-1], window, counted)))  # (*spatial')
        count = count[None, ..., None] if np.ptp(count) else count.flat[0]
        return (total / count.astype(total.dtype)).astype(x.dtype)

    return make_pool("avg_pool", mean, size, stride, padding, dilation, ceil_mode)


@constructor
def lp_pool(
    p: float,
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C): the p-norm of each window.

    y[n, i, c] = (sum_k |x[n, stride * i + dilation * k - low, c]|^p)^(1/p)

    p = 1 gives the sum of magnitudes; a large p approaches their maximum. The gradient of a window of zeros is zero.

    Args:
        p: order of the norm, at least 1 and finite.
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for an invalid p, or as in `max_pool`.

    Example:
        >>> jaxcnn.lp_pool(2, 2).apply({}, {}, jnp.array([3.0, 4.0]).reshape(1, 2, 1), train=False)[0].ravel()
        Array([5.], dtype=float32)

    Source: Gulcehre et al., "Learned-norm pooling for deep feedforward and recurrent neural networks", 2014.
    """
    p = check_number("lp_pool", "p", p, 1, math.inf, closed=True, static=True)
    if p == math.inf:
        raise ValueError("lp_pool: p must be finite, got inf; use max_pool of |x|")

    def p_norm(x, window, padding):
        y = jnp.pad(at_least_float32(as_floating(x, "lp_pool")), ((0, 0), *window.padding, (0, 0)))
        tap_axes = range(2, 2 * len(window.size) + 1, 2)  # y becomes (N, outputs, taps, .., outputs, taps, C)
        for axis, positions, (low, _) in zip(
            tap_axes, window.positions_along(x.shape[1:-1]), window.padding, strict=True
        ):
            # Windows lie in the padded input, so nothing is clipped; this mode takes no time for NaN at other indices.
            y = jnp.take(y, positions + low, axis - 1, mode="clip")
        return norm(y, tuple(tap_axes), p).squeeze(tap_axes).astype(x.dtype)

    return make_pool("lp_pool", p_norm, size, stride, padding, dilation, ceil_mode)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (N, C): the mean over all positions, y[n, c] = mean_i x[n, i, c].

    A plain function, passed without a call: `serial(conv(32), global_avg_pool, dense(10))`.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> jaxcnn.global_avg_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[1.5]], dtype=float32)

    Source: Lin, Chen and Yan, "Network in network", 2014.
    """
    x = as_floating(x, "global_avg_pool")
    rank = spatial_rank(x, "global_avg_pool")
    return x.mean(tuple(range(1, rank + 1)))


def global_max_pool(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (N, C): the largest value of each channel, y[n, c] = max_i x[n, i, c].

    For equal values, the first one gets the whole gradient. Passed without a call, like `global_avg_pool`.

    Raises:
        TypeError: for booleans or complex numbers.
        ValueError: for a wrong rank.

    Example:
        >>> jaxcnn.global_max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[3.]], dtype=float32)
    """
    spatial_rank(x, "global_max_pool")
    x = check_real(as_array(x), "global_max_pool")
    return first_max(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1)


def first_max(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along `axis`. For equal values, the first one gets the whole gradient."""
    at = jnp.expand_dims(jnp.argmax(x, axis), axis)
    return jnp.take_along_axis(x, at, axis).squeeze(axis)


def make_pool(
    name: str,
    reduce: Callable[[jax.Array, Window, tuple], Any],
    size: Any,
    stride: Any,
    padding: Padding,
    dilation: Any,
    ceil_mode: bool,
) -> Layer:
    """A pool that computes `reduce(x, window, padding)`; `padding` is the requested one, without that of ceil mode."""
    stride = size if stride is None else stride
    check_window_options(name, size=size, stride=stride, padding=padding, dilation=dilation)

    def fn(x):
        spatial_rank(x, name)
        x = jnp.asarray(x)
        requested = make_window(name, x.shape, size, stride, dilation, padding)
        window = (requested.with_ceil_mode(x.shape[1:-1]) if ceil_mode else requested).check_fits(name, x.shape)
        no_padding = ((0, 0),) * len(window.padding)
        if any((counts == 0).any() for counts in _counts(x.shape[1:-1], window, no_padding)):
            raise ValueError(
                f"{name}: with padding {window.padding}, a window of size {window.span} covers only padding; "
                f"the input has shape {x.shape}"
            )
        return reduce(x, window, requested.padding)

    return as_layer(fn)


def _counts(spatial: tuple[int, ...], window: Window, margin: tuple[tuple[int, int], ...]) -> list[np.ndarray]:
    """Per dimension and output position, the number of window elements inside the input or its `margin`."""
    return [
        ((-before <= positions) & (positions < n + after)).sum(1)
        for n, positions, (before, after) in zip(spatial, window.positions_along(spatial), margin, strict=True)
    ]


def check_real(x: jax.Array, layer: str) -> jax.Array:
    """Return x if its values can be ordered, else raise TypeError."""
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{layer} needs integers or real floating-point numbers, got {short_repr(x)}")
    return x
