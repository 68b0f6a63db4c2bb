"""Convolution as sums of products of whole arrays, for groups with few channels, without packing them into matrices.

    y[n, i, f] = sum over taps k and channels c of a group of x[n, stride * i + dilation * k - low, c] * w[k, c, f]

XLA compiles a sum into one loop over y, with features in the lanes of vector registers.
"""

import functools
import itertools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._lowering._channels import vectorized_channel_sum
from jaxcnn._lowering._materialize import materialized
from jaxcnn._lowering._problem import Problem
from jaxcnn._lowering._taps import interleave, overlap_add, padded, tap_slices
from jaxcnn._window import Window

LANES = 16  # float32 values in the widest vector registers
_TERMS = 24  # per sum in one loop, approximately: their factors stay in registers
_PARTIAL_SUMS = 4  # of each loop
_BAND = 64  # maximum number of columns that are added in one expression; more only take longer to compile
_POSITIONS = 28  # of dy per loop iteration, approximately


def forward(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """The equation in the module docstring."""
    features, terms = problem.features, problem.window.taps * problem.channels_per_group
    # XLA computes the last features one by one if they do not fill all lanes. Zeros fill them.
    pads_lanes = problem.groups == 1 and features > 1 and (features > LANES or _loops(terms) > 1)
    spare = -features % LANES if pads_lanes else 0
    wide = jnp.pad(at_least_float32(w), ((0, 0),) * (w.ndim - 1) + ((0, spare),))
    products = (
        _times(values, _tap_weights(wide, (*tap, channel)))
        for channel, xp in enumerate(_by_channel(at_least_float32(x), problem))
        for tap, values in tap_slices(xp, problem.window)
    )
    return materialized(_sum_in_loops(products)[..., :features].astype(x.dtype))


def input_gradient_by_phases(dy: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    """Depthwise: dx[a] = sum of dy[i] * w[k] over all i and k with stride * i + dilation * k - low = a.

    Positions a with the same remainder modulo the stride (a phase) have the same taps k.
    """
    window, spatial = problem.window, problem.spatial
    dy, wide = materialized(at_least_float32(dy)), at_least_float32(w)
    if window.taps <= 9:  # XLA does not vectorize `overlap_add` of more parts
        products = [_times(dy, _tap_weights(wide, (*tap, 0))) for tap in np.ndindex(*window.size)]
        return materialized(overlap_add(products, window, spatial).astype(w.dtype))
    counts = [-(-n // s) for n, s in zip(spatial, window.stride, strict=True)]
    tap_offsets = [  # per dimension and phase: (tap, offset into dy)
        [[(k, (r + low - d * k) // s) for k in range(n) if (r + low - d * k) % s == 0] for r in range(s)]
        for n, s, d, (low, _), _ in zip(*window, strict=True)
    ]
    lows = [max(0, *(-at for phase in dim for _, at in phase)) for dim in tap_offsets]
    highs = [
        max(0, *(count + at - n for phase in dim for _, at in phase))
        for dim, count, n in zip(tap_offsets, counts, dy.shape[1:-1], strict=True)
    ]
    dyp = materialized(padded(dy, tuple(zip(lows, highs, strict=True))))

    examples, *_, features = dyp.shape

    def product(tap, at):
        start = [low + a for low, a in zip(lows, at, strict=True)]
        stop = [a + count for a, count in zip(start, counts, strict=True)]
        return _times(lax.slice(dyp, (0, *start, 0), (examples, *stop, features)), _tap_weights(wide, (*tap, 0)))

    zeros = jnp.zeros((examples, *counts, features), dyp.dtype)
    phases = [
        _sum_in_loops((product(*zip(*pairs, strict=True)) for pairs in itertools.product(*phase)), zeros)
        for phase in itertools.product(*tap_offsets)
    ]
    dx = interleave(phases, window.stride)[(slice(None), *map(slice, spatial))]
    return materialized(dx.astype(w.dtype))


def kernel_gradient_by_row(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """dw[k, c, f] = sum over all positions of dy[.., f] times the input at tap k of channel c of the group of f.

    One expression adds up to 64 columns, for all taps of one row of the kernel, so that x and dy are read once per row
    instead of once per tap. XLA vectorizes it over features, unlike a reduction. Then a reduction adds examples and
    rows.
    """
    dy = at_least_float32(dy)
    sums = [_kernel_rows(xp, dy, problem.window) for xp in _by_channel(at_least_float32(x), problem)]
    return jnp.stack(sums, -2).reshape(problem.kernel_shape).astype(x.dtype)


def _kernel_rows(xp: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """(rows of the kernel, columns of the kernel, F): the gradient for one channel of each group."""
    *_, width, features = dy.shape
    bands = -(-width // _BAND)
    columns = width // bands
    whole, stride, span = bands * columns, window.stride[-1], window.span[-1]
    xp_bands = _bands(xp, bands, stride * columns, stride * (columns - 1) + span)
    dy_bands = dy[..., :whole, :].reshape(*dy.shape[:-2], bands, columns, features)

    def gradient(row):
        row_stride = window.stride[:-1]
        start = [d * k for d, k in zip(window.dilation[:-1], row, strict=True)]
        stop = [a + s * (n - 1) + 1 for a, s, n in zip(start, row_stride, dy.shape[1:-2], strict=True)]
        steps = (1, *row_stride, 1, window.dilation[-1], 1)

        def product(column):
            """(N, *rows, bands, taps of the row, F). It slices rows and columns at once: XLA would copy sliced rows."""
            at = stride * column
            begin, end = (0, *start, 0, at, 0), (xp.shape[0], *stop, bands, at + span, xp.shape[-1])
            return lax.slice(xp_bands, begin, end, steps) * lax.slice_in_dim(dy_bands, column, column + 1, axis=-2)

        sums = materialized(_sum_in_loops(map(product, range(columns))))
        return vectorized_channel_sum(sums.reshape(-1, window.size[-1] * features))

    rows = jnp.stack([gradient(row) for row in np.ndindex(*window.size[:-1])]).reshape(-1, window.size[-1], features)
    if whole == width:
        return rows
    return rows + _kernel_rows(lax.slice_in_dim(xp, stride * whole, None, axis=-2), dy[..., whole:, :], window)


def _bands(x: jax.Array, count: int, step: int, width: int) -> jax.Array:
    """(..., columns, C) -> (..., count, width, C): bands of columns that start every `step` columns."""
    *lead, columns, channels = x.shape
    if count == 1:
        return lax.slice_in_dim(x, 0, width, axis=-2)[..., None, :, :]
    blocks = -(-width // step)  # of `step` columns per band
    x = jnp.pad(x, ((0, 0),) * len(lead) + ((0, max(0, step * (count + blocks - 1) - columns)), (0, 0)))
    shifted = (lax.slice_in_dim(x, step * i, step * (i + count), axis=-2) for i in range(blocks))
    wide = jnp.concatenate([part.reshape(*lead, count, step, channels) for part in shifted], -2)
    return materialized(lax.slice_in_dim(wide, 0, width, axis=-2))


def kernel_gradient_by_position(x: jax.Array, dy: jax.Array, problem: Problem) -> jax.Array:
    """Without groups: dw[k, c, f] = sum over positions p of shifted(x, k)[p, c] * dy[p, f], in a loop over rows.

    Each example has its own sums, which stay in a cache. An iteration of the loop adds about 28 outer products, one per
    position, to the sums of 16 features: their 28 vectors of dy fill most of the 32 vector registers. If channels fill
    the lanes better than features, x and dy change places.
    """
    if len(problem.spatial) == 1:  # treat a signal as an image with one column
        size, stride, dilation, padding, input_dilation = problem.window
        window = Window((*size, 1), (*stride, 1), (*dilation, 1), (*padding, (0, 0)), (*input_dilation, 1))
        problem = problem._replace(spatial=(*problem.spatial, 1), window=window)
        return kernel_gradient_by_position(x[:, :, None], dy[:, :, None], problem)[:, 0]
    (k_rows, k_columns), (s_rows, s_columns), (d_rows, d_columns), padding, _ = problem.window
    channels, (height, width, features) = x.shape[-1], dy.shape[1:]
    iterations = -(-height // min(height, max(1, round(_POSITIONS / width))))
    rows = -(-height // iterations)  # the last iteration may have fewer
    channels_in_lanes = -channels % LANES * features < -features % LANES * channels  # fewer zeros fill the lanes
    narrow, wide = (features, channels) if channels_in_lanes else (channels, features)
    blocks, spare = -(-wide // LANES), -wide % LANES
    fill_lanes = lambda a: jnp.pad(a, ((0, 0), (0, 0), (0, 0), (0, spare)))
    xp, dyp = padded(at_least_float32(x), padding), at_least_float32(dy)
    xp, dyp = materialized((fill_lanes(xp), dyp) if channels_in_lanes else (xp, fill_lanes(dyp)))
    shape = x.shape[0], blocks, k_rows, k_columns, narrow, LANES
    x_dims, dy_dims = ((0, 2, 3, 1, 5), (0, 4)) if channels_in_lanes else ((0, 2, 3, 4), (0, 1, 5))

    def add(sums, first_row, count):
        span_rows, span_columns = d_rows * (k_rows - 1) + 1, d_columns * (k_columns - 1) + 1
        x_rows = _copied_rows(xp, first_row * s_rows, s_rows * (count - 1) + span_rows)
        dy_rows = _copied_rows(dyp, first_row, count)
        if channels_in_lanes:
            x_rows = x_rows.reshape(*x_rows.shape[:-1], blocks, LANES)
        else:
            dy_rows = dy_rows.reshape(*dy_rows.shape[:-1], blocks, LANES)
        windows = (
            x_rows[:, top : top + span_rows : d_rows, left : left + span_columns : d_columns]
            for top, left in itertools.product(range(0, s_rows * count, s_rows), range(0, s_columns * width, s_columns))
        )
        positions = (dy_rows[:, i, j] for i, j in np.ndindex(count, width))
        products = (
            lax.broadcast_in_dim(window, shape, x_dims) * lax.broadcast_in_dim(position, shape, dy_dims)
            for window, position in zip(windows, positions, strict=True)
        )
        return _sum_in_loops(products, sums)

    sums = jnp.zeros(shape, xp.dtype)
    whole = height - height % rows
    sums, _ = lax.scan(lambda sums, row: (add(sums, row, rows), None), sums, jnp.arange(0, whole, rows))
    if whole < height:
        sums = add(sums, whole, height - whole)
    flat = materialized(sums).reshape(len(sums), -1)  # XLA would not vectorize a sum over the reshaped dimensions
    dw = jnp.moveaxis(vectorized_channel_sum(flat).reshape(shape[1:]), 0, -2)
    dw = dw.reshape(k_rows, k_columns, narrow, -1)[..., :wide].astype(x.dtype)
    return jnp.swapaxes(dw, -1, -2) if channels_in_lanes else dw


def _copied_rows(x: jax.Array, start: jax.Array, count: int) -> jax.Array:
    """(N, H, W, C) -> (N, count, W, C): consecutive rows, copied as one dimension, which XLA vectorizes for any C."""
    examples, _, width, channels = x.shape
    size = width * channels
    rows = lax.dynamic_slice_in_dim(x.reshape(examples, -1), start * size, count * size, 1)
    return materialized(rows).reshape(examples, count, width, channels)


def _by_channel(x: jax.Array, problem: Problem) -> list[jax.Array]:
    """Padded x for each channel of a group, repeated for each feature of the group (without groups: not repeated)."""
    pad = lambda x: padded(x, problem.window.padding, problem.window.input_dilation)
    channels, features, groups = problem.channels_per_group, problem.features, problem.groups
    if groups == 1:
        xp = materialized(pad(x))
        return [xp[..., c : c + 1] for c in range(channels)]
    grouped = x.reshape(*x.shape[:-1], groups, channels)
    wide = (*grouped.shape[:-1], features // groups)
    repeated = [jnp.broadcast_to(grouped[..., c, None], wide) for c in range(channels)]
    return [materialized(pad(part.reshape(*x.shape[:-1], features))) for part in repeated]


def _tap_weights(w: jax.Array, at: tuple[int, ...]) -> jax.Array:
    """w[*at, :], with the fewest operations, for a short compile time."""
    return lax.slice(w, (*at, 0), (*(i + 1 for i in at), w.shape[-1])).reshape(-1)


def _times(x: jax.Array, v: jax.Array) -> jax.Array:
    shape = (*x.shape[:-1], len(v))
    return lax.broadcast_in_dim(x, shape, range(x.ndim)) * lax.broadcast_in_dim(v, shape, (x.ndim - 1,))


def _sum_in_loops(terms: Iterable[jax.Array], start: jax.Array | None = None) -> jax.Array:
    """The sum of the terms, in loops of about 24 terms. Partial sums are stored between loops."""
    terms = list(terms) if start is None else [start, *terms]
    length = -(-len(terms) // _loops(len(terms)))
    total = _sum(terms[:length])
    for first in range(length, len(terms), length):
        total = _sum([materialized(total), *terms[first : first + length]])
    return total


def _sum(terms: list[jax.Array]) -> jax.Array:
    """The sum of four partial sums. In a single one, each addition would wait for the previous one."""
    partial = (functools.reduce(operator.add, terms[i::_PARTIAL_SUMS]) for i in range(min(_PARTIAL_SUMS, len(terms))))
    return functools.reduce(operator.add, partial)


def _loops(terms: int) -> int:
    return max(1, round(terms / _TERMS))
