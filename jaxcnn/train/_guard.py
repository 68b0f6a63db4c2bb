"""Numbers that are not finite: found where they first appear, without waiting for each step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._path import paths
from jaxcnn.train._step import TrainState


class NonFiniteError(FloatingPointError):
    """A loss or a parameter became NaN or infinite."""


class Checked(NamedTuple):
    """train_state, metrics: of the step, or the given state if the step is not finite; bad: a leaf's number, or -1."""

    train_state: TrainState
    metrics: dict[str, jax.Array]
    bad: jax.Array


def undo_if_nonfinite(step: Callable[..., Any]) -> Callable[..., Checked]:
    """The step, undone if its loss, or a parameter or statistic after it, is not finite."""

    def checked_step(train_state, batch):
        after, metrics = step(train_state, batch)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(_looked_at(after, metrics))])
        bad = jnp.where(finite.all(), -1, jnp.argmin(finite)).astype(jnp.int32)
        kept = jax.tree.map(lambda new, old: jnp.where(bad < 0, new, old), after, train_state)
        return Checked(kept, metrics, bad)

    return checked_step


def leaf_name(train_state: TrainState, metrics: dict[str, Any], bad: int) -> str:
    """What number `bad` of `Checked` stands for."""
    return paths(_looked_at(train_state, metrics))[bad]


def _looked_at(train_state: TrainState, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"loss": metrics["loss"], "params": train_state.params, "state": train_state.state}
