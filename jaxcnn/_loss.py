"""Losses of a model on a batch, and transforms of them.

    LossFn = (params, state, batch, *, train, key=None) -> (loss, (state, metrics))

A batch is a dict with "image" (N, *spatial, C) and "label": integer classes (N,), or for each class its
share (N, classes). A third entry, "weight" (N,), makes some examples count more, or not at all (padding).
All metrics are means over the batch.
"""

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from jaxcnn._layer import Layer, Params, State, as_layer, child_key, floating, number, require_key, shown, widened
from jaxcnn._path import there_are

Batch = dict[str, Any]


class LossFn(Protocol):
    """`(params, state, batch, *, train, key=None) -> (loss, (state, metrics))`."""

    def __call__(
        self, params: Params, state: State, batch: Batch, /, *, train: bool, key: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[State, dict[str, jax.Array]]]: ...


class MixedLabel(NamedTuple):
    """The labels of a batch of which each example was mixed from two, the first with weight `share`."""

    first: Any
    second: Any
    share: jax.Array


def cross_entropy(model: Layer, *, label_smoothing: float = 0.0, auxiliary: float = 0.3) -> LossFn:
    """The mean negative log-probability of the labels under softmax of the model's output.

    loss = mean_n -sum_k q[n, k] log softmax(logits[n])[k],
    q = (1 - label_smoothing) * label + label_smoothing / classes,  label one-hot or a share for each class

    A model with auxiliary heads gives a tuple of logits, (its own, head, ..). Then
    loss = loss(its own) + auxiliary * sum_head loss(head)

    Args:
        model: a layer from images to logits (N, classes), or to a tuple of them.
        label_smoothing: the part of the label that is spread over all classes, in [0, 1). In training only.
        auxiliary: the weight of each auxiliary head: 0.3 for GoogLeNet, 0.4 for Inception v3. No heads, no effect.

    Returns:
        a LossFn with the metrics "loss", and "accuracy", the share of examples whose largest logit, of the model's
        own, is that of the (largest) label.

    Raises:
        ValueError: for a label_smoothing outside [0, 1), an auxiliary below 0, an output that is no logits, or labels
            that do not fit them.

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> batch = {"image": jnp.zeros((1, 4)), "label": jnp.array([2])}
        >>> loss, (state, metrics) = loss_fn({}, {}, batch, train=True)
        >>> round(float(loss), 4)  # log 4
        1.3863

    Source: Szegedy et al., "Going deeper with convolutions", 2015 (auxiliary heads); "Rethinking the inception
    architecture for computer vision", 2016 (label smoothing).
    """
    model = as_layer(model)
    number("label_smoothing", label_smoothing, 0, 1)
    number("auxiliary, the weight of auxiliary heads,", auxiliary)

    def loss_fn(params, state, batch, *, train, key=None):
        output, state = model.apply(params, state, entry(batch, "image"), train=train, key=key)
        logits, *heads = _logits(output)
        target = _shares(entry(batch, "label"), logits)
        right = logits.argmax(-1) == target.argmax(-1)
        if train:
            target = optax.smooth_labels(target, label_smoothing)
        loss = _mean(optax.softmax_cross_entropy(logits, target), batch)
        for head in heads:
            loss += auxiliary * _mean(optax.softmax_cross_entropy(head, target), batch)
        return loss, (state, {"loss": loss, "accuracy": _mean(right, batch)})

    return loss_fn


def mean_squared_error(model: Layer) -> LossFn:
    """The mean squared difference between the model's output and the labels.

    loss = mean over n and all other dimensions of (y - label)^2

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        ValueError: if the shapes differ: (N,) and (N, 1) would be broadcast to (N, N).

    Example:
        >>> loss_fn = jaxcnn.mean_squared_error(jaxcnn.as_layer(jaxcnn.identity))
        >>> float(loss_fn({}, {}, {"image": jnp.array([[3.0]]), "label": jnp.array([[1.0]])}, train=True)[0])
        4.0
    """

    model = as_layer(model)

    def loss_fn(params, state, batch, *, train, key=None):
        y, state = model.apply(params, state, entry(batch, "image"), train=train, key=key)
        label = jnp.asarray(entry(batch, "label"))
        if y.shape != label.shape:
            raise ValueError(f"mean_squared_error: the output {y.shape} and the labels {label.shape} differ in shape")
        difference = widened(y) - label
        loss = _mean(jnp.square(difference).reshape(len(y), -1).mean(1), batch)
        return loss, (state, {"loss": loss})

    return loss_fn


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
    check_loss("mixup", loss_fn)
    _positive("mixup", alpha)

    def mixed(params, state, batch, *, train, key=None):
        if train:
            ours = child_key(require_key(key, "mixup"), "/mixup")
            key = child_key(key, "/inside")
            share = jax.random.beta(child_key(ours, "share"), alpha, alpha, dtype=jnp.float32)
            other = jax.random.permutation(child_key(ours, "order"), len(entry(batch, "image")))
            image = floating(entry(batch, "image"), "mixup")
            share_x = share.astype(image.dtype)
            image = share_x * image + (1 - share_x) * image[other]
            batch = batch | {"image": image, "label": _mix_labels(entry(batch, "label"), other, share)}
        return loss_fn(params, state, batch, train=train, key=key)

    return mixed


