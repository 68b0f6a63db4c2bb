"""Training by config: `fit` builds source, loss, optimizer, step and callbacks, and drives the loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._combine import AnyLayer
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._loss import Batch, cross_entropy
from jaxcnn._path import expected_one_of
from jaxcnn._transform import cast
from jaxcnn.data import Dataset, Stream
from jaxcnn.data._source import as_batch
from jaxcnn.metrics import Metric
from jaxcnn.train import callbacks as cb
from jaxcnn.train._config import Config, ConfigError
from jaxcnn.train._devices import to_devices
from jaxcnn.train._evaluate import mean_metrics, measurement
from jaxcnn.train._identity import program_identity, refuse_another_run
from jaxcnn.train._inputs import checked, sources
from jaxcnn.train._interrupt import stop_signal
from jaxcnn.train._loop import loop
from jaxcnn.train._optimizer import make_optimizer
from jaxcnn.train._recipe import FIT, Loss, augmentation, evaluation_loss, resolve, scale_bytes, training_loss
from jaxcnn.train._result import FitResult, result
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState, make_step
from jaxcnn.train._tta import with_tta
from jaxcnn.weights import transplant

Data = Dataset | Batch | tuple[Any, Any] | Stream


def fit(
    model: AnyLayer,
    train_data: Data,
    *,
    eval_data: Data | None = None,
    loss: Loss = cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[cb.Callback] = (),
    config: Config | None = None,
    run: Run | None = None,
    start: tuple[Params, State] | None = None,
) -> FitResult:
    """Train a model, evaluate it after each epoch, and keep checkpoints from which it goes on after anything.

    Images of bytes are divided by 255. An epoch has as many whole batches as there are; which images are left out
    differs. On several devices, in one process or in many, each has its rows of every batch and all have the
    parameters; statistics of batch norm are those of the whole batch.

    If the run's folder has checkpoints, training goes on from the latest whole one. SIGTERM, SIGINT (Ctrl-C) and SIGHUP
    save one, too, and end the program with status 143, 130 and 129. One `fit` at a time can write to a folder.

    Args:
        model: from images (N, H, W, C) to what the loss needs, such as logits (N, classes).
        train_data: images and labels in memory, or a stream of batches. Augmentation changes "image" alone; other
            entries of a dict reach the loss as they are.
        eval_data: what to evaluate on.
        loss: model -> LossFn, such as `cross_entropy`, `functools.partial(cross_entropy, auxiliary=0.4)`,
            `mean_squared_error`, or one of your own.
        metrics: by name, what else to compute on `eval_data`; they are in the records beside those of the loss.
        callbacks: functions of an `Event`, called one after the other; see `train.callbacks`.
        config: what differs from `FIT`, which has all settings. "optimizer" may have arguments of its optax function.
        run: the folder and the progress lines; as a rule a new one in `runs/`.
        start: params and state to begin with, such as those of a trained backbone; parts of the trees will do.

    Raises:
        TypeError: for a loss, metric or callback that is none.
        ConfigError: for a setting that does not exist or cannot be, or checkpoints of another config, model or data.
        ValueError: for data that do not fit the model or each other: lengths, labels, values that are not finite
            (unless "on_nonfinite" deals with them), training and evaluation in different ranges.
        NonFiniteError: for a loss or parameter that is not finite, unless the config says otherwise.
        CheckpointError: if no checkpoint can be written, those that are there cannot be read, or another `fit` is
            writing to the run's folder.

    Example:
        >>> import tempfile
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> folder = tempfile.mkdtemp()
        >>> model = jaxcnn.serial(jaxcnn.max_pool(4), jaxcnn.flatten, jaxcnn.dense(10))
        >>> config = {"epochs": 2, "optimizer": {"learning_rate": 0.01}}
        >>> run = jaxcnn.train.Run("example", {}, folder=folder)
        >>> result = jaxcnn.train.fit(model, digits, config=config, run=run)  # doctest: +ELLIPSIS
        compiling ...
        epoch 1: loss ...
        epoch 2: loss ...

        The same again, in the same folder, goes on from the last checkpoint, which here is that of the end:

        >>> run = jaxcnn.train.Run("example", {}, folder=folder)
        >>> again = jaxcnn.train.fit(model, digits, config=config, run=run)
        going on from step 30; compiling ...
        >>> again.history == result.history
        True
    """
    for name, functions in (("loss", [loss]), ("callbacks", callbacks)):
        for function in functions:
            if not callable(function):
                raise TypeError(f"{name}: {function!r} is not a function")
    for name, metric in (metrics or {}).items():
        if not isinstance(metric, Metric):
            raise TypeError(f"metrics: {name!r} must be a jaxcnn.metrics.Metric, got {metric!r}")
    if metrics and eval_data is None:
        raise ConfigError("metrics are computed on eval_data, and there are none; give eval_data")
    config = resolve(config or {})
    run = run or Run("fit", config)
    with run.locked():
        return _fit(as_layer(model), train_data, eval_data, loss, metrics or {}, callbacks, config, run, start)


def _fit(model: Layer, train_data, eval_data, loss, metrics, callbacks, config, run, start) -> FitResult:
    explained = as_batch(train_data if eval_data is None else eval_data)  # with the names of its classes
    seen, unseen = sources(train_data, eval_data, config)
    if config["dtype"] == "bfloat16":
        model = cast(model, jnp.bfloat16)
    loss_fn = training_loss(loss, model, config)
    key, batch = jax.random.key(config["seed"]), jax.eval_shape(scale_bytes, seen.spec)
    params, state = jax.eval_shape(model.init, key, batch["image"])
    seen, unseen = checked(seen, unseen, loss_fn, params, state, config, run)
    identity = _identity(loss_fn, (params, state, batch), seen, unseen, config, run)
    optimizer = make_optimizer(config, config["epochs"] * seen.steps, params)
    for tree, part in zip((params, state), start or (), strict=False):
        transplant(tree, part)  # here, an error is not one in a compiled function
    train_state = TrainState.create(_started(model, start), optimizer, key, batch["image"])

    every, keep = config["checkpoint"]["every"], config["checkpoint"]["keep"]
    folder = run.folder / "checkpoints"
    check = lambda step, about: refuse_another_run(folder / str(step), about, identity, FIT, run.say)
    checkpoints = cb.Checkpoints(folder, keep=keep, every=every, config=identity, check=check)
    hooks: list[cb.Callback] = []  # in the order that `callbacks` explains
    if config["accumulate"] > 1:
        hooks.append(cb.accumulated(optimizer, config["accumulate"]))
    if unseen is not None:
        hooks.append(cb.evaluation(_evaluate(loss, model, metrics, unseen, params, state, config)))
        hooks.append(cb.best(config["watch"], restore=config["restore_best"] or config["patience"] > 0))
    hooks += [checkpoints.resume, cb.nonfinite(config["on_nonfinite"], checkpoints), *callbacks]
    if config["patience"]:
        hooks.append(cb.early_stopping(config["patience"]))
    hooks.append(cb.log)
    if config["tensorboard"]:
        hooks.append(cb.tensorboard(run.folder / "tensorboard"))
    hooks += [checkpoints.save, cb.progress]
    if config["report"] and "report" in cb.FACTORIES:
        hooks.append(cb.tolerant("the report", cb.FACTORIES["report"](model, explained)))

    skip = cb.MOST_IN_A_ROW - 1 if config["on_nonfinite"] == "skip" else 0
    settings = {"epochs": config["epochs"], "augmentation": augmentation(config), "skip": skip, "every": every}
    with stop_signal() as told:
        hooks.append(cb.signals(told, checkpoints))
        for event in loop(make_step(loss_fn, optimizer), train_state, seen, run=run, **settings):
            for callback in hooks:
                callback(event)
    return result(event, run)


def _started(model: Layer, start: tuple[Params, State] | None) -> Layer:
    """The model, whose initial values are those given where there are some."""
    if start is None:
        return model

    def init(key, x):
        return tuple(transplant(tree, part) for tree, part in zip(model.init(key, x), start, strict=True))

    return Layer(init, model.apply)


def _identity(loss_fn, specs: tuple[Params, State, Batch], seen, unseen, config: Config, run: Run) -> Config:
    """What a checkpoint must have in common with the run that goes on from it."""

    def program(train: bool):
        fn = lambda params, state, batch, key: loss_fn(params, state, batch, train=train, key=key)
        return program_identity(fn, *specs, jax.eval_shape(lambda: jax.random.key(0)))

    data = {"data": seen.fingerprint, "eval_data": "none" if unseen is None else unseen.fingerprint}
    return {"config": run.config, "fit": config, **data, "training": program(True), "evaluation": program(False)}


def _evaluate(loss, model, metrics, unseen, params, state, config) -> Callable[[Params, State], dict[str, float]]:
    """(params, state) -> all metrics on `unseen`."""
    model = with_tta(model, config["evaluate"]["tta"])
    measure = measurement(evaluation_loss(loss, model), model, metrics)
    if watch := config["watch"].removeprefix("-"):
        batch = unseen.spec | {"weight": jax.ShapeDtypeStruct((unseen.batch_size,), jnp.float32)}
        names = [*jax.eval_shape(measure, params, state, batch)[0], *metrics]
        if watch not in names:
            raise ConfigError(f"watch: there is no metric {watch!r}; {expected_one_of(watch, names)}")
    unseen = to_devices(unseen)
    return lambda params, state: mean_metrics(measure, metrics, params, state, unseen)
