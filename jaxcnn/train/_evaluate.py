"""Evaluation of a loss and its metrics over a whole data set."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._jit import jit
from jaxcnn._layer import Params, State
from jaxcnn._loss import Batch, LossFn, check_loss
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
        ValueError: for no data, entries of different lengths, or a batch_size below 1.

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> data = {"image": 9 * jnp.eye(3), "label": jnp.array([0, 1, 1])}
        >>> round(jaxcnn.train.evaluate(loss_fn, {}, {}, data, batch_size=2)["accuracy"], 4)
        0.6667
    """
    check_loss("evaluate", loss_fn)
    totals: dict[str, Any] = {}
    counted = 0.0
    for batch in _streamed(data) if isinstance(data, Stream) else _in_memory(data, batch_size):
        metrics, weight = _metrics(loss_fn, params, state, batch)
        weight = float(weight)
        counted += weight
        totals = {name: totals.get(name, 0.0) + weight * value for name, value in metrics.items()}
    return {name: float(total) / counted for name, total in totals.items()}


def _in_memory(data: Batch, batch_size: int) -> Iterator[Batch]:
    if not isinstance(data, dict):
        raise TypeError(f'evaluate needs data as a dict with "image" and "label", got {type(data).__name__}')
    sizes = {name: len(value) for name, value in data.items()}
    n = next(iter(sizes.values()), 0)
    if n == 0 or set(sizes.values()) != {n}:
        raise ValueError(f"evaluate needs entries of one length that is not 0, got {sizes}")
    if batch_size < 1:
        raise ValueError(f"evaluate: batch_size must be at least 1, got {batch_size}")
    data = {"weight": np.ones(n, np.float32)} | data
    batch_size = min(batch_size, n)
    for start in range(0, n, batch_size):
        at = np.arange(start, start + batch_size)
        inside = at < n
        batch = {name: value[np.where(inside, at, 0)] for name, value in data.items()}
        yield batch | {"weight": batch["weight"] * inside}


def _streamed(data: Stream) -> Iterator[Batch]:
    for batch in itertools.islice(data.batches(0), data.steps):
        yield joined({"weight": np.ones(len(batch["label"]), np.float32)} | batch)


def _metrics(loss_fn: LossFn, params: Params, state: State, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array]:
    """The means over the batch, and the weight of all its examples."""
    return loss_fn(params, state, batch, train=False)[1][1], jnp.sum(batch["weight"])


_metrics = jit(_metrics, static_argnums=0)
