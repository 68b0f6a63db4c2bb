"""Slow reference implementations from the textbook definitions, in NumPy float64.

Inputs are channels-last (N, *spatial, C) and kernels (*window, C_in / groups, C_out), for any number of spatial
dimensions. Options have one entry per dimension. `pads` are pairs (low, high).
"""

import itertools
import math

import numpy as np


def assert_close(actual, expected, tolerance=1e-5):
    """Check equal shapes and absolute errors of at most `tolerance` * max(1, largest expected magnitude)."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=1.0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def each(value, rank):
    """`value` as a tuple with one entry per dimension."""
    return tuple(value) if isinstance(value, tuple | list) else (value,) * rank


def first_taps(n, size, stride, pad, dilation, ceil_mode=False):
    """The input position of the first tap of each window. Negative positions are in the leading padding."""
    low, high = pad
    span = dilation * (size - 1) + 1
    if not ceil_mode:
        return list(range(-low, n + high - span + 1, stride))
    # One more window if the previous one does not reach the end. It must not start in the trailing padding.
    return [at for at in range(-low, n, stride) if at - stride + span < n + high]


def padding_pairs(padding, spatial, size, stride, dilation):
    """Convert `padding`, a name, an int or one entry per dimension, to pairs (low, high)."""
    if not isinstance(padding, str):
        return tuple(
            tuple(entry) if isinstance(entry, tuple | list) else (entry, entry) for entry in each(padding, len(spatial))
        )
    return tuple(_named_padding(padding, *options) for options in zip(spatial, size, stride, dilation, strict=True))


def _named_padding(name, n, size, stride, dilation):
    if name == "VALID":
        return (0, 0)
    if name == "CAUSAL":
        return (dilation * (size - 1), 0)
    total = 0  # the smallest padding that gives ceil(n / stride) outputs
    while len(first_taps(n, size, stride, (0, total), dilation)) < math.ceil(n / stride):
        total += 1
    smaller, larger = total // 2, math.ceil(total / 2)
    return {"SAME": (smaller, larger), "SAME_LOWER": (larger, smaller)}[name]


def source(position, n, mode):
    """The input position that the padding mode copies to `position` of the padded input. None for a zero."""
    if 0 <= position < n:
        return position
    if mode == "zeros":
        return None
    if mode == "replicate":
        return 0 if position < 0 else n - 1
    if mode == "circular":
        return position % n
    if mode == "reflect" and n > 1:
        return source(-position if position < 0 else 2 * (n - 1) - position, n, mode)
    return 0


def conv(x, kernel, stride, pads, dilation, groups=1, mode="zeros"):
    """y[i, f] += x[stride * i + dilation * k - low, c] * kernel[k, c, f], for taps k and the channels c of a group."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    spatial, (*size, per_group, features) = x.shape[1:-1], kernel.shape
    starts = [first_taps(*options) for options in zip(spatial, size, stride, pads, dilation, strict=True)]
    y = np.zeros((len(x), *map(len, starts), features))
    for place in np.ndindex(*map(len, starts)):
        for tap in np.ndindex(*size):
            at = [start[i] + d * k for start, i, d, k in zip(starts, place, dilation, tap, strict=True)]
            at = [source(a, n, mode) for a, n in zip(at, spatial, strict=True)]
            if None in at:
                continue
            for f in range(features):
                group = f // (features // groups)
                channels = slice(group * per_group, (group + 1) * per_group)
                y[:, *place, f] += x[:, *at, channels] @ kernel[*tap, :, f]
    return y


