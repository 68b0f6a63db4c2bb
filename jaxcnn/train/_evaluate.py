"""Evaluation of a loss and its metrics over a whole data set."""

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import check_integer, has_spec, short_repr
from jaxcnn._array import spec_of
from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._loss import Batch, LossFn, batch_entry, check_loss, counted_fractions, inputs, output_shape
from jaxcnn._path import expected_one_of
from jaxcnn._program import inputs_used
from jaxcnn._validate import check_batch, check_finite, check_for_loss, has_check
from jaxcnn.data import Dataset, Source, Stream, source
from jaxcnn.data._source import check_not_source, in_memory
from jaxcnn.metrics import Metric, add_sums
from jaxcnn.train._batch import scale_bytes
from jaxcnn.train._config import ConfigError
from jaxcnn.train._devices import check_multiple_of_devices, replicated_sharding, to_devices


def evaluate(
    loss_fn: LossFn,
    params: Params,
    state: State,
    data: Dataset | Batch | tuple[Any, Any] | Stream,
    *,
    batch_size: int = 256,
    metrics: Mapping[str, Metric] | None = None,
    model: AnyLayer | None = None,
) -> dict[str, Any]:
    """The mean of each metric of the loss over all examples, and the values of additional metrics.

    Values are numbers, or lists for metrics that are arrays, such as a confusion matrix. They may be NaN.

    All batches have the same size, so the loss is compiled once: the last batch is padded with examples of weight 0.

    With `ignore_label` or `class_weight`, the loss is the weighted mean over all labels that count; it is NaN if no
    label counts. So it does not depend on `batch_size`, except for a `weighted_sum` of losses that count labels
    differently, where each batch has the smallest of their weights.

    Args:
        loss_fn: a loss function, as returned by `cross_entropy(model)`; called with train=False.
        params, state: of the model.
        data: a `Dataset`, a dict of arrays with a common first dimension, such as {"image": (N, H, W, C),
            "label": (N,)}, a pair (image, label), or a stream. One epoch of a stream is read. As in `fit`, uint8
            images are divided by 255.
        batch_size: examples per batch; ignored for a stream.
        metrics: name -> additional `Metric`, computed from the output of `model`.
        model: the network; required with `metrics`.

    Raises:
        TypeError: for metrics without a model, or a loss that is not a LossFn.
        ValueError: for empty data, entries of different lengths, weights that are all 0, non-finite values, labels that
            do not fit the model or a metric, a batch_size below 1, or a loss of your own that ignores batch["weight"].

    Example:
        >>> loss_fn = jaxcnn.cross_entropy(jaxcnn.as_layer(jaxcnn.identity))
        >>> data = {"image": 9 * jnp.eye(3), "label": jnp.array([0, 1, 1])}
        >>> round(jaxcnn.train.evaluate(loss_fn, {}, {}, data, batch_size=2)["accuracy"], 4)
        0.6667
    """
    check_loss("evaluate", loss_fn)
    batch_size = check_integer("evaluate", "batch_size", batch_size)
    check_metrics(metrics)
    if metrics and model is None:
        raise TypeError("evaluate: metrics need the model, as in evaluate(.., metrics=metrics, model=model)")
    check_not_source("evaluate", data)
    check_metric_labels = label_checks(model, metrics, params, state)

    def check(data):
        check_for_loss("evaluate", loss_fn, params, state, data)
        check_metric_labels("evaluate", data)

    if isinstance(data, Dataset | tuple):
        batches = source(data, batch_size, shuffle=False, name="evaluate")
    else:
        check_batch("evaluate", data, required=())
        arrays = {name: batch_entry(data, name) for name in data}
        batches = in_memory(arrays, batch_size, shuffle=False)
    if batches.arrays is None:
        check_multiple_of_devices("evaluate: the batch size of a stream", batches.batch_size)
        batches = to_devices(with_checked_batches("evaluate", batches, check, finite=True))
    else:
        for name, value in batches.arrays.items():
            check_finite(f"evaluate: {name}", value, batches.arrays.get("weight"))
        check(batches.arrays)
        check_weighted("evaluate", loss_fn, params, state, batches)
    metrics = metrics or {}
    hashable: Any = loss_fn  # type checkers do not know that a function is
    measure = _compiled(hashable, model if metrics else None, tuple(metrics.items()), batches.arrays is None)
    return mean_metrics(measure, metrics, params, state, batches)


class Measured(NamedTuple):
    """Metrics of a batch.

    means: of the loss; fractions: how much of the batch they count, from 0 to 1, left out if it is all of it;
    sums: of the additional metrics.
    """

    means: dict[str, Any]
    fractions: dict[str, Any]
    sums: dict[str, Any]


