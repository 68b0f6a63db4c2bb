"""The training loop, used directly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn as cnn
from jaxcnn import data, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6, 6, 2)).astype(np.float32)
Y = (X[:, 2, 2, 0] > 0).astype(np.int32)
MODEL = cnn.serial(cnn.flatten, cnn.dense(2))


def parts(images=X, batch_size=4):
    source = data.source((images, Y[: len(images)]), batch_size)
    optimizer = optax.adam(1e-2)
    state = train.TrainState.create(MODEL, optimizer, jax.random.key(0), source.spec["image"])
    return train.make_step(cnn.cross_entropy(MODEL), optimizer), state, source


def leaves(train_state):
    return [np.asarray(leaf) for leaf in jax.tree.leaves((train_state.step, train_state.params, train_state.opt_state))]


def same(a, b):
    for one, other in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_events():
    events = [(event.kind, event.step) for event in train.loop(*parts(), epochs=2)]
    assert (events[0], events[-1]) == (("start", 0), ("end", 10))
    assert [step for kind, step in events if kind == "epoch"] == [5, 10]
    assert {kind for kind, _ in events} == {"start", "steps", "epoch", "end"}


def test_the_loop_uses_the_batches_of_the_source_in_order():
    *_, last = train.loop(*parts(), epochs=3)
    step, state, source = parts()
    losses, batches = [], source.batches(0, jnp.copy(state.key))  # a step takes over the memory of its own
    for _ in range(15):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["loss"]))
    assert last.metrics["loss"] == pytest.approx(np.mean(losses[10:]), rel=1e-4)
    for one, other in zip(leaves(last.train_state), leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_a_call_ends_at_each_multiple():
    events = [event.step for event in train.loop(*parts(), epochs=4, every=7) if event.kind in ("steps", "epoch")]
    assert {5, 7, 10, 14, 15, 20} <= {*events}


def test_the_loop_continues_from_a_replaced_carry():
    *_, whole = train.loop(*parts(), epochs=3)
    for event in train.loop(*parts(), epochs=3, every=7):
        if event.step == 7:
            half = jax.tree.map(jnp.copy, event.carry)
    step, state, source = parts()
    for event in train.loop(step, state, source, epochs=3):
        if event.kind == "start":
            event.carry, event.step = half, 7
    same(whole.train_state, event.train_state)
    assert whole.metrics == event.metrics
    # From a train_state alone as well, between two epochs.
    *_, first = train.loop(*parts(), epochs=2)
    *_, last = train.loop(step, first.train_state, source, epochs=3)
    same(whole.train_state, last.train_state)


def test_it_stops():
    kinds = []
    for event in train.loop(*parts(), epochs=9):
        event.stop = event.kind == "epoch"
        kinds.append((event.kind, event.step))
    assert kinds[-2:] == [("epoch", 5), ("end", 5)]


def spoilt():
    images = X.copy()
    images[3] = np.nan
    return parts(images)


def test_a_nonfinite_step_is_an_error_unless_the_caller_repairs_it():
    with pytest.raises(train.NonFiniteError, match=r"step \d: loss is not finite; try a smaller learning rate"):
        [*train.loop(*spoilt(), epochs=1)]
    good = None
    for event in train.loop(*spoilt(), epochs=1):
        if event.kind == "nonfinite":
            good = event.step
            repaired = event.train_state._replace(step=event.train_state.step + 1)
            event.carry = event.carry._replace(train_state=repaired, nonfinite_leaf=jnp.int32(-1))
            event.step += 1
    assert event.step == 5
    assert 0 <= good < 5
    assert np.isfinite(leaves(event.train_state)[1]).all()


def test_consecutive_nonfinite_steps_are_skipped():
    *_, last = train.loop(*spoilt(), epochs=3, skip=1)
    assert int(last.carry.skipped) == 3
    assert last.step == 15
    with pytest.raises(train.NonFiniteError):
        [*train.loop(*parts(np.full_like(X, np.nan)), epochs=3, skip=2)]


def test_it_compiles_once():
    traces = []
    step, state, source = parts()

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    [*train.loop(counted, state, source, epochs=5)]
    assert len(traces) == 2  # once for the names of the metrics


def test_a_source_without_shuffling_is_refused():
    step, state, _ = parts()
    with pytest.raises(ValueError, match="needs a source that shuffles"):
        next(train.loop(step, state, data.source((X, Y), 8, shuffle=False), epochs=1))
