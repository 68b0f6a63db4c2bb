"""Sums, norms and broadcasting that keep their digits, their finite gradients and their types."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._layer import widened


def aligned(v: jax.Array, x: jax.Array) -> jax.Array:
    """(*tail,) -> (1, .., 1, *tail): v with as many dimensions as x, of whose last dimensions it has one value each."""
    return lax.expand_dims(v, range(x.ndim - v.ndim))


def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A constant near the mean over `axes`, what is missing to the mean, and the variance; axes stay, of size 1.

    The mean is near + shift, but as one number it would be rounded: (x - near) - shift keeps all digits of x - mean.
    """
    wide = widened(x)
    near = lax.stop_gradient(wide.mean(axes, keepdims=True))
    rest = wide - near
    shift = rest.mean(axes, keepdims=True)
    return near, shift, jnp.maximum(jnp.square(rest).mean(axes, keepdims=True) - jnp.square(shift), 0)


def length(x: jax.Array, axes: tuple[int, ...], *, keepdims: bool = False) -> jax.Array:
    """sqrt(sum x^2), whose gradient at zero is zero."""
    return root(jnp.square(x).sum(axes, keepdims=keepdims), 2)


def root(total: jax.Array, p: float) -> jax.Array:
    """total^(1/p), whose slope at 0, which is infinite, is taken for 0."""
    some = total != 0  # NaN stays NaN; where() alone would let the infinite slope through as 0 * inf
    return jnp.where(some, jnp.where(some, total, 1) ** (1 / p), 0)