@functools.lru_cache(maxsize=16)
def _compiled(
    loss_fn: Any, model: AnyLayer | None, metrics: tuple[tuple[str, Metric], ...], on_all_devices: bool
) -> Callable[..., Any]:
    """`measurement`, cached: repeated calls with the same functions do not compile again."""
    layer = None if model is None else as_layer(model)
    return measurement(loss_fn, layer, dict(metrics), scale_bytes, on_all_devices)


def measurement(
    loss_fn: LossFn,
    model: Layer | None,
    metrics: Mapping[str, Metric],
    prepare: Callable[[Batch], Batch],
    on_all_devices: bool,
) -> Callable[[Params, State, Batch], Measured]:
    """Compiled (params, state, batch) -> metrics.

    Both get prepare(batch). The metrics apply the model to the same `inputs` as the losses do, so the compiler
    computes the output only once; without metrics, the model may be None. If the arrays are on all devices, the sums
    are replicated: operations on sums that are split over processes would communicate, in an order that may differ
    between the processes, and could wait forever.
    """

    @functools.wraps(loss_fn)
    def measure(params, state, batch):
        batch = prepare(batch)
        loss, (_, means) = loss_fn(params, state, batch, train=False)
        check_scalars("evaluate", means)
        means = {"loss": loss} | means
        fractions = counted_fractions(loss_fn, batch)
        if not metrics or model is None:
            return Measured(means, fractions, {})
        if both := metrics.keys() & means.keys():
            raise ValueError(f"metrics: {min(both)!r} is also a metric of the loss; choose another name")
        output, _ = model.apply(params, state, inputs(batch)[0], train=False)
        sums = {name: metric.update(output, batch) for name, metric in metrics.items()}
        if on_all_devices:
            sums = lax.with_sharding_constraint(sums, replicated_sharding())
        return Measured(means, fractions, sums)

    return jit(measure)


def check_weighted(name: str, loss_fn: LossFn, params: Params, state: State, data: Source) -> None:
    """Raise ValueError if the last batch is padded and a loss of the caller does not depend on the weights."""
    if has_check(loss_fn) or data.arrays is None:
        return
    count = len(next(iter(data.arrays.values())))
    if count % data.batch_size == 0:
        return
    hashable: Any = loss_fn  # type checkers do not know that a function is
    leaves, structure = jax.tree.flatten(spec_of((params, state, data.spec)))
    if _ignores_weights(hashable, structure, *leaves):
        raise ValueError(
            f'{name}: the loss ignores batch["weight"], which is 0 for the examples that fill the last batch of '
            f'{count} examples: return the weighted mean, as in (losses * batch["weight"]).sum() / '
            'batch["weight"].sum(), or set a batch size that divides the number of examples'
        )


@functools.lru_cache(maxsize=16)
def _ignores_weights(loss_fn: Any, structure: Any, *leaves: jax.ShapeDtypeStruct) -> bool:
    """Whether the loss does not depend on the weights, for a tree (params, state, batch) of shapes and dtypes."""
    params, state, batch = jax.tree.unflatten(structure, leaves)
    weight = jax.ShapeDtypeStruct((next(iter(batch.values())).shape[0],), jnp.float32)

    def loss(weight, params, state, batch):
        return loss_fn(params, state, scale_bytes(batch) | {"weight": weight}, train=False)[0]

    return not inputs_used(jax.make_jaxpr(loss)(weight, params, state, batch))[0]


def mean_metrics(
    measure: Callable[[Params, State, Batch], Measured],
    metrics: Mapping[str, Metric],
    params: Params,
    state: State,
    data: Source,
) -> dict[str, Any]:
    """All metrics over one epoch of validated batches."""
    means, sums = totals(lambda batch: measure(params, state, batch), data)
    result = {name: float(value) for name, value in means.items()}
    values = {name: np.asarray(metric.compute(sums[name])) for name, metric in metrics.items()}
    return result | {name: value.tolist() for name, value in values.items()}


