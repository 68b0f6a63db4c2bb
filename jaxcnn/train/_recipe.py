"""The settings of `fit`, their validation, and the loss and augmentation built from them."""

import copy
import functools
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._layer import Layer
from jaxcnn._loss import Batch, LossFn, check_loss, check_loss_of_models, checked_loss_result
from jaxcnn._mix import cutmix, mixup
from jaxcnn._number import is_zero
from jaxcnn._regularize import l1, l2, regularized
from jaxcnn.data import augment
from jaxcnn.train._config import Config, ConfigError, flat_entries, require, require_known, unknown_key
from jaxcnn.train._evaluate import check_scalars
from jaxcnn.train._optimizer import check_optimizer
from jaxcnn.train._tta import TTA

FIT: Config = {  # `resolve` explains the settings
    "seed": 0,
    "epochs": 10,
    "batch_size": 128,
    "optimizer": {"name": "adam", "learning_rate": 1e-3},
    "schedule": {"name": "cosine", "warmup": 0.0, "end": 0.0},
    "weight_decay": {"rate": 0.0, "where": "(.*/)?kernel"},
    "regularize": {"l1": 0.0, "l2": 0.0},
    "clip_norm": 0.0,
    "accumulate": 1,
    "ema": 0.0,
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "dtype": "float32",
    "augment": [],
    "augment_labels": True,
    "label_fill": [],
    "evaluate": {"batch_size": 256, "tta": "none"},
    "watch": "",
    "patience": 0,
    "restore_best": False,
    "on_nonfinite": "raise",
    "checkpoint": {"every": 0, "keep": 3},
    "tensorboard": False,
    "report": False,
}
_LIMITS = {
    "seed": (0, 2**32),
    "epochs": (1, 10**9),
    "batch_size": (1, 10**9),
    "optimizer.learning_rate": (0, math.inf),
    "schedule.warmup": (0, 1),
    "schedule.end": (0, math.inf),
    "weight_decay.rate": (0, math.inf),
    "regularize.l1": (0, math.inf),
    "regularize.l2": (0, math.inf),
    "clip_norm": (0, math.inf),
    "accumulate": (1, 10**9),
    "ema": (0, 1),
    "label_smoothing": (0, 1),
    "mixup": (0, math.inf),
    "cutmix": (0, math.inf),
    "evaluate.batch_size": (1, 10**9),
    "patience": (0, 10**9),
    "checkpoint.every": (0, 10**18),
    "checkpoint.keep": (0, 10**9),
}


Loss = Callable[..., LossFn]  # model -> LossFn


def moves_constant_parameters(config: Config) -> bool:
    """Whether training would change parameters that get no gradient, such as those of `freeze`.

    Weight decay, penalties and the optimizer yogi do.
    """
    scales = (config["weight_decay"]["rate"], *config["regularize"].values())
    return config["optimizer"]["name"] == "yogi" or not all(map(is_zero, scales))


def training_loss(loss: Loss, model: Layer, config: Config) -> LossFn:
    """The model's loss with the label smoothing, regularization, mixup and cutmix of the config."""
    if not is_zero(smoothing := config["label_smoothing"]):
        if "label_smoothing" not in inspect.signature(loss).parameters:
            raise ConfigError(f"label_smoothing must be 0: {short_repr(loss)} has no such argument, got {smoothing}")
        loss = functools.partial(loss, label_smoothing=smoothing)
    loss_fn = with_loss_as_metric(loss_of(loss, model))
    scales = config["regularize"]
    penalties = [make(scales[name]) for name, make in (("l1", l1), ("l2", l2)) if not is_zero(scales[name])]
    if penalties:
        loss_fn = regularized(loss_fn, *penalties)
    if not is_zero(config["mixup"]):
        loss_fn = mixup(loss_fn, config["mixup"])
    if not is_zero(config["cutmix"]):
        loss_fn = cutmix(loss_fn, config["cutmix"])
    return loss_fn


