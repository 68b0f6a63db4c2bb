"""What a config says of training: its settings, and the loss and augmentation made of them."""

import copy
import functools
import inspect
import math
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._layer import Layer, short_repr
from jaxcnn._loss import Batch, LossFn, check_loss
from jaxcnn._mix import cutmix, mixup
from jaxcnn._path import expected_one_of
from jaxcnn._regularize import l1, l2, regularized
from jaxcnn.data import augment
from jaxcnn.train._config import Config, ConfigError, flat_entries, require, unknown_key
from jaxcnn.train._devices import batch_sharding
from jaxcnn.train._tta import TTA

FIT: Config = {
    "seed": 0,
    "epochs": 10,
    "batch_size": 128,  # of all devices together
    "optimizer": {"name": "adam", "learning_rate": 1e-3},  # and arguments of that function of optax
    "schedule": {"name": "cosine", "warmup": 0.0, "end": 0.0},  # warmup: fraction of all steps
    "weight_decay": {"rate": 0.0, "where": "(.*/)?kernel"},
    "regularize": {"l1": 0.0, "l2": 0.0},
    "clip_norm": 0.0,  # 0: not clipped
    "accumulate": 1,  # steps for each update; the last update of an epoch may have fewer
    "ema": 0.0,  # decay of the EMA of the parameters, which is evaluated and returned instead of them; 0: no EMA
    "label_smoothing": 0.0,
    "mixup": 0.0,  # alpha; 0: not
    "cutmix": 0.0,
    "dtype": "float32",  # or "bfloat16": activations; parameters stay float32
    "augment": [],  # [name, argument, ...] of jaxcnn.data.augment, one after the other
    "evaluate": {"batch_size": 256, "tta": "none"},
    "watch": "",  # metric of eval_data that decides which epoch is best, "-loss": the least loss; "": accuracy or -loss
    "patience": 0,  # epochs without a better result after which training ends, and gives the best epoch's; 0: never
    "restore_best": False,  # the result is the best epoch's, without patience as well
    "on_nonfinite": "raise",  # or "skip" the step, or "rollback" to the last checkpoint and go on with other batches
    "checkpoint": {"every": 0, "keep": 3},  # steps, beside the end of each epoch; keep 0: no checkpoints
    "tensorboard": False,
    "report": False,  # a page about the run in its folder, report.html, after each epoch
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


Loss = Callable[..., LossFn]  # of a model


def training_loss(loss: Loss, model: Layer, config: Config) -> LossFn:
    """The loss of the model with label smoothing, regularization and mixtures, as the config has them."""
    if smoothing := config["label_smoothing"]:
        if "label_smoothing" not in inspect.signature(loss).parameters:
            raise ConfigError(f"label_smoothing must be 0, as {short_repr(loss)} has no such argument, got {smoothing}")
        loss = functools.partial(loss, label_smoothing=smoothing)
    loss_fn = _with_loss_as_metric(loss(model))
    scales = config["regularize"]
    penalties = [make(scales[name]) for name, make in (("l1", l1), ("l2", l2)) if scales[name]]
    if penalties:
        loss_fn = regularized(loss_fn, *penalties)
    if config["mixup"]:
        loss_fn = mixup(loss_fn, config["mixup"])
    if config["cutmix"]:
        loss_fn = cutmix(loss_fn, config["cutmix"])
    return loss_fn


def evaluation_loss(loss: Loss, model: Layer) -> LossFn:
    """The loss of images as they were read, of which each device computes some rows, if they can be shared."""
    loss_fn = _with_loss_as_metric(loss(model))

    @functools.wraps(loss_fn)
    def shared(params, state, batch, *, train, key=None):
        if len(batch["image"]) % jax.device_count() == 0:
            batch = lax.with_sharding_constraint(batch, batch_sharding())
        return loss_fn(params, state, scale_bytes(batch), train=train, key=key)

    return shared


def _with_loss_as_metric(loss_fn: LossFn) -> LossFn:
    """The loss, which is also its metric "loss" if it has no metric of that name."""
    check_loss("fit", loss_fn)

    @functools.wraps(loss_fn)
    def with_loss(params, state, batch, *, train, key=None):
        loss, (state, metrics) = loss_fn(params, state, batch, train=train, key=key)
        return loss, (state, {"loss": loss} | metrics)

    return with_loss


def scale_bytes(batch: Batch) -> Batch:
    """The batch with images from 0 to 1, if they are bytes."""
    image = batch["image"]
    return batch | {"image": image / np.float32(255)} if image.dtype == jnp.uint8 else batch


def augmentation(config: Config) -> Callable[..., jax.Array] | None:
    parts = []
    for i, entry in enumerate(config["augment"]):
        name, *arguments = entry if isinstance(entry, list) and entry else [entry]
        if not isinstance(name, str):
            raise ConfigError(
                f"augment[{i}] must be a name, or a list of a name and its arguments, got {short_repr(entry)}"
            )
        if name not in AUGMENTS:
            raise ConfigError(f"augment[{i}]: unknown {name!r}; {expected_one_of(name, AUGMENTS)}")
        try:
            parts.append(AUGMENTS[name](*arguments))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"augment[{i}]: {error}") from error
    return augment.compose(*parts) if parts else None


def augments_color(config: Config) -> bool:
    """Whether an augmentation is among those that need values from 0 to 1."""
    color = ("random_erasing", "brightness", "contrast", "saturation", "rand_augment")
    return any((entry[0] if isinstance(entry, list) else entry) in color for entry in config["augment"])


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
    """The defaults with what the config has; the arguments of the optimizer are its own affair."""
    result = copy.deepcopy(defaults)
    for key, value in config.items():
        path = f"{prefix}{key}"
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
        else:
            raise ConfigError(f"{path} must be of type {type(old).__name__}, such as {old!r}, got {value!r}")
    return result


def resolve(config: Config) -> Config:
    """All settings of `fit`: the defaults of `FIT` with those of `config` in their place, checked.

    `fit` does it itself; before that, it finds what is wrong before anything is written.

    Args:
        config: settings that differ from the defaults.

    Raises:
        ConfigError: for a setting that does not exist or cannot be.

    Example:
        >>> jaxcnn.train.resolve({"epochs": 3})["batch_size"]
        128
    """
    config = merge(FIT, config)
    check(config)
    augmentation(config)
    return config


def check(config: Config) -> None:
    require(config, _LIMITS)
    for path, known in (
        ("dtype", ("float32", "bfloat16")),
        ("on_nonfinite", ("raise", "skip", "rollback")),
        ("evaluate.tta", TTA),
    ):
        value = dict(flat_entries(config))[path]
        if value not in known:
            raise ConfigError(f"{path}: unknown {value!r}; {expected_one_of(value, known)}")
    if config["mixup"] and config["cutmix"]:
        raise ConfigError("mixup and cutmix: one of them must be 0")
    if config["on_nonfinite"] == "rollback" and not config["checkpoint"]["keep"]:
        raise ConfigError('on_nonfinite "rollback" needs checkpoint.keep of at least 1')
