"""Losses of classes: of images (N, K), or of positions (N, *spatial, K) in segmentation."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_number
from jaxcnn._layer import Layer
from jaxcnn._loss import LossFn, loss_of_output, masked, weighted_mean
from jaxcnn._number import is_zero
from jaxcnn._numeric import times_log
from jaxcnn._target import (
    check_class_label,
    check_ignore_label,
    class_logits,
    class_or_label_weights,
    class_target,
    counted_labels,
)


def cross_entropy(
    model: Layer,
    *,
    label_smoothing: float = 0.0,
    class_weight: Sequence[float] | None = None,
    ignore_label: int | None = None,
    auxiliary: float = 0.3,
) -> LossFn:
    """model -> LossFn: softmax cross-entropy between the model's logits and the labels.

    loss = sum_n sum_k -c[k] q[n, k] log softmax(logits[n])[k] / sum_n sum_k c[k] label[n, k],
    q = (1 - label_smoothing) * label + label_smoothing / K,  label one-hot or probabilities,  c = class_weight or 1

    n runs over the examples, or over the positions of all examples for logits (N, *spatial, K).

    A model with auxiliary heads returns a tuple of logits, (main, head, ..):

    loss = loss(main) + auxiliary * sum_head loss(head)

    Labels are integer classes (N, *spatial), or class probabilities (N, *spatial, K).

    Args:
        model: a layer from images to logits (N, *spatial, K), or to a tuple of logits.
        label_smoothing: fraction of the label that is spread over all classes in training, in [0, 1).
        class_weight: one weight per class, such as larger ones for rare classes.
        ignore_label: positions or examples with this label do not count, such as 255 for borders.
        auxiliary: weight of each auxiliary head: 0.3 for GoogLeNet, 0.4 for Inception v3.

    Returns:
        a LossFn with the metrics "loss" and "accuracy". Accuracy compares the argmax of the main logits with the label.

    Raises:
        TypeError: for class weights that are not numbers, or an output that is not floating-point.
        ValueError: if an argument is out of range, the output is not logits of at least two classes, weights of the
            batch are negative or not finite, or labels are invalid: a class out of range, fractions that do not sum to
            1, or a label map whose size differs from that of the logits. Inside a compiled function, invalid labels or
            weights make the loss NaN instead.

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.zeros((1, 4)), "label": jnp.array([2])}
        >>> loss, (state, metrics) = loss_fn({}, {}, batch, train=True)
        >>> round(float(loss), 4)  # log 4
        1.3863

    Source: Szegedy et al., "Going deeper with convolutions", 2015 (auxiliary heads); "Rethinking the inception
    architecture for computer vision", 2016 (label smoothing).
    """
    label_smoothing = check_number("cross_entropy", "label_smoothing", label_smoothing, 0, 1)
    auxiliary = check_number("cross_entropy", "auxiliary, the weight of auxiliary heads,", auxiliary)
    weights = None if class_weight is None else class_or_label_weights("cross_entropy: class_weight", class_weight)
    if weights is not None and (weights.ndim != 1 or not (np.isfinite(weights) & (weights >= 0)).all()):
        raise ValueError(f"cross_entropy: class_weight must have one finite number >= 0 per class, got {class_weight}")
    if weights is not None and weights.any():
        weights = weights / weights.max()  # the same mean, without overflow or underflow

    def loss(logits, target, counted, weight, train):
        classes = logits[0].shape[-1]
        if weights is not None and len(weights) != classes:
            raise ValueError(
                f"cross_entropy: class_weight has {len(weights)} entries, but the logits have {classes} classes"
            )
        scale: Any = 1.0
        if weights is not None:
            scale = jnp.asarray(weights, logits[0].dtype).reshape((1,) * (logits[0].ndim - 1) + (-1,))
        total = counted if weights is None else (target * scale).sum(-1)
        if train and not is_zero(label_smoothing):
            smoothing = jnp.asarray(label_smoothing, target.dtype)  # a traced number may have another dtype
            target = (1 - smoothing) * target + smoothing / classes * counted[..., None]
        values = (-times_log(scale * target, jax.nn.log_softmax(y)).sum(-1) for y in logits)
        main, *heads = (weighted_mean(value, weight, total) for value in values)
        return main + auxiliary * sum(heads)

    return _class_loss("cross_entropy", model, ignore_label, loss, weights)


def focal(model: Layer, *, gamma: float = 2.0, ignore_label: int | None = None) -> LossFn:
    """model -> LossFn: cross-entropy with less weight on examples or positions that are already classified well.

    loss = mean_n -sum_k label[n, k] (1 - p[n, k])^gamma log p[n, k],  p = softmax(logits)

    Args:
        model: a layer from images to logits (N, *spatial, K).
        gamma: 0 is cross-entropy; a larger value puts more weight on misclassified examples.
        ignore_label: as in `cross_entropy`.

    Returns:
        a LossFn with the metrics "loss" and "accuracy".

    Raises:
        ValueError: for a negative gamma, or as in `cross_entropy`.

    Example:
        >>> loss_fn = jaxcnn.focal(jaxcnn.as_layer(jaxcnn.identity), gamma=1.0)
        >>> batch = {"image": jnp.zeros((1, 2)), "label": jnp.array([1])}
        >>> round(float(loss_fn({}, {}, batch, train=True)[0]), 4)  # (1 - 1 / 2) log 2
        0.3466

    Source: Lin et al., "Focal loss for dense object detection", 2017.
    """
    gamma = check_number("focal", "gamma", gamma)

    def loss(logits, target, counted, weight, train):
        log_p = jax.nn.log_softmax(logits[0])
        # Where p rounds to 1, derivatives of 0^gamma would be infinite. All other values of 1 - p are at least eps.
        rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).eps / 2)
        return weighted_mean(-times_log(target * rest**gamma, log_p).sum(-1), weight, counted)

    return _class_loss("focal", model, ignore_label, loss)


def _class_loss(
    loss_name: str,
    model: Layer,
    ignore_label: int | None,
    loss: Callable[..., jax.Array],
    class_weight: np.ndarray | None = None,
) -> LossFn:
    """A LossFn that computes loss(list of logits, target, counted, weight, train), and the accuracy.

    `class_weight`, at most 1, weights the labels in the denominator of the loss.
    """
    ignore_label = check_ignore_label(loss_name, ignore_label)

    def compute(output, label, weight, train):
        logits = class_logits(loss_name, output)
        target, counted = class_target(loss_name, label, logits[0], weight, ignore_label)
        logits = [masked(y, weight, counted) for y in logits]
        correct = jnp.where(logits[0].argmax(-1) == target.argmax(-1), counted, 0)
        accuracy = weighted_mean(correct, weight, counted)
        return loss(logits, target, counted, weight, train), {"accuracy": accuracy}

    def check(name, output, label, weight):
        check_class_label(name, label, class_logits(loss_name, output)[0].shape, weight, ignore_label)

    def counted(label):
        label, scale = jnp.asarray(label), 1.0
        weights = None if class_weight is None else jnp.asarray(class_weight, jnp.float32)
        if jnp.issubdtype(label.dtype, jnp.integer):
            count = counted_labels(label, ignore_label)
            if weights is not None:
                scale = weights.at[label.astype(jnp.int32)].get(mode="clip")  # labels of weight 0 may be invalid
        else:  # class probabilities
            count = jnp.ones(label.shape[:-1], jnp.float32)
            if weights is not None:
                scale = label.astype(jnp.float32) @ weights
        return {"loss": count * scale, "accuracy": count}

    return loss_of_output(model, compute, check, None if ignore_label is None and class_weight is None else counted)
