"""Callbacks of `fit`: functions `(event) -> None` that it calls in order for each event of the training loop.

A callback checks `event.kind` and acts on it. It may change the event (see `Event`): add entries to `event.record` at
"epoch", store values in `event.note`, or end training with `event.stop = True`. An exception ends training. With
several processes, every process calls it with the same values, and all must make the same decisions.

    def warn_of_overfitting(event):
        if event.kind == "epoch" and event.record["test"]["loss"] > 2 * event.record["train"]["loss"]:
            event.run.say("warning: the network overfits")

The order matters. `fit` calls its own callbacks and the user's in this order:

    accumulated      applies the remaining accumulated gradients before anything reads the parameters
    evaluation       adds the evaluation metrics, which later callbacks use
    best             keeps the parameters of the best epoch; before `resume`, which restores them
    resume           restores the latest checkpoint; later callbacks see the restored state
    nonfinite        after a non-finite step, rolls back or raises
    user callbacks   receive the evaluation metrics; what they add is logged and saved
    early_stopping   ends training early; a run that ended early and is resumed ends at once
    log, tensorboard add the time and speed to the epoch's record, and write it
    save             saves a checkpoint with all of the above
    progress         prints the progress
    report           writes the report from the logged records
    signals          ends the program after a signal, once everything is saved

A training loop of your own calls those it needs:

    >>> import optax
    >>> from jaxcnn.train import callbacks
    >>> model, optimizer = jaxcnn.dense(2), optax.sgd(0.1)
    >>> loss_fn, train_data = jaxcnn.cross_entropy(model), (jnp.ones((8, 3)), jnp.zeros(8, int))
    >>> source = jaxcnn.data.source(train_data, 4)
    >>> train_state = jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), source.spec["image"])
    >>> evaluate = lambda params, state: jaxcnn.train.evaluate(loss_fn, params, state, train_data)
    >>> called = [callbacks.evaluation(evaluate), callbacks.best("-loss"), callbacks.early_stopping(5)]
    >>> for event in jaxcnn.train.loop(jaxcnn.train.make_step(loss_fn, optimizer), train_state, source, epochs=3):
    ...     for callback in called:
    ...         callback(event)
    >>> event.note["best_epoch"]
    3
"""

import functools
import math
import pathlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn._arguments import short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn._jit import jit
from jaxcnn._layer import Params, State
from jaxcnn.train._checkpoints import Checkpoints as Checkpoints
from jaxcnn.train._checkpoints import signals as signals
from jaxcnn.train._config import ConfigError, flat_entries
from jaxcnn.train._devices import replicate
from jaxcnn.train._event import Event, format_metrics, nonfinite_message
from jaxcnn.train._guard import NonFiniteError
from jaxcnn.train._optimizer import checked_accumulated
from jaxcnn.train._run import to_json

__all__ = [
    "Callback",
    "Checkpoints",
    "accumulated",
    "best",
    "early_stopping",
    "evaluation",
    "log",
    "nonfinite",
    "progress",
    "signals",
    "tensorboard",
    "tolerant",
]

Callback = Callable[[Event], None]

MAX_IN_A_ROW = 10  # consecutive non-finite steps, or rollbacks, at which training fails


def accumulated(optimizer: optax.GradientTransformation, every: int) -> Callback:
    """At the end of each epoch, apply the gradients accumulated since the last update (fewer than `every` steps).

    Args:
        optimizer: that of the step, made by `train.make_optimizer` with the setting "accumulate".
        every: the number of steps per update.

    Raises:
        NonFiniteError: if a parameter is not finite after that.

    Example:
        >>> optimizer = jaxcnn.train.make_optimizer(jaxcnn.train.FIT | {"accumulate": 4}, 10, {"kernel": jnp.ones(2)})
        >>> callback = jaxcnn.train.callbacks.accumulated(optimizer, 4)
    """
    apply = jit(functools.partial(checked_accumulated, optimizer, every), donate_argnums=0)

    def callback(event):
        if event.kind == "epoch":
            train_state, _, nonfinite_leaf = apply(event.carry.train_state)
            event.carry = event.carry._replace(train_state=train_state, nonfinite_leaf=nonfinite_leaf)
            if int(nonfinite_leaf) >= 0:
                raise NonFiniteError(
                    f"{nonfinite_message(event)} after the update at the end of the epoch; try a smaller learning rate "
                    "or clip_norm"
                )

    return callback


def evaluation(evaluate: Callable[[Params, State], dict[str, Any]]) -> Callback:
    """After each epoch, store the metrics that `evaluate(params, state)` returns in `event.record["test"]`.

    Args:
        evaluate: (params, state) -> {name: value}, such as a function that calls `train.evaluate`.

    Example:
        >>> callback = jaxcnn.train.callbacks.evaluation(lambda params, state: {"largest": params["kernel"].max()})
    """

    def callback(event):
        if event.kind == "epoch":
            with event.busy("evaluating"):
                event.record["test"] = evaluate(event.params, event.state)

    return callback


