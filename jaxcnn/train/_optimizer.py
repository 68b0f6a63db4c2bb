"""optax optimizers from a config."""

import inspect
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn._arguments import short_repr
from jaxcnn._layer import Params
from jaxcnn._number import is_traced_number, is_zero
from jaxcnn._path import compile_pattern, expected_one_of, mask
from jaxcnn.train._config import SYNONYMS, Config, ConfigError, require, require_known
from jaxcnn.train._ema import with_ema
from jaxcnn.train._guard import Checked, undo_if_nonfinite
from jaxcnn.train._schedule import SCHEDULES, make_schedule
from jaxcnn.train._step import TrainState, accepting_loss

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adabelief": optax.adabelief,
    "adadelta": optax.adadelta,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
    "adamax": optax.adamax,
    "adamw": optax.adamw,
    "amsgrad": optax.amsgrad,
    "lamb": optax.lamb,
    "lars": optax.lars,
    "lion": optax.lion,
    "muon": optax.contrib.muon,
    "nadam": optax.nadam,
    "nadamw": optax.nadamw,
    "novograd": optax.novograd,
    "radam": optax.radam,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "yogi": optax.yogi,
}


_DECAY_MASKS = {"mask", "weight_decay_mask"}  # arguments of optimizers with decoupled weight decay
_BELOW_1 = ("b1", "b2", "b3", "beta", "adam_b1", "adam_b2", "decay", "momentum", "rho")  # decay rates of averages


