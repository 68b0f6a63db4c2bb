"""Functions of the parameters alone, from a loss such as `cross_entropy(model)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer
from jaxcnn._loss import Batch, LossFn, batch_entry, check_loss, counted_fractions
from jaxcnn._validate import check_batch


def mean_loss(loss_fn: LossFn, state: Any, data: Batch, batch_size: int = 256) -> Callable[[Any], jax.Array]:
    """params -> the mean loss in evaluation mode over all examples, computed in batches.

    It does not depend on batch_size, except for a `weighted_sum` of losses that count labels differently, as in
    `train.evaluate`.

    Derivatives need memory for one batch at a time: each batch is computed again in the backward pass.

    Args:
        loss_fn: a loss such as cross_entropy(model).
        state: of the model.
        data: a dict of arrays such as {"image": (N, H, W, C), "label": (N,)}, as the model expects them.
        batch_size: examples per batch.

    Raises:
        TypeError, ValueError: if `loss_fn` is not a loss, or `data` not a dict of arrays of equal length.

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.dense(2))
        >>> data = {"image": jnp.eye(3), "label": jnp.array([0, 1, 1])}
        >>> loss = jaxcnn.curvature.mean_loss(loss_fn, {}, data)
        >>> round(float(loss({"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)})), 4)  # log 2
        0.6931
    """
    check_loss("mean_loss", loss_fn)
    batch_size = check_integer("mean_loss", "batch_size", batch_size)
    count = check_batch("mean_loss", data, ())
    batch_size = min(batch_size, count)
    steps = -(-count // batch_size)
    data = {name: batch_entry(data, name) for name in data}
    weight = jnp.asarray(data.get("weight", jnp.ones(count, jnp.float32)))

    def in_batches(x):
        padded = jnp.pad(x, ((0, steps * batch_size - count), *((0, 0),) * (x.ndim - 1)))
        return padded.reshape(steps, batch_size, *x.shape[1:])

    batches = {name: in_batches(jnp.asarray(x)) for name, x in (data | {"weight": weight}).items()}

    def loss(params):
        @jax.checkpoint
        def weighted_loss(batch):
            value = loss_fn(params, state, batch, train=False)[0]
            counted = batch["weight"].sum() * counted_fractions(loss_fn, batch).get("loss", 1.0)
            return value * counted.astype(value.dtype), counted

        weighted, counted = lax.map(weighted_loss, batches)
        return weighted.sum() / counted.sum().astype(weighted.dtype)

    return loss


def example_loss(loss_fn: LossFn, state: Any) -> Callable[[Any, Batch], jax.Array]:
    """(params, example) -> the loss of one example in evaluation mode, for `influence`.

    Args:
        loss_fn: a loss such as cross_entropy(model).
        state: of the model.

    Raises:
        TypeError: if `loss_fn` is not a loss.

    Example:
        >>> loss = jaxcnn.curvature.example_loss(jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity)), {})
        >>> round(float(loss({}, {"image": jnp.zeros(2), "label": jnp.array(1)})), 4)  # log 2
        0.6931
    """
    check_loss("example_loss", loss_fn)
    batch_of_one = lambda example: jax.tree.map(lambda x: jnp.asarray(x)[None], example)
    return lambda params, example: loss_fn(params, state, batch_of_one(example), train=False)[0]
