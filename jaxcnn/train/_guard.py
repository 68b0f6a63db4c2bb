"""Detection of non-finite values on the device, without a host synchronization per step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._layer import Params
from jaxcnn._path import paths
from jaxcnn.train._step import TrainState


class NonFiniteError(FloatingPointError):
    """A loss, a parameter, its optimizer state or a state became NaN or infinite."""


class Checked(NamedTuple):
    """The result of a checked step.

    train_state: after the step, or unchanged if the step is non-finite; metrics: of the step;
    nonfinite_leaf: index of the first non-finite leaf, or -1.
    """

    train_state: TrainState
    metrics: dict[str, jax.Array]
    nonfinite_leaf: jax.Array


def undo_if_nonfinite(step: Callable[..., Any]) -> Callable[..., Checked]:
    """The step, undone if its loss, or a parameter, its optimizer state or the state after it, is not finite."""

    def checked_step(train_state, batch):
        after, metrics = step(train_state, batch)
        after_with_moments = after._replace(params=_with_optimizer_state(after.params, after.opt_state))
        leaves = jax.tree.leaves(_checked_leaves(after_with_moments, metrics))
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])
        nonfinite_leaf = jnp.where(finite.all(), -1, jnp.argmin(finite)).astype(jnp.int32)
        kept = jax.tree.map(lambda new, old: jnp.where(nonfinite_leaf < 0, new, old), after, train_state)
        return Checked(kept, metrics, nonfinite_leaf)

    return checked_step


def _with_optimizer_state(params: Params, opt_state: Any) -> Params:
    """The parameters plus 0 times their optimizer state, such as the moments of Adam: NaN where that is not finite.

    Moments of large gradients may overflow, after which a parameter would not change any more. Their check takes no
    loop of its own.
    """
    structure: Any = jax.tree.structure(params)
    has_structure = lambda node: jax.tree.structure(node) == structure
    trees = [node for node in jax.tree.leaves(opt_state, is_leaf=has_structure) if has_structure(node)]

    def zero(moment, param):
        """0, or NaN where the moment is not finite; one value for a moment of another shape, such as Adafactor's."""
        zeros = 0 * moment.astype(param.dtype)
        return zeros if moment.shape == param.shape else zeros.sum()

    add = lambda param, *moments: sum((zero(moment, param) for moment in moments), start=param)
    return jax.tree.map(add, params, *trees)


def leaf_name(train_state: TrainState, metrics: dict[str, Any], index: int) -> str:
    """The path of leaf number `index` among those that are checked."""
    return paths(_checked_leaves(train_state, metrics))[index]


def _checked_leaves(train_state: TrainState, metrics: dict[str, Any]) -> dict[str, Any]:
    return {"loss": metrics["loss"], "params": train_state.params, "state": train_state.state}
