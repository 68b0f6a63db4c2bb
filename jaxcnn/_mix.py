"""Transforms of losses that mix the examples of a batch in training."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._layer import as_floating, check_number, child_key, require_key, transform_keys
from jaxcnn._loss import Batch, LossFn, MixedLabel, batch_entry, check_loss


def mixup(loss_fn: LossFn, alpha: float = 0.2) -> LossFn:
    """The loss in training on mixtures of examples.

    x' = share * x + (1 - share) * x[shuffled], the labels likewise,  share ~ Beta(alpha, alpha) for the batch

    Args:
        loss_fn: as `cross_entropy` makes it.
        alpha: above 0; the smaller, the closer share is to 0 or 1.

    Raises:
        ValueError: for another alpha, or in training without a key.

    Example:
        >>> loss_fn = jaxcnn.mixup(jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity)), 0.2)
        >>> batch = {"image": jnp.eye(2), "label": jnp.array([0, 1])}
        >>> loss, _ = loss_fn({}, {}, batch, train=True, key=jax.random.key(0))

    Source: Zhang et al., "mixup: beyond empirical risk minimization", 2018.
    """

    def mix(key, image, other, share):
        share_x = share.astype(as_floating(image, "mixup").dtype)
        return share_x * image + (1 - share_x) * other, share

    return _mixing("mixup", loss_fn, alpha, mix)


def cutmix(loss_fn: LossFn, alpha: float = 1.0) -> LossFn:
    """The loss in training on images with a box from another image pasted in.

    x' = x outside the box and x[shuffled] inside; the labels are mixed by area. The box takes 1 - share of
    the image, share ~ Beta(alpha, alpha), around a uniform center, cut at the borders; one for the batch.

    Args:
        loss_fn: as `cross_entropy` makes it.
        alpha: above 0.

    Raises:
        ValueError: for another alpha, or in training without a key.

    Example:
        >>> model = jaxcnn.as_layer(jaxcnn.flatten)
        >>> loss_fn = jaxcnn.cutmix(jaxcnn.cross_entropy(model))
        >>> batch = {"image": jnp.zeros((2, 2, 2, 1)), "label": jnp.array([0, 1])}
        >>> loss, _ = loss_fn({}, {}, batch, train=True, key=jax.random.key(0))

    Source: Yun et al., "CutMix: regularization strategy to train strong classifiers", 2019.
    """

    def mix(key, image, other, share):
        spatial = image.shape[1:-1]
        center = jax.random.uniform(child_key(key, "centre"), (len(spatial),), jnp.float32)
        half = 0.5 * (1 - share) ** (1 / len(spatial))  # of the side, as a fraction of the image's
        inside = jnp.ones((1,) * image.ndim, bool)
        for axis, n in enumerate(spatial, 1):
            low, high = jnp.round((center[axis - 1] - half) * n), jnp.round((center[axis - 1] + half) * n)
            at = jnp.arange(n, dtype=jnp.float32)
            along = (low <= at) & (at < high)
            inside = inside & along.reshape(*(1,) * axis, -1, *(1,) * (image.ndim - 1 - axis))
        return jnp.where(inside, other, image), 1 - inside.sum(dtype=jnp.float32) / math.prod(spatial)

    return _mixing("cutmix", loss_fn, alpha, mix)


def _mixing(
    name: str,
    loss_fn: LossFn,
    alpha: float,
    mix: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
) -> LossFn:
    """The loss in training on a batch mixed with its own examples in another order.

    Args:
        mix: (key, images, their partners, share ~ Beta(alpha, alpha)) -> the mixed images, and the share of `images`.
    """
    check_loss(name, loss_fn)
    if not check_number(f"{name}: alpha", alpha) > 0:
        raise ValueError(f"{name}: alpha must be above 0, got {alpha}")

    @functools.wraps(loss_fn)
    def mixed(params, state, batch, *, train, key=None):
        if train:
            ours, key = transform_keys(require_key(key, name), name)
            share = jax.random.beta(child_key(ours, "share"), alpha, alpha, dtype=jnp.float32)
            order = _partners(child_key(ours, "order"), batch)
            image = jnp.asarray(batch_entry(batch, "image"))
            image, share = mix(ours, image, image[order], share)
            batch = batch | {"image": image, "label": _mix_labels(batch_entry(batch, "label"), order, share)}
        return loss_fn(params, state, batch, train=train, key=key)

    return mixed


def _partners(key: jax.Array, batch: Batch) -> jax.Array:
    """The example that each one is mixed with, drawn at random; itself where that has weight 0."""
    count = len(batch_entry(batch, "image"))
    other = jax.random.permutation(key, count)
    if "weight" not in batch:
        return other
    return jnp.where(jnp.asarray(batch["weight"])[other] != 0, other, jnp.arange(count))


def _mix_labels(label: Any, other: jax.Array, share: jax.Array) -> Any:
    if not isinstance(label, MixedLabel) and jnp.issubdtype(jnp.asarray(label).dtype, jnp.floating):
        label = jnp.asarray(label)
        share = share.astype(label.dtype)
        return share * label + (1 - share) * label[other]
    # Classes cannot be mixed before their number is known, and only the loss sees the logits.
    shuffled = jax.tree.map(lambda leaf: jnp.asarray(leaf)[other] if jnp.ndim(leaf) else leaf, label)
    return MixedLabel(label, shuffled, share)
