"""Biases and batch norm, with channel sums and gradients that are fast on a CPU."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._lowering._channels import affine, broadcast, channel_moments, first_row_sum
from jaxcnn._lowering._materialize import stored_gradient
from jaxcnn._number import is_zero
from jaxcnn._numeric import inverse_sqrt_or_zero


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """(N, *spatial, C), (C,) -> (N, *spatial, C): y + bias. Its gradient is stored once for bias and y."""
    return stored_gradient(y + broadcast(bias.astype(y.dtype), y))


def batch_moments(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """(N, *spatial, C) -> ((C,), (C,)), (C,): the mean, as a sum (c, mean - c) with a constant c, and the variance.

    For any constant c, the mean is c + E[x - c], and the variance E[(x - c)^2] - E[x - c]^2. Here c is the mean of a
    subset of the values, the first row of each image. The rounding error is small, because the variance is at least
    about (mean - c)^2 times the fraction of values in the subset.
    """
    images = x if x.ndim > 2 else x[:, None]
    near = first_row_sum(images) / math.prod((images.shape[0], *images.shape[2:-1]))
    # XLA would compute the gradient again for each value of x.
    square, shift = stored_gradient(channel_moments(x, near) / math.prod(x.shape[:-1]))
    return (near, shift), _non_negative(square - lax.square(shift))


@jax.custom_jvp
def _non_negative(var: jax.Array) -> jax.Array:
    """Remove rounding errors below 0. The derivative ignores them: comparisons would take a loop of their own."""
    return lax.max(var, lax.full_like(var, 0))


@jax.custom_jvp
def _inverse_sqrt(x: jax.Array) -> jax.Array:
    """1 / sqrt(x). The derivative of `lax.rsqrt` contains a division, which takes a loop of its own."""
    return lax.rsqrt(x)


_non_negative.defjvps(lambda dx, y, x: dx)
_inverse_sqrt.defjvps(lambda dx, y, x: -0.5 * y * lax.square(y) * dx)


def normalize(
    x: jax.Array,
    mean: tuple[jax.Array, jax.Array | None],
    var: jax.Array,
    eps: float,
    scale: jax.Array | None,
    bias: jax.Array | None,
) -> jax.Array:
    """(N, *spatial, C) -> the same: (x - mean) / sqrt(var + eps) * scale + bias, for each channel.

    The mean is a pair of summands, because a single float32 near 10,000 has a rounding error of up to 5e-4. The
    subtraction of the first summand is exact for x close to it. The second summand may be None, which means 0.
    """
    # Functions of lax: tracing the operators of jnp for a new shape takes three times as long.
    near, shift = mean
    factor = inverse_sqrt_or_zero(var) if is_zero(eps) else _inverse_sqrt(lax.add(var, lax.full_like(var, eps)))
    if scale is not None:
        factor = lax.mul(factor, scale)
    offset = lax.full_like(factor, 0) if bias is None else bias
    if shift is not None:
        offset = lax.sub(offset, lax.mul(shift, factor))
    return stored_gradient(affine(x, near, jnp.stack([factor, offset])))
