"""Evaluation of a loss and its metrics over a whole data set."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._jit import jit
from jaxcnn._layer import Params, State
from jaxcnn._loss import Batch, LossFn, check_loss
from jaxcnn._validate import check_batch, check_finite, check_for_loss
from jaxcnn.data import Stream
from jaxcnn.train._devices import joined


def evaluate(
    loss_fn: LossFn, params: Params, state: State, data: Batch | Stream, *, batch_size: int = 256
) -> dict[str, float]:
    """The mean of each metric over all examples.

    In batches of one size, so that it compiles once: the last is filled up with examples of weight 0.

    Args:
        loss_fn: as `cross_entropy` makes it; it is called with train=False.
        params, state: of the model.
        data: arrays with a common first dimension, such as {"image": (N, H, W, C), "label": (N,)}, or a stream, of
            which one epoch is read.
        batch_size: examples at a time; a stream has its own.

    Raises:
        ValueError: for no data, entries of different lengths, weights that are all 0, values that are not finite,
            labels that do not fit the model, or a batch_size below 1.

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> data = {"image": 9 * jnp.eye(3), "label": jnp.array([0, 1, 1])}
        >>> round(jaxcnn.train.evaluate(loss_fn, {}, {}, data, batch_size=2)["accuracy"], 4)
        0.6667
    """
    check_loss("evaluate", loss_fn)
    if batch_size < 1:
        raise ValueError(f"evaluate: batch_size must be at least 1, got {batch_size}")
    if not isinstance(data, Stream):
        check_batch("evaluate", data, required=())
        for name, value in data.items():
            check_finite(f"evaluate: {name}", value, data.get("weight"))
        check_for_loss("evaluate", loss_fn, params, state, data)
    return mean_metrics(loss_fn, params, state, data, batch_size)


def mean_metrics(
    loss_fn: LossFn, params: Params, state: State, data: Batch | Stream, batch_size: int
) -> dict[str, float]:
    """`evaluate` of data in memory that were checked before; a stream is checked batch by batch."""
    # jax keeps what it compiled for a function as long as that function exists, and no longer.
    compiled = jit(loss_fn, static_argnames="train")
    if isinstance(data, Stream):
        batches = _streamed(data, functools.partial(check_for_loss, "evaluate", loss_fn, params, state))
    else:
        batches = _in_memory(data, batch_size)
    totals: dict[str, Any] = {}
    counted = 0.0
    for batch in batches:
        _, (_, metrics) = compiled(params, state, batch, train=False)
        weight = float(_sum(batch["weight"]))
        counted += weight
        totals = {name: totals.get(name, 0.0) + weight * value for name, value in metrics.items()}
    if counted == 0:
        raise ValueError("evaluate: the weights of all examples are 0, so no metric has a value")
    return {name: float(total) / counted for name, total in totals.items()}


def _in_memory(data: Batch, batch_size: int) -> Iterator[Batch]:
    n = len(next(iter(data.values())))
    data = {"weight": np.ones(n, np.float32)} | data
    batch_size = min(batch_size, n)
    for start in range(0, n, batch_size):
        at = np.arange(start, start + batch_size)
        inside = at < n
        batch = {name: value[np.where(inside, at, 0)] for name, value in data.items()}
        yield batch | {"weight": batch["weight"] * inside}


def _streamed(data: Stream, check: Callable[[Batch], None]) -> Iterator[Batch]:
    for batch in itertools.islice(data.batches(0), data.steps):
        check_batch("evaluate", batch)
        check(batch)
        yield joined({"weight": np.ones(len(batch["label"]), np.float32)} | batch)


_sum = jit(jnp.sum)
