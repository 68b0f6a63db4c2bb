"""Many steps as one compiled program, for data in memory and for streams.

A batch of data in memory is a function of the training's key and the step, computed inside of the program. So training
can be stopped and resumed at any step, and comes out the same to the bit.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._jit import jit
from jaxcnn._layer import child_key
from jaxcnn._loss import Batch
from jaxcnn.data import Source, augment
from jaxcnn.train._devices import batch_sharding, replicate, replicated_sharding
from jaxcnn.train._event import Carry
from jaxcnn.train._guard import undo_if_nonfinite
from jaxcnn.train._recipe import scale_bytes
from jaxcnn.train._step import TrainState

_STEPS = "steps"  # counted among the totals of metrics

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def many_steps(
    step: Step, source: Source, augmentation: Callable[..., jax.Array] | None, skip: int
) -> tuple[Callable[..., Iterator[tuple[Any, int]]], Callable[[Carry, Any, int], Carry]]:
    """(carry, step, count) -> what the next calls are given and how many steps each does; and the compiled call."""
    feed, read = _from_memory(source) if source.stream is None else _from_stream(source)
    checked_step = undo_if_nonfinite(step)

    def one(carry, batch, when):
        state = carry.train_state
        batch = scale_bytes(lax.with_sharding_constraint(batch, batch_sharding()))
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

    compiled = jit(order_of, out_shardings=replicated_sharding())
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


def first_carry(step: Step, train_state: TrainState, source: Source) -> Carry:
    batch = jax.eval_shape(scale_bytes, source.spec)
    names = [*jax.eval_shape(step, train_state, batch)[1], _STEPS]
    zero = lambda: jnp.zeros((), jnp.int32)
    return replicate(
        Carry(train_state, {name: jnp.zeros((), jnp.float32) for name in names}, zero() - 1, zero(), zero())
    )


def means(totals: dict[str, jax.Array]) -> dict[str, float | None]:
    """The metrics of the epoch so far, over the steps that were done; None if there was none."""
    sums = {name: float(total) for name, total in totals.items()}
    steps = sums.pop(_STEPS)
    return {name: total / steps if steps else None for name, total in sums.items()}