def loss_of(loss: Loss, model: Layer) -> LossFn:
    """loss(model)."""
    check_loss_of_models("fit", loss)
    return loss(model)


def with_loss_as_metric(loss_fn: LossFn) -> LossFn:
    """The loss function with its loss as the metric "loss", unless it has a metric of that name."""
    check_loss("fit", loss_fn)

    @functools.wraps(loss_fn)
    def with_loss(params, state, batch, *, train, key=None):
        loss, (new_state, metrics) = checked_loss_result(loss_fn(params, state, batch, train=train, key=key), state)
        check_scalars("fit", metrics)
        return loss, (new_state, {"loss": loss} | metrics)

    return with_loss


def augmentation_of(config: Config) -> Callable[..., Batch] | None:
    """The composed augmentation of batches in the config; None if it has none."""
    parts = []
    for i, entry in enumerate(config["augment"]):
        name, *arguments = entry if isinstance(entry, list) and entry else [entry]
        if not isinstance(name, str):
            own = "; pass your own functions as fit(augmentation=augment.compose(..))" if callable(name) else ""
            raise ConfigError(
                f"augment[{i}] must be a name or a list [name, argument, ...], got {short_repr(entry)}{own}"
            )
        require_known(f"augment[{i}]", name, AUGMENTS)
        try:
            parts.append(AUGMENTS[name](*arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"augment[{i}]: {error}") from error
    fill = config["label_fill"]
    if not all(type(value) in (int, float) and abs(value) <= sys.float_info.max for value in fill):
        raise ConfigError(f"label_fill must be a number, such as 255, or a list of numbers, got {short_repr(fill)}")
    labels = {"augment_labels": config["augment_labels"], "label_fill": fill or None}
    return augment.compose(*parts, **labels) if parts else None


def augments_color(config: Config) -> bool:
    """Whether the config has an augmentation that needs values from 0 to 1."""
    color = {"random_erasing", "brightness", "contrast", "saturation", "rand_augment"}
    return not color.isdisjoint(augmentation_names(config))


def augmentation_names(config: Config) -> list[str]:
    """The names of the augmentations in the config."""
    return [entry[0] if isinstance(entry, list) else entry for entry in config["augment"]]


AUGMENTS: dict[str, Callable[..., augment.Augment]] = {
    f.__name__: f
    for f in (
        augment.random_crop,
        augment.translate,
        augment.flip,
        augment.alternating_flip,
        augment.rotate,
        augment.affine,
        augment.cutout,
        augment.random_erasing,
        augment.brightness,
        augment.contrast,
        augment.saturation,
        augment.rand_augment,
    )
}


def merge(defaults: Config, config: Config, prefix: str = "") -> Config:
    """The defaults, overridden by the config. Only "optimizer" may have keys that the defaults lack."""
    if not isinstance(config, dict):
        raise ConfigError(f'config must be a dict, such as {{"epochs": 20}}, got {short_repr(config)}')
    result = copy.deepcopy(defaults)
    for key, given in config.items():
        path, value = f"{prefix}{key}", _without_numpy(given)
        if key not in defaults:
            if prefix == "optimizer.":
                result[key] = value
                continue
            raise unknown_key(path, [path for path, _ in flat_entries(FIT)])
        old = defaults[key]
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = merge(old, value, f"{path}.")
        elif type(value) is type(old):
            result[key] = copy.deepcopy(value)
        elif isinstance(old, float) and type(value) is int and abs(value) <= sys.float_info.max:
            result[key] = float(value)
        elif isinstance(old, list) and type(value) in (int, float):
            result[key] = [value]
        else:
            of_optax = path.split(".")[0] in ("optimizer", "schedule")
            hint = "; pass optimizers of optax, with their schedules, as fit(optimizer=..)" if of_optax else ""
            raise ConfigError(
                f"{path} must be of type {type(old).__name__}, such as {old!r}, got {short_repr(value)}{hint}"
            )
    return result


def _without_numpy(value: Any) -> Any:
    """The value with NumPy's numbers as Python's, also in lists: JSON cannot hold them."""
    if isinstance(value, list):
        return [_without_numpy(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def resolve(config: Config) -> Config:
    """All settings of `fit`: the defaults in `FIT`, overridden by `config`, and validated.

    `fit` calls it. Call it earlier to find errors before anything is written. The settings:

        seed, epochs
        batch_size                   over all devices together; a stream has its own
        optimizer: name, ..          and the arguments of the optax function, such as learning_rate
        schedule: name, warmup, end  warmup: fraction of all steps; end: final learning rate
        weight_decay: rate, where    where: regular expression on the path of a parameter
        regularize: l1, l2           factors of sum |w| and sum w^2 over all kernels
        clip_norm                    maximum global norm of the gradient; 0: no clipping
        accumulate                   steps per update; the last update of an epoch may use fewer
        ema                          decay of the parameter EMA, which is evaluated and returned; 0: no EMA
        label_smoothing              as in `cross_entropy`
        mixup, cutmix                alpha of the beta distribution; 0: off
        dtype                        "float32" or "bfloat16", of the computation; parameters stay float32
        augment                      [["rotate", 10], ["flip"], ..]: functions of `data.augment`, applied in order
        augment_labels               whether augmentations that move pixels also move label maps
        label_fill                   label outside of a moved map, such as 255, the ignore_label; or one per channel
        evaluate: batch_size, tta    tta: test-time augmentation, "none", "flip" or "flip_and_shift"
        watch                        evaluation metric that selects the best epoch; "-name" minimizes it; "": accuracy,
                                     else -loss
        patience                     epochs without improvement after which training stops, with the best parameters;
                                     0: never
        restore_best                 return the parameters of the best epoch; implied by patience
        on_nonfinite                 "raise"; "skip": discard the step; "rollback": to the last checkpoint, with other
                                     batches
        checkpoint: every, keep      after each epoch, and each `every` steps; keep: latest checkpoints, 0: none
        tensorboard                  write TensorBoard files in the run folder
        report                       write report.html in the run folder after each epoch

    Args:
        config: settings that differ from the defaults.

    Raises:
        ConfigError: for an unknown or invalid setting.

    Example:
        >>> jaxcnn.train.resolve({"epochs": 3})["batch_size"]
        128
    """
    config = merge(FIT, config)
    check(config)
    augmentation_of(config)
    return config


def check(config: Config) -> None:
    """Raise ConfigError for a value outside its limits, or settings that exclude each other."""
    require(config, _LIMITS)
    check_optimizer(config)
    for path, known in (
        ("dtype", ("float32", "bfloat16")),
        ("on_nonfinite", ("raise", "skip", "rollback")),
        ("evaluate.tta", TTA),
    ):
        require_known(path, dict(flat_entries(config))[path], known)
    if config["watch"] == "-":
        raise ConfigError('watch: "-" needs the name of a metric, such as "-loss"')
    if config["watch"] == "loss":
        raise ConfigError('watch: "loss" would select the epoch with the largest loss; use "-loss" to minimize it')
    if config["mixup"] and config["cutmix"]:
        raise ConfigError(f"mixup or cutmix must be 0, got {config['mixup']} and {config['cutmix']}")
    if not config["checkpoint"]["keep"]:
        if config["on_nonfinite"] == "rollback":
            raise ConfigError('on_nonfinite="rollback" needs checkpoints: checkpoint.keep must be at least 1, got 0')
        if config["checkpoint"]["every"]:
            raise ConfigError("checkpoint.every has no effect if checkpoint.keep is 0, which saves no checkpoints")
    if config["schedule"]["end"] and config["schedule"]["name"] in ("constant", "step"):
        raise ConfigError(f"schedule.end has no effect on the schedule {config['schedule']['name']!r}")
