"""optax optimizers and schedules from a config."""

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn._arguments import check_integer, check_number, short_repr
from jaxcnn._layer import Params
from jaxcnn._number import is_traced_number, is_zero
from jaxcnn._path import compile_pattern, expected_one_of, mask
from jaxcnn.train._config import SYNONYMS, Config, ConfigError, require, require_known
from jaxcnn.train._guard import Checked, undo_if_nonfinite
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


def _constant(peak: float, end: float, steps: int) -> optax.Schedule:
    return optax.constant_schedule(peak)


def _linear(peak: float, end: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, end, steps)


def _cosine(peak: float, end: float, steps: int) -> optax.Schedule:
    fraction: Any = 0.0
    if is_traced_number(peak):
        fraction = jnp.where(peak == 0, 0.0, end / jnp.where(peak == 0, 1.0, peak))
    elif peak:
        fraction = end / peak
    return optax.cosine_decay_schedule(peak, steps, fraction)


def _exponential(peak: float, end: float, steps: int) -> optax.Schedule:
    if not (is_traced_number(peak) or is_traced_number(end) or 0 < end <= peak):
        raise ConfigError(f"schedule.end must be above 0 and at most {peak} for an exponential schedule, got {end}")
    return lambda step: peak * (end / peak) ** (step / steps)  # optax's does not accept a traced rate


def _step_decay(peak: float, end: float, steps: int) -> optax.Schedule:
    """Divide by 10 at 1/2 and 3/4 of the steps, as for the original ResNets on CIFAR."""
    factors: dict[int, float] = {}
    for boundary in (steps // 2, steps * 3 // 4):  # the same for few steps; 0 for one
        factors[boundary] = 0.1 * factors.get(boundary, 1.0)
    factors.pop(0, None)
    return optax.piecewise_constant_schedule(peak, factors)


SCHEDULES: dict[str, Callable[[float, float, int], optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "step": _step_decay,
}


def make_schedule(config: Config, peak: float, steps: int) -> optax.Schedule:
    """step -> learning rate: linear warmup from 0 to `peak`, then the named decay.

    Args:
        config: "name", one of constant, linear, cosine, exponential and step (divided by 10 at 1/2 and 3/4 of the decay
            steps); "warmup", the fraction of all steps that warm up, 0 by default; "end", the last learning rate of
            linear, cosine and exponential, 0 by default.
        peak: the largest learning rate.
        steps: total number of steps.

    Raises:
        ConfigError: for an unknown name or key, or an invalid "warmup" or "end".
        TypeError, ValueError: for a peak that is not a number of at least 0, or steps below 1.

    Example:
        >>> rate = jaxcnn.train.make_schedule({"name": "linear", "warmup": 0.5, "end": 0.0}, 1.0, 100)
        >>> [float(rate(step)) for step in (0, 25, 50, 75, 100)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    for key in config:
        require_known("schedule", key, ("name", "warmup", "end"))
    defaults: Config = {"name": "", "warmup": 0.0, "end": 0.0}
    config = defaults | config
    name = config["name"]
    require_known("schedule.name", name, SCHEDULES)
    if not is_traced_number(config["end"]):
        require(config, {"end": (0, math.inf)})
    require(config, {"warmup": (0, 1)})
    check_number("make_schedule", "peak", peak)
    steps = check_integer("make_schedule", "steps", steps)
    warmup_steps = min(round(config["warmup"] * steps), steps - 1)  # the rate is 0 at the first step of a warmup
    decay = SCHEDULES[name](peak, config["end"], max(steps - warmup_steps, 1))
    if not warmup_steps:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])


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


def check_schedule(config: Config) -> None:
    """Raise ConfigError for an "end" that does not fit the learning rate. `resolve` cannot: a sweep may vary both."""
    if config["schedule"]["name"] == "exponential":
        _exponential(config["optimizer"]["learning_rate"], config["schedule"]["end"], 1)


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
