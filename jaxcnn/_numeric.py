"""Sums, norms and broadcasting with full accuracy, finite gradients and unchanged dtypes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._array import at_least_float32
from jaxcnn._number import is_zero


def align_trailing(v: jax.Array, x: jax.Array) -> jax.Array:
    """(*tail,) -> (1, .., 1, *tail): v with the rank of x, aligned with its last dimensions."""
    return lax.expand_dims(v, range(x.ndim - v.ndim))


def center_and_variance(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """x - mean, and the variance, over `axes`, which are kept with size 1.

    Subtracts the mean twice. The first mean is rounded: near 10,000, by up to 5e-4. Subtracting a value close to x is
    exact, so the mean of the rest corrects the rounding.
    """
    wide = at_least_float32(x)
    rest = wide - lax.stop_gradient(wide.mean(axes, keepdims=True))
    shift = rest.mean(axes, keepdims=True)
    return rest - shift, jnp.maximum(jnp.square(rest).mean(axes, keepdims=True) - jnp.square(shift), 0)


def absolute(x: jax.Array) -> jax.Array:
    """|x| with gradient 0 at 0, where that of jnp.abs is 1 and would move a value that is right."""
    return x * jnp.sign(x)


def times_log(p: jax.Array, log_q: jax.Array) -> jax.Array:
    """p * log_q, with 0 log 0 = 0, its limit."""
    return p * jnp.where((p == 0) & (log_q == -jnp.inf), 0, log_q)


def norm(x: jax.Array, axes: tuple[int, ...], p: float = 2) -> jax.Array:
    """(sum |x|^p)^(1/p) over `axes`, which are kept with size 1. The gradient of the norm of zeros is zero.

    x is first divided by its largest magnitude: squares of 1e25 overflow, and those of 1e-25 underflow.
    """
    largest = jnp.abs(x).max(axes, keepdims=True)
    scale = divisor(largest)
    scaled = (x if p % 2 == 0 else absolute(x)) / scale
    if p > 2:  # the largest numbers are up to 4 times the scale: their powers could overflow
        excess = lax.stop_gradient(jnp.clip(largest / scale, 1, 4))
        scale, scaled = scale * excess, scaled / excess
    total = (scaled**p).sum(axes, keepdims=True)
    zero = total == 0  # a single where() would give the gradient 0 * inf
    return scale * jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / p))


def scale_to_unit_norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """x divided by its norm over `axes`; zeros stay zeros."""
    x = scale_to_unit_max(x, axes)
    return divide_or_keep(x, norm(x, axes))


def scale_to_unit_max(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
    """x / max |x|, with the maximum a constant in the gradient. Use it before functions that ignore the scale.

    Magnitudes below 1e-30 are not scaled, as their gradient, with a factor 1 / max |x|, would overflow.
    """
    largest = jnp.abs(x).max(axes, keepdims=True)
    return x / divisor(jnp.where(largest < 1e-30, 0, largest))


def divide_or_keep(x: jax.Array, length: jax.Array) -> jax.Array:
    """x / length; x where the length is zero."""
    return x / jnp.where(length < 1e-12, 1, length)


def divisor(largest: jax.Array) -> jax.Array:
    """The scale by which to divide x before a computation that ignores the scale, given the largest |x|.

    It is a constant in the gradient. It is 1 for zeros, infinities and NaN. It is at
    most 1 / tiny: XLA multiplies by the reciprocal and flushes subnormal numbers to zero on a CPU.
    """
    largest, tiny = lax.stop_gradient(largest), jnp.finfo(largest.dtype).tiny
    return jnp.where((largest >= tiny) & (largest < jnp.inf), jnp.minimum(largest, 1 / tiny), 1)


@jax.custom_jvp
def inverse_sqrt_or_zero(x: jax.Array) -> jax.Array:
    """1 / sqrt(x); 0, with derivative 0, where x is 0 or subnormal: a sum of squares that underflowed."""
    return jnp.where(x < jnp.finfo(x.dtype).tiny, 0, lax.rsqrt(x))


# One factor after the other: their product would overflow for x below 1e-26.
inverse_sqrt_or_zero.defjvps(lambda dx, y, x: dx * y * y * (-0.5 * y))


def inverse_std(var: jax.Array, eps: Any) -> jax.Array:
    """1 / sqrt(var + eps). Without eps, it is 0 where the variance is 0."""
    return inverse_sqrt_or_zero(var) if is_zero(eps) else lax.rsqrt(var + eps)
