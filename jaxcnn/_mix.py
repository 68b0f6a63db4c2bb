"""Transforms of losses that mix the examples of a batch in training."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_positive
from jaxcnn._array import as_floating, spatial_rank
from jaxcnn._key import child_key, require_key, transform_keys
from jaxcnn._loss import (
    Batch,
    LossFn,
    MixedLabel,
    batch_entry,
    batch_weights,
    check_loss,
    convertible_entry,
    first_label,
    is_label_map,
)
from jaxcnn._number import is_traced_number
from jaxcnn._validate import has_check


def mixup(loss_fn: LossFn, alpha: float = 0.2) -> LossFn:
    """loss_fn -> LossFn: trains on convex combinations of pairs of examples.

    x' = lam * x + (1 - lam) * x[shuffled], and likewise for the labels,  lam ~ Beta(alpha, alpha) once per batch

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        alpha: above 0. A small alpha makes lam close to 0 or 1.

    Raises:
        TypeError: if `loss_fn` is not a LossFn, or in training for images that are not floating-point.
        ValueError: if `alpha` is not above 0, or in training without a key.

    Example:
        >>> loss_fn = jaxcnn.mixup(jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity)), 0.2)
        >>> batch = {"image": jnp.zeros((2, 2)), "label": jnp.array([0, 1])}
        >>> loss, _ = loss_fn({}, {}, batch, train=True, key=jax.random.key(0))
        >>> round(float(loss), 4)  # equal logits: log 2 for any mixture of labels
        0.6931

    Source: Zhang et al., "mixup: beyond empirical risk minimization", 2018.
    """

    def mix(key, image, partner, lam):
        lam_x = lam.astype(as_floating(image, "mixup").dtype)
        return lam_x * image + (1 - lam_x) * partner, lam, None

    return _mixing("mixup", loss_fn, alpha, mix)


def cutmix(loss_fn: LossFn, alpha: float = 1.0) -> LossFn:
    """loss_fn -> LossFn: trains on images with a box pasted in from another image of the batch.

    x' = x outside the box and x[shuffled] inside it. Class labels are mixed in proportion to the areas. Label maps get
    the same box pasted in. The box covers 1 - lam of the image, lam ~ Beta(alpha, alpha), at a uniform center, and is
    clipped at the borders. All images of a batch use the same box.

    Args:
        loss_fn: a LossFn, such as the result of `cross_entropy`.
        alpha: above 0.

    Raises:
        TypeError: if `loss_fn` is not a LossFn.
        ValueError: if `alpha` is not above 0, or in training for images without spatial dimensions, integer label maps
            of another size than images or volumes, or without a key.

    Example:
        >>> model = jaxcnn.as_layer(jaxcnn.flatten)
        >>> loss_fn = jaxcnn.cutmix(jaxcnn.cross_entropy(model))
        >>> batch = {"image": jnp.zeros((2, 2, 2, 1)), "label": jnp.array([0, 1])}
        >>> loss, _ = loss_fn({}, {}, batch, train=True, key=jax.random.key(0))
        >>> round(float(loss), 4)  # four equal logits: log 4 for any box
        1.3863

    Source: Yun et al., "CutMix: regularization strategy to train strong classifiers", 2019.
    """

    def mix(key, image, partner, lam):
        rank, spatial = spatial_rank(image, "cutmix"), image.shape[1:-1]
        center = jax.random.uniform(child_key(key, "centre"), (rank,), jnp.float32)
        half = 0.5 * (1 - lam) ** (1 / rank)  # half the side of the box, relative to the image
        inside = jnp.ones((1,) * image.ndim, bool)
        for axis, n in enumerate(spatial, 1):
            low, high = jnp.round((center[axis - 1] - half) * n), jnp.round((center[axis - 1] + half) * n)
            positions = jnp.arange(n, dtype=jnp.float32)
            along = (low <= positions) & (positions < high)
            inside = inside & along.reshape(*(1,) * axis, -1, *(1,) * (image.ndim - 1 - axis))
        lam = 1 - inside.sum(dtype=jnp.float32) / math.prod(spatial)
        return jnp.where(inside, partner, image), lam, inside

    return _mixing("cutmix", loss_fn, alpha, mix)


def _mixing(
    name: str,
    loss_fn: LossFn,
    alpha: float,
    mix: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array | None]],
) -> LossFn:
    """Train on a batch that is mixed with a permutation of itself.

    Args:
        mix: (key, images, partners, lam ~ Beta(alpha, alpha)) -> (mixed images, label weight of `images`, mask of the
            positions that are taken from the partner, or None if values are blended).
    """
    check_loss(name, loss_fn)
    alpha = check_positive(name, "alpha", alpha)

    @functools.wraps(loss_fn)
    def mixed(params, state, batch, *, train, key=None):
        if train:
            mix_key, key = transform_keys(require_key(key, name), name)
            lam = jax.random.beta(child_key(mix_key, "share"), alpha, alpha, dtype=jnp.float32)
            if is_traced_number(alpha):  # it may be 0, as in a sweep: no mixing, instead of NaN
                lam = jnp.where(alpha == 0, 1, lam)
            partners = _partner_indices(child_key(mix_key, "order"), batch)
            image = jnp.asarray(convertible_entry(batch, "image"))
            image, lam, inside = mix(mix_key, image, image[partners], lam)
            label = convertible_entry(batch, "label")
            if inside is not None and _is_map(first_label(label), image):
                label = jax.tree.map(functools.partial(_pasted, partners=partners, inside=inside), label)
            else:
                label = _mix_labels(label, partners, lam, blend_floats=not has_check(loss_fn))
            batch = batch | {"image": image, "label": label}
        return loss_fn(params, state, batch, train=train, key=key)

    return mixed


def _partner_indices(key: jax.Array, batch: Batch) -> jax.Array:
    """A random partner for each example; the example itself if the partner has weight 0."""
    count = len(batch_entry(batch, "image"))
    partners = jax.random.permutation(key, count)
    if "weight" not in batch:
        return partners
    return jnp.where(batch_weights(batch, "weight")[partners] != 0, partners, jnp.arange(count))


def _is_map(label: Any, image: jax.Array) -> bool:
    """Whether labels are maps (N, *spatial) or (N, *spatial, K) of the size of the images.

    Floats (N, K) of signals (N, T, C) are one target per class, even if K = T. Raises ValueError for integer maps of
    another size than images or volumes.
    """
    shape, rank = jnp.shape(label), image.ndim
    floats = jnp.issubdtype(jnp.asarray(label).dtype, jnp.floating)
    if floats and rank == 3 and len(shape) == 2:
        return False
    if not floats and len(shape) >= rank - 1 > 2 and shape[1 : rank - 1] != image.shape[1:-1]:
        raise ValueError(
            f"cutmix: label maps must have the size of the images, {image.shape[1:-1]}, got labels of shape {shape}"
        )
    return is_label_map(label, image)


def _pasted(label: Any, *, partners: jax.Array, inside: jax.Array) -> Any:
    """Label maps with those of the partners inside the box. The weight of a `MixedLabel` does not change."""
    if not jnp.ndim(label):
        return label
    label = jnp.asarray(label)
    return jnp.where(inside if label.ndim == inside.ndim else inside[..., 0], label[partners], label)


def _mix_labels(label: Any, partners: jax.Array, lam: jax.Array, *, blend_floats: bool) -> Any:
    if blend_floats and not isinstance(label, MixedLabel) and jnp.issubdtype(jnp.asarray(label).dtype, jnp.floating):
        label = jnp.asarray(label)
        lam = lam.astype(label.dtype)
        return lam * label + (1 - lam) * label[partners]
    # Only the loss knows the number of classes, which mixing integers needs, and the label to ignore, which may be
    # a float.
    shuffled = jax.tree.map(lambda leaf: jnp.asarray(leaf)[partners] if jnp.ndim(leaf) else leaf, label)
    return MixedLabel(label, shuffled, lam)
