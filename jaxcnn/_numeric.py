"""Sums, norms and broadcasting that keep their digits, their finite gradients and their types."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._layer import at_least_float32


def align_trailing(v: jax.Array, x: jax.Array) -> jax.Array:
    """(*tail,) -> (1, .., 1, *tail): v with as many dimensions as x, of whose last dimensions it has one value each."""
    return lax.expand_dims(v, range(x.ndim - v.ndim))


def center_and_variance(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """x - mean, and the variance over `axes`, which stay as dimensions of size 1.

    The mean is near + shift, but as one number it would be rounded: near 10,000, by up to 5e-4. x - near is exact for x
    close to near, so the two are subtracted one after the other.
    """
    wide = at_least_float32(x)
    rest = wide - lax.stop_gradient(wide.mean(axes, keepdims=True))
    shift = rest.mean(axes, keepdims=True)
    return rest - shift, jnp.maximum(jnp.square(rest).mean(axes, keepdims=True) - jnp.square(shift), 0)


def norm(x: jax.Array, axes: tuple[int, ...], p: float = 2) -> jax.Array:
    """(sum |x|^p)^(1/p) over `axes`, which stay as dimensions of size 1; the gradient of a norm of zeros is zero.

    Squares of 1e25 overflow and those of 1e-25 vanish, so x is divided by the largest |x| first.
    """
    scale = _divisor(jnp.abs(x).max(axes, keepdims=True))
    scaled = (x if p % 2 == 0 else jnp.abs(x)) / scale
    total = (scaled**p).sum(axes, keepdims=True)
    zero = total == 0  # where() alone would let the infinite slope of the root through as 0 * inf
    return scale * jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / p))


def scale_to_unit_norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """x / |x|, the norm over `axes`; zeros stay zeros."""
    x = scale_to_unit_max(x, axes)
    return divide_or_keep(x, norm(x, axes))


def scale_to_unit_max(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """x / max |x|, the maximum a constant for the gradient: in front of what does not depend on the magnitude.

    What is below 1e-30 counts as zero and stays as it is: its gradient, with the factor 1 / max |x|, would overflow.
    """
    largest = jnp.abs(x).max(axes, keepdims=True)
    return x / _divisor(jnp.where(largest < 1e-30, 0, largest))


def divide_or_keep(x: jax.Array, length: jax.Array) -> jax.Array:
    """x / length, or x itself where the length is zero."""
    return x / jnp.where(length < 1e-12, 1, length)


def _divisor(largest: jax.Array) -> jax.Array:
    """What to divide values by before they are raised to a power, given the largest |x| among them.

    It is a constant for the gradient: a norm does not depend on what x is divided by before and multiplied by after.
    Where nothing is gained, for zeros, infinities and NaN, it is 1. XLA multiplies by the reciprocal, on a CPU without
    subnormal numbers: beyond 1 / tiny, x / largest would be zero.
    """
    largest, tiny = lax.stop_gradient(largest), jnp.finfo(largest.dtype).tiny
    return jnp.where((largest >= tiny) & (largest < jnp.inf), jnp.minimum(largest, 1 / tiny), 1)
