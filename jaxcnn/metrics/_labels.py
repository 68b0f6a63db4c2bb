"""Labels of the classification metrics: which shapes fit the output, which values are valid, and which count."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._loss import check_output
from jaxcnn._validate import first_true, fraction_tolerance, nonzero
from jaxcnn.metrics._metric import float_entry, position_weights


class Examples(NamedTuple):
    """Logits and float32 labels, 0 where the weight is 0, and weights with the shape of the labels.

    valid: False if a weight is NaN, or if a label or an output that counts is invalid.
    """

    output: jax.Array
    label: jax.Array
    weight: jax.Array
    valid: jax.Array

    @property
    def multi_label(self) -> bool:
        return self.label.ndim == self.output.ndim

    def sums(self, sums: Any) -> Any:
        """A tree of sums; NaN if the examples are not valid."""
        return jax.tree.map(lambda x: jnp.where(self.valid, x, jnp.nan), sums)


def examples(name: str, output: jax.Array, batch: dict[str, Any], ignore_label: int | None = None) -> Examples:
    """Logits (N, *spatial, K) with labels of the same shape (multi-label), or with integer classes (N, *spatial).

    For K = 1 both are labels 0 or 1, and get the shape of the logits.

    Raises:
        ValueError: for other shapes.
    """
    return _counted(name, *_fitting(name, output, batch), batch, ignore_label)


def class_examples(name: str, output: jax.Array, batch: dict[str, Any], ignore_label: int | None = None) -> Examples:
    """Logits (N, *spatial, K) of at least two classes, with integer classes (N, *spatial).

    Class probabilities become the class with the largest one. A single logit z becomes the logits (0, z).

    Raises:
        ValueError: as for `examples`.
    """
    output, label, valid = _fitting(name, output, batch)
    if label.ndim == output.ndim and output.shape[-1] == 1:
        output = jnp.concatenate([jnp.zeros_like(output), output], -1)
        label, valid = label[..., 0], valid[..., 0]
    elif label.ndim == output.ndim:
        # The caller may have rounded the probabilities to this dtype.
        valid = valid.all(-1) & (jnp.abs(label.sum(-1) - 1) <= fraction_tolerance(jnp.bfloat16))
        label = predicted_class(label).astype(jnp.float32)
    result = _counted(name, output, label, valid, batch, ignore_label)
    return result._replace(label=jnp.round(result.label).astype(jnp.int32))


def label_check(ignore_label: int | None = None) -> Callable[[str, Any, dict[str, Any]], None]:
    """`Metric.check` of a metric that uses `examples` or `class_examples`: all labels that count are valid."""

    def check(name, output, data):
        label, shape, weight = np.asarray(data["label"]), output.shape, data.get("weight")
        multi_label = label.shape == shape or (shape[-1] == 1 and label.shape == shape[:-1])
        if not multi_label and label.shape != shape[:-1]:
            return  # `update` explains which shapes fit
        last = 1 if multi_label else shape[-1] - 1
        valid = (label >= 0) & (label <= last) & (multi_label | (label == np.floor(label)))
        bad = ~valid & nonzero(weight, len(label), label.ndim)
        if ignore_label is not None:
            bad &= label != ignore_label
        if bad.any():
            index, at = first_true(bad)
            raise ValueError(
                f"{name}: label[{at}] is {label[index]}, but outputs of shape {shape} need "
                f"{'labels' if multi_label else 'classes'} from 0 to {last}; correct it, pass it as ignore_label of "
                "the metric, or give the example weight 0"
            )

    return check


def predicted_class(logits: jax.Array) -> jax.Array:
    """(N, *spatial, K) -> (N, *spatial): the class with the largest logit, in int32 also with jax_enable_x64."""
    return lax.argmax(logits, logits.ndim - 1, jnp.int32)


def _fitting(name: str, output: jax.Array, batch: dict[str, Any]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Output and labels whose shapes fit, and which labels are valid, not yet regarding `ignore_label`."""
    check_output(f"{name}: the output", output, floating=False)
    output, label = jnp.asarray(output), float_entry(batch, "label")
    shape = output.shape
    if output.ndim < 2 or label.shape not in (shape, shape[:-1]):
        raise ValueError(
            f"{name}: labels of shape {label.shape} do not fit outputs of shape {shape}; use outputs "
            "(N, *spatial, K) with integer classes (N, *spatial), or with labels of the same shape"
        )
    if shape[-1] == 1:
        label = label.reshape(shape)
    if label.ndim == output.ndim:
        return output, label, (label >= 0) & (label <= 1)
    return output, label, (label >= 0) & (label < shape[-1]) & (label == jnp.floor(label))


def _counted(
    name: str, output: jax.Array, label: jax.Array, valid: jax.Array, batch: dict[str, Any], ignore_label: int | None
) -> Examples:
    weight = position_weights(name, label, batch, ignore_label)
    counts, missing = weight != 0, jnp.isnan(output)
    if label.ndim < output.ndim:
        missing = missing.any(-1)
    valid = valid & ~missing & ~jnp.isnan(weight) | ~counts
    return Examples(output, jnp.where(counts, label, 0), weight, valid.all())
