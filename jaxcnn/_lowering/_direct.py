"""Convolution as sums of products of whole arrays: where a group has few channels, nothing is copied or packed.

    y[n, i, f] = sum over taps k and channels c of a group of x[n, stride * i + dilation * k - low, c] * w[k, c, f]

A compiler makes one loop over y of it, with features in the lanes of vector registers. The times, in ms, are medians
on 2 cores of an AMD EPYC (Zen 5), jaxlib 0.10.2; "plain" is `lax` with the options of `jaxcnn.jit`.
"""

import collections
import itertools
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import widened
from jaxcnn._lowering._channels import total_on_cpu
from jaxcnn._lowering._plain_conv import Geometry
from jaxcnn._lowering._taps import MOST_TAPS, interleaved, padded, put_back, shifts

_LANES = 16  # of float32 in the widest registers there are
_TERMS = 24  # of a sum in one loop, about: their factors stay in registers; with all 144 of 3x3 16->16, 6.7 ms for 2.6
_MOST_TERMS = 160  # above, the programs get long
_BAND = 32  # columns whose products are written out as one sum
_POSITIONS = 48  # of dy in one round of a loop
_CACHED = 2**21  # values that stay in a cache between one use and the next


def worth(w: jax.Array | jax.ShapeDtypeStruct, geometry: Geometry) -> bool:
    """For groups of up to 4 channels, and without groups for 8, or 16 if there are no more features than that."""
    *size, channels, features = w.shape
    terms = math.prod(size) * channels
    if geometry.groups > 1:
        return channels <= 4 and terms <= MOST_TAPS
    few = channels <= 8 or channels <= 16 >= features
    return few and terms <= _MOST_TERMS and set(geometry.lhs_dilation) == {1}


