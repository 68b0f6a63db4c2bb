"""Converts labels to the targets of a loss: class probabilities, or probabilities of independent labels."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_integer, short_repr
from jaxcnn._array import at_least_float32
from jaxcnn._loss import check_output, masked, unmix
from jaxcnn._validate import check_labels, check_probabilities, fraction_tolerance, is_concrete


def class_logits(name: str, output: Any) -> list[Any]:
    """The main logits (N, *spatial, K), followed by those of the auxiliary heads, in at least float32."""
    outputs = output if isinstance(output, tuple) else (output,)
    shapes = [getattr(y, "shape", None) for y in outputs]
    if len(set(shapes)) != 1 or not shapes[0] or len(shapes[0]) < 2:
        raise ValueError(
            f"{name} needs logits (N, *spatial, classes), or a tuple of logits if it has auxiliary heads, but the "
            f"model gives {', '.join(map(short_repr, outputs)) or ()}; end it with flatten or a global pool, then dense"
        )
    if shapes[0][-1] < 2:
        raise ValueError(
            f"{name} needs logits of at least 2 classes, but the model gives {shapes[0]}, whose softmax is 1; "
            "use 2 outputs for two classes, binary_cross_entropy for one output, or mean_squared_error for regression"
        )
    return [_floating(name, y) for y in outputs]


def label_logits(name: str, output: Any) -> Any:
    """The logits (N, .., K) of independent labels, in at least float32."""
    output = _floating(name, output)
    if not output.shape:
        raise ValueError(f"{name} needs logits (N, *spatial, K), but the model gives a scalar for the whole batch")
    return output


def _floating(name: str, output: Any) -> Any:
    check_output(f"{name}: the output of the model", output)
    return output if isinstance(output, jax.ShapeDtypeStruct) else at_least_float32(output)


def class_or_label_weights(name: str, weights: Any) -> np.ndarray:
    """Weights of classes or labels as float64; raises TypeError for anything but numbers."""
    try:
        array = np.asarray(weights)
        if jnp.issubdtype(array.dtype, jnp.number) and not np.iscomplexobj(array):
            return array.astype(np.float64)
    except (TypeError, ValueError):  # a list whose entries have different lengths
        pass
    raise TypeError(f"{name} must be numbers, got {short_repr(weights)}")


def class_target(
    name: str, label: Any, logits: jax.Array, weight: jax.Array | None, ignore_label: int | None
) -> tuple[jax.Array, jax.Array]:
    """Class probabilities (N, *spatial, K), and which positions count (N, *spatial).

    Probabilities are NaN where a label is invalid, and 0 where it is ignored or the example has weight 0.
    """

    def convert(label):
        check_class_label(name, label, logits.shape, weight, ignore_label)
        label, classes = jnp.asarray(label), logits.shape[-1]
        counted = jnp.ones(logits.shape[:-1], logits.dtype)
        if jnp.issubdtype(label.dtype, jnp.integer):
            counted = counted_labels(label, ignore_label, logits.dtype)
            last_class = min(classes - 1, jnp.iinfo(label.dtype).max)  # must not overflow a small dtype
            valid = (label >= 0) & (label <= last_class) | (counted == 0)
            fractions = jax.nn.one_hot(label.astype(jnp.int32), classes, dtype=logits.dtype) * counted[..., None]
        else:
            fractions = label.astype(logits.dtype)
            close = jnp.abs(fractions.sum(-1) - 1) <= fraction_tolerance(label.dtype)
            valid = (fractions >= 0).all(-1) & close
        fractions = jnp.where(valid[..., None], fractions, jnp.nan)
        return masked(fractions, weight), counted

    return unmix(label, convert)


def check_ignore_label(name: str, ignore_label: Any) -> int | None:
    """Return `ignore_label` as an int, or None; raise an error for anything else."""
    if ignore_label is None:
        return None
    if isinstance(ignore_label, bool) or not isinstance(ignore_label, numbers.Integral):
        raise TypeError(f"{name}: ignore_label must be None or an int such as 255, got {short_repr(ignore_label)}")
    return check_integer(name, "ignore_label", ignore_label, -(2**31))


def counted_labels(label: Any, ignore_label: int | None, dtype: Any = jnp.float32) -> jax.Array:
    """1 for each label that counts, 0 for those to ignore."""
    return jnp.ones(label.shape, dtype) if ignore_label is None else differs(label, ignore_label).astype(dtype)


def differs(label: jax.Array, ignore_label: int) -> jax.Array:
    """label != ignore_label, also if the dtype of the labels does not hold this number, where JAX would wrap it."""
    if jnp.issubdtype(label.dtype, jnp.integer):
        info = jnp.iinfo(label.dtype)
        if not info.min <= ignore_label <= info.max:
            return jnp.ones(label.shape, bool)
    return label != ignore_label


def check_class_label(name: str, label: Any, logits: tuple[int, ...], weight: Any, ignore_label: int | None) -> None:
    """Raise a ValueError if shape, dtype or concrete values of labels do not fit logits (N, *spatial, K)."""
    shape, dtype = np.shape(label), getattr(label, "dtype", None) or np.asarray(label).dtype
    fits = {jnp.integer: logits[:-1], jnp.floating: logits}
    if not any(jnp.issubdtype(dtype, kind) and shape == expected for kind, expected in fits.items()):
        fix = "convert them, as in label.astype(np.int32)" if shape == logits[:-1] else _fix(shape, logits)
        raise ValueError(f"{name}: labels of shape {shape} and dtype {dtype} do not fit logits {logits}; {fix}")
    if is_concrete(label, weight):
        check_labels(name, label, logits[-1], weight, ignore_label)


def _fix(label: tuple[int, ...], logits: tuple[int, ...]) -> str:
    """A hint on labels that do not fit the logits."""
    if len(logits) == 3 and len(label) == 1 and logits[1:2] == label:
        return "for logits of an ensemble (n, N, classes), use per_member(cross_entropy)"
    if len(logits) == 2 and len(label) <= 2:
        return "use integer classes (N,) or floating-point class probabilities (N, classes)"
    if len(logits) == 2:
        return "label maps need a model with logits for each position (N, *spatial, classes), such as models.unet"
    if len(label) <= 2:
        return "labels of whole images need logits (N, classes): end the model with a global pool, then dense"
    if len(label) >= len(logits) - 1 and label[1 : len(logits) - 1] != logits[1:-1]:
        sizes = f"the label maps have size {label[1 : len(logits) - 1]}, the logits {logits[1:-1]}"
        return f'{sizes}: resize one of them, or use padding="SAME" and sizes that the strides divide'
    return "use integer classes (N, *spatial) or floating-point class probabilities (N, *spatial, classes)"


def binary_target(
    name: str, label: Any, logits: jax.Array, weight: jax.Array | None, ignore_label: int | None
) -> tuple[jax.Array, jax.Array]:
    """Probabilities with the shape of the logits, and which entries count.

    Probabilities are NaN where a label is invalid, and 0 where it is ignored or the example has weight 0.
    """

    def convert(label):
        check_binary_label(name, label, logits.shape, weight, ignore_label)
        label = jnp.asarray(label).reshape(logits.shape)
        counted = counted_labels(label, ignore_label, logits.dtype)
        values = jnp.where(counted == 0, 0, label.astype(logits.dtype))
        valid = (values >= 0) & (values <= 1)
        return masked(jnp.where(valid, values, jnp.nan), weight), counted

    return unmix(label, convert)


def check_binary_label(name: str, label: Any, logits: tuple[int, ...], weight: Any, ignore_label: int | None) -> None:
    """Raise a ValueError if labels do not have the shape of the logits, or concrete values are outside [0, 1]."""
    shape = np.shape(label)
    if shape != logits and not (logits[-1] == 1 and shape == logits[:-1]):
        raise ValueError(f"{name}: labels of shape {shape} do not fit logits {logits}; use one label per logit")
    if is_concrete(label, weight):
        check_probabilities(name, label, weight, ignore_label)
