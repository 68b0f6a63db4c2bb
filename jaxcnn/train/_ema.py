"""Averages of the parameters that an optimizer keeps, which are evaluated in their place."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnn._arguments import check_number
from jaxcnn._layer import Params
from jaxcnn.train._step import TrainState


class EmaState(NamedTuple):
    """The state of `with_ema`."""

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count
    inner: Any
    ema: Params


def with_ema(optimizer: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """The optimizer with an exponential moving average (EMA) of the parameters in its state.

    ema = d * ema + (1 - d) * params after each update, with d = min(decay, (1 + updates) / (10 + updates)). The EMA
    starts at the initial parameters; the smaller d of early updates reduces their weight.

    Args:
        optimizer: any optax transformation.
        decay: weight of the old EMA, in [0, 1).

    Raises:
        TypeError, ValueError: for a decay that is not a number in [0, 1).

    Example:
        >>> import optax
        >>> optimizer = jaxcnn.train.with_ema(optax.sgd(1.0), 0.9)
        >>> params = {"w": jnp.array(1.0)}
        >>> state = optimizer.init(params)
        >>> _, state = optimizer.update({"w": jnp.array(1.0)}, state, params)
        >>> round(jaxcnn.train.ema_params(state)["w"].item(), 6)  # 0.1 * 1.0 + 0.9 * (1.0 - 1.0)
        0.1

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
    """
    decay = check_number("with_ema", "decay", decay, 0, 1)

    def init(params):
        return EmaState(jnp.zeros((), jnp.int32), optimizer.init(params), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        updates, inner = optax.with_extra_args_support(optimizer).update(updates, state.inner, params, **extra)
        weight = 1 - jnp.minimum(decay, (1 + state.count) / (10 + state.count))
        ema: Any = optax.incremental_update(optax.apply_updates(params, updates), state.ema, weight)
        return updates, EmaState(state.count + 1, inner, ema)

    return optax.GradientTransformationExtraArgs(init, update)


def ema_params(opt_state: Any) -> Params | None:
    """The EMA of the parameters in the state of an optimizer made by `with_ema`; None if it has none.

    Args:
        opt_state: the state of the optimizer, such as `train_state.opt_state`.

    Example:
        >>> import optax
        >>> optimizer = jaxcnn.train.with_ema(optax.sgd(0.1), 0.9)
        >>> jaxcnn.train.ema_params(optimizer.init({"w": jnp.ones(1)}))
        {'w': Array([1.], dtype=float32)}
    """
    is_ema = lambda node: isinstance(node, EmaState)
    return next((node.ema for node in jax.tree.leaves(opt_state, is_leaf=is_ema) if is_ema(node)), None)


def params_to_evaluate(train_state: TrainState) -> Params:
    """The parameters to evaluate: their EMA or the average of a schedule-free optimizer, if the optimizer keeps one."""
    if (ema := ema_params(train_state.opt_state)) is not None:
        return ema
    is_schedule_free = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)
    params = train_state.params
    for node in jax.tree.leaves(train_state.opt_state, is_leaf=is_schedule_free):
        if is_schedule_free(node):
            params = jax.tree.map(functools.partial(_schedule_free_average, node.b1), params, node.z)
    return params


def _schedule_free_average(b1: Any, y: jax.Array, z: Any) -> jax.Array:
    """The average x, where training has y = (1 - b1) * z + b1 * x. If y = z, as in a frozen layer, it is exactly y."""
    if isinstance(z, optax.MaskedNode):  # another optimizer of `optax.partition` trains this parameter
        return y
    return y + ((1 - b1) / b1 * (y - z)).astype(y.dtype)
