"""Pools as primitives. Their derivatives are linear primitives; each is the transpose of another.

    y = window_sum(x)            dx = sum_gradient(dy)
    y = extreme(x)               dy = gather(x, dx)    dx = scatter(x, dy)

gather reads dx at the position of the maximum (or minimum) of each window of x; scatter adds dy at this position. Both
are treated as constant in x.
"""

import jax

from jaxcnn._jax import ad
from jaxcnn._lowering import _window_pooling
from jaxcnn._lowering._by_rules import by_rules
from jaxcnn._lowering._primitive import linear_in, primitive
from jaxcnn._lowering._problem import pool
from jaxcnn._window import Window


def window_sum(x: jax.Array, window: Window) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C): y[n, i, c] = sum_k x[n, stride * i + dilation * k - low, c]."""
    return _sum.bind(x, window=window)


def window_max(x: jax.Array, window: Window) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C): the largest value of each window."""
    return _extreme.bind(x, window=window, kind="max pool")


def window_min(x: jax.Array, window: Window) -> jax.Array:
    """(N, *spatial, C) -> (N, *spatial', C): the smallest value of each window."""
    return _extreme.bind(x, window=window, kind="min pool")


_sum = by_rules("jaxcnn_window_sum", lambda x, *, window: pool("sum pool", x, window), examples=(True,))
_sum_gradient = by_rules(
    "jaxcnn_window_sum_gradient",
    lambda dy, *, window, spatial: pool("sum pool gradient", dy, window, spatial),
    examples=(True,),
)
ad.deflinear2(_sum, lambda dy, x, *, window: [_sum_gradient.bind(dy, window=window, spatial=x.aval.shape[1:-1])])
ad.deflinear2(_sum_gradient, lambda dx, dy, *, window, spatial: [_sum.bind(dx, window=window)])

_extreme = by_rules("jaxcnn_pool", lambda x, *, window, kind: pool(kind, x, window), examples=(True,))
_gather = primitive(
    "jaxcnn_pool_gather",
    lambda x, dx, *, window, kind: _window_pooling.gather_winners(x, dx, pool(kind, x, window)),
    examples=(True, True),
)
_scatter = by_rules(
    "jaxcnn_pool_scatter",
    lambda x, dy, *, window, kind: pool(f"{kind} gradient", x, window),
    examples=(True, True),
)


def _jvp(primals, tangents, **params):
    (x,), (dx,) = primals, tangents
    y = _extreme.bind(x, **params)
    return y, ad.Zero(y.aval.to_tangent_aval()) if isinstance(dx, ad.Zero) else _gather.bind(x, dx, **params)


ad.primitive_jvps[_extreme] = _jvp
linear_in(1, _gather, lambda dy, x, **params: _scatter.bind(x, dy, **params))
linear_in(1, _scatter, lambda dx, x, **params: _gather.bind(x, dx, **params))
