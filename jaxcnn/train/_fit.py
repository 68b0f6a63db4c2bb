"""Training a classifier: `make_step`, `evaluate` and `checkpoint`, put together.

A batch of data in memory is a function of the run's key and the step, computed inside of the compiled program, which
does many steps for each call. So a run can be stopped and resumed anywhere, and comes out the same to the bit.
"""

import functools
import itertools
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._combine import AnyLayer
from jaxcnn._extra import MissingExtraError
from jaxcnn._jit import jit
from jaxcnn._layer import Layer, Params, State, as_layer, child_key
from jaxcnn._loss import Batch
from jaxcnn._path import count_params
from jaxcnn._transform import cast
from jaxcnn._validate import (
    check_batch,
    check_finite,
    check_for_loss,
    check_same_range,
    first_nonfinite,
    values_between,
)
from jaxcnn.data import Dataset, Stream, augment
from jaxcnn.train import checkpoint
from jaxcnn.train._config import Config, ConfigError, entries, require
from jaxcnn.train._devices import by_rows, copied, everywhere, joined
from jaxcnn.train._evaluate import mean_metrics
from jaxcnn.train._guard import NonFiniteError, checked, leaf_name
from jaxcnn.train._identity import data_fingerprint, difference, model_difference, program_identity, version_difference
from jaxcnn.train._interrupt import Interrupted, told_to_stop
from jaxcnn.train._optimizer import apply_accumulated, averaged, make_optimizer
from jaxcnn.train._recipe import (
    FIT,
    augmentation,
    augments_colour,
    evaluation_loss,
    resolve,
    scaled,
    training_loss,
)
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState, make_step
from jaxcnn.weights import transplant

_MOST_IN_A_ROW = 10  # steps that are not finite, or rollbacks, before training gives up
_DISPATCH = 0.5  # seconds of work, about, for each call
_STEPS = "steps"  # counted among the totals of metrics


class Fitted(NamedTuple):
    """What training gives.

    train_state: after the last step; params, state: what to use, of the last epoch, or of the best one where `patience`
    ended the training (params are the EMA, if the config says so); history: the records of all epochs; folder: of the
    run; epoch: that of params and state.
    """

    train_state: TrainState
    params: Params
    state: State
    history: list[dict[str, Any]]
    folder: pathlib.Path
    epoch: int

    @property
    def outcome(self) -> str:
        """A line with the accuracy of params, in evaluation if there was one, the time, and where all the rest is."""
        record = next((record for record in self.history if record.get("epoch") == self.epoch), {})
        kind = "test" if "test" in record else "train"
        accuracy = record.get(kind, {}).get("accuracy")
        result = "" if accuracy is None else f"{'test' if kind == 'test' else 'training'} accuracy {accuracy:.2%} "
        after = f"after {self.history[-1]['seconds']:.0f} s; " if self.history else ""
        return f"{result}{after}see {self.folder}"

    def __repr__(self) -> str:
        return f"Fitted({count_params(self.params):,} parameters of epoch {self.epoch}: {self.outcome})"


class _Carry(NamedTuple):
    """What goes from step to step, and into a checkpoint."""

    train_state: TrainState
    totals: dict[str, jax.Array]  # of the metrics, over the epoch so far
    bad: jax.Array  # the leaf that is not finite in the step that was not done, or -1
    skipped: jax.Array
    in_a_row: jax.Array
    best: tuple[Params, State] | tuple[()]  # of the best epoch so far, where `patience` may end training after it


def fit(
    model: AnyLayer,
    train_data: Dataset | Batch | Stream,
    *,
    eval_data: Dataset | Batch | Stream | None = None,
    config: Config | None = None,
    run: Run | None = None,
    start: tuple[Params, State] | None = None,
) -> Fitted:
    """Train a classifier, evaluate it after each epoch, and keep checkpoints from which it goes on after anything.

    Images of bytes are divided by 255. An epoch has as many whole batches as there are; which pictures are left out
    differs. On several devices, in one process or in many, each has its rows of every batch and all have the
    parameters; statistics of batch norm are those of the whole batch.

    If the run's folder has checkpoints, training goes on from the latest whole one. SIGTERM, SIGINT (Ctrl-C) and SIGHUP
    save one, too, and end the program with status 143, 130 and 129. One `fit` at a time can write to a folder.

    Args:
        model: from images (N, H, W, C) to logits (N, classes).
        train_data: pictures and labels in memory, or a stream of batches.
        eval_data: what to evaluate on.
        config: what differs from `FIT`, which has all settings. "optimizer" may have arguments of its optax function.
        run: the folder and the progress lines; as a rule a new one in `runs/`.
        start: params and state to begin with, such as those of a trained backbone; parts of the trees will do.

    Raises:
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
        >>> fitted = jaxcnn.train.fit(model, digits, config=config, run=run)  # doctest: +ELLIPSIS
        compiling ...
        epoch 1: loss ...
        epoch 2: loss ...

        The same again, in the same folder, goes on from the last checkpoint, which here is that of the end:

        >>> run = jaxcnn.train.Run("example", {}, folder=folder)
        >>> again = jaxcnn.train.fit(model, digits, config=config, run=run)
        going on from step 30; compiling ...
        >>> again.history == fitted.history
        True
    """
    config = resolve(config or {})
    run = run or Run("fit", config)
    with run.locked():
        return _Fit(as_layer(model), train_data, eval_data, config, run, start).train()