def conv_transpose(x, kernel, stride, pads, dilation, groups=1, output_padding=None):
    """y[stride * i + dilation * k - low, f] += x[i, c] * kernel[k, c, f]; `pads` are cropped from y."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    spatial, (*size, per_group, features) = x.shape[1:-1], kernel.shape
    output_padding = output_padding or (0,) * len(spatial)
    out = [
        s * (n - 1) + d * (k - 1) + 1 - low - high + more
        for n, k, s, (low, high), d, more in zip(spatial, size, stride, pads, dilation, output_padding, strict=True)
    ]
    y = np.zeros((len(x), *out, features))
    for i in np.ndindex(*spatial):
        for tap in np.ndindex(*size):
            at = [s * a + d * k - low for a, k, s, d, (low, _) in zip(i, tap, stride, dilation, pads, strict=True)]
            if not all(0 <= a < n for a, n in zip(at, out, strict=True)):
                continue
            for f in range(features):
                group = f // (features // groups)
                channels = slice(group * per_group, (group + 1) * per_group)
                y[:, *at, f] += x[:, *i, channels] @ kernel[*tap, :, f]
    return y


def windows(spatial, size, stride, pads, dilation, ceil_mode=False):
    """The output shape and a table: output position -> (input positions in the window, their count with padding).

    The input positions are in row-major order.
    """
    starts = [first_taps(*options, ceil_mode) for options in zip(spatial, size, stride, pads, dilation, strict=True)]
    table = {}
    for place in np.ndindex(*map(len, starts)):
        taps = [
            [start[i] + d * k for k in range(count)]
            for start, i, d, count in zip(starts, place, dilation, size, strict=True)
        ]
        inside = [[a for a in at if 0 <= a < n] for at, n in zip(taps, spatial, strict=True)]
        padded = [[a for a in at if a < n + high] for at, n, (_, high) in zip(taps, spatial, pads, strict=True)]
        table[place] = list(itertools.product(*inside)), math.prod(map(len, padded))
    return tuple(map(len, starts)), table


def bins(spatial, out):
    """`windows` of adaptive pooling, as in PyTorch: bin i is floor(i * n / out) .. ceil((i + 1) * n / out)."""
    table = {}
    for place in np.ndindex(*out):
        ranges = [
            range(math.floor(i * n / bins), math.ceil((i + 1) * n / bins))
            for i, n, bins in zip(place, spatial, out, strict=True)
        ]
        table[place] = list(itertools.product(*ranges)), math.prod(map(len, ranges))
    return tuple(out), table


def pool(x, windows, reduce):
    """y[place] = reduce(values in the window (N, positions, C), number of positions with padding)."""
    shape, table = windows
    y = np.zeros((len(x), *shape, x.shape[-1]), x.dtype)
    for place, (positions, count) in table.items():
        y[:, *place] = reduce(np.stack([x[:, *at] for at in positions], axis=1), count)
    return y


def largest(values, count):
    return values.max(axis=1)


def smallest(values, count):
    return values.min(axis=1)


def mean_without_padding(values, count):
    return values.mean(axis=1)


def mean_with_padding(values, count):
    return values.sum(axis=1) / count


def norm(p):
    return lambda values, count: (np.abs(values) ** p).sum(axis=1) ** (1 / p)


def pool_gradient(x, dy, windows, best=np.argmax):
    """The gradient of a max pool, or of a min pool with np.argmin. The first of equal values receives all of it."""
    dx = np.zeros(x.shape)
    for place, (positions, _) in windows[1].items():
        values = np.stack([x[:, *at] for at in positions], axis=1)
        for n, c in np.ndindex(len(x), x.shape[-1]):
            dx[n, *positions[best(values[n, :, c])], c] += dy[n, *place, c]
    return dx


def blur(x, size, stride):
    """Convolve each channel with the outer product of binomial coefficients, with reflect padding."""
    kernel = np.ones(())
    for taps in size:
        kernel = np.multiply.outer(kernel, [math.comb(taps - 1, k) for k in range(taps)])
    kernel = np.stack([kernel / kernel.sum()] * x.shape[-1], axis=-1)[..., None, :]
    pads = [((taps - 1) // 2, taps // 2) for taps in size]
    return conv(x, kernel, stride, pads, (1,) * len(size), groups=x.shape[-1], mode="reflect")
