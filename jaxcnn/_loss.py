"""Losses of a model on a batch.

    LossFn = (params, state, batch, *, train, key=None) -> (loss, (state, metrics))

A batch is a dict with "image" (N, *spatial, C) and "label": integer classes (N,), or class fractions (N, classes).
A third entry, "weight" (N,), makes some examples count more. An example of weight 0 (padding) has no effect: the model
gets zeros in its place, and its label may be anything. All metrics are means over the batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn._layer import Layer, Params, State, as_layer, at_least_float32, check_number, short_repr
from jaxcnn._path import expected_one_of
from jaxcnn._validate import check_finite, check_labels, fraction_tolerance, is_concrete, with_check

Batch = dict[str, Any]


class LossFn(Protocol):
    """`(params, state, batch, *, train, key=None) -> (loss, (state, metrics))`."""

    def __call__(
        self, params: Params, state: State, batch: Batch, /, *, train: bool, key: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[State, dict[str, jax.Array]]]: ...


class MixedLabel(NamedTuple):
    """The labels of a batch of which each example was mixed from two, the first with `weight`."""

    first: Any
    second: Any
    weight: jax.Array


def cross_entropy(model: Layer, *, label_smoothing: float = 0.0, auxiliary: float = 0.3) -> LossFn:
    """The mean negative log-probability of the labels under softmax of the model's output.

    loss = mean_n -sum_k q[n, k] log softmax(logits[n])[k],
    q = (1 - label_smoothing) * label + label_smoothing / classes,  label one-hot or class fractions

    A model with auxiliary heads gives a tuple of logits, (its own, head, ..). Then
    loss = loss(its own) + auxiliary * sum_head loss(head)

    Args:
        model: a layer from images to logits (N, classes), or to a tuple of them.
        label_smoothing: the part of the label that is spread over all classes, in [0, 1). In training only.
        auxiliary: the weight of each auxiliary head: 0.3 for GoogLeNet, 0.4 for Inception v3. No heads, no effect.

    Returns:
        a LossFn with the metrics "loss", and "accuracy", the fraction of examples whose largest logit, of the model's
        own, is that of the (largest) label.

    Raises:
        ValueError: for a label_smoothing outside [0, 1), an auxiliary below 0, an output that is no logits of at least
            two classes, or labels that do not fit them: classes that do not exist, fractions that do not sum to one.
            Inside a compiled function, where values cannot be looked at, such labels make the loss NaN.

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
    check_number("label_smoothing", label_smoothing, 0, 1)
    check_number("auxiliary, the weight of auxiliary heads,", auxiliary)

    def loss_fn(params, state, batch, *, train, key=None):
        image, weight = _inputs(batch)
        output, state = model.apply(params, state, image, train=train, key=key)
        logits, *heads = (_masked(y, weight) for y in _logits(output))
        target = _class_fractions(batch_entry(batch, "label"), logits, weight)
        right = (logits.argmax(-1) == target.argmax(-1)).astype(logits.dtype)
        if train:
            target = optax.smooth_labels(target, label_smoothing)
        loss = _mean(optax.softmax_cross_entropy(logits, target), weight)
        for head in heads:
            loss += auxiliary * _mean(optax.softmax_cross_entropy(head, target), weight)
        return loss, (state, {"loss": loss, "accuracy": _mean(right, weight)})

    output_of = _output_shape(model)

    def check(name, params, state, data):
        logits = _logits(output_of(params, state, data["image"]))[0]
        check_finite(f"{name}: label", data["label"], data.get("weight"))
        _check_label(name, data["label"], (len(data["label"]), logits.shape[-1]), data.get("weight"))

    return with_check(loss_fn, check)


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
        image, weight = _inputs(batch)
        y, state = model.apply(params, state, image, train=train, key=key)
        label = jnp.asarray(batch_entry(batch, "label"))
        _check_same_shape(y.shape, label.shape)
        wide = at_least_float32(y)
        difference = _masked(wide - label.astype(wide.dtype), weight)
        loss = _mean(jnp.square(difference).reshape(len(y), -1).mean(1), weight)
        return loss, (state, {"loss": loss})

    output_of = _output_shape(model)

    def check(name, params, state, data):
        y = output_of(params, state, data["image"])
        _check_same_shape((len(data["label"]), *y.shape[1:]), np.shape(data["label"]))
        check_finite(f"{name}: label", data["label"], data.get("weight"))

    return with_check(loss_fn, check)


def check_loss(name: str, loss_fn: Any) -> None:
    """Refuse what is no LossFn, such as the model itself."""
    if isinstance(loss_fn, Layer) or not callable(loss_fn):
        raise TypeError(f"{name} needs a loss, such as cross_entropy(model), got {short_repr(loss_fn)}")


def batch_entry(batch: Batch, name: str) -> Any:
    """`batch[name]`, or an error that says what a batch is."""
    if not isinstance(batch, dict):
        raise TypeError(f'a batch is a dict with "image" and "label", got {short_repr(batch)}')
    if name not in batch:
        raise ValueError(f"the batch has no {name!r}; {expected_one_of(name, batch)}")
    return batch[name]