class _Fit:
    """One training: what `fit` computes from its arguments, and what changes while it runs."""

    def __init__(self, model: Layer, train_data: Any, eval_data: Any, config: Config, run: Run, start: Any):
        self.config, self.run = config, run
        self.folder = run.folder / "checkpoints"
        self.augment = augmentation(config)
        if config["tensorboard"]:
            _summary_writer()  # a missing package is told before training
        if config["patience"] and eval_data is None:
            raise ConfigError("patience waits for a better result of eval_data, and there are none; give eval_data")
        explained = train_data if eval_data is None else eval_data  # with the names of its classes
        train_data, eval_data = self._as_arrays(train_data, "train_data"), self._as_arrays(eval_data, "eval_data")
        self.data = train_data if isinstance(train_data, Stream) else copied(train_data)
        self.batch_size = self._batch_size()
        self.steps = self.data.steps if isinstance(self.data, Stream) else _rows(self.data) // self.batch_size
        self.total = config["epochs"] * self.steps
        if self.total >= 2**31:
            raise ConfigError(
                f"epochs: {config['epochs']:,} of {self.steps:,} steps are more than 2**31 - 1 steps in all"
            )
        self.eval_data = eval_data if eval_data is None or isinstance(eval_data, Stream) else copied(eval_data)

        if config["dtype"] == "bfloat16":
            model = cast(model, jnp.bfloat16)
        self.explained = model, explained
        self.loss_fn, self.eval_loss_fn = training_loss(model, config), evaluation_loss(model, config)
        key, image = jax.random.key(config["seed"]), self._image()
        params, state = jax.eval_shape(model.init, key, image)
        self._check_data(train_data, eval_data, params, state)
        self.optimizer = make_optimizer(config, self.total, params)
        self.step = checked(make_step(self.loss_fn, self.optimizer))
        batch = {"image": image, "label": jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)}
        self.identity = self._identify(train_data, eval_data, (params, state, batch))

        for tree, part in zip((params, state), start or (), strict=False):
            transplant(tree, part)  # here, an error is not one in a compiled function
        train_state = TrainState.create(_begun(model, start), self.optimizer, key, image)
        metrics = jax.eval_shape(self.step, train_state, batch).metrics
        none = jnp.int32(0)
        totals = {name: jnp.float32(0) for name in [*metrics, _STEPS]}
        best = (train_state.params, train_state.state) if config["patience"] and eval_data is not None else ()
        carry = _Carry(train_state, totals, none - 1, none, none, best)
        self.carry = copied(jax.tree.map(jnp.copy, carry))  # copies, as a step takes over its memory
        self.best, self.best_epoch, self.since_best, self.rollbacks = -math.inf, 0, 0, 0
        self.saved = -1  # the step of the last checkpoint
        self.began = time.monotonic()
        self.seconds = 0.0  # of earlier parts of the run
        self.timed = (0, 0.0)  # steps of this epoch and the seconds they took, but for the one that was compiled

    # Data

    def _as_arrays(self, data: Any, name: str) -> Any:
        """Data in memory as a dict of arrays on the host, of one length; a stream, and None, as they are."""
        if data is None or isinstance(data, Stream):
            return data
        if isinstance(data, Dataset):
            data = {"image": data.images, "label": data.labels}
        if not isinstance(data, dict) or not {"image", "label"} <= {*data} or np.size(data["image"]) == 0:
            raise TypeError('fit needs a Dataset, a Stream, or a dict with "image" and "label" that is not empty')
        check_batch(name, data)
        return {name: np.asarray(value) for name, value in data.items()}

    def _check_data(self, train_data: Any, eval_data: Any, params: Params, state: State) -> None:
        """Refuse data in memory that the model cannot learn from; what is tolerated is told."""
        for name, data in (("train_data", train_data), ("eval_data", eval_data)):
            if data is None or isinstance(data, Stream):
                continue
            image, weight = data["image"], data.get("weight")
            if name == "train_data" and self.config["on_nonfinite"] != "raise":
                if first := first_nonfinite(image, weight):
                    self.run.say(
                        f"train_data: image{[*first]} is {image[first]}; steps that meet such values are undone"
                    )
            else:
                check_finite(f"{name}: image", image, weight)
            check_for_loss(name, self.loss_fn, params, state, data)
        samples = [_sample(data) for data in (train_data, eval_data)]
        if all(sample is not None for sample in samples):
            check_same_range(*samples)
        if augments_colour(self.config) and samples[0] is not None and not values_between(samples[0], 0, 1):
            raise ValueError("train_data: augmentations of colour need images of bytes, or of floats from 0 to 1")

    def _identify(self, train_data: Any, eval_data: Any, specs: tuple[Params, State, Batch]) -> Config:
        """What a checkpoint must have in common with the run that goes on from it."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        programs = {
            name: program_identity(functools.partial(self._loss, train=train), *specs, key)
            for name, train in (("training", True), ("evaluation", False))
        }
        data = {"data": data_fingerprint(train_data), "eval_data": data_fingerprint(eval_data)}
        return {"config": self.run.config, "fit": self.config} | data | programs

    def _loss(self, params: Params, state: State, batch: Batch, key: jax.Array, *, train: bool) -> Any:
        return self.loss_fn(params, state, batch, train=train, key=key)

    def _batch_size(self) -> int:
        if isinstance(self.data, Stream):
            batch_size = self.data.image.shape[0]
        else:
            batch_size = self.config["batch_size"]
            require(self.config, {"batch_size": (1, _rows(self.data) + 1)})
        if batch_size % jax.device_count():
            raise ConfigError(f"batch_size must be a multiple of {jax.device_count()} devices, got {batch_size}")
        return batch_size

    def _image(self) -> jax.ShapeDtypeStruct:
        """A batch of pictures as the model gets them."""
        whole = self.data.image if isinstance(self.data, Stream) else self.data["image"]
        dtype = jnp.float32 if whole.dtype == jnp.uint8 else whole.dtype
        return jax.ShapeDtypeStruct((self.batch_size, *whole.shape[1:]), dtype)

    # The compiled part

    def _one(self, carry: _Carry, batch: Batch, when: augment.When) -> _Carry:
        """A step on a batch as it was read."""
        state = carry.train_state
        batch = scaled(lax.with_sharding_constraint(batch, by_rows()))
        if self.augment:
            key = jax.random.fold_in(child_key(state.key, "augment"), state.step)
            batch = batch | {"image": self.augment(key, batch["image"], when)}
        after = self.step(state, batch)
        good = after.bad < 0
        metrics = after.metrics | {_STEPS: 1}
        totals = {name: old + jnp.where(good, metrics[name], 0) for name, old in carry.totals.items()}
        if self.config["on_nonfinite"] != "skip":
            return carry._replace(train_state=after.train_state, totals=totals, bad=after.bad)
        in_a_row = jnp.where(good, 0, carry.in_a_row + 1)
        bad = jnp.where(in_a_row < _MOST_IN_A_ROW, -1, after.bad)
        passed = after.train_state._replace(step=state.step + (bad < 0))
        return _Carry(passed, totals, bad, carry.skipped + (~good & (bad < 0)), in_a_row, carry.best)

    def _in_memory(self) -> Callable[[_Carry, int, int], _Carry]:
        """(carry, step, count) -> carry after `count` steps, all in one call."""

        def advance(carry, data, order, epoch, count):
            def one(inner):
                done, carry = inner
                place = carry.train_state.step % self.steps * self.batch_size
                rows = lax.dynamic_slice_in_dim(order, place, self.batch_size)
                batch = {name: value[rows] for name, value in data.items()}
                return done + 1, self._one(carry, batch, augment.When(rows, epoch))

            going_on = lambda inner: (inner[0] < count) & (inner[1].bad < 0)
            return lax.while_loop(going_on, one, (0, carry))[1]

        def order_of(key, epoch):
            return jax.random.permutation(jax.random.fold_in(child_key(key, "order"), epoch), _rows(self.data))

        compiled, compiled_order = jit(advance, donate_argnums=0), jit(order_of, out_shardings=everywhere())
        known, order = None, None

        def run(carry: _Carry, step: int, count: int) -> _Carry:
            nonlocal known, order
            epoch = step // self.steps
            if known != (epoch, self.rollbacks):  # a rollback changes the key
                known, order = (epoch, self.rollbacks), compiled_order(carry.train_state.key, epoch)
            return compiled(carry, self.data, order, epoch, count)

        return run

    def _streamed(self) -> Callable[[_Carry, int, int], _Carry]:
        """The same, a call for each batch as it comes."""

        def advance(carry, batch, step):
            rows = augment.When(step * self.batch_size + jnp.arange(self.batch_size), step // self.steps)
            return lax.cond(carry.bad < 0, lambda: self._one(carry, batch, rows), lambda: carry)

        compiled = jit(advance, donate_argnums=0)
        place = -1
        batches: Iterator[Batch] = iter(())
        state = jax.eval_shape(lambda: self.carry.train_state)

        def run(carry: _Carry, step: int, count: int) -> _Carry:
            nonlocal place, batches
            if place != step:
                place, batches = step, self.data.batches(step)
            for batch in itertools.islice(batches, count):
                check_batch("train_data", batch)
                check_for_loss("train_data", self.loss_fn, state.params, state.state, batch)
                carry = compiled(carry, joined(batch), place)
                place += 1
            return carry

        return run

    @functools.cached_property
    def _apply_accumulated(self) -> Callable[[_Carry], _Carry]:
        """carry -> carry after an update with what was accumulated, for the end of an epoch."""

        def apply(carry):
            every = self.config["accumulate"]
            return carry._replace(train_state=apply_accumulated(self.optimizer, every, carry.train_state))

        return jit(apply, donate_argnums=0)

    # The loop

    def train(self) -> Fitted:
        advance = self._streamed() if isinstance(self.data, Stream) else self._in_memory()
        step = self._resume()
        if step == 0 and self.config["on_nonfinite"] == "rollback":
            self._save(step)
        length, what = 1, "compiling"  # of a call, in steps; until it is known how long they take
        every = self.config["checkpoint"]["every"]
        self.run.say("compiling ..." if step == 0 else f"going on from step {step:,}; compiling ...")
        with told_to_stop() as told:
            while step < self.total and not self._patience_is_over():
                left = min(self.steps - step % self.steps, every - step % every if every else self.steps)
                count, signal = _agreed(min(length, left), told())
                if signal:
                    self._stop(step, signal)
                began = time.monotonic()
                with self.run.busy(what):
                    self.carry = advance(self.carry, step, count)
                    after, bad = int(self.carry.train_state.step), int(self.carry.bad)
                took = time.monotonic() - began
                if bad >= 0:
                    step = self._not_finite(after, bad)
                    continue
                step = after
                if what == "training":
                    length = max(1, round(count / took * _DISPATCH))
                    self.timed = (self.timed[0] + count, self.timed[1] + took)
                what = "training"
                if step % self.steps == 0:
                    self._end_of_epoch(step)
                elif every and step % every == 0:
                    self._save(step)
                else:
                    self._show(step)
            params, state = self._result()
            if self.config["report"]:
                self._try("the report", lambda: self._report(done=True))
            _, signal = _agreed(0, told())
            if signal:
                self._stop(step, signal)
        epoch = self.best_epoch if self.carry.best else step // self.steps
        return Fitted(self.carry.train_state, params, state, self.run.records, self.run.folder, epoch)

    def _patience_is_over(self) -> bool:
        return 0 < self.config["patience"] <= self.since_best

    def _result(self) -> tuple[Params, State]:
        """What to use: of the best epoch if patience looks for it, else of the last."""
        return self.carry.best or (self._params(), self.carry.train_state.state)

    def _params(self) -> Params:
        state = self.carry.train_state
        average = averaged(state.opt_state)
        return state.params if average is None else average

    def _means(self) -> dict[str, float | None]:
        """The metrics of the epoch so far, over the steps that were done; None if there was none."""
        totals = {name: float(total) for name, total in self.carry.totals.items()}
        steps = totals.pop(_STEPS)
        return {name: total / steps if steps else None for name, total in totals.items()}

    def _images_per_second(self) -> float:
        steps, seconds = self.timed
        return steps * self.batch_size / seconds if steps else 0.0

    def _show(self, step: int) -> None:
        place, rate = step % self.steps, self._images_per_second()
        bar = "#" * round(20 * place / self.steps)
        left = f", {(self.total - step) * self.batch_size / rate:,.0f} s left" if rate else ""
        self.run.progress(
            f"epoch {step // self.steps + 1}: [{bar:.<20}] {place}/{self.steps}: "
            f"{_shown(self._means())}; {rate:,.0f} images/s{left}"
        )

    def _end_of_epoch(self, step: int) -> None:
        if self.config["accumulate"] > 1:
            self.carry = self._apply_accumulated(self.carry)
        record: dict[str, Any] = {"epoch": step // self.steps, "step": step, "train": self._means()}
        if record["train"]["loss"] is None:
            raise NonFiniteError(f"epoch {record['epoch']}: none of its {self.steps:,} steps was finite")
        line = f"epoch {record['epoch']}: {_shown(record['train'])}"
        metric = None
        if self.eval_data is not None:
            with self.run.busy("evaluating"):
                batch_size = self.config["evaluate"]["batch_size"]
                state = self.carry.train_state.state
                result = mean_metrics(self.eval_loss_fn, self._params(), state, self.eval_data, batch_size)
            record["test"] = result
            line += f"; test {_shown(result, precise=True)}"
            metric = result["accuracy"] if math.isfinite(result["loss"]) else -1.0
            self.since_best += 1
            if metric > self.best:
                self.best, self.best_epoch, self.since_best = metric, record["epoch"], 0
                if self.carry.best:
                    self.carry = self.carry._replace(best=jax.tree.map(jnp.copy, (self._params(), state)))
        if skipped := int(self.carry.skipped):
            record["skipped"] = skipped
            line += f"; {skipped} steps skipped, which were not finite"
        record |= {"seconds": round(self._elapsed(), 2), "images_per_second": round(self._images_per_second(), 1)}
        self.timed = (0, 0.0)
        zero = {name: jnp.zeros_like(total) for name, total in self.carry.totals.items()}
        self.carry = self.carry._replace(totals=copied(zero))
        self.run.log(line, **record)
        if self.config["tensorboard"]:
            self._try("TensorBoard's files", lambda: _to_tensorboard(self.run.folder, record))
        self._save(step, metric)
        if self.config["report"]:
            self._try("the report", lambda: self._report(done=False))

    def _try(self, what: str, write: Callable[[], None]) -> None:
        """Write about the training; what goes wrong there must not lose it."""
        try:
            write()
        except Exception as error:
            text = f"{what} could not be written: {type(error).__name__}: {error}"
            try:
                warnings.warn(text, stacklevel=3)
            except UserWarning:  # where warnings are errors
                self.run.say(text)

    def _report(self, *, done: bool) -> None:
        """The page of the run so far; at its end, with what the network does."""
        if jax.process_index():
            return
        from jaxcnn import explain  # which itself needs this package

        if done:
            model, data = self.explained
            params, state = jax.device_get(self._result())
            with self.run.busy("looking at the network"):
                explain.gather(self.run.folder, model, params, state, data)
        explain.report(self.run.folder, epochs=None if done else self.config["epochs"])

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.began

    # What can go wrong

    def _save(self, step: int, metric: float | None = None) -> None:
        if keep := self.config["checkpoint"]["keep"]:
            best = None if self.best == -math.inf else self.best
            note = {
                "best": best,
                "best_epoch": self.best_epoch,
                "since_best": self.since_best,
                "rollbacks": self.rollbacks,
                "seconds": self._elapsed(),
                "records": self.run.records,
            }
            with self.run.busy("saving"):
                checkpoint.save(
                    self.folder, step, self.carry, config=self.identity, metric=metric, note=note, keep=keep
                )
            self.saved = step

    def _check_identity(self, step: int, about: dict[str, Any]) -> None:
        """Refuse to go on from a checkpoint of another run; tell of other packages, with which results may differ."""
        saved, where = about["config"] or {}, self.folder / str(step)
        if changed := difference(saved, self.identity, FIT):
            raise ConfigError(
                f"{where} was made under another config; go on with that, or begin in another folder:\n"
                + "\n".join(changed)
            )
        packages = version_difference(about["versions"])
        model = model_difference(saved, self.identity)
        if model and "jax" not in " ".join(packages):
            raise ConfigError(
                f"{where} was made with another model; go on with that, or begin in another folder:\n"
                + "\n".join(model)
            )
        if packages:
            self.run.say(f"{where} was made with other packages, so results may differ:\n" + "\n".join(packages))

    def _resume(self) -> int:
        """The step to begin with: that of the latest checkpoint, if there is one."""
        if not self.config["checkpoint"]["keep"] or not checkpoint.agreed(lambda: checkpoint.recovered(self.folder)):
            self.run.forget_after(-1)
            return 0
        step, note = self._restore()
        self.rollbacks, self.seconds = note["rollbacks"], note["seconds"]
        return step

    def _restore(self) -> tuple[int, dict[str, Any]]:
        """Be where the latest checkpoint was; its step, and what it notes."""
        step, self.carry, about = checkpoint.restore(
            self.folder, self.carry, check=self._check_identity, warn=self.run.say
        )
        note = about["note"]
        self.best = -math.inf if note["best"] is None else note["best"]
        self.best_epoch, self.since_best = note["best_epoch"], note["since_best"]
        self.run.forget_after(step, note.get("records"))
        self.saved = step
        return step, note

    def _stop(self, step: int, signal: int) -> None:
        if step != self.saved:
            self._save(step)
        saved = (
            f"saved in {self.folder}" if self.config["checkpoint"]["keep"] else "checkpoint.keep is 0, nothing is saved"
        )
        self.run.say(f"told to stop by signal {signal} at step {step:,}; {saved}")
        raise Interrupted(128 + signal)

    def _not_finite(self, step: int, bad: int) -> int:
        """The step to go on from after one that was not finite."""
        name = leaf_name(self.carry.train_state, {"loss": 0}, bad)
        what = f"step {step:,}: {name} is not finite"
        if self.config["on_nonfinite"] == "skip":
            raise NonFiniteError(f"{what}, as in the {_MOST_IN_A_ROW - 1} steps before, which were skipped")
        if self.config["on_nonfinite"] == "raise":
            raise NonFiniteError(
                f'{what}; a smaller learning rate or clip_norm may help, or on_nonfinite "skip" or "rollback"'
            )
        self.rollbacks += 1
        if self.rollbacks > _MOST_IN_A_ROW:
            raise NonFiniteError(f"{what}, after {_MOST_IN_A_ROW} rollbacks")
        step, _ = self._restore()
        # Another key: another order, other augmentations, another dropout.
        state = self.carry.train_state
        key = copied(jax.random.fold_in(state.key, self.rollbacks))
        self.carry = self.carry._replace(train_state=state._replace(key=key))
        self.run.say(f"{what}; back to step {step:,}, and on with other batches")
        return step


def _rows(data: Any) -> int:
    return len(data["image"])


def _begun(model: Layer, start: tuple[Params, State] | None) -> Layer:
    """The model, whose initial values are those given where there are some."""
    if start is None:
        return model

    def init(key, x):
        return tuple(transplant(tree, part) for tree, part in zip(model.init(key, x), start, strict=True))

    return Layer(init, model.apply)


def _sample(data: Any) -> np.ndarray | None:
    """Images to tell the range of the data by; None for a stream of floats, which is not read for that."""
    if isinstance(data, dict):
        return data["image"]
    if data is not None and data.image.dtype == jnp.uint8:
        return np.zeros(1, np.uint8)
    return None


def _agreed(count: int, signal: int) -> tuple[int, int]:
    """How many steps to do next, and whether to stop: the same in all processes."""
    if jax.process_count() == 1:
        return int(count), signal
    from jax.experimental import multihost_utils

    counts, signals = multihost_utils.process_allgather(np.array([count, signal])).reshape(-1, 2).T
    return int(counts[0]), int(signals.max())


def _shown(metrics: Mapping[str, float | None], *, precise: bool = False) -> str:
    digits = 2 if precise else 1
    first = {"loss": metrics["loss"]}

    def one(name, value):
        if value is None:
            return f"{name} none"
        return f"{name} {value:.{digits}%}" if name == "accuracy" else f"{name} {value:.{digits + 2}f}"

    return ", ".join(one(name, value) for name, value in (first | dict(metrics)).items())


def _summary_writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("TensorBoard's files are written by tensorboardX", "tb") from error
    return SummaryWriter


def _to_tensorboard(folder: pathlib.Path, record: dict[str, Any]) -> None:
    if jax.process_index():
        return
    with _summary_writer()(str(folder / "tensorboard")) as writer:
        for name, value in entries(record):
            if value is not None:
                writer.add_scalar(name.replace(".", "/"), value, record["step"])
