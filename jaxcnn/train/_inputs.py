"""The data sources of `fit`, and their validation on the host before training."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcnn._arguments import is_function
from jaxcnn._layer import Layer, Params, State
from jaxcnn._loss import Batch, LossFn
from jaxcnn._validate import check_finite, check_for_loss, check_same_range, first_nonfinite, values_between
from jaxcnn.data import Dataset, Source, Stream, source
from jaxcnn.data._source import check_not_source
from jaxcnn.metrics import Metric
from jaxcnn.train._config import Config, ConfigError
from jaxcnn.train._devices import check_multiple_of_devices
from jaxcnn.train._evaluate import check_metrics, check_weighted, label_checks, with_checked_batches
from jaxcnn.train._recipe import Loss, augmentation_names, augments_color

Data = Dataset | Batch | tuple[Any, Any] | Stream


def check_functions(loss: Loss, metrics: Mapping[str, Metric] | None, eval_data: Data | None) -> None:
    """Raise TypeError or ConfigError for a loss and metrics that cannot be computed."""
    if not is_function(loss):
        raise TypeError(f"loss must be callable, such as jaxcnn.cross_entropy, got {loss!r}")
    check_metrics(metrics)
    if metrics and eval_data is None:
        raise ConfigError("metrics need eval_data: pass eval_data, or remove metrics")


def sources(train_data: Any, eval_data: Any, config: Config) -> tuple[Source, Source | None]:
    """The sources of training and evaluation batches.

    Raises:
        TypeError: for data that are a `Source`.
        ConfigError: for a batch size, a number of steps or settings that do not fit the data.
    """
    for name, data in (("train_data", train_data), ("eval_data", eval_data)):
        check_not_source(name, data)
    train_source = source(train_data, config["batch_size"], name="train_data")
    eval_source = None
    if eval_data is not None:
        eval_source = source(eval_data, config["evaluate"]["batch_size"], shuffle=False, name="eval_data")
    if train_source.arrays is not None:
        count = len(train_source.arrays["image"])
        if config["batch_size"] > count:
            raise ConfigError(
                f"batch_size must be at most {count}, the number of examples in train_data, got {config['batch_size']}"
            )
    check_multiple_of_devices("batch_size", train_source.batch_size)
    if eval_source is not None and eval_source.stream is not None:
        check_multiple_of_devices("the batch size of eval_data", eval_source.batch_size)
    if train_source.stream is not None and "alternating_flip" in augmentation_names(config):
        raise ConfigError(
            "augment: alternating_flip needs data in memory: a stream does not tell which example it gives; use flip"
        )
    epochs, steps = config["epochs"], train_source.steps
    if epochs * steps >= 2**31:
        raise ConfigError(f"epochs: {epochs:,} epochs of {steps:,} steps exceed the limit of 2**31 - 1 steps")
    if eval_source is None:
        for name in ("patience", "restore_best", "watch"):
            if config[name]:
                raise ConfigError(f"{name} needs evaluation metrics: pass eval_data, or unset {name}")
        if config["evaluate"]["tta"] != "none":
            raise ConfigError("evaluate.tta has no effect without eval_data")
    return train_source, eval_source


def checked_sources(
    train_source: Source,
    eval_source: Source | None,
    loss_fn: LossFn,
    model: Layer,
    metrics: Mapping[str, Metric],
    params: Params,
    state: State,
    config: Config,
    say: Callable[[str], None],
) -> tuple[Source, Source | None]:
    """The sources, validated. Data in memory are checked now, the batches of a stream when they are read.

    Raises:
        ValueError: for data that do not fit the model.
    """
    check_metric_labels = label_checks(model, metrics, params, state)

    def check(name, batch):
        check_for_loss(name, loss_fn, params, state, batch)
        if name == "eval_data":
            check_metric_labels(name, batch)

    for name, data in (("train_data", train_source), ("eval_data", eval_source)):
        if data is None or data.arrays is None:
            continue
        image, weight = data.arrays["image"], data.arrays.get("weight")
        if name == "train_data" and (hint := _hint(image, data.arrays.get("label"))):
            say(f"train_data: {hint}")
        if weight is not None and not np.any(weight):
            raise ValueError(f"{name}: the weights of all examples are 0; remove the weights or the data")
        if name == "train_data" and config["on_nonfinite"] != "raise":
            if first := first_nonfinite(image, weight):
                say(f"train_data: image{[*first]} is {image[first]}; steps with non-finite values will be undone")
        else:
            check_finite(f"{name}: image", image, weight)
        check(name, data.arrays)
    samples = [_sample(data) for data in (train_source, eval_source)]
    if all(sample is not None for sample in samples):
        check_same_range(*samples)
    if augments_color(config) and samples[0] is not None and not values_between(samples[0], 0, 1):
        raise ValueError("train_data: color augmentations need uint8 images, or float images from 0 to 1")
    if eval_source is not None:
        check_weighted("eval_data", loss_fn, params, state, eval_source)
    of_batch = lambda name: functools.partial(check, name)
    eval_source = eval_source and with_checked_batches("eval_data", eval_source, of_batch("eval_data"), finite=True)
    return with_checked_batches("train_data", train_source, of_batch("train_data")), eval_source


def _hint(image: np.ndarray, label: np.ndarray | None) -> str:
    """A remark on data that are valid, but probably not what the caller means; "" for others."""
    shape, some = image.shape, image[:100]
    if image.ndim == 4 and shape[1] in (1, 3) and min(shape[2:]) > 4:
        return f"images {shape} are read as (N, H, W, C); if they are (N, C, H, W), pass image.transpose(0, 2, 3, 1)"
    if image.ndim == 3 and shape[1] == shape[2] > 4:
        return f"images {shape} are read as signals (N, T, C); if they are (N, H, W), pass image[..., None]"
    if np.issubdtype(image.dtype, np.floating) and 15 < some.max() <= 255 and np.array_equal(some, np.round(abs(some))):
        return f"images have whole numbers up to {some.max():g}; pass uint8, or divide by 255"
    if label is not None and image.dtype == label.dtype == np.uint8 and shape == label.shape and label[:100].max() > 1:
        return "uint8 images are divided by 255, but labels are not; to reconstruct images, divide both by 255"
    return ""


def _sample(data: Source | None) -> np.ndarray | None:
    """Images that show the range of the data; None for a stream of floats, which is not read in advance."""
    if data is None:
        return None
    if data.arrays is not None:
        return data.arrays["image"]
    return np.zeros(1, np.uint8) if data.spec["image"].dtype == np.uint8 else None
