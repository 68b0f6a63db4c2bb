"""Random layers: they add noise in training, against overfitting, and are the identity in evaluation.

Dropout scales up the values that it keeps, so that the expected output is the same in training and evaluation. It is
like training an ensemble of many thinned networks that share their weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_number
from jaxcnn._array import as_array, as_floating, at_least_float32, spatial_rank
from jaxcnn._key import require_key
from jaxcnn._layer import Layer, constructor
from jaxcnn._number import is_zero
from jaxcnn._sampling import is_random


def check_rate(name: str, rate: Any) -> Any:
    """Return `rate` if it is a dropout probability, in [0, 1)."""
    return check_number(name, "rate", rate, 0, 1)


@constructor
def dropout(rate: float) -> Layer:
    """(...) -> the same: in training, sets each value to zero with probability `rate`.

    y = x * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each value

    Args:
        rate: probability of setting a value to zero, in [0, 1).

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a rate outside [0, 1), or in training without a key.

    Example:
        >>> layer = jaxcnn.dropout(0.5)
        >>> y, _ = layer.apply({}, {}, jnp.ones(1000), train=True, key=jax.random.key(0))
        >>> sorted(set(y.tolist()))
        [0.0, 2.0]

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.
    """
    return _random("dropout", check_rate("dropout", rate), drop)


@constructor
def spatial_dropout(rate: float) -> Layer:
    """(N, *spatial, C) -> the same: in training, sets whole channels of an example to zero.

    y[n, :, c] = x[n, :, c] * keep / (1 - rate),  keep ~ Bernoulli(1 - rate) for each n, c

    Neighboring pixels are similar, so dropping single pixels removes little information.

    Args:
        rate: probability of setting a channel to zero, in [0, 1).

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a rate outside [0, 1), a wrong rank, or in training without a key.

    Example:
        >>> layer = jaxcnn.spatial_dropout(0.5)
        >>> y, _ = layer.apply({}, {}, jnp.ones((1, 4, 4, 100)), train=True, key=jax.random.key(0))
        >>> sorted(set(y.sum((1, 2)).ravel().tolist()))
        [0.0, 32.0]

    Source: Tompson et al., "Efficient object localization using convolutional networks", 2015.
    """
    return _random("spatial_dropout", check_rate("spatial_dropout", rate), drop_channels)


@constructor
def drop_block(rate: float, block_size: int = 7) -> Layer:
    """(N, *spatial, C) -> the same: in training, sets square blocks of each channel to zero.

    y = x * keep * size(keep) / sum(keep),  keep = 0 in every block that starts at a seed,
    seed ~ Bernoulli(rate * prod over dimensions d of spatial_d / (block_size * (spatial_d - block_size + 1)))

    Args:
        rate: probability of setting a value to zero, in [0, 1); approximate, as blocks may overlap.
        block_size: side of a block, in positions; along a dimension with fewer positions, their number.

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a rate outside [0, 1), a block_size below 1, a wrong rank, or in training without a key.

    Example:
        >>> layer = jaxcnn.drop_block(0.25, 3)
        >>> y, _ = layer.apply({}, {}, jnp.ones((4, 16, 16, 8)), train=True, key=jax.random.key(0))
        >>> bool(0.15 < (y == 0).mean() < 0.3)
        True

    Source: Ghiasi, Lin and Le, "DropBlock: a regularization method for convolutional networks", 2018.
    """
    block_size = check_integer("drop_block", "block_size", block_size)

    def drop_blocks(key, rate, x):
        rank = spatial_rank(x, "drop_block")
        spatial = x.shape[1:-1]
        blocks = [min(block_size, n) for n in spatial]
        positions = [n - block + 1 for n, block in zip(spatial, blocks, strict=True)]
        density = rate
        for n, block, count in zip(spatial, blocks, positions, strict=True):
            density *= n / (block * count)
        seeds = bernoulli(key, jnp.minimum(density, 1.0), (x.shape[0], *positions, x.shape[-1]))
        dropped = lax.reduce_window(
            seeds.astype(jnp.float32),
            -jnp.inf,
            lax.max,
            window_dimensions=(1, *blocks, 1),
            window_strides=(1,) * (rank + 2),
            padding=((0, 0), *((block - 1, block - 1) for block in blocks), (0, 0)),
        )
        keep, wide = dropped == 0, at_least_float32(x)
        scale = keep.size / jnp.maximum(keep.sum(dtype=wide.dtype), 1)
        return jnp.where(keep, wide * scale, 0).astype(x.dtype)

    return _random("drop_block", check_rate("drop_block", rate), drop_blocks)


@constructor
def gaussian_dropout(rate: float) -> Layer:
    """(...) -> the same: in training, multiplies each value by Gaussian noise with mean 1.

    y = x * (1 + sqrt(rate / (1 - rate)) * e),  e ~ N(0, 1) for each value

    The noise has the mean and variance of `dropout` with the same rate.

    Args:
        rate: that of the `dropout` with the same mean and variance, in [0, 1).

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a rate outside [0, 1), or in training without a key.

    Example:
        >>> layer = jaxcnn.gaussian_dropout(0.5)
        >>> y, _ = layer.apply({}, {}, jnp.ones(10000), train=True, key=jax.random.key(0))
        >>> bool(abs(y.mean() - 1) < 0.05 and abs(y.std() - 1) < 0.05)
        True

    Source: Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014, section 10.
    """

    def multiply(key, rate, x):
        stddev = jnp.asarray((rate / (1 - rate)) ** 0.5, x.dtype)
        return x * (1 + stddev * jax.random.normal(key, x.shape, x.dtype))

    return _random("gaussian_dropout", check_rate("gaussian_dropout", rate), multiply)


@constructor
def gaussian_noise(stddev: float) -> Layer:
    """(...) -> the same: in training, y = x + stddev * e,  e ~ N(0, 1) for each value.

    Args:
        stddev: standard deviation of the noise, in units of x.

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a negative stddev, or in training without a key.

    Example:
        >>> layer = jaxcnn.gaussian_noise(0.1)
        >>> y, _ = layer.apply({}, {}, jnp.zeros(10000), train=True, key=jax.random.key(0))
        >>> bool(abs(y.std() - 0.1) < 0.01)
        True

    Source: Bishop, "Training with noise is equivalent to Tikhonov regularization", 1995.
    """
    stddev = check_number("gaussian_noise", "stddev", stddev)

    def add(key, stddev, x):
        return x + jnp.asarray(stddev, x.dtype) * jax.random.normal(key, x.shape, x.dtype)

    return _random("gaussian_noise", stddev, add)


@constructor
def alpha_dropout(rate: float) -> Layer:
    """(...) -> the same: dropout for networks with `jax.nn.selu`; keeps mean 0 and variance 1.

    y = a * (x if keep else s) + b,  s = -scale * alpha of SELU,
    a = (q + s^2 q (1 - q))^(-1/2),  b = -a (1 - q) s,  q = 1 - rate

    Args:
        rate: probability of replacing a value by s, in [0, 1).

    Raises:
        TypeError: in training, for input that is not floating-point.
        ValueError: for a rate outside [0, 1), or in training without a key.

    Example:
        >>> x = jax.random.normal(jax.random.key(1), (10000,))
        >>> y, _ = jaxcnn.alpha_dropout(0.5).apply({}, {}, x, train=True, key=jax.random.key(0))
        >>> bool(abs(y.mean()) < 0.05 and abs(y.var() - 1) < 0.05)
        True

    Source: Klambauer et al., "Self-normalizing neural networks", 2017.
    """

    def drop_to_saturation(key, rate, x):
        saturation = -1.7580993408473766  # the limit of SELU at minus infinity
        q = 1 - rate
        a = (q + saturation**2 * q * (1 - q)) ** -0.5
        keep = bernoulli(key, q, x.shape)
        scale, shift = (jnp.asarray(value, x.dtype) for value in (a, a * (1 - q) * saturation))
        return scale * jnp.where(keep, x, saturation) - shift

    return _random("alpha_dropout", check_rate("alpha_dropout", rate), drop_to_saturation)


def bernoulli(key: jax.Array, p: float | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """True with probability p; draws the same values with and without 64-bit types enabled."""
    return jax.random.bernoulli(key, jnp.float32(p), shape)


def drop(key: jax.Array, rate: float, x: jax.Array, shape: tuple[int, ...] | None = None) -> jax.Array:
    """Set values to zero with probability `rate` and divide the others by 1 - rate. `shape`: that of the mask."""
    keep = bernoulli(key, 1 - rate, x.shape if shape is None else shape)
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), 0)


def drop_channels(key: jax.Array, rate: float, x: jax.Array) -> jax.Array:
    """`drop` with one random value per example and channel."""
    rank = spatial_rank(x, "spatial_dropout")
    return drop(key, rate, x, (x.shape[0], *(1,) * rank, x.shape[-1]))


def drop_examples(key: jax.Array, rate: float, x: jax.Array) -> jax.Array:
    """`drop` with one random value per example."""
    return drop(key, rate, x, (x.shape[0],) + (1,) * (x.ndim - 1))


def _random(name: str, amount: float, noise: Callable[[jax.Array, float, jax.Array], jax.Array]) -> Layer:
    """A layer that computes `noise(key, amount, x)` if it is random; the identity in evaluation or with amount 0."""

    def apply(params, state, x, *, train, key=None):
        # Random in training; in evaluation only inside `monte_carlo`, which asks for it by an entry of the state.
        if not is_random(state, train) or is_zero(amount):
            return jax.tree.map(as_array, x), state
        return noise(require_key(key, name), amount, as_floating(x, name)), state

    return Layer(lambda key, x: ({}, {}), apply)