def forward(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """The equation above.

    This, plain, PyTorch: depthwise 3x3, 128 channels, 28 x 28, batch 16: 0.5, 31, 0.2; 7x7, 96 channels: 0.9, 54, 0.4;
    3x3, 128 channels in 32 groups: 2.4, 25, 1.2; 3x3, 3 to 16, 32 x 32, batch 128: 0.7, 2.5, 0.6; 5x5, 1 to 6, 28 x 28,
    batch 128: 0.4, 2.5, 0.4; 3x3, 16 to 16, 32 x 32, batch 128: 2.6, 3.5, 2.0.
    """
    *size, channels, features = w.shape
    # Lanes that are left over are computed one by one, unless there is something to compute in them.
    fills = geometry.groups == 1 < features and (features > _LANES or _loops(math.prod(size) * channels) > 1)
    spare = -features % _LANES if fills else 0
    wide = jnp.pad(widened(w), ((0, 0),) * (w.ndim - 1) + ((0, spare),))
    seen = (
        _times(here, _factor(wide, (*tap, channel)))
        for channel, xp in enumerate(_by_channel(widened(x), channels, features, geometry))
        for tap, here in shifts(xp, tuple(size), geometry.stride, geometry.rhs_dilation)
    )
    # Without the barrier, each of the users of y would compute it for itself.
    return lax.optimization_barrier(_summed(seen)[..., :features].astype(x.dtype))


def worth_phases(w: jax.Array, geometry: Geometry) -> bool:
    """For strided depthwise kernels, whose gradient would meet mostly zeros between the positions of dy."""
    return (
        worth(w, geometry)
        and w.shape[-2:] == (1, geometry.groups)
        and set(geometry.stride) != {1}
        and set(geometry.lhs_dilation) == {1}
    )


def backward_x(dy: jax.Array, w: jax.Array, geometry: Geometry, spatial: tuple[int, ...]) -> jax.Array:
    """dx[a] = sum of dy[i] * w[k] over all i and k that meet at a, stride * i + dilation * k - low = a.

    Positions with the same remainder by the stride meet the same taps. 3x3/2, 128 channels, 28 x 28, batch 16: 0.2 ms,
    with zeros in dy 0.6, PyTorch 0.2; 5x5/2, 96 channels: 0.2, 1.0, 0.2.
    """
    *size, _, _ = w.shape
    dy, wide = lax.optimization_barrier(widened(dy)), widened(w)
    if math.prod(size) <= 9:  # above, XLA does not vectorise what `put_back` makes
        products = [_times(dy, _factor(wide, (*tap, 0))) for tap in np.ndindex(*size)]
        dx = put_back(products, geometry.window(tuple(size)), spatial)
        return lax.optimization_barrier(dx.astype(w.dtype))
    counts = [-(-n // s) for n, s in zip(spatial, geometry.stride, strict=True)]
    meetings = [
        [[(k, (r + low - d * k) // s) for k in range(n) if (r + low - d * k) % s == 0] for r in range(s)]
        for n, s, d, (low, _) in zip(size, geometry.stride, geometry.rhs_dilation, geometry.padding, strict=True)
    ]
    lows = [max(0, *(-at for phase in dim for _, at in phase)) for dim in meetings]
    highs = [
        max(0, *(count + at - n for phase in dim for _, at in phase))
        for dim, count, n in zip(meetings, counts, dy.shape[1:-1], strict=True)
    ]
    dyp = lax.optimization_barrier(padded(dy, tuple(zip(lows, highs, strict=True))))

    def met(tap, at):
        start = [low + a for low, a in zip(lows, at, strict=True)]
        stop = [a + count for a, count in zip(start, counts, strict=True)]
        return _times(lax.slice(dyp, (0, *start, 0), (len(dyp), *stop, dyp.shape[-1])), _factor(wide, (*tap, 0)))

    nothing = jnp.zeros((len(dyp), *counts, dyp.shape[-1]), dyp.dtype)
    phases = [
        _summed((met(*zip(*pairs, strict=True)) for pairs in itertools.product(*phase)), nothing)
        for phase in itertools.product(*meetings)
    ]
    dx = interleaved(phases, geometry.stride)[(slice(None), *map(slice, spatial))]
    return lax.optimization_barrier(dx.astype(w.dtype))


def backward_w(x: jax.Array, dy: jax.Array, geometry: Geometry, w: jax.ShapeDtypeStruct) -> jax.Array:
    """With groups: dw[k, c, f] = sum of what tap k of channel c sees, times dy, over all positions.

    Up to 32 columns are added up in one expression, which is vectorised over channels as a reduction is not; the rest
    is a sum over examples and rows. This, plain, PyTorch: depthwise 3x3, 128 channels, 28 x 28, batch 16: 1.0, 15, 0.2;
    7x7, 96 channels: 3.5, 31, 4.4.
    """
    *size, channels, features = w.shape
    *_, width, _ = dy.shape
    columns = -(-width // -(-width // _BAND))
    stride = (*geometry.stride[:-1], geometry.stride[-1] * columns)

    def gradient(x, dy):
        xs = _by_channel(x, channels, features, geometry)
        sums = [_taps(xp, dy) for xp in xs]
        return jnp.stack([jnp.stack(taps) for taps in zip(*sums, strict=True)])

    def _taps(xp, dy):
        """The sum for each tap of one channel."""
        for tap in np.ndindex(*size):
            start = [d * k for d, k in zip(geometry.rhs_dilation, tap, strict=True)]
            products = collections.defaultdict(list)  # by bands: the last one may have fewer columns
            for column in range(columns):
                at = (*start[:-1], start[-1] + geometry.stride[-1] * column)
                there = dy[..., column::columns, :]
                ends = [a + s * (n - 1) + 1 for a, s, n in zip(at, stride, there.shape[1:-1], strict=True)]
                here = lax.slice(xp, (0, *at, 0), (xp.shape[0], *ends, features), (1, *stride, 1))
                products[there.shape[-2]].append(here * there)
            # As one program with the total, it would not be vectorised.
            yield sum(total_on_cpu(lax.optimization_barrier(_summed(some))) for some in products.values())

    return _over_examples(gradient, widened(x), widened(dy)).reshape(w.shape).astype(w.dtype)


def _over_examples(gradient: Callable[..., jax.Array], x: jax.Array, dy: jax.Array) -> jax.Array:
    """gradient(x, dy), in a loop over as many examples as a cache holds: 112 x 112, 64 channels: 9 ms, at once 32."""
    examples = dy.shape[0]
    if not isinstance(examples, int) or x.size <= _CACHED:
        return gradient(x, dy)
    most = max(1, _CACHED * examples // x.size)
    few = max(n for n in range(1, most + 1) if examples % n == 0)
    parts = [a.reshape(-1, few, *a.shape[1:]) for a in (x, dy)]
    zero = jnp.zeros_like(jax.eval_shape(gradient, *(part[0] for part in parts)))
    return lax.scan(lambda dw, part: (dw + gradient(*part), None), zero, parts)[0]


def worth_outer(x: jax.Array, dy: jax.Array, geometry: Geometry, size: tuple[int, ...]) -> bool:
    """For up to 16 channels or features, in rows that are not too long, if all sums fit into a cache.

    There must be enough of them to make up for the rounds of the loop (1-D, 9 taps, 1 to 32 channels, batch 32: 3.3 ms
    for 2.0), and enough positions to make up for the sums of each example (7x7, 8 to 6, on 7 x 7: 1.6 for 0.3).
    """
    examples, channels, features = x.shape[0], x.shape[-1], dy.shape[-1]
    return (
        len(size) <= 2
        and set(geometry.lhs_dilation) == {1}
        and min(channels, features) <= _LANES
        and (len(size) == 1 or dy.shape[2] <= 256)
        and math.prod(dy.shape[1:-1]) >= 2 * _POSITIONS
        and isinstance(examples, int)
        and 2**15 <= examples * math.prod(size) * channels * max(features, _LANES) <= 2 * _CACHED
    )


def outer(x: jax.Array, dy: jax.Array, geometry: Geometry, size: tuple[int, ...]) -> jax.Array:
    """Without groups: dw[k, c, f] = sum over positions p of shifted(x, k)[p, c] * dy[p, f], some rows at a time.

    As in `forward`, dy's positions taking the part of the taps: each example has its own sums, in a cache, and adds to
    them the products of 24 positions in one loop. This, as a convolution, PyTorch: 3x3, 16 to 16, 32 x 32, batch 128:
    3.8, 7.9, 1.5; 3x3, 3 to 16: 0.9, 2.3, 0.4; 5x5, 1 to 6, 28 x 28: 0.5, 1.0, 0.3.
    """
    if len(size) == 1:  # a signal is a picture of one column
        stride, padding, lhs_dilation, rhs_dilation, _ = geometry
        wider = Geometry((*stride, 1), (*padding, (0, 0)), (*lhs_dilation, 1), (*rhs_dilation, 1), 1)
        return outer(x[:, :, None], dy[:, :, None], wider, (*size, 1))[:, 0]
    (high, wide), (down, right), (far, apart) = size, geometry.stride, geometry.rhs_dilation
    height, width, features = dy.shape[1:]
    rounds = -(-height // min(height, -(-_POSITIONS // width)))
    rows = -(-height // rounds)  # the last round may have fewer
    lanes = features + -features % _LANES
    xp, dyp = lax.optimization_barrier((padded(widened(x), geometry.padding), widened(dy)))

    def add(sums, row, rows):
        reach = down * (rows - 1) + far * (high - 1) + 1
        # Without the barrier, the slices become part of each sum, which then is not vectorised.
        here, there = lax.optimization_barrier(
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
    dw = total_on_cpu(sums.reshape(len(sums), -1)).reshape(sums.shape[1:])
    return dw[..., :features].reshape(*size, x.shape[-1], features).astype(x.dtype)


def _by_channel(x: jax.Array, channels: int, features: int, geometry: Geometry) -> list[jax.Array]:
    """Padded x for each channel of a group, as often as the group has features; without groups, once."""
    pad = lambda x: padded(x, geometry.padding, geometry.lhs_dilation)
    if geometry.groups == 1:
        xp = lax.optimization_barrier(pad(x))
        return [xp[..., c : c + 1] for c in range(channels)]
    grouped = x.reshape(*x.shape[:-1], geometry.groups, channels)
    wide = (*grouped.shape[:-1], features // geometry.groups)
    repeated = [jnp.broadcast_to(grouped[..., c, None], wide) for c in range(channels)]
    return lax.optimization_barrier([pad(part.reshape(*x.shape[:-1], features)) for part in repeated])


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
            start = lax.optimization_barrier(start)
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
