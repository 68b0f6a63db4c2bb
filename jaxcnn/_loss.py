"""What a loss is, and the parts that all losses share.

    LossFn = (params, state, batch, *, train, key=None) -> (loss, (state, metrics))

A batch is a dict with "image" (N, *spatial, C) and "label". An optional entry "weight" (N,) weights the examples,
by finite numbers of at least 0. Others raise a ValueError, or make the loss NaN inside a compiled function. Examples
with weight 0 (padding) have no effect: the model receives zeros instead, and their labels may be invalid. All metrics
are (weighted) means over the batch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import accepts, has_spec, is_function, short_repr
from jaxcnn._array import readable, spec_of
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._numeric import divisor
from jaxcnn._path import expected_one_of, leaves_by_path
from jaxcnn._validate import check_finite, check_not_masked, check_wide_integers, first_true, is_concrete, with_check

Batch = dict[str, Any]
_TRANSFORMS = {"regularized", "mixup", "cutmix", "adversarial", "sharpness_aware", "clip_per_example"}


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


def unmix(label: Any, convert: Callable[[Any], Any]) -> Any:
    """convert(label), a tree of arrays; of a `MixedLabel`, the same mixture of its two parts."""
    if not isinstance(label, MixedLabel):
        return convert(label)
    mix = lambda a, b: label.weight.astype(a.dtype) * a + (1 - label.weight.astype(a.dtype)) * b
    return jax.tree.map(mix, unmix(label.first, convert), unmix(label.second, convert))


def check_loss(name: str, loss_fn: Any) -> None:
    """Raise a TypeError if `loss_fn` is not a LossFn, for example a model, or `cross_entropy` without its model."""
    if not is_function(loss_fn):
        raise TypeError(f"{name} needs a loss, such as cross_entropy(model), got {short_repr(loss_fn)}")
    if not accepts(loss_fn, {}, {}, {}, train=True):
        loss = getattr(loss_fn, "__name__", "loss")
        in_fit = f"; for fit, loss=lambda model: {name}({loss}(model), ..)" if name in _TRANSFORMS else ""
        raise TypeError(
            f"{name} needs the loss of a model, loss_fn(params, state, batch, train=, key=): "
            f"pass {loss}(model), not {loss}{in_fit}"
        )


def checked_loss_result(result: Any, state: State) -> tuple[jax.Array, tuple[State, dict[str, jax.Array]]]:
    """Return the result of a LossFn that was given this state, or raise a TypeError if it is not one."""
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], tuple) and len(result[1]) == 2):
        raise TypeError(f"a LossFn must return (loss, (state, metrics)), got {short_repr(result)}")
    loss, (new_state, metrics) = result
    if difference := _state_difference(state, new_state):
        raise TypeError(
            f"a LossFn must return (loss, (state, metrics)), with a state like the one that init returned: {difference}"
        )
    if np.ndim(loss) or not jnp.issubdtype(jnp.result_type(loss), jnp.floating):
        raise TypeError(f"the loss of a LossFn must be a floating-point scalar, got {short_repr(loss)}")
    return loss, (new_state, metrics)


def _state_difference(state: Any, new_state: Any) -> str:
    """The first difference between the state before and after a step; "" if all names, shapes and dtypes are equal."""
    before, after = (
        {path: (np.shape(leaf), jnp.result_type(leaf)) for path, leaf in leaves_by_path(tree).items()}
        if isinstance(tree, dict)
        else short_repr(tree)
        for tree in (state, new_state)
    )
    if not isinstance(before, dict) or not isinstance(after, dict):
        return "" if before == after else f"expected a dict, got {after}"
    described = lambda spec: f"{spec[1].name}{[*spec[0]]}" if spec else "missing"
    for path in [*before, *after]:
        old, new = before.get(path), after.get(path)
        if old != new:
            return f"{path!r} was {described(old)} and is now {described(new)}"
    return ""


def check_loss_of_models(name: str, loss: Any) -> None:
    """Raise a TypeError if `loss` is not a function model -> LossFn, for example if it is a LossFn."""
    if not is_function(loss) or not accepts(loss, loss):
        raise TypeError(
            f"{name}: loss must map a model to a LossFn: pass cross_entropy, not cross_entropy(model); "
            f"got {short_repr(loss)}"
        )


def batch_entry(batch: Batch, name: str) -> Any:
    """`batch[name]`, a list as an array; the error for a missing entry explains the format of a batch."""
    if not isinstance(batch, dict):
        raise TypeError(f'a batch must be a dict with "image" and "label", got {short_repr(batch)}')
    if name not in batch:
        raise ValueError(f"the batch has no {name!r}; {expected_one_of(name, batch)}")
    entry = np.asarray(batch[name]) if isinstance(batch[name], list) else batch[name]
    for leaf in jax.tree.leaves(entry):
        check_not_masked(f"the batch: {name!r}", leaf)
    return jax.tree.map(readable, entry)


def convertible_entry(batch: Batch, name: str) -> Any:
    """`batch_entry`, for transforms that convert it before the loss checks it: an error if integers would wrap."""
    entry = batch_entry(batch, name)
    for leaf in jax.tree.leaves(entry):
        check_wide_integers(f"the batch: {name}", leaf)
    return entry


def first_label(label: Any) -> Any:
    """The label; of a `MixedLabel`, its first part."""
    while isinstance(label, MixedLabel):
        label = label.first
    return label


def is_label_map(label: Any, image: Any) -> bool:
    """Whether labels have the shape (N, *spatial) or (N, *spatial, K) for images (N, *spatial, C)."""
    shape, rank = jnp.shape(label), image.ndim
    return len(shape) in (rank - 1, rank) and shape[1 : rank - 1] == image.shape[1:-1]


def inputs(batch: Batch) -> tuple[Any, jax.Array | None]:
    """The images, zeroed where the weight is 0, and the weights or None."""
    image = batch_entry(batch, "image")
    if "weight" not in batch:
        return image, None
    weight, count = batch_weights(batch, "weight"), len(jax.tree.leaves(image)[0])
    if weight.shape != (count,):
        raise ValueError(f"the weights of a batch must have shape ({count},), one per example, got {weight.shape}")
    return jax.tree.map(lambda x: masked(jnp.asarray(x), weight), image), weight


def batch_weights(batch: Batch, name: str) -> jax.Array:
    """The entry as float32, NaN where a weight is negative or not finite; raises ValueError if its value is known."""
    weight = jnp.asarray(batch_entry(batch, name), jnp.float32)
    valid = valid_weights(weight)
    if is_concrete(valid) and not valid.all():
        index, at = first_true(~np.asarray(valid))
        raise ValueError(f"the weights of a batch must be finite and at least 0, but {name}[{at}] is {weight[index]}")
    return jnp.where(valid, weight, jnp.nan)


def valid_weights(weight: jax.Array) -> jax.Array:
    """Which weights are finite and at least 0."""
    return (weight >= 0) & (weight < jnp.inf)


def masked(values: jax.Array, *weights: jax.Array | None) -> jax.Array:
    """Zeros where a weight is 0. Weights are per example (N,) or position. Multiplication by 0 would keep a NaN."""
    for weight in weights:
        if weight is not None:
            nonzero = (weight != 0).reshape(*weight.shape, *(1,) * (values.ndim - weight.ndim))
            values = jnp.where(nonzero, values, jnp.zeros((), values.dtype))
    return values


def check_output(what: str, output: Any, *, floating: bool = True) -> None:
    """Raise a TypeError unless the output of a model is one array of floating-point, or only of real, numbers."""
    if not has_spec(output):
        found = short_repr(jax.tree.map(short_repr, output))
        raise TypeError(f"{what} must be one array, got {found}; return only the main output")
    is_complex = jnp.issubdtype(output.dtype, jnp.complexfloating)
    if is_complex or (floating and not jnp.issubdtype(output.dtype, jnp.floating)):
        expected = "floating-point" if floating else "real"
        fix = "use jnp.real or jnp.abs of it" if is_complex else "convert it, as in y.astype(jnp.float32)"
        raise TypeError(f"{what} must be {expected}, got {short_repr(output)}; {fix}")


def loss_of_output(
    model: Layer | Callable[[Any], Any],
    compute: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
    check: Callable[[str, Any, Any, Any], None],
    counted: Callable[[Any], dict[str, jax.Array]] | None = None,
) -> LossFn:
    """A LossFn that applies the model and computes loss and metrics from its output.

    Args:
        compute: (output, label, weight, train) -> (loss, metrics besides "loss"); weight (N,) or None.
        check: (name, shapes of the output, label, weight): raises an error for data that do not fit, on the host.
        counted: label -> for each metric, how much its labels count (N, ..), from 0 to 1; None: all count 1.
    """
    model = as_layer(model)

    def loss_fn(params, state, batch, *, train, key=None):
        image, weight = inputs(batch)
        output, state = model.apply(params, state, image, train=train, key=key)
        loss, metrics = compute(output, batch_entry(batch, "label"), weight, train)
        return loss, (state, {"loss": loss} | metrics)

    output_of = output_shape(model)

    def check_data(name, params, state, data):
        label, weight = batch_entry(data, "label"), data.get("weight")
        check_finite(f"{name}: label", label, weight)
        check(name, output_of(params, state, data["image"]), label, weight)

    if counted is not None:

        def fractions(batch):
            weight = batch_weights(batch, "weight") if "weight" in batch else None
            counts = counted(batch_entry(batch, "label"))
            return {name: weighted_mean(masked(x, weight), weight) for name, x in counts.items()}

        with_counted(loss_fn, fractions)
    return with_check(loss_fn, check_data)


def with_counted(loss_fn: Any, fractions: Callable[[Batch], dict[str, jax.Array]]) -> Any:
    """Attach to a loss how much of a batch its metrics count, from 0 to 1: batch -> {metric: fraction}.

    With `ignore_label` or `class_weight`, the loss of a batch is a mean over the labels that count, so a mean over
    batches weights each batch by this fraction. `functools.wraps` copies it to losses that wrap this one.
    """
    loss_fn.__dict__["counted"] = fractions
    return loss_fn


def counted_fractions(loss_fn: Any, batch: Batch) -> dict[str, jax.Array]:
    """How much of the batch the metrics of the loss count, from 0 to 1; metrics that count all of it are left out."""
    return loss_fn.counted(batch) if hasattr(loss_fn, "counted") else {}


def weighted_mean(values: jax.Array, weight: jax.Array | None, counted: jax.Array | None = None) -> jax.Array:
    """(N, *rest), (N,) -> the mean over all entries, weighted by example; 0 if N or all weights are 0.

    Args:
        counted: (N, *rest), the weight of each entry in the denominator only; default: 1.
    """
    if weight is None and counted is None:
        return values.sum() / max(values.size, 1)
    if weight is None:
        per_example = jnp.ones(len(values), values.dtype)
    else:  # relative to the largest weight: the same mean, without overflow or underflow
        per_example = (weight / divisor(weight.max(initial=0))).astype(values.dtype)
    counted = jnp.ones_like(values) if counted is None else counted.astype(values.dtype)
    rest = tuple(range(1, values.ndim))
    total = per_example @ counted.sum(rest)
    return per_example @ values.sum(rest) / jnp.where(total == 0, 1, total)


def image_spec(images: Any) -> Any:
    """The shape of a batch with one image. Bytes are converted to floats before the model receives them."""
    dtype = lambda x: jnp.float32 if x.dtype == jnp.uint8 else x.dtype
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype(x)), spec_of(images, 1))


def output_shape(model: Layer) -> Callable[[Params, State, Any], Any]:
    """(params, state, images) -> shapes of the model's output in evaluation mode, cached per image shape."""
    cache = {}

    def shape(params, state, images):
        spec = image_spec(images)
        key = tuple(jax.tree.leaves(spec))
        if key not in cache:
            apply = functools.partial(model.apply, train=False)
            cache[key] = jax.eval_shape(apply, params, state, spec)[0]
        count = len(jax.tree.leaves(images)[0])
        return jax.tree.map(lambda y: jax.ShapeDtypeStruct((count, *y.shape[1:]), y.dtype), cache[key])

    return shape
