"""Many steps as one compiled program, for data in memory and for streams.

With data in memory, the program computes each batch from the random key and the step number. Training can therefore
stop and resume at any step with bit-identical results.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jit import jit
from jaxcnn._key import child_key
from jaxcnn._loss import Batch
from jaxcnn.data import Source, augment
from jaxcnn.train._batch import scale_bytes
from jaxcnn.train._devices import batch_sharding, replicated_sharding
from jaxcnn.train._event import Carry
from jaxcnn.train._guard import undo_if_nonfinite
from jaxcnn.train._step import TrainState

_STEPS = "(steps)"  # entry of the metric sums that counts steps; in parentheses, because a metric may be named steps

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def many_steps(
    step: Step, source: Source, augmentation: Callable[..., Batch] | None, skip: int
) -> tuple[Callable[..., Iterator[tuple[Any, int]]], Callable[[Carry, Any, int], Carry]]:
    """Return `feed` and `advance`.

    feed: (carry, step, count) -> an iterator over (batches, steps), the inputs of the calls to make.
    advance: (carry, batches, steps) -> carry after these steps, compiled.
    """
    feed, read = _from_memory(source) if source.stream is None else _from_stream(source)
    update = carry_update(step, augmentation, skip)

    def advance(carry, batches, count):
        def body(loop_state):
            done, carry = loop_state
            batch, rows = read(batches, carry.train_state.step)
            batch = lax.with_sharding_constraint(batch, batch_sharding())
            return done + 1, update(carry, batch, augment.When(rows, carry.train_state.step // source.steps))

        unfinished = lambda loop_state: (loop_state[0] < count) & (loop_state[1].nonfinite_leaf < 0)
        return lax.while_loop(unfinished, body, (0, carry))[1]

    return feed, jit(advance, donate_argnums=0)


def carry_update(
    step: Step, augmentation: Callable[..., Batch] | None, skip: int
) -> Callable[[Carry, Batch, augment.When], Carry]:
    """(carry, batch, when) -> carry after one step. A step that is not finite is undone."""
    checked_step = undo_if_nonfinite(step)

    def update(carry, batch, when):
        state = carry.train_state
        batch = augmented(augmentation, state, batch, when)
        after, metrics, nonfinite_leaf = checked_step(state, batch)
        finite = nonfinite_leaf < 0
        counts = finite & (jnp.any(batch["weight"] != 0) if "weight" in batch else True)  # else metrics have no value
        metrics = metrics | {_STEPS: jnp.float32(1)}
        metric_sums = {
            name: old + jnp.where(counts, metrics[name], 0).astype(old.dtype) for name, old in carry.metric_sums.items()
        }
        nonfinite_in_a_row = jnp.where(finite, 0, carry.nonfinite_in_a_row + 1)
        passed = finite | (nonfinite_in_a_row <= skip)
        after = after._replace(step=state.step + passed.astype(state.step.dtype))
        skipped = carry.skipped + (passed & ~finite).astype(carry.skipped.dtype)
        return Carry(after, metric_sums, jnp.where(passed, -1, nonfinite_leaf), skipped, nonfinite_in_a_row)

    return update


def _from_memory(source: Source) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`feed` returns all rows and the epoch's order for one call; `read` selects the batch of a step."""
    compiled = jit(source.order, out_shardings=replicated_sharding())
    cached_for, order = None, None  # the epoch and key of the cached order

    def feed(carry: Carry, step: int, count: int) -> Iterator[tuple[Any, int]]:
        nonlocal cached_for, order
        key, epoch = carry.train_state.key, step // source.steps
        if cached_for != (needed := (epoch, *jax.random.key_data(key).tolist())):
            cached_for, order = needed, compiled(key, epoch)
        yield (source.arrays, order), count

    return feed, lambda batches, step: rows_of_step(source, batches[0], batches[1], step)


def rows_of_step(source: Source, arrays: Batch, order: jax.Array, step: jax.Array) -> tuple[Batch, jax.Array]:
    """The batch of a step of data in memory, in the order of its epoch, and the indices of its rows."""
    rows = lax.dynamic_slice_in_dim(order, step % source.steps * source.batch_size, source.batch_size)
    return {name: value[rows] for name, value in arrays.items()}, rows


def _from_stream(source: Source) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`feed` returns each batch of the stream for a call of one step; `read` returns it."""
    next_step = -1  # the step of the next batch of `batches`
    batches: Iterator[Batch] = iter(())

    def feed(carry: Carry, step: int, count: int) -> Iterator[tuple[Any, int]]:
        nonlocal next_step, batches
        if next_step != step:
            next_step, batches = step, source.batches(step)
        for batch in itertools.islice(batches, count):
            next_step += 1
            yield batch, 1

    def read(batch, step):
        return batch, step * source.batch_size + jnp.arange(source.batch_size)

    return feed, read


def augmented(
    augmentation: Callable[..., Batch] | None, train_state: TrainState, batch: Batch, when: augment.When
) -> Batch:
    """The scaled batch, augmented with a key for this step."""
    batch = scale_bytes(batch)
    if augmentation is None:
        return batch
    return augmentation(jax.random.fold_in(child_key(train_state.key, "augment"), train_state.step), batch, when)


def first_carry(step: Step, train_state: TrainState, source: Source) -> Carry:
    """The initial carry."""
    batch = jax.eval_shape(scale_bytes, source.spec)
    names = [*jax.eval_shape(step, train_state, batch)[1], _STEPS]
    zero = lambda: jnp.zeros((), jnp.int32)
    return Carry(train_state, {name: jnp.zeros((), jnp.float32) for name in names}, zero() - 1, zero(), zero())


def means(metric_sums: dict[str, jax.Array]) -> dict[str, float | None]:
    """The mean of each metric over the finite steps of the epoch with a weight above 0; None without such steps."""
    sums = {name: float(value) for name, value in metric_sums.items()}
    steps = sums.pop(_STEPS)
    return {name: value / steps if steps else None for name, value in sums.items()}
