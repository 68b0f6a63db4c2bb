"""The sum of each window as two linear primitives, of which each is the transpose of the other.

y[n, i, c] = sum_k x[n, stride * i + dilation * k - low, c]
"""

import functools
import operator
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.interpreters import ad

from jaxcnn._lowering._primitive import primitive
from jaxcnn._lowering._taps import padded, put_back, shifts, worth_taps


def window_sum(x: jax.Array, window: Any) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C), for a window with size, stride, dilation and padding."""
    return _sum.bind(x, window=window)


def _plain_sum(x: jax.Array, *, window: Any) -> jax.Array:
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),
        lax.add,
        window_dimensions=(1, *window.size, 1),
        window_strides=(1, *window.stride, 1),
        padding=((0, 0), *window.padding, (0, 0)),
        window_dilation=(1, *window.dilation, 1),
    )


def _cpu_sum(x: jax.Array, *, window: Any) -> jax.Array:
    if not worth_taps(x, window):
        return _plain_sum(x, window=window)
    xp = padded(x, window.padding)
    terms = (seen for _, seen in shifts(xp, window.size, window.stride, window.dilation))
    return functools.reduce(operator.add, terms)


def _plain_back(dy: jax.Array, *, window: Any, spatial: tuple[int, ...]) -> jax.Array:
    x = jax.ShapeDtypeStruct((dy.shape[0], *spatial, dy.shape[-1]), dy.dtype)
    return jax.linear_transpose(lambda x: _plain_sum(x, window=window), x)(dy)[0]


def _cpu_back(dy: jax.Array, *, window: Any, spatial: tuple[int, ...]) -> jax.Array:
    if not worth_taps(dy, window):
        return _plain_back(dy, window=window, spatial=spatial)
    return put_back([dy] * int(np.prod(window.size)), window, spatial)


_sum = primitive("jaxcnn_window_sum", _plain_sum, cpu=_cpu_sum, examples=(True,))
_back = primitive("jaxcnn_window_sum_back", _plain_back, cpu=_cpu_back, examples=(True,))

ad.deflinear2(_sum, lambda dy, x, *, window: [_back.bind(dy, window=window, spatial=x.aval.shape[1:-1])])
ad.deflinear2(_back, lambda dx, dy, *, window, spatial: [_sum.bind(dx, window=window)])
