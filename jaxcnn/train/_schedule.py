"""Learning-rate schedules from a config."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from jaxcnn._arguments import check_integer, check_number
from jaxcnn._number import is_traced_number
from jaxcnn.train._config import Config, ConfigError, require, require_known


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


def check_schedule(config: Config) -> None:
    """Raise ConfigError for an "end" that does not fit the learning rate. `resolve` cannot: a sweep may vary both."""
    if config["schedule"]["name"] == "exponential":
        _exponential(config["optimizer"]["learning_rate"], config["schedule"]["end"], 1)