def _inputs(batch: Batch) -> tuple[Any, jax.Array | None]:
    """The images, zeros in place of those of weight 0, and the weights, if the batch has any."""
    image = batch_entry(batch, "image")
    if "weight" not in batch:
        return image, None
    weight = jnp.asarray(batch["weight"]).astype(jnp.float32)
    if weight.shape != (len(image),):
        raise ValueError(
            f"the weights of a batch must have shape ({len(image)},), one for each example, got {weight.shape}"
        )
    return _masked(jnp.asarray(image), weight), weight


def _masked(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The values, with zeros for examples of weight 0, whose NaN would otherwise survive a multiplication by 0."""
    if weight is None:
        return values
    counted = (weight != 0).reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(counted, values, jnp.zeros((), values.dtype))


def _output_shape(model: Layer) -> Callable[[Params, State, Any], Any]:
    """(params, state, images) -> the shape of the model's output in evaluation, found once for each shape of image."""
    known = {}

    def shape(params, state, images):
        # Bytes are scaled to floats before the model gets them.
        dtype = jnp.float32 if images.dtype == jnp.uint8 else images.dtype
        spec = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype)
        if (spec.shape, spec.dtype) not in known:
            apply = functools.partial(model.apply, train=False)
            known[spec.shape, spec.dtype] = jax.eval_shape(apply, params, state, spec)[0]
        return known[spec.shape, spec.dtype]

    return shape


def _logits(output: Any) -> list[Any]:
    """The model's own logits (N, classes), and after them those of its auxiliary heads."""
    outputs = output if isinstance(output, tuple) else (output,)
    shapes = [getattr(y, "shape", None) for y in outputs]
    if len(set(shapes)) != 1 or not shapes[0] or len(shapes[0]) != 2:
        raise ValueError(
            "cross_entropy needs logits (N, classes), or a tuple of such from a model with auxiliary heads, the model "
            f"gives {', '.join(map(short_repr, outputs)) or ()}; end it in flatten or a global pool and a dense layer"
        )
    if shapes[0][1] < 2:
        raise ValueError(
            f"cross_entropy needs logits of at least 2 classes, the model gives {shapes[0]}, whose softmax is 1; "
            "end it in dense(2) for two classes, or use mean_squared_error for regression"
        )
    return [y if isinstance(y, jax.ShapeDtypeStruct) else at_least_float32(y) for y in outputs]


def _check_label(name: str, label: Any, logits: tuple[int, ...], weight: Any) -> None:
    """Refuse labels that do not fit logits of this shape, (N, classes), in shape, dtype or, if known, in value."""
    shape, dtype = jnp.shape(label), getattr(label, "dtype", None) or np.asarray(label).dtype
    fits = {jnp.integer: logits[:1], jnp.floating: logits}
    if not any(jnp.issubdtype(dtype, kind) and shape == expected for kind, expected in fits.items()):
        raise ValueError(
            f"{name}: labels of shape {shape} and dtype {dtype} do not fit logits {logits}; "
            "give integer classes (N,) or floating-point class fractions (N, classes)"
        )
    if is_concrete(label, weight):
        check_labels(name, label, logits[-1], weight)


def _class_fractions(label: Any, logits: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The labels as class fractions (N, classes); NaN for those that are none, zeros where the weight is 0."""
    if isinstance(label, MixedLabel):
        first, second = (_class_fractions(part, logits, weight) for part in (label.first, label.second))
        share = label.weight.astype(logits.dtype)
        return share * first + (1 - share) * second
    _check_label("cross_entropy", label, logits.shape, weight)
    label, classes = jnp.asarray(label), logits.shape[-1]
    if len(label) != len(logits):
        raise ValueError(
            f"cross_entropy: {len(label)} labels do not fit logits {logits.shape}; give one for each image"
        )
    if jnp.issubdtype(label.dtype, jnp.integer):
        last = min(classes - 1, jnp.iinfo(label.dtype).max)  # a small dtype must not wrap the number of classes
        valid = ((label >= 0) & (label <= last))[:, None]
        fractions = jax.nn.one_hot(label.astype(jnp.int32), classes, dtype=logits.dtype)
    else:
        fractions = label.astype(logits.dtype)
        tolerance = fraction_tolerance(label.dtype)
        sums = fractions.sum(-1, keepdims=True)
        valid = (fractions >= 0).all(-1, keepdims=True) & (jnp.abs(sums - 1) <= tolerance)
    return _masked(jnp.where(valid, fractions, jnp.full((), jnp.nan, logits.dtype)), weight)


def _check_same_shape(output: tuple[int, ...], label: tuple[int, ...]) -> None:
    if output != label:
        raise ValueError(f"mean_squared_error: the output {output} and the labels {label} differ in shape")


def _mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The mean over examples, each with its weight if there are weights; 0 if all of them are 0."""
    if weight is None:
        return values.mean()
    total = weight.sum()
    weight = weight.astype(values.dtype)
    return (values * weight).sum() / jnp.where(total > 0, total, jnp.ones_like(total)).astype(values.dtype)
