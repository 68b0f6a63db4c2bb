"""Sums that metrics add over batches, where a plain sum of arrays does not suffice."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.metrics._metric import ratio


def add_sums(left: Any, right: Any) -> Any:
    """left + right, the sums of two batches: arrays by `+`, `Rows`, `Squares` and `Moments` by their own rules.

    Example:
        >>> jaxcnn.metrics.add_sums({"correct": 3, "count": 4}, {"correct": 2, "count": 2})
        {'correct': 5, 'count': 6}
    """
    return jax.tree.map(operator.add, left, right, is_leaf=lambda node: isinstance(node, Rows | Squares | Moments))


@jax.tree_util.register_pytree_node_class
class Rows:
    """Arrays with one row per example. Adding two of them appends the rows of the second.

    The parts are only concatenated when `arrays` are read: a concatenation per batch would compile for each length.
    """

    def __init__(self, *parts: tuple[jax.Array, ...]):
        self._parts = parts

    @property
    def arrays(self) -> tuple[jax.Array, ...]:
        return tuple(map(jnp.concatenate, zip(*self._parts, strict=True)))

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(*self._parts, *other._parts)

    def tree_flatten(self):
        return self._parts, None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*parts)


class Squares(NamedTuple):
    """A weighted sum of squares, total * scale^2: in float32, squares of 1e20 overflow, and those of 1e-25 underflow.

    The scale, the largest magnitude, is rounded to a power of 2, so that no digits are lost.
    """

    total: jax.Array
    scale: jax.Array

    def __add__(self, other: Any) -> "Squares":  # type: ignore[override]  # adds values, does not concatenate tuples
        scale = jnp.maximum(self.scale, other.scale)
        rescaled = (part.total * jnp.square(part.scale / scale) for part in (self, other))
        return Squares(next(rescaled) + next(rescaled), scale)


def squares(x: jax.Array, weight: jax.Array) -> Squares:
    """(M, K), (M,) -> the weighted sum of the squares of each column."""
    # The reciprocals of these limits are normal numbers: XLA flushes others to zero on a CPU.
    largest = jnp.clip(jnp.abs(x).max(0, initial=0), 2.0**-126, 2.0**126)
    exponent = lax.bitcast_convert_type(largest, jnp.uint32) & np.uint32(0xFF800000)
    scale = lax.bitcast_convert_type(exponent, jnp.float32)
    return Squares(weight @ jnp.square(x / scale[None]), scale)


class Moments(NamedTuple):
    """Weight, mean and sum of squared differences from the mean. Adding two gives those of all their values.

    Unlike sum(x^2) - sum(x)^2 / n, this keeps its digits when the mean is much larger than the standard deviation. The
    mean is relative to one of the values, the origin: the mean of equal values is then exactly 0, without rounding.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    weight: jax.Array
    origin: jax.Array
    mean: jax.Array  # minus the origin
    squares: Squares

    def __add__(self, other: Any) -> "Moments":  # type: ignore[override]  # adds values, does not concatenate tuples
        weight, origin = self.weight + other.weight, jnp.where(self.weight > 0, self.origin, other.origin)
        fraction = ratio(other.weight, weight)
        difference = other.origin - origin + other.mean - self.mean
        between = squares(difference[None], (self.weight * fraction)[None])
        return Moments(weight, origin, self.mean + difference * fraction, self.squares + other.squares + between)


def moments(x: jax.Array, weight: jax.Array) -> Moments:
    """(M, K), (M,) -> the moments of each column; rows of weight 0 do not count."""
    total = weight.sum()
    origin = x[weight.argmax()] if len(x) else jnp.zeros(x.shape[1:], x.dtype)
    x = x - origin[None]
    mean = ratio(weight @ x, total)
    return Moments(total, origin, mean, squares(x - mean[None], weight))


def bincount(index: jax.Array, weight: jax.Array, length: int) -> jax.Array:
    """(*shape), (*shape) -> (length,): the sum of the weights for each index in [0, length).

    A scatter adds weights one by one, and in float32, 2^24 + 1 is 2^24. So the scatter computes sums of parts.
    """
    size = max(1 << 16, length)  # so that the sums of all parts take no more memory than the input and the result
    part = jnp.arange(index.size, dtype=jnp.int32) // size
    parts = -(-index.size // size)
    sums = jnp.zeros(parts * length, weight.dtype).at[part * length + index.ravel()].add(weight.ravel())
    return sums.reshape(parts, length).sum(0)
