"""What `fit` does beside its steps: functions `(event) -> None` that it calls, one after the other, for each event.

A callback looks at `event.kind` and does its part; it may change the event (see `Event`): add to `event.record` at
"epoch", keep something in `event.note`, end the training by `event.stop = True`. What it raises ends the training.
With several processes, all call it with the same values, and must come to the same end.

    def warn_of_overfitting(event):
        if event.kind == "epoch" and event.record["test"]["loss"] > 2 * event.record["train"]["loss"]:
            event.run.say("the network overfits")

THE ORDER MATTERS. `fit` calls them in this order, and those of the user where it says so:

    accumulated      the gradients that wait are applied before anything looks at the parameters
    evaluation       before all that use its result
    best             keeps the best epoch; it makes the room that `resume` fills
    resume           goes on from a checkpoint; all after it see where the training is
    nonfinite        goes back to a checkpoint, or ends the training
    the user's       they see the result of the evaluation; what they add is logged and saved
    early_stopping   ends the training; also one that had ended, and is resumed
    log, tensorboard write the record of the epoch
    save             all that happened in the epoch is in its checkpoint
    progress         says how far it is
    the report       of what was logged
    signals          last, when all is saved
"""

import math
import pathlib
import warnings
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from jaxcnn._extra import MissingExtraError
from jaxcnn._jit import jit
from jaxcnn._layer import Params, State
from jaxcnn.train._checkpoints import Checkpoints as Checkpoints
from jaxcnn.train._checkpoints import signals as signals
from jaxcnn.train._config import flat_entries
from jaxcnn.train._devices import replicate
from jaxcnn.train._event import Event, nonfinite_leaf
from jaxcnn.train._guard import NonFiniteError
from jaxcnn.train._optimizer import apply_accumulated

Callback = Callable[[Event], None]

MOST_IN_A_ROW = 10  # steps that are not finite, or rollbacks, before training gives up

FACTORIES: dict[str, Callable[..., Callback]] = {}
"""Callbacks that other packages add: "report", (model, data) -> a callback, is used if the config of `fit` says so."""


def accumulated(optimizer: optax.GradientTransformation, every: int) -> Callback:
    """At the end of an epoch, an update with the gradients since the last one, of fewer than `every` steps."""
    apply = jit(lambda train_state: apply_accumulated(optimizer, every, train_state), donate_argnums=0)

    def callback(event):
        if event.kind == "epoch":
            event.carry = event.carry._replace(train_state=apply(event.carry.train_state))

    return callback


def evaluation(evaluate: Callable[[Params, State], dict[str, float]]) -> Callback:
    """After each epoch, `record["test"]`: what the function says of the parameters, such as `train.evaluate`."""

    def callback(event):
        if event.kind == "epoch":
            with event.run.busy("evaluating"):
                event.record["test"] = evaluate(event.params, event.state)

    return callback


def best(watch: str = "", *, restore: bool = False) -> Callback:
    """Keep the parameters of the epoch whose evaluation has the largest metric `watch`, and which epoch it is.

    Args:
        watch: a metric of the evaluation; "-loss": the smallest "loss", and so for others. "": "accuracy" if there is
            one, else "-loss".
        restore: whether these parameters are what training gives, in place of the last ones.
    """

    def callback(event):
        if event.kind == "start":
            event.best = jax.tree.map(jnp.copy, (event.params, event.state))
            event.restore_best = restore
            event.note |= {"best": None, "best_epoch": 0, "since_best": 0}
        if event.kind != "epoch":
            return
        event.metric = watched(watch, event.record["test"])
        event.note["since_best"] += 1
        before = event.note["best"]
        if event.metric is not None and (before is None or event.metric > before):
            event.note |= {"best": event.metric, "best_epoch": event.epoch, "since_best": 0}
            event.best = jax.tree.map(jnp.copy, (event.params, event.state))

    return callback


def watched(watch: str, metrics: Mapping[str, float]) -> float | None:
    """The metric, negative where less is better; None if it or the loss is not finite."""
    watch = watch or ("accuracy" if "accuracy" in metrics else "-loss")
    value = metrics[watch.removeprefix("-")]
    if not math.isfinite(value) or not math.isfinite(metrics["loss"]):
        return None
    return -value if watch.startswith("-") else value


def early_stopping(patience: int) -> Callback:
    """End the training after `patience` epochs in a row that were not better than the best one before."""

    def callback(event):
        if event.kind in ("start", "epoch") and event.note["since_best"] >= patience:
            event.stop = True

    return callback