def best(watch: str = "", *, restore: bool = False) -> Callback:
    """Keep the params and state of the epoch with the best evaluation metric, and the number of that epoch.

    Args:
        watch: the evaluation metric to maximize, or "-name" to minimize it, such as "-loss". The empty string selects
            "accuracy" if it is evaluated, else "-loss". An epoch in which it or the loss is not finite is not the best.
        restore: whether training returns the best epoch's params and state instead of the last ones.

    Raises:
        ConfigError: after the first epoch, if the watched metric is an array.

    Example:
        >>> callback = jaxcnn.train.callbacks.best("-loss", restore=True)
    """

    def callback(event):
        if event.kind == "start":
            event.best = jax.tree.map(jnp.copy, (event.params, event.state))
            event.restore_best = restore
            event.note |= {"best": None, "best_epoch": 0, "since_best": 0}
        if event.kind != "epoch":
            return
        event.metric = metric_to_maximize(watch, event.record["test"])
        event.note["since_best"] += 1
        best_metric = event.note["best"]
        if event.metric is not None and (best_metric is None or event.metric > best_metric):
            event.note |= {"best": event.metric, "best_epoch": event.epoch, "since_best": 0}
            event.best = jax.tree.map(jnp.copy, (event.params, event.state))

    return callback


def metric_to_maximize(watch: str, metrics: Mapping[str, Any]) -> float | None:
    """The watched metric, negated if `watch` begins with "-"; None if it or the loss is not finite.

    The metrics may be recorded ones, where None is a value that is not finite.
    """
    watch = watch or ("accuracy" if "accuracy" in metrics else "-loss")
    value = metrics[watch.removeprefix("-")]
    if value is None or metrics["loss"] is None:
        return None
    if not isinstance(value, int | float):
        raise ConfigError(f"watch: {watch.removeprefix('-')!r} is an array of shape {np.shape(value)}; watch a scalar")
    if not math.isfinite(value) or not math.isfinite(metrics["loss"]):
        return None
    return -value if watch.startswith("-") else value


def early_stopping(patience: int) -> Callback:
    """End training after `patience` consecutive epochs without a new best metric. Requires the callback `best`.

    Example:
        >>> called = [jaxcnn.train.callbacks.best("accuracy"), jaxcnn.train.callbacks.early_stopping(patience=5)]
    """

    def callback(event):
        if event.kind in ("start", "epoch") and event.note["since_best"] >= patience:
            event.stop = True

    return callback


def nonfinite(policy: str, checkpoints: Checkpoints) -> Callback:
    """Handle non-finite steps.

    Args:
        policy: "raise"; "skip", which `loop` does; or "rollback" to the latest checkpoint, without those that only an
            interrupted training has.
        checkpoints: those of the run. With "rollback", they save the state before the first step, too.

    Raises:
        NonFiniteError: with "raise"; after too many skipped steps or rollbacks; or if an epoch has no finite step.

    Example:
        >>> checkpoints = jaxcnn.train.callbacks.Checkpoints("runs/digits/checkpoints", keep=2)
        >>> callback = jaxcnn.train.callbacks.nonfinite("rollback", checkpoints)
    """
    checkpoints.rolls_back = policy == "rollback"

    def callback(event):
        note = event.note
        if event.kind == "start":
            before = {"skipped_before": int(event.carry.skipped), "rollbacks_before": note.get("rollbacks", 0)}
            event.note = before | note  # of this epoch, also if training resumes within it
        if event.kind == "epoch":
            skipped = int(event.carry.skipped)
            if skipped - note.get("skipped_before", skipped) == event.steps:
                raise NonFiniteError(f"epoch {event.epoch}: all {event.steps:,} steps were non-finite")
            if skipped:
                event.record["skipped"] = skipped
            note |= {"skipped_before": skipped, "rollbacks_before": note.get("rollbacks", 0)}
        if event.kind == "nonfinite":
            problem = nonfinite_message(event)
            if policy == "skip":
                raise NonFiniteError(f"{problem}; the {MAX_IN_A_ROW - 1} steps before were also non-finite and skipped")
            if policy == "raise":
                raise NonFiniteError(
                    f'{problem}; try a smaller learning rate, clip_norm, or on_nonfinite "skip" or "rollback"'
                )
            if note.get("rollbacks", 0) - note.get("rollbacks_before", 0) >= MAX_IN_A_ROW:
                raise NonFiniteError(f"{problem}; giving up after {MAX_IN_A_ROW} rollbacks")
            _roll_back(event, problem)

    def _roll_back(event, problem):
        rollbacks, before = event.note.get("rollbacks", 0) + 1, event.note.get("rollbacks_before", 0)
        checkpoints.roll_back(event)
        event.note |= {"rollbacks": rollbacks, "rollbacks_before": before}
        # A new key changes the order of the examples, the augmentations and dropout.
        key = replicate(jax.random.fold_in(event.train_state.key, rollbacks))
        event.carry = event.carry._replace(train_state=event.train_state._replace(key=key))
        event.run.say(f"{problem}; rolled back to step {event.step:,}, continuing with a new random order")

    return callback


