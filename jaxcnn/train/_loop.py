"""The training loop: a generator that yields an event after each call of a compiled program of many steps."""

import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._loss import Batch
from jaxcnn.data import Source
from jaxcnn.train._devices import all_gather, replicate, to_devices
from jaxcnn.train._event import Event, nonfinite_message
from jaxcnn.train._guard import NonFiniteError
from jaxcnn.train._many_steps import Step, first_carry, many_steps, means
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState

_SECONDS_PER_CALL = 0.5  # target


def loop(
    step: Step,
    train_state: TrainState,
    source: Source,
    *,
    epochs: int,
    augmentation: Callable[..., Batch] | None = None,
    skip: int = 0,
    every: int = 0,
    run: Run | None = None,
) -> Iterator[Event]:
    """Train, and yield an event at the start, after each compiled call of many steps, and at the end.

    A call takes about half a second. The program is compiled once, donates the state's buffers, and does not
    synchronize with the host between steps. uint8 images are divided by 255. Training ends after `epochs`, or when
    `event.stop` is set.

    Args:
        step: a training step, as returned by `make_step`.
        train_state: the initial state. Its buffers are donated.
        source: the batches, as returned by `data.source`.
        epochs: total number of epochs.
        augmentation: (key, batch, when) -> batch, as returned by `data.augment.compose`.
        skip: maximum number of consecutive non-finite steps to skip. The next one yields an event "nonfinite", and is
            an error unless the caller replaces `event.carry`.
        every: end a call at each multiple of this number of steps; 0: only at the end of an epoch.
        run: prints what is running while a call takes long.

    Raises:
        NonFiniteError: for a non-finite loss, parameter or state.
        TypeError: if `source` is not a `Source`, or a number is not an int.
        ValueError: if a number is negative.

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
    if not isinstance(source, Source):
        raise TypeError(f"loop: source must be the result of data.source(data, batch_size), got {short_repr(source)}")
    if not source.shuffle:
        raise ValueError("loop: training needs a source that shuffles; leave out shuffle=False")
    for name, number in (("epochs", epochs), ("skip", skip), ("every", every)):
        check_integer("loop", name, number, 0)
    source = to_devices(source)
    feed, advance = many_steps(step, source, augmentation, skip)
    carry = replicate(first_carry(step, train_state, source))
    event = Event("start", carry, int(carry.train_state.step), source.steps, epochs, source.batch_size, run)
    yield event

    call_steps, activity = 1, "compiling"  # one step per call until the duration of a step is known
    timed_steps, seconds = 0, 0.0  # of this epoch, without the call that compiles
    while event.step < epochs * source.steps and not event.stop:
        to_epoch_end = source.steps - event.step % source.steps
        to_checkpoint = every - event.step % every if every else to_epoch_end
        count = all_gather(min(call_steps, to_epoch_end, to_checkpoint))[0]  # the same in all processes
        call_start = time.perf_counter()
        with event.busy(activity):
            for batches, steps in feed(event.carry, event.step, count):
                event.carry = advance(event.carry, batches, steps)
            event.step, nonfinite_leaf = int(event.carry.train_state.step), int(event.carry.nonfinite_leaf)
        call_seconds = time.perf_counter() - call_start
        if nonfinite_leaf >= 0:
            event.kind = "nonfinite"
            yield event
            if int(event.carry.nonfinite_leaf) >= 0:
                raise NonFiniteError(f"{nonfinite_message(event)}; try a smaller learning rate or gradient clipping")
            continue
        if activity == "training":
            call_steps = max(1, round(count / call_seconds * _SECONDS_PER_CALL))
            timed_steps, seconds = timed_steps + count, seconds + call_seconds
        activity = "training"
        event.images_per_second = timed_steps * source.batch_size / seconds if timed_steps else 0.0
        event.metrics, event.metric = means(event.carry.metric_sums), None
        event.kind = "steps"
        if event.step % source.steps == 0:
            event.kind = "epoch"
            event.record = {"epoch": event.epoch, "step": event.step, "train": event.metrics}
            zeros = replicate(jax.tree.map(jnp.zeros_like, event.carry.metric_sums))
            event.carry = event.carry._replace(metric_sums=zeros)
            timed_steps, seconds = 0, 0.0
        yield event

    event.kind = "end"
    yield event
