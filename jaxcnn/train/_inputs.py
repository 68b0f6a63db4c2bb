"""The data of `fit`, resolved and checked on the host before anything is computed."""

from typing import Any

import jax
import numpy as np

from jaxcnn._layer import Params, State
from jaxcnn._loss import LossFn
from jaxcnn._validate import check_finite, check_for_loss, check_same_range, first_nonfinite, values_between
from jaxcnn.data import Source, source
from jaxcnn.train._config import Config, ConfigError, require
from jaxcnn.train._evaluate import with_checked_batches
from jaxcnn.train._recipe import augments_color
from jaxcnn.train._run import Run


def sources(train_data: Any, eval_data: Any, config: Config) -> tuple[Source, Source | None]:
    """The batches to train on, and those to evaluate on.

    Raises:
        ConfigError: for a batch size, a number of steps, or settings that do not fit them.
    """
    seen = source(train_data, config["batch_size"], name="train_data")
    unseen = None
    if eval_data is not None:
        unseen = source(eval_data, config["evaluate"]["batch_size"], shuffle=False, name="eval_data")
    if seen.arrays is not None:
        require(config, {"batch_size": (1, len(seen.arrays["image"]) + 1)})
    if seen.batch_size % jax.device_count():
        raise ConfigError(f"batch_size must be a multiple of {jax.device_count()} devices, got {seen.batch_size}")
    if config["epochs"] * seen.steps >= 2**31:
        raise ConfigError(f"epochs: {config['epochs']:,} of {seen.steps:,} steps are more than 2**31 - 1 steps in all")
    if unseen is None:
        if config["patience"]:
            raise ConfigError("patience waits for a better result of eval_data, and there are none; give eval_data")
        for name in ("restore_best", "watch"):
            if config[name]:
                raise ConfigError(f"{name} needs the results of eval_data, and there are none; give eval_data")
    return seen, unseen


def checked(
    seen: Source, unseen: Source | None, loss_fn: LossFn, params: Params, state: State, config: Config, run: Run
) -> tuple[Source, Source | None]:
    """The sources, after what can be looked at was found right; a stream is checked while it is read.

    Raises:
        ValueError: for data that the model cannot learn from; what is tolerated is said.
    """
    check = lambda name: lambda batch: check_for_loss(name, loss_fn, params, state, batch)
    for name, data in (("train_data", seen), ("eval_data", unseen)):
        if data is None or data.arrays is None:
            continue
        image, weight = data.arrays["image"], data.arrays.get("weight")
        if weight is not None and not np.any(weight):
            raise ValueError(f"{name}: the weights of all examples are 0; leave them out, or the data")
        if name == "train_data" and config["on_nonfinite"] != "raise":
            if first := first_nonfinite(image, weight):
                run.say(f"train_data: image{[*first]} is {image[first]}; steps that meet such values are undone")
        else:
            check_finite(f"{name}: image", image, weight)
        check(name)(data.arrays)
    samples = [_sample(data) for data in (seen, unseen)]
    if all(sample is not None for sample in samples):
        check_same_range(*samples)
    if augments_color(config) and samples[0] is not None and not values_between(samples[0], 0, 1):
        raise ValueError("train_data: augmentations of color need images of bytes, or of floats from 0 to 1")
    unseen = unseen and with_checked_batches("eval_data", unseen, check("eval_data"))
    return with_checked_batches("train_data", seen, check("train_data")), unseen


def _sample(data: Source | None) -> np.ndarray | None:
    """Images to tell the range of the data by; None for a stream of floats, which is not read for that."""
    if data is None:
        return None
    if data.arrays is not None:
        return data.arrays["image"]
    return np.zeros(1, np.uint8) if data.spec["image"].dtype == np.uint8 else None