def make_optimizer(
    config: Config,
    steps: int,
    params: Params,
    trainable: Params | None = None,
    own: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """gradient -> (mean over `accumulate` steps) -> (clip) -> (+ decay * w) -> optax optimizer -> (EMA)

    All stages after the mean, including the EMA, run once per update.

    An optimizer with decoupled weight decay, such as adamw, receives the rate: w shrinks by learning rate * decay. For
    others, such as sgd and adam, decay * w is added to the gradient, as in PyTorch.

    Args:
        config: all settings, as returned by `resolve`: "optimizer" with "name", "learning_rate" and other arguments of
            the optax function; "schedule", see `make_schedule`; "weight_decay" with "rate" and "where", a regular
            expression for parameter paths; "clip_norm", the maximum global norm of the gradient, 0 for no clipping;
            "accumulate", steps per update (the last update of each of the "epochs" may use fewer); "ema", see
            `with_ema`.
        steps: total number of steps.
        params: of the model; "where" selects from their paths.
        trainable: a tree of bools; the other parameters stay constant, without weight decay. Default: all are trained.
        own: your optimizer, in place of clipping, decay, schedule and the optax optimizer of the config.

    Raises:
        ConfigError: for an unknown name or argument, or a "where" that matches no parameter.

    Example:
        >>> config = jaxcnn.train.FIT | {"optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}}
        >>> optimizer = jaxcnn.train.make_optimizer(config, 100, {"kernel": jnp.ones(2)})
    """
    check_optimizer(config)
    constant = []
    if trainable is not None and not all(jax.tree.leaves(trainable)):
        constant = [optax.masked(optax.set_to_zero(), jax.tree.map(operator.not_, trainable))]
    epochs, every = config["epochs"], config["accumulate"]
    updates = steps if every == 1 else epochs * math.ceil(math.ceil(steps / epochs) / every)
    stages = [accepting_loss(own)] if own else _stages(config, updates, params, trainable)
    # Constant parameters: penalties give them gradients, and some optimizers, such as yogi, move them without one.
    optimizer = optax.chain(*constant, *stages, *constant)
    if not is_zero(config["ema"]):
        optimizer = with_ema(optimizer, config["ema"])
    if every > 1:
        optimizer = optax.MultiSteps(optimizer, every).gradient_transformation()
    return optimizer


def _stages(
    config: Config, updates: int, params: Params, trainable: Params | None
) -> list[optax.GradientTransformation]:
    """Clipping, weight decay and the optimizer of the config."""
    options = dict(config["optimizer"])
    make, rate = OPTIMIZERS[options.pop("name")], options.pop("learning_rate")
    schedule = make_schedule(config["schedule"], rate, updates)
    decay, decayed = config["weight_decay"]["rate"], None
    if not is_zero(decay):
        try:
            decayed = mask(params, config["weight_decay"]["where"])
        except ValueError as error:
            raise ConfigError(f"weight_decay.where: {error}") from error
        if trainable is not None:
            decayed = jax.tree.map(operator.and_, decayed, trainable)
    stages = []
    if not is_zero(limit := config["clip_norm"]):
        if is_traced_number(limit):
            limit = jnp.where(limit == 0, jnp.inf, limit)
        stages.append(optax.clip_by_global_norm(limit))
    if make is optax.contrib.muon:  # its own decay ignores all parameters that are not matrices
        update = make(schedule, **options)
        stages.append(update if is_zero(decay) else _with_decoupled_decay(update, schedule, decay, decayed))
    elif mask_names := _DECAY_MASKS & {*inspect.signature(make).parameters}:
        stages.append(make(schedule, **options, **{"weight_decay": decay, mask_names.pop(): decayed}))
    else:
        stages += [] if is_zero(decay) else [optax.add_decayed_weights(decay, decayed)]
        stages.append(make(schedule, **options))
    return stages


def _with_decoupled_decay(
    optimizer: optax.GradientTransformation, schedule: optax.Schedule, decay: float, decayed: Any
) -> optax.GradientTransformation:
    """The optimizer, with - learning rate * decay * w added to its updates."""
    shrink = optax.chain(
        optax.set_to_zero(), optax.add_decayed_weights(decay, decayed), optax.scale_by_learning_rate(schedule)
    )

    def init(params):
        return optimizer.init(params), shrink.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        steps, first = optimizer.update(updates, state[0], params)
        shrinking, second = shrink.update(updates, state[1], params)
        return jax.tree.map(jnp.add, steps, shrinking), (first, second)

    return optax.GradientTransformation(init, update)


def check_optimizer(config: Config) -> None:
    """Raise ConfigError for settings that `make_optimizer` cannot use."""
    options = dict(config["optimizer"])
    name = options.pop("name")
    require_known("optimizer.name", name, OPTIMIZERS)
    require_known("schedule.name", config["schedule"]["name"], SCHEDULES)
    allowed = optimizer_arguments(name)
    for option, value in options.items():
        if option not in allowed:
            known = expected_one_of(SYNONYMS.get(option, option), allowed)
            hint = 'set it by {"weight_decay": {"rate": ..}}' if option == "weight_decay" else known
            raise ConfigError(f"optimizer.{option}: {name} has no such argument; {hint}")
        if option.endswith("dtype"):
            require_known(f"optimizer.{option}", value, ("float32", "bfloat16", "float16", "float64"))
        elif not is_traced_number(value):
            expected, valid = {
                bool: ("a bool", isinstance(value, bool)),
                int: ("an integer", _is_finite_number(value) and isinstance(value, numbers.Integral)),
                float: ("a finite number", _is_finite_number(value)),
            }[argument_type(name, option)]
            if not valid:
                raise ConfigError(f"optimizer.{option} must be {expected}, got {short_repr(value)}")
            limits = (0, 1 if option in _BELOW_1 else math.inf)
            if not isinstance(value, bool):
                require({"optimizer": {option: value}}, {f"optimizer.{option}": limits})
    if options.get("nesterov") and name in ("sgd", "rmsprop") and is_zero(options.get("momentum", 0.0)):
        raise ConfigError(f"optimizer.nesterov has no effect on {name} without optimizer.momentum")
    try:
        compile_pattern(config["weight_decay"]["where"])
    except ValueError as error:
        raise ConfigError(f"weight_decay.where: {error}") from error


def optimizer_arguments(name: str) -> list[str]:
    """The arguments of an optimizer that the setting "optimizer" may have. Weight decay is a setting of its own."""
    excluded = {"weight_decay", "adam_weight_decay", *_DECAY_MASKS, "muon_weight_dimension_numbers"}
    parameters = inspect.signature(OPTIMIZERS[name]).parameters.values()
    return [p.name for p in parameters if p.name not in excluded and not isinstance(p.default, str | tuple)]


def argument_type(name: str, option: str) -> type:
    """The type of an argument of an optimizer: bool, int or float."""
    default = inspect.signature(OPTIMIZERS[name]).parameters[option].default
    return type(default) if isinstance(default, int) else float


def _is_finite_number(value: Any) -> bool:
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer outside of the range of floats
        return False


def apply_accumulated(optimizer: optax.GradientTransformation, every: int, train_state: TrainState) -> TrainState:
    """Update with the mean of the gradients accumulated since the last update, if any.

    For the end of an epoch: otherwise the gradients of its last steps would be applied in the next epoch, or never.

    Args:
        optimizer: an `optax.MultiSteps` transformation.
        every: its steps per update.
        train_state: with the optimizer's state.
    """

    def update(train_state):
        accumulated = train_state.opt_state
        # Passing the mean gradient as the last of the `every` gradients leaves the mean unchanged.
        last_step = accumulated._replace(mini_step=jnp.full_like(accumulated.mini_step, every - 1))
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, opt_state = optimizer.update(accumulated.acc_grads, last_step, train_state.params)
            params = optax.apply_updates(train_state.params, updates)
        return train_state._replace(params=params, opt_state=opt_state)

    return lax.cond(train_state.opt_state.mini_step > 0, update, lambda train_state: train_state, train_state)


def checked_accumulated(optimizer: optax.GradientTransformation, every: int, train_state: TrainState) -> Checked:
    """`apply_accumulated`, undone if a parameter is not finite after it."""
    update = lambda train_state, _: (apply_accumulated(optimizer, every, train_state), {"loss": jnp.zeros(())})
    return undo_if_nonfinite(update)(train_state, None)
