"""Pooling: each window of a feature map is replaced by one number, for each channel by itself.

The map shrinks, later layers see more of the picture, and a pattern that moves by a little gives
the same output as long as it stays in its window: some tolerance to translation, and no parameters.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import Layer, as_layer, constructor, floating, spatial_rank, widened
from jaxcnn._lowering import Pool, extreme, window_sum
from jaxcnn._numeric import norm
from jaxcnn._window import Padding, Window, check, integer, per_dimension, place


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

    with spatial' as in `conv`. Padding never wins. Where values tie, the first takes the whole gradient.

    Args:
        size: positions of the window, one int for all spatial dimensions or one for each.
        stride: positions from one window to the next; None stands for `size`: windows side by side.
        padding: as in `conv`.
        dilation: positions from one tap of the window to the next.
        ceil_mode: whether a last window may hang over the end (PyTorch's rule: if it starts inside the input
            or its leading padding).

    Raises:
        ValueError: for a wrong rank, a window larger than the input, or one that covers only padding.

    Example:
        >>> x = jnp.array([[12.0, 20.0, 30.0, 0.0], [8.0, 12.0, 2.0, 0.0]]).reshape(1, 2, 4, 1)
        >>> y, _ = jaxcnn.max_pool(2).apply({}, {}, x, train=False)
        >>> y.ravel()
        Array([20., 30.], dtype=float32)

    Source: Zhou and Chellappa, "Computation of optical flow using a neural network", 1988.
    """

    def largest(x, window, padding):
        return _extreme(x, window, largest=True)

    return _pool("max_pool", largest, size, stride, padding, dilation, ceil_mode)


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

    Args:
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Raises:
        ValueError: as in `max_pool`.

    Example:
        >>> jaxcnn.min_pool(2).apply({}, {}, jnp.array([3.0, 1.0, 4.0, 1.5]).reshape(1, 4, 1), train=False)[0].ravel()
        Array([1. , 1.5], dtype=float32)
    """

    def smallest(x, window, padding):
        return _extreme(x, window, largest=False)

    return _pool("min_pool", smallest, size, stride, padding, dilation, ceil_mode)


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
        count_include_pad: whether count(i) counts the padding too (PyTorch's default is True). What hangs
            over the end in ceil mode is never counted.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: as in `max_pool`.

    Example:
        >>> jaxcnn.avg_pool(2).apply({}, {}, jnp.array([3.0, 1.0, 4.0, 2.0]).reshape(1, 4, 1), train=False)[0].ravel()
        Array([2., 3.], dtype=float32)

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998 (subsampling).
    """

    def mean(x, window, padding):
        total = window_sum(widened(floating(x, "avg_pool")), window)
        counted = padding if count_include_pad else ((0, 0),) * len(padding)
        count = functools.reduce(operator.mul, np.ix_(*_taps(x.shape[1:-1], window, counted)))[
            ..., None
        ]  # (*spatial', 1)
        count = (count if np.ptp(count) else count.flat[0]).astype(total.dtype)
        return (total / (count[None] if count.ndim else count)).astype(x.dtype)

    return _pool("avg_pool", mean, size, stride, padding, dilation, ceil_mode)


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
    """(N, *spatial, C) -> (N, *spatial', C): the p-norm of each window, between the sum and the largest.

    y[n, i, c] = (sum_k |x[n, stride * i + dilation * k - low, c]|^p)^(1/p)

    The gradient of a window of zeros is zero.

    Args:
        p: the power, at least 1 and finite.
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for another p, or as in `max_pool`.

    Example:
        >>> jaxcnn.lp_pool(2, 2).apply({}, {}, jnp.array([3.0, 4.0]).reshape(1, 2, 1), train=False)[0].ravel()
        Array([5.], dtype=float32)

    Source: Gulcehre et al., "Learned-norm pooling for deep feedforward and recurrent neural networks", 2014.
    """
    if not 1 <= p < math.inf:
        raise ValueError(f"lp_pool: p must be at least 1 and finite, got {p}; for infinity, use max_pool of |x|")

    def p_norm(x, window, padding):
        places = window.output(x.shape[1:-1])
        y = jnp.pad(widened(floating(x, "lp_pool")), ((0, 0), *window.padding, (0, 0)))
        taps = []
        for out, k, s, d in zip(places, window.size, window.stride, window.dilation, strict=True):
            taps.append(2 * len(taps) + 2)
            y = jnp.take(y, s * np.arange(out)[:, None] + d * np.arange(k), taps[-1] - 1, mode="clip")
        return norm(y, tuple(taps), p).squeeze(taps).astype(x.dtype)  # y: (N, out, taps, .., out, taps, C)

    return _pool("lp_pool", p_norm, size, stride, padding, dilation, ceil_mode)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (N, C): the mean over all positions, y[n, c] = mean_i x[n, i, c].

    Passed uncalled: `serial(conv(32), global_avg_pool, dense(10))`.

    Example:
        >>> jaxcnn.global_avg_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[1.5]], dtype=float32)

    Source: Lin, Chen and Yan, "Network in network", 2014.
    """
    x = floating(x, "global_avg_pool")
    rank = spatial_rank(x, "global_avg_pool")
    return x.mean(tuple(range(1, rank + 1)))


def global_max_pool(x: jax.Array) -> jax.Array:
    """(N, *spatial, C) -> (N, C): the largest value of each channel, y[n, c] = max_i x[n, i, c].

    The first of equal values takes the whole gradient. Passed uncalled, like `global_avg_pool`.

    Example:
        >>> jaxcnn.global_max_pool(jnp.arange(4.0).reshape(1, 2, 2, 1))
        Array([[3.]], dtype=float32)
    """
    spatial_rank(x, "global_max_pool")
    return _first_max(jnp.asarray(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1)


@constructor
def adaptive_avg_pool(output_size: int | Sequence[int | None] | None) -> Layer:
    """(N, *spatial, C) -> (N, *output_size, C): the mean of each of `output_size` bins, for any input size.

    y[n, i, c] = mean of x[n, floor(i * spatial / out) : ceil((i + 1) * spatial / out), c]

    Neighbouring bins overlap where `out` does not divide `spatial`: PyTorch's rule.

    Args:
        output_size: bins in each spatial dimension, one int for all or one for each; None keeps the size.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0]).reshape(1, 7, 1)
        >>> y, _ = jaxcnn.adaptive_avg_pool(3).apply({}, {}, x, train=False)
        >>> [round(float(v), 2) for v in y.ravel()]
        [1.67, 9.67, 25.67]

    Source: He et al., "Spatial pyramid pooling in deep convolutional networks", 2014.
    """

    def mean(x, starts, ends, axis):
        at, inside = _bins(starts, ends)
        inside = inside.reshape((1,) * axis + inside.shape + (1,) * (x.ndim - axis - 1))
        total = jnp.where(inside, jnp.take(widened(x), at, axis), 0).sum(axis + 1)
        return (total / inside.sum(axis + 1).astype(total.dtype)).astype(x.dtype)

    return _adaptive("adaptive_avg_pool", output_size, mean, avg_pool)


@constructor
def adaptive_max_pool(output_size: int | Sequence[int | None] | None) -> Layer:
    """(N, *spatial, C) -> (N, *output_size, C): the largest value of each bin, for any input size.

    y[n, i, c] = max of x[n, floor(i * spatial / out) : ceil((i + 1) * spatial / out), c]

    Args:
        output_size: as in `adaptive_avg_pool`.

    Raises:
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([3.0, 1.0, 4.0, 1.0, 5.0]).reshape(1, 5, 1)
        >>> jaxcnn.adaptive_max_pool(2).apply({}, {}, x, train=False)[0].ravel()
        Array([4., 5.], dtype=float32)

    Source: He et al., "Spatial pyramid pooling in deep convolutional networks", 2014.
    """

    def largest(x, starts, ends, axis):
        at, _ = _bins(starts, ends)  # what a short bin repeats changes no maximum
        return _first_max(jnp.take(x, at, axis), axis + 1)

    return _adaptive("adaptive_max_pool", output_size, largest, max_pool)


@constructor
def blur_pool(size: int | Sequence[int] = 3, *, stride: int | Sequence[int] = 2) -> Layer:
    """(N, *spatial, C) -> (N, ceil(spatial / stride), C): smooth with a binomial filter, then keep every stride-th.

    y[n, i, c] = sum_k x[n, stride * i + k - (size - 1) // 2, c] * b[k],  b = binomial(size - 1, k) / 2^(size - 1)

    with reflected borders. Without smoothing, subsampling folds fine detail into coarse patterns (aliasing).

    Args:
        size: taps of the filter: 3 is [1, 2, 1] / 4.
        stride: positions from one output to the next.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for a wrong rank.

    Example:
        >>> x = jnp.array([0.0, 0.0, 4.0, 0.0, 0.0]).reshape(1, 5, 1)
        >>> jaxcnn.blur_pool(3, stride=2).apply({}, {}, x, train=False)[0].ravel()
        Array([0., 2., 0.], dtype=float32)

    Source: Zhang, "Making convolutional networks shift-invariant again", 2019.
    """
    check("blur_pool", size=size, stride=stride)

    def fn(x):
        rank = spatial_rank(x := floating(x, "blur_pool"), "blur_pool")
        sizes = per_dimension("blur_pool", "size", size, rank)
        pads = [(0, 0), *(((k - 1) // 2, k // 2) for k in sizes), (0, 0)]
        x = jnp.pad(x, pads, "reflect")
        # The filter is a product of one for each dimension, so one dimension can be smoothed after the other.
        steps = per_dimension("blur_pool", "stride", stride, rank)
        for axis, (taps, step) in enumerate(zip(sizes, steps, strict=True), 1):
            last = x.shape[axis] - taps + 1
            weights = [math.comb(taps - 1, k) / 2 ** (taps - 1) for k in range(taps)]
            terms = [lax.slice_in_dim(x, k, k + last, step, axis) * weight for k, weight in enumerate(weights)]
            x = functools.reduce(operator.add, terms)
        return x

    return as_layer(fn)


def _pool(
    name: str,
    reduce: Callable[[jax.Array, Window, tuple], jax.Array],
    size: Any,
    stride: Any,
    padding: Padding,
    dilation: Any,
    ceil_mode: bool,
) -> Layer:
    """A pool that reduces each window by `reduce(x, window, padding)`, with `padding` as it was asked for."""
    stride = size if stride is None else stride
    check(name, size=size, stride=stride, padding=padding, dilation=dilation)

    def fn(x):
        x = jnp.asarray(x)
        spatial_rank(x, name)
        asked = place(name, x.shape, size, stride, dilation, padding)
        window = (asked.hanging_over(x.shape[1:-1]) if ceil_mode else asked).on(name, x.shape)
        nothing = ((0, 0),) * len(asked.padding)
        if any((taps == 0).any() for taps in _taps(x.shape[1:-1], window, nothing)):
            raise ValueError(
                f"{name}: with padding {window.padding}, some window {window.span} covers only padding; "
                f"the input has shape {x.shape}"
            )
        return reduce(x, window, asked.padding)

    return as_layer(fn)


def _taps(spatial: tuple[int, ...], window: Window, margin: tuple[tuple[int, int], ...]) -> list[np.ndarray]:
    """For each dimension and place, how many taps of the window lie on the input or its `margin`."""
    counts = []
    for n, k, s, d, (low, _), (before, after), out in zip(
        spatial, *window, margin, window.output(spatial), strict=True
    ):
        at = s * np.arange(out)[:, None] + d * np.arange(k) - low
        counts.append(((-before <= at) & (at < n + after)).sum(1))
    return counts


def _extreme(x: jax.Array, window: Window, largest: bool) -> jax.Array:
    """The maximum or minimum of each window: lax.reduce_window, or what equals it."""
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"max and min pools need real numbers, got {x.dtype}")
    return extreme(x, Pool(*window, largest))


def _first_max(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along `axis`, with the whole gradient to the first of equal values."""
    at = jnp.expand_dims(jnp.argmax(x, axis), axis)
    return jnp.take_along_axis(x, at, axis).squeeze(axis)


def _bins(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions of each bin as rows of one length, short ones filled with their last; and which are not filling."""
    at = starts[:, None] + np.arange((ends - starts).max())
    return np.minimum(at, ends[:, None] - 1), at < ends[:, None]


def _adaptive(name: str, output_size: Any, reduce: Callable, even: Callable[..., Layer]) -> Layer:
    """A pool over bins: `even` where all are of one size, else `reduce(x, starts, ends, axis)` one axis at a time."""
    for entry in output_size if isinstance(output_size, Sequence) else (output_size,):
        if entry is not None:
            integer(name, "output_size", entry)

    def fn(x):
        x = jnp.asarray(x) if even is max_pool else floating(x, name)
        rank = spatial_rank(x, name)
        spatial = x.shape[1:-1]
        wanted = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * rank
        if len(wanted) != rank:
            raise ValueError(f"{name}: output_size={output_size!r} has {len(wanted)} entries for input {x.shape}")
        outs = [n if out is None else out for n, out in zip(spatial, wanted, strict=True)]
        if all(n % out == 0 for n, out in zip(spatial, outs, strict=True)):
            size = tuple(n // out for n, out in zip(spatial, outs, strict=True))
            return even(size).apply({}, {}, x, train=False)[0]
        for axis in range(rank, 0, -1):  # last axis first, so that among equal values the first in the picture wins
            n, out = spatial[axis - 1], outs[axis - 1]
            i = np.arange(out)
            x = reduce(x, i * n // out, -(-(i + 1) * n // out), axis)
        return x

    return as_layer(fn)
