"""Sums that metrics add over batches, where a plain sum of arrays does not suffice."""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


def add_sums(left: Any, right: Any) -> Any:
    """The sums of two batches added: arrays by `+`, `Rows` and `Moments` by their own rules."""
    return jax.tree.map(operator.add, left, right, is_leaf=lambda node: isinstance(node, Rows | Moments))


@jax.tree_util.register_pytree_node_class
class Rows:
    """Arrays with one row per example. Adding two of them concatenates their rows."""

    def __init__(self, *arrays: jax.Array):
        self.arrays = arrays

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(*(jnp.concatenate(pair) for pair in zip(self.arrays, other.arrays, strict=True)))

    def tree_flatten(self):
        return self.arrays, None

    @classmethod
    def tree_unflatten(cls, _, arrays):
        return cls(*arrays)


class Moments(NamedTuple):
    """Weight, mean and sum of squared differences from the mean. Adding two gives those of all their values.

    Unlike sum(x^2) - sum(x)^2 / n, this keeps its digits when the mean is much larger than the standard deviation. The
    mean is relative to one of the values, the origin: the mean of equal values is then exactly 0, without rounding.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    weight: jax.Array
    origin: jax.Array
    mean: jax.Array  # minus the origin
    squares: jax.Array

    def __add__(self, other: Any) -> "Moments":  # type: ignore[override]  # adds values, does not concatenate tuples
        weight, origin = self.weight + other.weight, jnp.where(self.weight > 0, self.origin, other.origin)
        fraction = other.weight / jnp.maximum(weight, 1e-30)
        difference = other.origin - origin + other.mean - self.mean
        squares = self.squares + other.squares + jnp.square(difference) * self.weight * fraction
        return Moments(weight, origin, self.mean + difference * fraction, squares)


def moments(x: jax.Array, weight: jax.Array) -> Moments:
    """(M, K), (M,) -> the moments of each column; rows of weight 0 do not count."""
    total = weight.sum()
    origin = x[weight.argmax()] if len(x) else jnp.zeros(x.shape[1:], x.dtype)
    x = x - origin[None]
    mean = (weight @ x) / jnp.maximum(total, 1e-30)
    return Moments(total, origin, mean, weight @ jnp.square(x - mean[None]))


def bincount(index: jax.Array, weight: jax.Array, length: int) -> jax.Array:
    """(*shape), (*shape) -> (length,): the sum of the weights for each index in [0, length).

    A scatter adds weights one by one, and in float32, 2^24 + 1 is 2^24. So the scatter computes sums of parts.
    """
    size = max(1 << 16, length)  # so that the sums of all parts take no more memory than the input and the result
    part = jnp.arange(index.size) // size
    parts = -(-index.size // size)
    sums = jnp.zeros(parts * length, weight.dtype).at[part * length + index.ravel()].add(weight.ravel())
    return sums.reshape(parts, length).sum(0)
