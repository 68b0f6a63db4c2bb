"""Losses of a model on a batch.

    LossFn = (params, state, batch, *, train, key=None) -> (loss, (state, metrics))

A batch is a dict with "image" (N, *spatial, C) and "label": integer classes (N,), or class probabilities (N, classes).
An optional entry "weight" (N,) weights the examples. Examples with weight 0 (padding) have no effect: the model
receives zeros instead, and their labels may be invalid. All metrics are (weighted) means over the batch.
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
    """Labels of mixed examples: weight * first + (1 - weight) * second."""

    first: Any
    second: Any
    weight: jax.Array


def cross_entropy(model: Layer, *, label_smoothing: float = 0.0, auxiliary: float = 0.3) -> LossFn:
    """Softmax cross-entropy between the model's logits and the labels.

    loss = mean_n -sum_k q[n, k] log softmax(logits[n])[k],
    q = (1 - label_smoothing) * label + label_smoothing / classes,  label one-hot or class probabilities

    A model with auxiliary heads returns a tuple of logits, (main, head, ..). Then
    loss = loss(main) + auxiliary * sum_head loss(head)

    Args:
        model: a layer from images to logits (N, classes), or to a tuple of logits.
        label_smoothing: fraction of the label that is spread over all classes in training, in [0, 1).
        auxiliary: weight of each auxiliary head: 0.3 for GoogLeNet, 0.4 for Inception v3.

    Returns:
        a LossFn with the metrics "loss" and "accuracy". Accuracy compares the argmax of the main logits with the label.

    Raises:
        ValueError: if `label_smoothing` is outside [0, 1), `auxiliary` is negative, the output is not logits of at
            least two classes, or labels are invalid: a class out of range, or fractions that do not sum to 1. Inside
            a compiled function, invalid label values make the loss NaN instead.

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
        correct = (logits.argmax(-1) == target.argmax(-1)).astype(logits.dtype)
        if train:
            target = optax.smooth_labels(target, label_smoothing)
        loss = _mean(optax.softmax_cross_entropy(logits, target), weight)
        for head in heads:
            loss += auxiliary * _mean(optax.softmax_cross_entropy(head, target), weight)
        return loss, (state, {"loss": loss, "accuracy": _mean(correct, weight)})

    output_of = _output_shape(model)

    def check(name, params, state, data):
        logits = _logits(output_of(params, state, data["image"]))[0]
        check_finite(f"{name}: label", data["label"], data.get("weight"))
        _check_label(name, data["label"], (len(data["label"]), logits.shape[-1]), data.get("weight"))

    return with_check(loss_fn, check)


def mean_squared_error(model: Layer) -> LossFn:
    """Mean squared error between the model's output and the labels.

    loss = mean of (y - label)^2 over all dimensions

    Args:
        model: a layer whose output has the shape of the labels.

    Returns:
        a LossFn with the metric "loss".

    Raises:
        ValueError: if the shapes differ. (N,) and (N, 1) would broadcast to (N, N).

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
        y = at_least_float32(y)
        difference = _masked(y - label.astype(y.dtype), weight)
        loss = _mean(jnp.square(difference).reshape(len(y), -1).mean(1), weight)
        return loss, (state, {"loss": loss})

    output_of = _output_shape(model)

    def check(name, params, state, data):
        y = output_of(params, state, data["image"])
        _check_same_shape((len(data["label"]), *y.shape[1:]), np.shape(data["label"]))
        check_finite(f"{name}: label", data["label"], data.get("weight"))

    return with_check(loss_fn, check)


def check_loss(name: str, loss_fn: Any) -> None:
    """Raises a TypeError if `loss_fn` is not a LossFn, for example a model."""
    if isinstance(loss_fn, Layer) or not callable(loss_fn):
        raise TypeError(f"{name} needs a loss, such as cross_entropy(model), got {short_repr(loss_fn)}")


def batch_entry(batch: Batch, name: str) -> Any:
    """`batch[name]`; the error for a missing entry explains the format of a batch."""
    if not isinstance(batch, dict):
        raise TypeError(f'a batch must be a dict with "image" and "label", got {short_repr(batch)}')
    if name not in batch:
        raise ValueError(f"the batch has no {name!r}; {expected_one_of(name, batch)}")
    return batch[name]


def _inputs(batch: Batch) -> tuple[Any, jax.Array | None]:
    """The images, zeroed where the weight is 0, and the weights or None."""
    image = batch_entry(batch, "image")
    if "weight" not in batch:
        return image, None
    weight = jnp.asarray(batch["weight"]).astype(jnp.float32)
    if weight.shape != (len(image),):
        raise ValueError(f"the weights of a batch must have shape ({len(image)},), one per example, got {weight.shape}")
    return _masked(jnp.asarray(image), weight), weight


def _masked(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Zeros for examples with weight 0. Multiplication by 0 would keep a NaN."""
    if weight is None:
        return values
    nonzero = (weight != 0).reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(nonzero, values, jnp.zeros((), values.dtype))


