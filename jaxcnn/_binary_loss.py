"""Losses of independent labels, each 0 or 1: multi-label classification, and overlap of regions."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_number, check_positive, short_repr
from jaxcnn._layer import Layer
from jaxcnn._loss import LossFn, first_label, loss_of_output, masked, weighted_mean
from jaxcnn._numeric import times_log
from jaxcnn._target import (
    binary_target,
    check_binary_label,
    check_class_label,
    check_ignore_label,
    class_or_label_weights,
    class_target,
    counted_labels,
    label_logits,
)


def binary_cross_entropy(
    model: Layer,
    *,
    label_smoothing: float = 0.0,
    pos_weight: float | Sequence[float] = 1.0,
    ignore_label: int | None = None,
) -> LossFn:
    """model -> LossFn: sigmoid cross-entropy of independent labels (multi-label classification).

    loss = mean of -(pos_weight[k] * q log sigmoid(z) + (1 - q) log sigmoid(-z)),  z: the logits,
    q = (1 - label_smoothing) * label + label_smoothing / 2

    Labels are numbers from 0 to 1 with the shape of the logits. The last dimension may be missing if it is 1.

    Args:
        model: a layer from images to logits (N, *spatial, K).
        label_smoothing: fraction of the label that is spread over 0 and 1 in training, in [0, 1).
        pos_weight: weight of positive labels, above 1 for rare ones: one number, or one for each of the K labels, such
            as negatives / positives.
        ignore_label: entries with this label do not count.

    Returns:
        a LossFn with the metrics "loss" and "accuracy", the fraction of entries whose logit has the sign of the label.

    Raises:
        TypeError: for a pos_weight that is not numbers, or an output that is not one floating-point array.
        ValueError: if an argument is out of range, weights of the batch are negative or not finite, or labels do not
            fit the logits. Inside a compiled function, invalid weights, and labels outside [0, 1], make the loss NaN
            instead.

    Example:
        >>> loss_fn = jaxcnn.binary_cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.zeros((1, 3)), "label": jnp.array([[1, 0, 1]])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)  # log 2
        0.6931
    """
    label_smoothing = check_number("binary_cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    ignore_label = check_ignore_label("binary_cross_entropy", ignore_label)
    weights = class_or_label_weights("binary_cross_entropy: pos_weight", pos_weight)
    if weights.ndim > 1 or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(
            f"binary_cross_entropy: pos_weight must be a number >= 0, or one per label, got {short_repr(pos_weight)}"
        )

    def compute(output, label, weight, train):
        logits = label_logits("binary_cross_entropy", output)
        target, counted = binary_target("binary_cross_entropy", label, logits, weight, ignore_label)
        logits = masked(logits, weight, counted)
        # If one part of a mixed label is ignored, the label counts for less than 1, and so does its target.
        correct = jnp.where((logits > 0) == (target > counted / 2), counted, 0)
        if train:
            smoothing = jnp.asarray(label_smoothing, target.dtype)  # a traced number may have another dtype
            target = (1 - smoothing) * target + smoothing / 2 * counted
        if weights.ndim and weights.shape != logits.shape[-1:]:
            raise ValueError(
                f"binary_cross_entropy: pos_weight has {len(weights)} entries, but the logits have {logits.shape[-1]} "
                "labels"
            )
        scale = jnp.asarray(weights, logits.dtype).reshape((1,) * (logits.ndim - weights.ndim) + weights.shape)
        log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        values = -times_log(scale * target, log_p) - times_log(counted - target, log_not_p)
        loss = weighted_mean(values, weight, counted)
        return loss, {"accuracy": weighted_mean(correct, weight, counted)}

    def check(name, output, label, weight):
        check_binary_label(name, label, label_logits("binary_cross_entropy", output).shape, weight, ignore_label)

    def counted(label):
        count = counted_labels(jnp.asarray(label), ignore_label)
        return {"loss": count, "accuracy": count}

    return loss_of_output(model, compute, check, None if ignore_label is None else counted)


def dice(model: Layer, *, smooth: float = 1.0, ignore_label: int | None = None) -> LossFn:
    """model -> LossFn: 1 - the soft Dice coefficient of each class, the overlap of predicted and true regions.

    loss = mean over n, k of 1 - (2 sum_i p q + smooth) / (sum_i p + sum_i q + smooth),  sums over positions i

    Labels are integer classes (N, *spatial): p = softmax(logits), q one-hot. Or they have the shape of the logits
    (multi-label): p = sigmoid(logits), q = label. Their last dimension may be missing if it is 1.

    Args:
        model: a layer from images to logits (N, *spatial, K).
        smooth: avoids 0 / 0 for classes that are absent, in positions.
        ignore_label: positions with this label do not count.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        TypeError: for an output that is not one floating-point array.
        ValueError: for a smooth that is not positive, labels that do not fit the logits, or weights as in
            `binary_cross_entropy`.

    Example:
        >>> loss_fn = jaxcnn.dice(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": 50 * jnp.eye(2)[None], "label": jnp.array([[0, 1]])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)
        0.0

    Source: Milletari, Navab and Ahmadi, "V-Net: fully convolutional neural networks for volumetric medical image
    segmentation", 2016.
    """
    smooth = check_positive("dice", "smooth", smooth)
    ignore_label = check_ignore_label("dice", ignore_label)

    def compute(output, label, weight, train):
        logits = label_logits("dice", output)
        if is_multi_label(label, logits.shape):
            target, counted = binary_target("dice", label, logits, weight, ignore_label)
            probabilities = jax.nn.sigmoid
        else:
            target, counted = class_target("dice", label, logits, weight, ignore_label)
            counted, probabilities = counted[..., None], jax.nn.softmax
        p = probabilities(masked(logits, weight, counted))
        positions = tuple(range(1, logits.ndim - 1))
        overlap, total = (2 * p * target).sum(positions), (p * counted + target).sum(positions)
        return weighted_mean(1 - (overlap + smooth) / (total + smooth), weight), {}

    def check(name, output, label, weight):
        shape = label_logits("dice", output).shape
        check_label = check_binary_label if is_multi_label(label, shape) else check_class_label
        check_label(name, label, shape, weight, ignore_label)

    return loss_of_output(model, compute, check)


def is_multi_label(label: Any, logits: tuple[int, ...]) -> bool:
    """Whether labels, or both parts of mixed ones, have the shape of the logits, or lack its last dimension of 1."""
    shape = np.shape(first_label(label))
    return shape == logits or (logits[-1] == 1 and shape == logits[:-1])
