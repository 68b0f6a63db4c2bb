"""Max pooling that also returns where the maxima are, and its partial inverse.

SegNet's decoder puts each value back to the position of the maximum that the encoder found, which keeps the borders of
objects sharp.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import short_repr
from jaxcnn._array import spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._lowering import window_max
from jaxcnn._pool import check_real, make_pool
from jaxcnn._window import Padding, Window, check_window_options, make_transposed_window, per_dimension


@constructor
def max_pool_with_indices(
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', C), (N, *spatial', C): `max_pool`, and the position of each maximum.

    y[n, i, c] = x.reshape(N, positions, C)[n, indices[n, i, c], c]

    The int32 indices are flat positions in the unpadded input in row-major order, as in PyTorch. For equal values, the
    first one counts.

    Args:
        size, stride, padding, dilation, ceil_mode: as in `max_pool`.

    Raises:
        TypeError, ValueError: as in `max_pool`.

    Example:
        >>> x = jnp.array([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 0.0, 7.0]]).reshape(1, 2, 4, 1)
        >>> (y, indices), _ = jaxcnn.max_pool_with_indices(2).apply({}, {}, x, train=False)
        >>> y.ravel(), indices.ravel()
        (Array([5., 7.], dtype=float32), Array([1, 7], dtype=int32))
    """
    name = "max_pool_with_indices"

    def both(x, window, padding):
        return window_max(check_real(x, name), window), _first_maximum(lax.stop_gradient(x), window)

    return make_pool(name, both, size, stride, padding, dilation, ceil_mode)


@constructor
def max_unpool(
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    output_size: int | Sequence[int] | None = None,
) -> Layer:
    """((N, *spatial', C), (N, *spatial', C)) -> (N, *spatial, C): puts values back to the positions of maxima.

    x[n, indices[n, i, c], c] = y[n, i, c],  0 elsewhere

    spatial = (spatial' - 1) * stride - low - high + size

    The input is a pair (y, indices). If windows overlap and an index occurs twice, one of the values is used.

    Args:
        size, stride, padding: those of `max_pool_with_indices`.
        output_size: spatial size of the pool's input, where the equation does not give it, one int for all spatial
            dimensions or one per dimension. Indices outside are ignored.

    Raises:
        TypeError: if the input is not a pair, or the indices are not integers.
        ValueError: for values and indices of different shapes, or a wrong rank.

    Example: one level of SegNet. `inside` is applied to the values only; the indices go around it.
        >>> from operator import itemgetter
        >>> def level(inside):
        ...     values = jaxcnn.serial(itemgetter(0), inside)
        ...     return jaxcnn.serial(
        ...         encoder=jaxcnn.conv(8),
        ...         pool=jaxcnn.max_pool_with_indices(2),
        ...         pair=jaxcnn.parallel(lambda *pair: pair, values=values, indices=itemgetter(1)),
        ...         unpool=jaxcnn.max_unpool(2),
        ...         decoder=jaxcnn.conv(8),
        ...     )
        >>> net = level(level(jaxcnn.conv(8)))
        >>> x = jnp.ones((1, 8, 8, 3))
        >>> net.apply(*net.init(jax.random.key(0), x), x, train=False)[0].shape
        (1, 8, 8, 8)

    Source: Badrinarayanan, Kendall and Cipolla, "SegNet: a deep convolutional encoder-decoder architecture for image
        segmentation", 2017.
    """
    name = "max_unpool"
    stride = size if stride is None else stride
    check_window_options(name, size=size, stride=stride, padding=padding)
    if output_size is not None:
        check_window_options(name, output_size=output_size)

    def fn(pair):
        y, indices = _values_and_indices(pair)
        rank = spatial_rank(y, name)
        if output_size is None:
            window = make_transposed_window(name, y.shape, size, stride, 1, padding, 0)
            spatial = window.transposed_output(y.shape[1:-1])
        else:
            spatial = per_dimension(name, "output_size", output_size, rank)
        n, channels = y.shape[0], y.shape[-1]
        positions = (int(np.prod(y.shape[1:-1])), int(np.prod(spatial)))
        outside = {"mode": "drop", "wrap_negative_indices": False}
        put = lambda values, at: jnp.zeros(positions[1], y.dtype).at[at].set(values, **outside)
        flat = (array.reshape(n, positions[0], channels) for array in (y, indices))
        x = jax.vmap(jax.vmap(put, 1, 1))(*flat)
        return x.reshape(n, *spatial, channels)

    return as_layer(fn)


def _first_maximum(x: jax.Array, window: Window) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C): the flat position of the first maximum of each window."""
    n, channels, output = x.shape[0], x.shape[-1], window.output(x.shape[1:-1])
    table = _positions(x.shape[1:-1], window)
    values = jnp.take(x.reshape(n, int(np.prod(x.shape[1:-1])), channels), table, 1, mode="clip")
    at = lax.argmax(values, 2, np.int32)  # (N, windows, C)
    indices = jnp.take_along_axis(jnp.asarray(table)[None, :, :, None], at[:, :, None], 2, mode="clip")
    return indices.reshape(n, *output, channels)


def _positions(spatial: tuple[int, ...], window: Window) -> np.ndarray:
    """(windows, taps): the flat input position of each tap. A tap in the padding repeats the first one inside."""
    positions = []
    for at, n in zip(window.tap_positions(spatial), spatial, strict=True):
        inside = (at >= 0) & (at < n)
        positions.append(np.where(inside, at, np.take_along_axis(at, inside.argmax(1)[:, None], 1)))
    return np.asarray(np.ravel_multi_index(tuple(positions), spatial), np.int32)


def _values_and_indices(pair: Any) -> tuple[jax.Array, jax.Array]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"max_unpool needs a pair (values, indices), got {short_repr(pair)}")
    y, indices = map(jnp.asarray, pair)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"max_unpool needs integer indices, as from max_pool_with_indices, got {short_repr(indices)}")
    if y.shape != indices.shape:
        raise ValueError(f"max_unpool: values have shape {y.shape}, but indices have shape {indices.shape}")
    return y, indices
