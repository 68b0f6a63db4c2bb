"""Detection of non-finite values on the device, without a host synchronization per step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._path import paths
from jaxcnn.train._step import TrainState


class NonFiniteError(FloatingPointError):
    """A loss or a parameter became NaN or infinite."""


class Checked(NamedTuple):
    """The result of a checked step.

    train_state: after the step, or unchanged if the step is non-finite; metrics: of the step;
    nonfinite_leaf: index of the first non-finite leaf, or -1.
    """

    train_state: TrainState
    metrics: dict[str, jax.Array]
    nonfinite_leaf: jax.Array


def undo_if_nonfinite(step: Callable[..., Any]) -> Callable[..., Checked]:
    """The step, undone if its loss, or a parameter or state after it, is not finite."""

    def checked_step(train_state, batch):
        after, metrics = step(train_state, batch)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(_checked_leaves(after, metrics))])
        nonfinite_leaf = jnp.where(finite.all(), -1, jnp.argmin(finite)).astype(jnp.int32)
        kept = jax.tree.map(lambda new, old: jnp.where(nonfinite_leaf < 0, new, old), after, train_state)
        return Checked(kept, metrics, nonfinite_leaf)

    return checked_step


def leaf_name(train_state: TrainState, metrics: dict[str, Any], index: int) -> str:
    """The path of leaf number `index` among those that are checked."""
    return paths(_checked_leaves(train_state, metrics))[index]


def _checked_leaves(train_state: TrainState, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"loss": metrics["loss"], "params": train_state.params, "state": train_state.state}
