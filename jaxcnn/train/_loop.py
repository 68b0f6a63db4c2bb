"""The loop of training: an event after each call of one compiled program, which does many steps."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from jaxcnn.data import Source
from jaxcnn.train._devices import all_gather, replicate, to_devices
from jaxcnn.train._event import Event, nonfinite_leaf
from jaxcnn.train._guard import NonFiniteError
from jaxcnn.train._many_steps import Step, first_carry, many_steps, means
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState

_DISPATCH = 0.5  # seconds of work, about, for each call


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
        every: a call also ends at each multiple of this number of steps; 0: only at the end of an epoch.
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
    source = to_devices(source)
    feed, advance = many_steps(step, source, augmentation, skip)
    carry = first_carry(step, train_state, source)
    event = Event("start", carry, int(carry.train_state.step), source.steps, epochs, source.batch_size, run)
    yield event

    length, doing = 1, "compiling"  # steps of a call, until it is known how long they take
    timed, seconds = 0, 0.0  # steps of this epoch, and the time they took, but for those that were compiled
    while event.step < epochs * source.steps and not event.stop:
        left = min(source.steps - event.step % source.steps, every - event.step % every if every else source.steps)
        count = all_gather(min(length, left))[0]  # the same in all processes
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
        event.metrics, event.metric = means(event.carry.totals), None
        event.kind = "steps"
        if event.step % source.steps == 0:
            event.kind = "epoch"
            event.record = {"epoch": event.epoch, "step": event.step, "train": event.metrics}
            event.carry = event.carry._replace(totals=replicate(jax.tree.map(jnp.zeros_like, event.carry.totals)))
            timed, seconds = 0, 0.0
        yield event

    event.kind = "end"
    yield event