def cutmix(loss_fn: LossFn, alpha: float = 1.0) -> LossFn:
    """The loss in training on pictures with a box from another picture pasted in.

    x' = x outside the box and x[shuffled] inside; the labels are mixed by area. The box takes 1 - share of
    the picture, share ~ Beta(alpha, alpha), around a uniform centre, cut at the borders; one for the batch.

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
    check_loss("cutmix", loss_fn)
    _positive("cutmix", alpha)

    def mixed(params, state, batch, *, train, key=None):
        if train:
            ours = child_key(require_key(key, "cutmix"), "/cutmix")
            key = child_key(key, "/inside")
            image = jnp.asarray(entry(batch, "image"))
            spatial = image.shape[1:-1]
            share = jax.random.beta(child_key(ours, "share"), alpha, alpha, dtype=jnp.float32)
            other = jax.random.permutation(child_key(ours, "order"), len(image))
            centre = jax.random.uniform(child_key(ours, "centre"), (len(spatial),), jnp.float32)
            half = 0.5 * (1 - share) ** (1 / len(spatial))  # of the side, as a fraction of the picture's
            inside = jnp.ones((1,) * image.ndim, bool)
            for axis, n in enumerate(spatial, 1):
                low, high = jnp.round((centre[axis - 1] - half) * n), jnp.round((centre[axis - 1] + half) * n)
                at = jnp.arange(n, dtype=jnp.float32)
                along = (low <= at) & (at < high)
                inside = inside & along.reshape(*(1,) * axis, -1, *(1,) * (image.ndim - 1 - axis))
            share = 1 - inside.sum(dtype=jnp.float32) / math.prod(spatial)
            image = jnp.where(inside, image[other], image)
            batch = batch | {"image": image, "label": _mix_labels(entry(batch, "label"), other, share)}
        return loss_fn(params, state, batch, train=train, key=key)

    return mixed


def check_loss(name: str, loss_fn: Any) -> None:
    """Refuse what is no LossFn, such as the model itself."""
    if isinstance(loss_fn, Layer) or not callable(loss_fn):
        raise TypeError(f"{name} needs a loss, such as cross_entropy(model), got {shown(loss_fn)}")


def entry(batch: Batch, name: str) -> Any:
    """`batch[name]`, or an error that says what a batch is."""
    if not isinstance(batch, dict):
        raise TypeError(f'a batch is a dict with "image" and "label", got {shown(batch)}')
    if name not in batch:
        raise ValueError(f"the batch has no {name!r}; {there_are(name, batch)}")
    return batch[name]


def _mix_labels(label: Any, other: jax.Array, share: jax.Array) -> Any:
    if not isinstance(label, MixedLabel) and jnp.issubdtype(jnp.asarray(label).dtype, jnp.floating):
        label = jnp.asarray(label)
        share = share.astype(label.dtype)
        return share * label + (1 - share) * label[other]
    # Classes cannot be mixed before their number is known, and only the loss sees the logits.
    shuffled = jax.tree.map(lambda leaf: jnp.asarray(leaf)[other] if jnp.ndim(leaf) else leaf, label)
    return MixedLabel(label, shuffled, share)


def _logits(output: Any) -> list[jax.Array]:
    """The model's own logits (N, classes), and after them those of its auxiliary heads."""
    outputs = output if isinstance(output, tuple) else (output,)
    shapes = [getattr(y, "shape", None) for y in outputs]
    if len(set(shapes)) != 1 or not shapes[0] or len(shapes[0]) != 2:
        raise ValueError(
            "cross_entropy needs logits (N, classes), or a tuple of such from a model with auxiliary heads, the model "
            f"gives {', '.join(map(shown, outputs)) or ()}; end it in flatten or a global pool and a dense layer"
        )
    return [widened(y) for y in outputs]


def _shares(label: Any, logits: jax.Array) -> jax.Array:
    """The labels as a share for each class, (N, classes)."""
    if isinstance(label, MixedLabel):
        first, second = _shares(label.first, logits), _shares(label.second, logits)
        return label.share * first + (1 - label.share) * second
    label = jnp.asarray(label)
    if label.shape == logits.shape and jnp.issubdtype(label.dtype, jnp.floating):
        return label.astype(logits.dtype)
    if label.shape == logits.shape[:1] and jnp.issubdtype(label.dtype, jnp.integer):
        known = (label >= 0) & (label < logits.shape[-1])
        shares = jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
        return jnp.where(known[:, None], shares, jnp.nan)  # a class that is not there must not pass for a loss of 0
    raise ValueError(
        f"cross_entropy: labels of shape {label.shape} and dtype {label.dtype} do not fit logits {logits.shape}; "
        "give integer classes (N,) or floating-point shares (N, classes)"
    )


def _mean(values: jax.Array, batch: Batch) -> jax.Array:
    """The mean over examples, each with its weight if the batch has weights."""
    if "weight" not in batch:
        return values.mean()
    weight = jnp.asarray(batch["weight"], jnp.float32)
    if weight.shape != values.shape:
        raise ValueError(
            f"the weights of a batch must have shape {values.shape}, one for each example, got {weight.shape}"
        )
    return (values * weight).sum() / jnp.maximum(weight.sum(), 1e-12)


def _positive(name: str, alpha: float) -> None:
    if not number(f"{name}: alpha", alpha) > 0:
        raise ValueError(f"{name}: alpha must be above 0, got {alpha}")
