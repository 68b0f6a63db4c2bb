"""The loop of training: many steps for each call of one compiled program, and an event after each call.

A batch of data in memory is a function of the training's key and the step, computed inside of the compiled program. So
training can be stopped and resumed at any step, and comes out the same to the bit.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jit import jit
from jaxcnn._layer import Params, State, child_key
from jaxcnn._loss import Batch
from jaxcnn.data import Source, augment
from jaxcnn.train._devices import by_rows, copied, everywhere, gathered, placed
from jaxcnn.train._guard import NonFiniteError, checked, leaf_name
from jaxcnn.train._optimizer import averaged
from jaxcnn.train._recipe import scaled
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState

_DISPATCH = 0.5  # seconds of work, about, for each call
_STEPS = "steps"  # counted among the totals of metrics

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


class Carry(NamedTuple):
    """What goes from step to step, and into a checkpoint."""

    train_state: TrainState
    totals: dict[str, jax.Array]  # of the metrics, over the epoch so far
    bad: jax.Array  # the leaf that is not finite in the step that was undone, or -1
    skipped: jax.Array  # steps that were not finite, in all
    in_a_row: jax.Array  # of them, those since the last finite one


@dataclasses.dataclass
class Event:
    """A moment of training. One object serves the whole loop, which goes on from what it holds.

    kind: "start", before the first step; "steps", after a call of some steps; "epoch", after the last step of an epoch,
        in place of "steps"; "nonfinite", after a step that was not finite and was undone; "end".
    carry: the train_state and counters, on the devices. To go on from elsewhere, replace it, and `step`. The next call
        takes over its memory: copy what is to be kept.
    step: steps done; steps: in an epoch; epochs: of the whole training; batch_size: rows of a batch.
    metrics: means over the steps of the epoch so far; None for each if none was finite.
    record: at "epoch", what is to be logged: "epoch", "step", "train" (the metrics), and what callbacks add.
    metric: at "epoch", what decides which epoch is best, the larger the better; None if that is not known.
    note: what a callback wants to find again after a resume, as JSON; it is part of every checkpoint.
    best: params and state of the best epoch so far, if a callback keeps them; part of every checkpoint.
    restore_best: whether they are what training gives, if there are some.
    stop: set to True to end training after this event; "end" follows.
    """

    kind: Literal["start", "steps", "epoch", "nonfinite", "end"]
    carry: Carry
    step: int
    steps: int
    epochs: int
    batch_size: int
    run_or_none: Run | None = None
    images_per_second: float = 0.0
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    metric: float | None = None
    note: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: tuple[Params, State] | tuple[()] = ()
    restore_best: bool = False
    stop: bool = False
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def run(self) -> Run:
        """The folder, the files and the progress lines of the training."""
        if self.run_or_none is None:
            raise ValueError("this callback needs a run; give train.loop one: run=train.Run(name, config)")
        return self.run_or_none

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps

    @property
    def train_state(self) -> TrainState:
        return self.carry.train_state

    @property
    def params(self) -> Params:
        """What to evaluate: the EMA of the parameters, if the optimiser keeps one."""
        average = averaged(self.train_state.opt_state)
        return self.train_state.params if average is None else average

    @property
    def state(self) -> State:
        return self.train_state.state

    @property
    def result(self) -> tuple[Params, State]:
        """What training gives: params and state of the last epoch, or of the best."""
        if self.restore_best and self.note["best_epoch"] and self.best:
            return self.best
        return self.params, self.state

    @property
    def seconds(self) -> float:
        """Since the start, with those of earlier parts of a resumed training."""
        return time.monotonic() - self.began


def loop(
    step: Step,
    train_state: TrainState,
    source: Source,
    *,
    epochs: int,
    augmentation: Callable[..., jax.Array] | None = None,
    skip: int = 0,
    every: int = 0,
    run: Run | None = None,
) -> Iterator[Event]:
    """Events of training: at the start, after each call of a program that does many steps, and at the end.

    A call takes about half a second. Its program is compiled once; nothing waits for the devices inside of a call, and
    the memory of the state is used again. Images of bytes are divided by 255. Training ends after `epochs`, or when
    `event.stop` is set.

    Args:
        step: as `make_step` makes it.
        train_state: to begin with. Its memory is taken over.
        source: of batches, as `data.source` makes it.
        epochs: after which training ends.
        augmentation: (key, images, when) -> images, as `data.augment.compose` makes it.
        skip: how many steps in a row may be undone because they are not finite. One more is an event "nonfinite"; if
            nothing replaces `event.carry` then, it is an error.
        every: a call also ends at each multiple of so many steps.
        run: to show what takes long.

    Raises:
        NonFiniteError: for a loss, parameter or statistic that is not finite.

    Example:
        >>> import optax
        >>> model, optimizer = jaxcnn.dense(2), optax.sgd(0.1)
        >>> source = jaxcnn.data.source((jnp.ones((8, 3)), jnp.zeros(8, int)), 4)
        >>> train_state = jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), source.spec["image"])
        >>> step = jaxcnn.train.make_step(jaxcnn.cross_entropy(model), optimizer)
        >>> for event in jaxcnn.train.loop(step, train_state, source, epochs=3):
        ...     if event.kind == "epoch":
        ...         print(event.epoch, event.step, sorted(event.metrics))
        1 2 ['accuracy', 'loss']
        2 4 ['accuracy', 'loss']
        3 6 ['accuracy', 'loss']
    """
    source = placed(source)
    feed, advance = _program(step, source, augmentation, skip)
    carry = _first_carry(step, train_state, source)
    event = Event("start", carry, int(carry.train_state.step), source.steps, epochs, source.batch_size, run)
    yield event

    length, doing = 1, "compiling"  # steps of a call, until it is known how long they take
    timed, seconds = 0, 0.0  # steps of this epoch, and the time they took, but for those that were compiled
    while event.step < epochs * source.steps and not event.stop:
        left = min(source.steps - event.step % source.steps, every - event.step % every if every else source.steps)
        count = gathered(min(length, left))[0]  # the same in all processes
        began = time.monotonic()
        with run.busy(doing) if run else contextlib.nullcontext():
            for batches, steps in feed(event.carry, event.step, count):
                event.carry = advance(event.carry, batches, steps)
            event.step, bad = int(event.carry.train_state.step), int(event.carry.bad)
        took = time.monotonic() - began
        if bad >= 0:
            event.kind = "nonfinite"
            yield event
            if int(event.carry.bad) >= 0:
                raise NonFiniteError(f"{nonfinite_leaf(event)}; a smaller learning rate or gradient clipping may help")
            continue
        if doing == "training":
            length = max(1, round(count / took * _DISPATCH))
            timed, seconds = timed + count, seconds + took
        doing = "training"
        event.images_per_second = timed * source.batch_size / seconds if timed else 0.0
        event.metrics, event.metric = _means(event.carry.totals), None
        event.kind = "steps"
        if event.step % source.steps == 0:
            event.kind = "epoch"
            event.record = {"epoch": event.epoch, "step": event.step, "train": event.metrics}
            event.carry = event.carry._replace(totals=copied(jax.tree.map(jnp.zeros_like, event.carry.totals)))
            timed, seconds = 0, 0.0
        yield event

    event.kind = "end"
    yield event


def nonfinite_leaf(event: Event) -> str:
    """Which leaf was not finite, in which step."""
    name = leaf_name(event.train_state, {"loss": 0}, int(event.carry.bad))
    return f"step {event.step:,}: {name} is not finite"


def _program(
    step: Step, source: Source, augmentation: Callable[..., jax.Array] | None, skip: int
) -> tuple[Callable[..., Iterator[tuple[Any, int]]], Callable[[Carry, Any, int], Carry]]:
    """(carry, step, count) -> what the next calls are given and how many steps each does; and the compiled call."""
    feed, read = _from_memory(source) if source.stream is None else _from_stream(source)
    checked_step = checked(step)

    def one(carry, batch, when):
        state = carry.train_state
        batch = scaled(lax.with_sharding_constraint(batch, by_rows()))
        if augmentation:
            key = jax.random.fold_in(child_key(state.key, "augment"), state.step)
            batch = batch | {"image": augmentation(key, batch["image"], when)}
        after, metrics, bad = checked_step(state, batch)
        finite = bad < 0
        metrics = metrics | {_STEPS: jnp.float32(1)}
        totals = {
            name: old + jnp.where(finite, metrics[name], 0).astype(old.dtype) for name, old in carry.totals.items()
        }
        in_a_row = jnp.where(finite, 0, carry.in_a_row + 1)
        passed = finite | (in_a_row <= skip)
        after = after._replace(step=state.step + passed.astype(state.step.dtype))
        skipped = carry.skipped + (passed & ~finite).astype(carry.skipped.dtype)
        return Carry(after, totals, jnp.where(passed, -1, bad), skipped, in_a_row)

    def advance(carry, batches, count):
        def body(inner):
            done, carry = inner
            batch, rows = read(batches, carry.train_state.step)
            return done + 1, one(carry, batch, augment.When(rows, carry.train_state.step // source.steps))

        going_on = lambda inner: (inner[0] < count) & (inner[1].bad < 0)
        return lax.while_loop(going_on, body, (0, carry))[1]

    return feed, jit(advance, donate_argnums=0)


def _from_memory(source: Source) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """All rows and their order in this epoch, for one call; a batch of them."""

    def order_of(key, epoch):
        return source.order(key, epoch)

    compiled = jit(order_of, out_shardings=everywhere())
    known, order = None, None

    def feed(carry: Carry, step: int, count: int) -> Iterator[tuple[Any, int]]:
        nonlocal known, order
        key, epoch = carry.train_state.key, step // source.steps
        if known != (now := (epoch, *jax.random.key_data(key).tolist())):
            known, order = now, compiled(key, epoch)
        yield (source.arrays, order), count

    def read(batches, step):
        arrays, order = batches
        rows = lax.dynamic_slice_in_dim(order, step % source.steps * source.batch_size, source.batch_size)
        return {name: value[rows] for name, value in arrays.items()}, rows

    return feed, read


def _from_stream(source: Source) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Each batch as it comes, for a call of one step."""
    place = -1
    batches: Iterator[Batch] = iter(())

    def feed(carry: Carry, step: int, count: int) -> Iterator[tuple[Any, int]]:
        nonlocal place, batches
        if place != step:
            place, batches = step, source.batches(step)
        for batch in itertools.islice(batches, count):
            place += 1
            yield batch, 1

    def read(batch, step):
        return batch, step * source.batch_size + jnp.arange(source.batch_size)

    return feed, read


def _first_carry(step: Step, train_state: TrainState, source: Source) -> Carry:
    batch = jax.eval_shape(scaled, source.spec)
    names = [*jax.eval_shape(step, train_state, batch)[1], _STEPS]
    zero = lambda: jnp.zeros((), jnp.int32)
    return copied(Carry(train_state, {name: jnp.zeros((), jnp.float32) for name in names}, zero() - 1, zero(), zero()))


def _means(totals: dict[str, jax.Array]) -> dict[str, float | None]:
    """The metrics of the epoch so far, over the steps that were done; None if there was none."""
    sums = {name: float(total) for name, total in totals.items()}
    steps = sums.pop(_STEPS)
    return {name: total / steps if steps else None for name, total in sums.items()}