def totals(
    measure: Callable[[Batch], Measured], data: Source, add: Callable[[Any, Any], Any] = add_sums
) -> tuple[dict[str, Any], Any]:
    """The weighted means of the loss's metrics, and the sums of the additional ones, over one epoch of batches.

    `add` adds the sums of two batches. A mean is NaN if no label counts.
    """
    weighted_sums: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    metric_sums: Any = None
    for batch in itertools.islice(data.batches(), data.steps):
        weight = float(_sum(batch["weight"]))
        if weight == 0:  # its means have no value
            continue
        means, fractions, batch_sums = measure(batch)
        for name, value in means.items():
            counted = weight * fractions.get(name, 1.0)
            weights[name] = weights.get(name, 0.0) + counted
            weighted_sums[name] = weighted_sums.get(name, 0.0) + counted * value
        metric_sums = batch_sums if metric_sums is None else add(metric_sums, batch_sums)
    if metric_sums is None:
        raise ValueError("evaluate: the weights of all examples are 0, so no metric has a value")
    with np.errstate(invalid="ignore"):  # 0 / 0
        return {name: np.asarray(weighted_sums[name], np.float64) / weights[name] for name in weights}, metric_sums


def label_checks(
    model: AnyLayer | None, metrics: Mapping[str, Metric] | None, params: Params, state: State
) -> Callable[[str, Batch], None]:
    """(name, data) -> None: raises ValueError for labels that do not fit one of the metrics."""
    checks = {name: metric.check for name, metric in (metrics or {}).items() if metric.check is not None}
    if model is None or not checks:
        return lambda name, data: None
    output_of = output_shape(as_layer(model))

    def check(name, data):
        output = output_of(params, state, data["image"])
        for metric, check_labels in checks.items():
            check_labels(f"{name}: {metric}", output, data)

    return check


def check_metrics(metrics: Any) -> None:
    """Raise TypeError unless the additional metrics are None or a dict of names and metrics."""
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f'metrics must be a dict such as {{"top5": metrics.top_k(5)}}, got {short_repr(metrics)}')
    for name, metric in (metrics or {}).items():
        if not isinstance(metric, Metric):
            uncalled = inspect.isfunction(metric) and metric.__module__.startswith("jaxcnn.metrics")
            hint = f"; call it: metrics.{metric.__name__}()" if uncalled else ""
            raise TypeError(f"metrics: {name!r} must be a jaxcnn.metrics.Metric, got {metric!r}{hint}")


def check_scalars(name: str, metrics: Any) -> None:
    """Raise TypeError if the metrics of a loss are not a dict of scalars."""
    if not isinstance(metrics, dict):
        raise TypeError(f"{name}: the metrics of a LossFn must be a dict of scalars, got {short_repr(metrics)}")
    for key, value in metrics.items():
        if not isinstance(key, str):
            raise TypeError(f"{name}: the names of a loss's metrics must be strings, got {short_repr(key)}")
        if np.ndim(value):
            raise TypeError(
                f"{name}: the metric {key!r} of the loss must be a scalar, got {short_repr(value)}; arrays can be "
                "computed by a Metric: fit(metrics=)"
            )
        if not (has_spec(value) or isinstance(value, float | int)):
            raise TypeError(f"{name}: the metric {key!r} of the loss must be a number, got {short_repr(value)}")


def check_watch(watch: str, metrics: Mapping[str, Metric], measured: Measured) -> None:
    """Raise ConfigError if the setting "watch" is not a scalar that is evaluated; `measured` are shapes."""
    names = [*measured.means, *metrics]
    if watch and (watch := watch.removeprefix("-")) not in names:
        raise ConfigError(f"watch: unknown metric {watch!r}; {expected_one_of(watch, names)}")
    if watch in metrics and (shape := jax.eval_shape(metrics[watch].compute, measured.sums[watch]).shape):
        raise ConfigError(f"watch: {watch!r} is an array of shape {shape}; watch a scalar")


def with_checked_batches(name: str, data: Source, check: Callable[[Batch], None], *, finite: bool = False) -> Source:
    """The source. If it is a stream, each batch is validated when it is read; `finite`: NaN and infinity are errors."""
    if data.stream is None:
        return data

    def checked(batch):
        check_batch(name, batch, required=tuple(data.spec))
        for entry, spec in data.spec.items():
            shape = (spec.shape[0] // jax.process_count(), *spec.shape[1:])  # a batch has the rows of this process
            found = batch[entry]
            if np.shape(found) != shape or jnp.result_type(found) != jax.dtypes.canonicalize_dtype(spec.dtype):
                declared = short_repr(jax.ShapeDtypeStruct(shape, spec.dtype))
                raise ValueError(f"{name}: the stream declares {entry!r} as {declared}, but gives {short_repr(found)}")
        check(batch)
        for entry, value in batch.items() if finite else ():
            check_finite(f"{name}: {entry}", value, batch.get("weight"))
        return batch

    return data._replace(stream=lambda step: map(checked, data.batches(step)))


_sum = jit(lambda weight: jnp.sum(weight, dtype=jnp.float32))