def _output_shape(model: Layer) -> Callable[[Params, State, Any], Any]:
    """(params, state, images) -> shape of the model's output in evaluation mode, cached per image shape."""
    cache = {}

    def shape(params, state, images):
        # uint8 images are converted to floats before the model receives them.
        dtype = jnp.float32 if images.dtype == jnp.uint8 else images.dtype
        spec = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype)
        if (spec.shape, spec.dtype) not in cache:
            apply = functools.partial(model.apply, train=False)
            cache[spec.shape, spec.dtype] = jax.eval_shape(apply, params, state, spec)[0]
        return cache[spec.shape, spec.dtype]

    return shape


def _logits(output: Any) -> list[Any]:
    """The main logits (N, classes), followed by those of the auxiliary heads."""
    outputs = output if isinstance(output, tuple) else (output,)
    shapes = [getattr(y, "shape", None) for y in outputs]
    if len(set(shapes)) != 1 or not shapes[0] or len(shapes[0]) != 2:
        raise ValueError(
            "cross_entropy needs logits (N, classes), or a tuple of logits if it has auxiliary heads, but the "
            f"model gives {', '.join(map(short_repr, outputs)) or ()}; end it with flatten or a global pool, then dense"
        )
    if shapes[0][1] < 2:
        raise ValueError(
            f"cross_entropy needs logits of at least 2 classes, but the model gives {shapes[0]}, whose softmax is 1; "
            "end it with dense(2) for two classes, or use mean_squared_error for regression"
        )
    return [y if isinstance(y, jax.ShapeDtypeStruct) else at_least_float32(y) for y in outputs]


def _check_label(name: str, label: Any, logits: tuple[int, ...], weight: Any) -> None:
    """Raises a ValueError if shape, dtype or concrete values of labels do not fit logits of shape (N, classes)."""
    shape, dtype = jnp.shape(label), getattr(label, "dtype", None) or np.asarray(label).dtype
    fits = {jnp.integer: logits[:1], jnp.floating: logits}
    if not any(jnp.issubdtype(dtype, kind) and shape == expected for kind, expected in fits.items()):
        raise ValueError(
            f"{name}: labels of shape {shape} and dtype {dtype} do not fit logits {logits}; "
            "use integer classes (N,) or floating-point class probabilities (N, classes)"
        )
    if is_concrete(label, weight):
        check_labels(name, label, logits[-1], weight)


def _class_fractions(label: Any, logits: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Labels as class probabilities (N, classes): NaN where invalid, 0 where the weight is 0."""
    if isinstance(label, MixedLabel):
        first, second = (_class_fractions(part, logits, weight) for part in (label.first, label.second))
        mix_weight = label.weight.astype(logits.dtype)
        return mix_weight * first + (1 - mix_weight) * second
    _check_label("cross_entropy", label, logits.shape, weight)
    label, classes = jnp.asarray(label), logits.shape[-1]
    if len(label) != len(logits):
        raise ValueError(
            f"cross_entropy: {len(label)} labels do not fit logits {logits.shape}; give one label per image"
        )
    if jnp.issubdtype(label.dtype, jnp.integer):
        last_class = min(classes - 1, jnp.iinfo(label.dtype).max)  # must not overflow a small dtype
        valid = ((label >= 0) & (label <= last_class))[:, None]
        fractions = jax.nn.one_hot(label.astype(jnp.int32), classes, dtype=logits.dtype)
    else:
        fractions = label.astype(logits.dtype)
        tolerance = fraction_tolerance(label.dtype)
        sums = fractions.sum(-1, keepdims=True)
        valid = (fractions >= 0).all(-1, keepdims=True) & (jnp.abs(sums - 1) <= tolerance)
    return _masked(jnp.where(valid, fractions, jnp.full((), jnp.nan, logits.dtype)), weight)


def _check_same_shape(output: tuple[int, ...], label: tuple[int, ...]) -> None:
    if output != label:
        raise ValueError(f"mean_squared_error: the output has shape {output}, but the labels have shape {label}")


def _mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """The (weighted) mean over examples; 0 if all weights are 0."""
    if weight is None:
        return values.mean()
    total = weight.sum()
    weight = weight.astype(values.dtype)
    return (values * weight).sum() / jnp.where(total > 0, total, jnp.ones_like(total)).astype(values.dtype)
