"""Convolution as sums of products of whole arrays: where a group has few channels, nothing is copied or packed.

    y[n, i, f] = sum over taps k and channels c of a group of x[n, stride * i + dilation * k - low, c] * w[k, c, f]

A compiler makes one loop over y of it, with features in the lanes of vector registers.
"""

import collections
import itertools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import at_least_float32
from jaxcnn._lowering._channels import vectorized_channel_sum
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import interleave, overlap_add, padded, tap_slices
from jaxcnn._window import Window

LANES = 16  # of float32 in the widest registers there are
_TERMS = 24  # of a sum in one loop, about: their factors stay in registers
_BAND = 32  # columns whose products are written out as one sum
POSITIONS = 48  # of dy in one round of a loop
CACHED = 2**21  # values that stay in a cache between one use and the next


def forward(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The equation above."""
    features, terms = problem.features, problem.window.taps * problem.channels_per_group
    # Lanes that are left over are computed one by one, unless there is something to compute in them.
    fills = problem.groups == 1 < features and (features > LANES or _loops(terms) > 1)
    spare = -features % LANES if fills else 0
    wide = jnp.pad(at_least_float32(w), ((0, 0),) * (w.ndim - 1) + ((0, spare),))
    products = (
        _times(here, _factor(wide, (*tap, channel)))
        for channel, xp in enumerate(_by_channel(at_least_float32(x), problem))
        for tap, here in tap_slices(xp, problem.window)
    )
    return materialized(_summed(products)[..., :features].astype(x.dtype))


def input_gradient_by_phases(dy: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """Depthwise: dx[a] = sum of dy[i] * w[k] over all i and k that meet at a, stride * i + dilation * k - low = a.

    Positions with the same remainder by the stride meet the same taps.
    """
    window, spatial = problem.window, problem.spatial
    dy, wide = materialized(at_least_float32(dy)), at_least_float32(w)
    if window.taps <= 9:  # above, XLA does not vectorize what `overlap_add` makes
        products = [_times(dy, _factor(wide, (*tap, 0))) for tap in np.ndindex(*window.size)]
        return materialized(overlap_add(products, window, spatial).astype(w.dtype))
    counts = [-(-n // s) for n, s in zip(spatial, window.stride, strict=True)]
    meetings = [
        [[(k, (r + low - d * k) // s) for k in range(n) if (r + low - d * k) % s == 0] for r in range(s)]
        for n, s, d, (low, _), _ in zip(*window, strict=True)
    ]
    lows = [max(0, *(-at for phase in dim for _, at in phase)) for dim in meetings]
    highs = [
        max(0, *(count + at - n for phase in dim for _, at in phase))
        for dim, count, n in zip(meetings, counts, dy.shape[1:-1], strict=True)
    ]
    dyp = materialized(padded(dy, tuple(zip(lows, highs, strict=True))))

    def met(tap, at):
        start = [low + a for low, a in zip(lows, at, strict=True)]
        stop = [a + count for a, count in zip(start, counts, strict=True)]
        return _times(lax.slice(dyp, (0, *start, 0), (len(dyp), *stop, dyp.shape[-1])), _factor(wide, (*tap, 0)))

    nothing = jnp.zeros((len(dyp), *counts, dyp.shape[-1]), dyp.dtype)
    phases = [
        _summed((met(*zip(*pairs, strict=True)) for pairs in itertools.product(*phase)), nothing)
        for phase in itertools.product(*meetings)
    ]
    dx = interleave(phases, window.stride)[(slice(None), *map(slice, spatial))]
    return materialized(dx.astype(w.dtype))


def kernel_gradient_by_tap(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """With groups: dw[k, c, f] = sum of what tap k of channel c sees, times dy, over all positions.

    Up to 32 columns are added up in one expression, which is vectorized over channels as a reduction is not; the rest
    is a sum over examples and rows.
    """
    window, features, width = problem.window, problem.features, dy.shape[-2]
    columns = -(-width // -(-width // _BAND))
    stride = (*window.stride[:-1], window.stride[-1] * columns)

    def gradient(x, dy):
        sums = [sums_of_taps(xp, dy) for xp in _by_channel(x, problem)]
        return jnp.stack([jnp.stack(taps) for taps in zip(*sums, strict=True)])

    def sums_of_taps(xp, dy):
        """The sum for each tap of one channel."""
        for tap in np.ndindex(*window.size):
            start = [d * k for d, k in zip(window.dilation, tap, strict=True)]
            products = collections.defaultdict(list)  # by bands: the last one may have fewer columns
            for column in range(columns):
                at = (*start[:-1], start[-1] + window.stride[-1] * column)
                there = dy[..., column::columns, :]
                ends = [a + s * (n - 1) + 1 for a, s, n in zip(at, stride, there.shape[1:-1], strict=True)]
                here = lax.slice(xp, (0, *at, 0), (xp.shape[0], *ends, features), (1, *stride, 1))
                products[there.shape[-2]].append(here * there)
            yield sum(vectorized_channel_sum(materialized(_summed(some))) for some in products.values())

    return (
        _over_examples(gradient, at_least_float32(x), at_least_float32(dy))
        .reshape(problem.kernel_shape)
        .astype(x.dtype)
    )


def _over_examples(gradient: Callable[..., jax.Array], x: jax.Array, dy: jax.Array) -> jax.Array:
    """gradient(x, dy), in a loop over as many examples as a cache holds."""
    examples = dy.shape[0]
    if not isinstance(examples, int) or x.size <= CACHED:
        return gradient(x, dy)
    most = max(1, CACHED * examples // x.size)
    few = max(n for n in range(1, most + 1) if examples % n == 0)
    parts = [a.reshape(-1, few, *a.shape[1:]) for a in (x, dy)]
    zero = jnp.zeros_like(jax.eval_shape(gradient, *(part[0] for part in parts)))
    return lax.scan(lambda dw, part: (dw + gradient(*part), None), zero, parts)[0]


def kernel_gradient_by_position(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """Without groups: dw[k, c, f] = sum over positions p of shifted(x, k)[p, c] * dy[p, f], some rows at a time.

    As in `forward`, dy's positions taking the part of the taps: each example has its own sums, in a cache, and adds to
    them the outer products of 24 positions in one loop.
    """
    if len(problem.spatial) == 1:  # a signal is an image of one column
        size, stride, dilation, padding, input_dilation = problem.window
        window = Window((*size, 1), (*stride, 1), (*dilation, 1), (*padding, (0, 0)), (*input_dilation, 1))
        problem = problem._replace(spatial=(*problem.spatial, 1), window=window)
        return kernel_gradient_by_position(x[:, :, None], dy[:, :, None], problem)[:, 0]
    (high, wide), (down, right), (far, apart), padding, _ = problem.window
    height, width, features = dy.shape[1:]
    rounds = -(-height // min(height, -(-POSITIONS // width)))
    rows = -(-height // rounds)  # the last round may have fewer
    lanes = features + -features % LANES
    xp, dyp = materialized((padded(at_least_float32(x), padding), at_least_float32(dy)))

    def add(sums, row, rows):
        reach = down * (rows - 1) + far * (high - 1) + 1
        here, there = materialized(
            (
                lax.dynamic_slice_in_dim(xp, row * down, reach, 1),
                _longer(lax.dynamic_slice_in_dim(dyp, row, rows, 1), 3, lanes),
            )
        )
        windows = (
            here[
                :,
                down * i : down * i + far * (high - 1) + 1 : far,
                right * j : right * j + apart * (wide - 1) + 1 : apart,
            ]
            for i, j in np.ndindex(rows, width)
        )
        positions = (there[:, i, j, None, None, None] for i, j in np.ndindex(rows, width))
        return _summed((x[..., None] * dy for x, dy in zip(windows, positions, strict=True)), sums)

    sums = jnp.zeros((x.shape[0], high, wide, x.shape[-1], lanes), xp.dtype)
    whole = height - height % rows
    sums, _ = lax.scan(lambda sums, row: (add(sums, row, rows), None), sums, jnp.arange(0, whole, rows))
    if whole < height:
        sums = add(sums, whole, height - whole)
    dw = vectorized_channel_sum(sums.reshape(len(sums), -1)).reshape(sums.shape[1:])
    return dw[..., :features].astype(x.dtype)


def _by_channel(x: jax.Array, problem: Problem) -> list[jax.Array]:
    """Padded x for each channel of a group, as often as the group has features; without groups, once."""
    pad = lambda x: padded(x, problem.window.padding, problem.window.input_dilation)
    channels, features, groups = problem.channels_per_group, problem.features, problem.groups
    if groups == 1:
        xp = materialized(pad(x))
        return [xp[..., c : c + 1] for c in range(channels)]
    grouped = x.reshape(*x.shape[:-1], groups, channels)
    wide = (*grouped.shape[:-1], features // groups)
    repeated = [jnp.broadcast_to(grouped[..., c, None], wide) for c in range(channels)]
    return materialized([pad(part.reshape(*x.shape[:-1], features)) for part in repeated])


def _factor(w: jax.Array, at: tuple[int, ...]) -> jax.Array:
    """w[*at, :], in as few operations as there can be: many of them make a program that takes long to compile."""
    return lax.slice(w, (*at, 0), (*(i + 1 for i in at), w.shape[-1])).reshape(-1)


def _times(x: jax.Array, v: jax.Array) -> jax.Array:
    shape = (*x.shape[:-1], len(v))
    return lax.broadcast_in_dim(x, shape, range(x.ndim)) * lax.broadcast_in_dim(v, shape, (x.ndim - 1,))


def _summed(terms: Iterable[jax.Array], start: jax.Array | None = None) -> jax.Array:
    """The sum of the terms, in loops of about 24; what is left of them is kept between two loops."""
    terms = list(terms)
    length = -(-len(terms) // _loops(len(terms)))
    for number, term in enumerate(terms):
        if number and number % length == 0:
            start = materialized(start)
        start = term if start is None else start + term
    if start is None:
        raise ValueError("a sum of no terms")
    return start


def _loops(terms: int) -> int:
    return max(1, round(terms / _TERMS))


def _longer(x: jax.Array, axis: int, length: int) -> jax.Array:
    """x with zeros at the end of a dimension, up to that length."""
    around = [(0, max(length - n, 0) if i == axis else 0, 0) for i, n in enumerate(x.shape)]
    return lax.pad(x, np.zeros((), x.dtype), around)