def log(event: Event) -> None:
    """Write the epoch's record to the run's files, and print it as one line, without arrays.

    Raises:
        TypeError, ValueError: for a name in the record that is not a string, an entry that JSON cannot hold, or another
            "epoch" or "step".
    """
    if event.kind != "epoch":
        return
    record = event.record
    _check_record(event)
    line = f"epoch {event.epoch}: {format_metrics(_loss_first(record['train']))}"
    if "test" in record:
        line += f"; test {format_metrics(_loss_first(record['test']), precise=True)}"
    if "skipped" in record:
        line += f"; {record['skipped']} non-finite steps skipped in total"
    record |= {"seconds": round(event.seconds, 2), "images_per_second": round(event.images_per_second, 1)}
    event.run.log(line, **record)


def tensorboard(folder: pathlib.Path) -> Callback:
    """Write the finite numbers of each epoch's record as TensorBoard event files. Arrays are left out.

    Args:
        folder: the folder of the event files, for `tensorboard --logdir`.

    Raises:
        ImportError: without tensorboardX, `pip install 'jaxcnn[tb]'`.

    Example: `train.fit(.., callbacks=[train.callbacks.tensorboard("runs/digits/tensorboard")])`
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("TensorBoard files are written by tensorboardX", "tb") from error
    folder = pathlib.Path(folder).absolute()  # the program may change the working directory

    def callback(event):
        if event.kind != "epoch" or jax.process_index():
            return
        # File names contain the time in seconds: without the suffix, an epoch would replace one in the same second.
        with SummaryWriter(str(folder), filename_suffix=f".{event.step}") as writer:
            for name, value in flat_entries(to_json(event.record)):
                if isinstance(value, int | float) and math.isfinite(value):
                    writer.add_scalar(name.replace(".", "/"), value, event.step)

    return tolerant("the TensorBoard files", callback)


def progress(event: Event) -> None:
    """Print where training starts, then its progress: epoch, step, metrics, speed and remaining time."""
    if event.kind == "start":
        event.run.say("compiling ..." if event.step == 0 else f"resuming from step {event.step:,}; compiling ...")
    if event.kind == "steps":
        done, rate = event.step % event.steps, event.images_per_second
        bar = "#" * round(20 * done / event.steps)
        images = (event.epochs * event.steps - event.step) * event.batch_size
        remaining = f", {images / rate:,.0f} s left" if rate else ""
        event.run.progress(
            f"epoch {event.epoch + 1}: [{bar:.<20}] step {done:,}/{event.steps:,}: "
            f"{format_metrics(_loss_first(event.metrics))}; {rate:,.0f} images/s{remaining}"
        )


def tolerant(name: str, callback: Callback) -> Callback:
    """The callback with its exceptions turned into warnings, so that a failed report does not end training.

    Args:
        name: what the callback does, for the warning.
        callback: a function of an event.

    Example:
        >>> import warnings
        >>> quiet = jaxcnn.train.callbacks.tolerant("the upload", lambda event: 1 / 0)
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     quiet(None)
        >>> str(caught[0].message)
        'the upload failed: ZeroDivisionError: division by zero'
    """

    def callback_with_warnings(event):
        try:
            callback(event)
        except Exception as error:
            text = f"{name} failed: {type(error).__name__}: {error}"
            try:
                warnings.warn(text, stacklevel=3)
            except UserWarning:  # warnings are configured as errors
                event.run.say(text)

    return callback_with_warnings


def _check_record(event: Event) -> None:
    """Raise an error for a record without the entries of the training loop, or with names that are not strings."""
    record = event.record
    if not isinstance(record, dict) or not all(isinstance(name, str) for name in record):
        raise TypeError(f"event.record must be a dict whose keys are strings, got {short_repr(record)}")
    for name, expected in (("epoch", event.epoch), ("step", event.step)):
        if type(record.get(name)) is not int or record[name] != expected:
            raise ValueError(f"event.record[{name!r}] must stay {expected}, got {short_repr(record.get(name))}")
    for name, metrics in (("train", record.get("train")), ("test", record.get("test", {}))):
        if not isinstance(metrics, dict):
            raise TypeError(f"event.record[{name!r}] must be a dict of metrics, got {short_repr(metrics)}")


def _loss_first(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(metrics.items(), key=lambda item: item[0] != "loss"))
