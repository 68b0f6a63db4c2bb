"""`fit`: builds the data source, loss, optimizer, step and callbacks from a config, and runs the training loop."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn._arguments import is_function, short_repr
from jaxcnn._combine import AnyLayer
from jaxcnn._cross_entropy import cross_entropy
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._loss import Batch, inputs
from jaxcnn._memory import reuse_memory_by_default
from jaxcnn._trainable import trainable_params
from jaxcnn._transform import cast
from jaxcnn._transplant import transplant
from jaxcnn.data import Source
from jaxcnn.data._source import as_batch
from jaxcnn.metrics import Metric
from jaxcnn.train import callbacks as cb
from jaxcnn.train._batch import evaluation_batch, scale_bytes
from jaxcnn.train._config import Config
from jaxcnn.train._custom import checked_augmentation, optimizer_identity, reject_replaced
from jaxcnn.train._devices import to_devices
from jaxcnn.train._evaluate import check_watch, mean_metrics, measurement
from jaxcnn.train._identity import program_identity, reject_different_run, start_identity
from jaxcnn.train._inputs import Data, check_functions, checked_sources, sources
from jaxcnn.train._interrupt import stop_signal
from jaxcnn.train._loop import loop
from jaxcnn.train._optimizer import make_optimizer
from jaxcnn.train._recipe import (
    FIT,
    Loss,
    loss_of,
    moves_constant_parameters,
    resolve,
    training_loss,
    with_loss_as_metric,
)
from jaxcnn.train._result import FitResult, result
from jaxcnn.train._run import Run, check_run
from jaxcnn.train._schedule import check_schedule
from jaxcnn.train._step import TrainState, check_transformation, make_step
from jaxcnn.train._sweep import sweep
from jaxcnn.train._sweep_result import SweepResult
from jaxcnn.train._tta import with_tta


@overload
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
    optimizer: optax.GradientTransformation | None = None,
    augmentation: Callable[..., Batch] | None = None,
    seeds: None = None,
) -> FitResult: ...


@overload
def fit(
    model: AnyLayer,
    train_data: Data,
    *,
    eval_data: Data | None = None,
    loss: Loss = cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    config: Config | None = None,
    run: Run | None = None,
    seeds: int,
) -> SweepResult: ...


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
    optimizer: optax.GradientTransformation | None = None,
    augmentation: Callable[..., Batch] | None = None,
    seeds: int | None = None,
) -> FitResult | SweepResult:
    """Train a model, evaluate it after each epoch, and save checkpoints from which training can resume.

    uint8 images are divided by 255. The data are shuffled every epoch, and an incomplete last batch is dropped.
    Training is data-parallel over all devices of all processes: the parameters are replicated, and each batch is split.
    Batch norm uses the statistics of the whole batch.

    Training resumes from the latest valid checkpoint in the run's folder, if there is one. SIGTERM, SIGINT (Ctrl-C) and
    SIGHUP save a checkpoint and end the program with status 143, 130 or 129. Only one `fit` at a time can write to a
    folder.

    Args:
        model: maps images (N, *spatial, C) to the input of the loss, such as logits (N, classes).
        train_data: images and labels in memory, or a stream of batches: a `Dataset`, a `Stream`, a pair (image, label),
            or a dict with "image" and the entries that the loss needs. Labels are not divided by 255. Augmentation
            changes "image", and a "label" that is a map (N, *spatial) or (N, *spatial, K) of its size if pixels move;
            all other entries of a dict reach the loss unchanged.
        eval_data: the data to evaluate on after each epoch.
        loss: model -> LossFn, such as `cross_entropy`, `functools.partial(cross_entropy, auxiliary=0.4)`,
            `mean_squared_error`, or your own function. The last batch of an evaluation is padded with examples whose
            `batch["weight"]` is 0: your own loss must weight its examples.
        metrics: name -> additional metric to compute on `eval_data`. The results are recorded as
            `record["test"][name]`; the names must differ from those of the loss's metrics. An array, such as a
            confusion matrix, is recorded as a list, but not printed. A value that is not finite is recorded as None.
            The setting "watch" selects the best epoch by a metric: "mean_iou" maximizes it, "-error" minimizes it.
        callbacks: functions of an `Event`, called in order; see `train.callbacks`.
        config: the settings that differ from the defaults in `FIT`. "optimizer" also accepts the arguments of its optax
            function.
        run: the run folder and progress output. Default: a new folder in `runs/`.
        start: initial params and state, such as those of a pretrained backbone. Partial trees are allowed.
        optimizer: an optax optimizer that replaces the settings "optimizer", "schedule", "weight_decay" and
            "clip_norm", such as `optax.partition` for learning rates by path, or one with your own schedule.
            "accumulate" (unless the optimizer needs the loss) and "ema" still apply. Schedule-free optimizers are
            evaluated at their average.
        augmentation: (key, batch, when) -> batch, as returned by `data.augment.compose`, for augmentations of your own.
            Its batches have images from 0 to 1. It replaces the settings "augment", "augment_labels" and "label_fill".
        seeds: the number of networks to train in one program, whose seeds are consecutive integers from the setting
            "seed" on. The result is that of `sweep(.., over={"seed": ..})`, which describes what it supports.

    Raises:
        TypeError: if the loss, the augmentation or a callback is not callable, a metric is not a `Metric`, or `run`,
            `start` or `optimizer` is of another type.
        ConfigError: for an unknown or invalid setting, or if the checkpoints in the folder have a different config,
            model, optimizer, augmentation or data; for settings that `optimizer` or `augmentation` replaces.
        ValueError: for data that do not fit the model: lengths, labels, non-finite values (unless "on_nonfinite"
            handles them), or training and evaluation images with different ranges; for an augmentation that changes
            shapes; for seeds below 1, or seeds together with callbacks, start, optimizer or augmentation; inside
            `jax.set_mesh`, because `fit` has a mesh of its own.
        NonFiniteError: for a loss, parameter or optimizer state that is not finite, unless "on_nonfinite" handles it.
        CheckpointError: if a checkpoint cannot be written, no existing checkpoint can be read, or another `fit` is
            writing to the folder.

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

        A second call with the same folder resumes from the last checkpoint, here the end of training:

        >>> run = jaxcnn.train.Run("example", {}, folder=folder)
        >>> again = jaxcnn.train.fit(model, digits, config=config, run=run)
        resuming from step 30; compiling ...
        >>> again.history == result.history
        True

        The mean and standard deviation over seeds:

        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> result = jaxcnn.train.fit(model, digits, config=config, run=run, seeds=3)  # doctest: +ELLIPSIS
        3 runs of 2 epochs, 3 at a time
        run 1 (seed=0): accuracy ...
        >>> [run.settings["seed"] for run in result.runs]
        [0, 1, 2]
    """
    reuse_memory_by_default()
    check_functions(loss, metrics, eval_data)
    if not isinstance(callbacks, Sequence):
        raise TypeError(f"callbacks must be a list of functions, got {callbacks!r}; pass [..]")
    for callback in callbacks:
        if not is_function(callback):
            raise TypeError(f"callbacks must be callable, got {callback!r}")
    check_run(run)
    if start is not None and not (isinstance(start, tuple | list) and len(start) == 2):
        raise TypeError(f"start must be a pair (params, state), got {short_repr(start)}")
    config = resolve(config or {})
    check_schedule(config)
    if optimizer is not None:
        check_transformation("fit", optimizer)
        reject_replaced(config, "optimizer", ("optimizer", "schedule", "weight_decay", "clip_norm"))
    if augmentation is not None:
        if not is_function(augmentation):
            raise TypeError(
                f"augmentation must be callable, such as augment.compose(..), got {short_repr(augmentation)}"
            )
        reject_replaced(config, "augmentation", ("augment", "augment_labels", "label_fill"))
    if seeds is not None:
        _check_seeds(seeds, callbacks=callbacks, start=start, optimizer=optimizer, augmentation=augmentation)
        over = {"seed": range(config["seed"], config["seed"] + seeds)}
        return sweep(
            model, train_data, over=over, eval_data=eval_data, loss=loss, metrics=metrics, config=config, run=run
        )
    new_run = run is None
    run = run or Run("fit", config)
    with run.locked():
        fitted = _fit(
            as_layer(model),
            train_data,
            eval_data,
            loss,
            metrics or {},
            callbacks,
            config,
            run,
            start,
            optimizer,
            augmentation,
        )
    if new_run:  # the caller has not seen its folder
        run.say(f"results in {run.folder}{', with report.html' if config['report'] else ''}")
    return fitted


def _fit(
    model: Layer,
    train_data,
    eval_data,
    loss,
    metrics,
    callbacks,
    config,
    run,
    start,
    own_optimizer,
    own_augmentation,
) -> FitResult:
    report_data = as_batch(train_data if eval_data is None else eval_data)  # keeps the class names
    train_source, eval_source = sources(train_data, eval_data, config)
    if config["dtype"] == "bfloat16":
        model = cast(model, jnp.bfloat16)
    loss_fn = training_loss(loss, model, config)
    key, batch = jax.random.key(config["seed"]), jax.eval_shape(scale_bytes, train_source.spec)
    params, state = jax.eval_shape(model.init, key, batch["image"])
    train_source, eval_source = checked_sources(
        train_source, eval_source, loss_fn, model, metrics, params, state, config, run.say
    )
    augment_batch, custom_programs = checked_augmentation(own_augmentation, config, key, batch)
    if own_optimizer is not None:
        custom_programs |= optimizer_identity(own_optimizer, config, params)
    watched = metrics.get(config["watch"].removeprefix("-"))
    identity = _identity(loss_fn, model, watched, (params, state), train_source, eval_source, config, run)
    identity |= {"start": start_identity(start)} | custom_programs
    moves_all = own_optimizer is not None or moves_constant_parameters(config)
    trainable = trainable_params(model, params, state, batch["image"]) if moves_all else None
    optimizer = make_optimizer(config, config["epochs"] * train_source.steps, params, trainable, own_optimizer)
    if start is not None:
        _check_start(start, params, state)
    train_state = TrainState.create(_with_initial_values(model, start), optimizer, key, batch["image"])
    evaluate = eval_source and _evaluate_fn(loss, model, metrics, eval_source, params, state, config)

    schedule = config["schedule"]
    more_epochs = own_optimizer is not None or (schedule["name"] == "constant" and not schedule["warmup"])
    checkpoints = _checkpoints(run, config, identity, more_epochs)
    hooks = _callbacks(config, run, checkpoints, optimizer, evaluate, callbacks)
    if config["report"]:
        # Not at the top: jaxcnn.report imports this package.
        write_report = importlib.import_module("jaxcnn.report").write_report
        hooks.append(cb.tolerant("the report", write_report(model, report_data)))
    skip = cb.MAX_IN_A_ROW - 1 if config["on_nonfinite"] == "skip" else 0
    every = config["checkpoint"]["every"]
    options = {"epochs": config["epochs"], "augmentation": augment_batch, "skip": skip, "every": every}
    with stop_signal() as received_signal:
        hooks.append(cb.signals(received_signal, checkpoints))
        for event in loop(make_step(loss_fn, optimizer), train_state, train_source, run=run, **options):
            for callback in hooks:
                callback(event)
    return result(event, run)


def _checkpoints(run: Run, config: Config, identity: Config, more_epochs: bool) -> cb.Checkpoints:
    """The checkpoints of the run. One of another identity is an error, but its "epochs" may be fewer if allowed."""
    folder = run.folder / "checkpoints"
    every, keep = config["checkpoint"]["every"], config["checkpoint"]["keep"]
    check = lambda step, about: reject_different_run(
        folder / str(step), about, identity, FIT, run.say, more_epochs=more_epochs
    )
    return cb.Checkpoints(folder, keep=keep, every=every, config=identity, check=check)


def _callbacks(
    config: Config,
    run: Run,
    checkpoints: cb.Checkpoints,
    optimizer: optax.GradientTransformation,
    evaluate: Callable[[Params, State], dict[str, Any]] | None,
    callbacks: Sequence[cb.Callback],
) -> list[cb.Callback]:
    """The callbacks of the settings, with those of the caller between them. Their order is explained in `callbacks`."""
    hooks: list[cb.Callback] = []
    if config["accumulate"] > 1:
        hooks.append(cb.accumulated(optimizer, config["accumulate"]))
    if evaluate is not None:
        hooks.append(cb.evaluation(evaluate))
        hooks.append(cb.best(config["watch"], restore=config["restore_best"] or config["patience"] > 0))
    hooks += [checkpoints.resume, cb.nonfinite(config["on_nonfinite"], checkpoints), *callbacks]
    if config["patience"]:
        hooks.append(cb.early_stopping(config["patience"]))
    hooks.append(cb.log)
    if config["tensorboard"]:
        hooks.append(cb.tensorboard(run.folder / "tensorboard"))
    return [*hooks, checkpoints.save, cb.progress]


def _check_seeds(seeds: int, **unsupported: Any) -> None:
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 1:
        raise ValueError(f"seeds must be an integer of at least 1, the number of networks, got {seeds!r}")
    for name, given in unsupported.items():
        if given:
            raise ValueError(
                f"{name}: fit with seeds={seeds} trains all networks in one program, without {name}; call fit per seed"
            )


def _check_start(start: tuple[Params, State], params: Params, state: State) -> None:
    """Raise ValueError for trees that do not fit, outside of the compiled function, with a short traceback."""
    for name, tree, part in zip(("params", "state"), (params, state), start, strict=True):
        try:
            transplant(tree, part)
        except ValueError as error:
            error.add_note(f"in the {name} of start=(params, state)")
            raise


def _with_initial_values(model: Layer, start: tuple[Params, State] | None) -> Layer:
    """The model with an `init` that copies the values of `start` into the initial params and state."""
    if start is None:
        return model

    def init(key, x):
        return tuple(transplant(tree, part) for tree, part in zip(model.init(key, x), start, strict=True))

    return Layer(init, model.apply)


def _identity(
    loss_fn,
    model: Layer,
    watched: Metric | None,
    specs: tuple[Params, State],
    train_source: Source,
    eval_source: Source | None,
    config: Config,
    run: Run,
) -> Config:
    """The settings, data and programs that must match between a checkpoint and the run that resumes from it.

    They include the metric that selects the best epoch, because a checkpoint holds its best value.
    """

    def program(train: bool, source: Source):
        def fn(params, state, batch, key):
            loss = loss_fn(params, state, batch, train=train, key=key)
            if train or watched is None:
                return loss
            output, _ = model.apply(params, state, inputs(batch)[0], train=False)
            weighted = {"weight": jnp.ones(len(batch["image"]), jnp.float32)} | batch
            return loss, watched.compute(watched.update(output, weighted))

        return program_identity(fn, *specs, jax.eval_shape(scale_bytes, source.spec), key_spec())

    eval_fingerprint = "none" if eval_source is None else eval_source.fingerprint
    data = {"data": train_source.fingerprint, "eval_data": eval_fingerprint}
    programs = {"training": program(True, train_source), "evaluation": program(False, eval_source or train_source)}
    return {"config": run.config, "fit": config, **data, **programs}


def _evaluate_fn(loss, model, metrics, eval_source, params, state, config) -> Callable[[Params, State], dict[str, Any]]:
    """(params, state) -> all metrics on `eval_source`, after a check that they fit the output of the model."""
    model = with_tta(model, config["evaluate"]["tta"])
    measure = measurement(with_loss_as_metric(loss_of(loss, model)), model, metrics, evaluation_batch, True)
    if config["watch"] or metrics:
        batch = {"weight": jax.ShapeDtypeStruct((eval_source.batch_size,), jnp.float32)} | eval_source.spec
        check_watch(config["watch"], metrics, jax.eval_shape(measure, params, state, batch))
    eval_source = to_devices(eval_source)
    return lambda params, state: mean_metrics(measure, metrics, params, state, eval_source)