def nonfinite(policy: str, checkpoints: Checkpoints) -> Callback:
    """What happens after a step that was not finite: "raise"; "skip", which `loop` does; "rollback".

    Raises:
        NonFiniteError: if the policy is at its end, or no step of an epoch was finite.
    """

    def callback(event):
        if event.kind == "start" and policy == "rollback" and event.step == 0:
            checkpoints.write(event)
        if event.kind == "epoch":
            if event.metrics["loss"] is None:
                raise NonFiniteError(f"epoch {event.epoch}: none of its {event.steps:,} steps was finite")
            if skipped := int(event.carry.skipped):
                event.record["skipped"] = skipped
        if event.kind == "nonfinite":
            what = nonfinite_leaf(event)
            if policy == "skip":
                raise NonFiniteError(f"{what}, as in the {MOST_IN_A_ROW - 1} steps before, which were skipped")
            if policy == "raise":
                raise NonFiniteError(
                    f'{what}; a smaller learning rate or clip_norm may help, or on_nonfinite "skip" or "rollback"'
                )
            _roll_back(event, what)

    def _roll_back(event, what):
        rollbacks = event.note.get("rollbacks", 0) + 1
        if rollbacks > MOST_IN_A_ROW:
            raise NonFiniteError(f"{what}, after {MOST_IN_A_ROW} rollbacks")
        checkpoints.restore(event)
        event.note["rollbacks"] = rollbacks
        # Another key: another order, other augmentations, another dropout.
        key = replicate(jax.random.fold_in(event.train_state.key, rollbacks))
        event.carry = event.carry._replace(train_state=event.train_state._replace(key=key))
        event.run.say(f"{what}; back to step {event.step:,}, and on with other batches")

    return callback


def log(event: Event) -> None:
    """Write the record of the epoch into the run's files, and say it in a line."""
    if event.kind != "epoch":
        return
    record = event.record
    line = f"epoch {event.epoch}: {_shown(record['train'])}"
    if "test" in record:
        line += f"; test {_shown(record['test'], precise=True)}"
    if "skipped" in record:
        line += f"; {record['skipped']} steps skipped, which were not finite"
    record |= {"seconds": round(event.seconds, 2), "images_per_second": round(event.images_per_second, 1)}
    event.run.log(line, **record)


def tensorboard(folder: pathlib.Path) -> Callback:
    """Write the record of each epoch for TensorBoard.

    Raises:
        ImportError: without tensorboardX, `pip install 'jaxcnn[tb]'`.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("TensorBoard's files are written by tensorboardX", "tb") from error

    def callback(event):
        if event.kind != "epoch" or jax.process_index():
            return
        with SummaryWriter(str(folder)) as writer:
            for name, value in flat_entries(event.record):
                if value is not None:
                    writer.add_scalar(name.replace(".", "/"), value, event.step)

    return tolerant("TensorBoard's files", callback)


def progress(event: Event) -> None:
    """Say where the training begins, and how far it is."""
    if event.kind == "start":
        event.run.say("compiling ..." if event.step == 0 else f"going on from step {event.step:,}; compiling ...")
    if event.kind == "steps":
        place, rate = event.step % event.steps, event.images_per_second
        bar = "#" * round(20 * place / event.steps)
        images = (event.epochs * event.steps - event.step) * event.batch_size
        left = f", {images / rate:,.0f} s left" if rate else ""
        event.run.progress(
            f"epoch {event.epoch + 1}: [{bar:.<20}] {place}/{event.steps}: "
            f"{_shown(event.metrics)}; {rate:,.0f} images/s{left}"
        )


def tolerant(what: str, callback: Callback) -> Callback:
    """The callback, whose errors are warnings: what only writes about the training must not lose it."""

    def tried(event):
        try:
            callback(event)
        except Exception as error:
            text = f"{what} could not be written: {type(error).__name__}: {error}"
            try:
                warnings.warn(text, stacklevel=3)
            except UserWarning:  # where warnings are errors
                event.run.say(text)

    return tried


def _shown(metrics: Mapping[str, float | None], *, precise: bool = False) -> str:
    digits = 2 if precise else 1
    first = {"loss": metrics["loss"]}

    def one(name, value):
        if value is None:
            return f"{name} none"
        return f"{name} {value:.{digits}%}" if name == "accuracy" else f"{name} {value:.{digits + 2}f}"

    return ", ".join(one(name, value) for name, value in (first | dict(metrics)).items())
