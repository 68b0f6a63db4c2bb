"""Checks data on the host. `fit`, `evaluate` and the losses call these checks once.

A compiled program cannot raise, so its inputs are checked before. Each message states the first bad index.
Examples with weight 0 are ignored, so their labels may be invalid.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._jax import Tracer
from jaxcnn._path import expected_one_of

_CHUNK = 1 << 22  # values per pass, to avoid temporary copies of the whole array
_LARGEST_RATIO = 16  # of mean |x| between training and evaluation data; less than 255, the ratio of bytes to [0, 1]


def check_batch(name: str, batch: Any, required: tuple[str, ...]) -> int:
    """The number of examples in a batch, after checking that it is a dict of arrays of equal length.

    Raises:
        TypeError: if it is not a dict of numeric arrays, or for a masked array.
        ValueError: for missing entries, no examples, entries of different lengths, invalid weights, or integers that do
            not fit into 32 bits.
    """
    if not isinstance(batch, dict):
        entries = " and ".join(f'"{entry}"' for entry in required)
        raise TypeError(f"{name} must be a dict{entries and ' with '}{entries}, got {short_repr(batch)}")
    for entry in required:
        if entry not in batch:
            raise ValueError(f"{name} has no {entry!r}; {expected_one_of(entry, batch)}")
    for entry, value in batch.items():
        if np.ndim(value) == 0:
            raise TypeError(f"{name}: {entry!r} must be an array with one row per example, got {short_repr(value)}")
        if not _is_numeric(value):
            found = np.asarray(value)
            hint = "; np.unique(labels, return_inverse=True) numbers them" if found.dtype.kind in "UO" else ""
            raise TypeError(f"{name}: {entry!r} must be an array of numbers, got {short_repr(found)}{hint}")
        check_not_masked(f"{name}: {entry!r}", value)
        check_wide_integers(f"{name}: {entry}", value)
    lengths = {entry: len(value) for entry, value in batch.items()}
    if 0 in lengths.values() or len(set(lengths.values())) != 1:
        raise ValueError(f"{name} needs entries of the same length, at least 1, got lengths {lengths}")
    if "weight" in batch:
        if np.ndim(weight := batch["weight"]) != 1:
            raise ValueError(
                f"{name}: 'weight' must have shape ({len(weight)},), one per example, got {np.shape(weight)}"
            )
        check_weights(f"{name}: weight", weight)
    return next(iter(lengths.values()))


def check_labels(name: str, label: Any, classes: int, weight: Any = None, ignore_label: int | None = None) -> None:
    """Raise an error unless labels are integers (N, *spatial) in [0, classes) or class probabilities (.., classes).

    Raises:
        ValueError: with the first bad index.
    """
    label = np.asarray(label)
    integers = np.issubdtype(label.dtype, np.integer)
    counts = nonzero(weight, len(label), label.ndim if integers else label.ndim - 1)
    if integers:
        bad = ((label < 0) | (label >= classes)) & counts
        if ignore_label is not None:
            bad &= label != ignore_label
        if bad.any():
            i, at = first_true(bad)
            counted = counts if ignore_label is None else counts & (label != ignore_label)
            counted = label[np.broadcast_to(counted, label.shape)]
            from_1 = (counted.min(), counted.max()) == (1, classes)
            fix = "correct the label, use one model output per class, or pass it as ignore_label"
            raise ValueError(
                f"{name}: label[{at}] is {label[i]}, but the model has {classes} outputs, for labels from 0 to "
                f"{classes - 1}; {'labels start at 1: subtract 1' if from_1 else fix}"
            )
        return
    fractions = label.astype(np.float64)
    sums = fractions.sum(-1)
    bad = ~((fractions >= 0).all(-1) & (np.abs(sums - 1) <= fraction_tolerance(label.dtype))) & counts
    if bad.any():
        i, at = first_true(bad)
        raise ValueError(
            f"{name}: label[{at}] is {_row(fractions[i])}, with sum {sums[i]:.6g}; class probabilities must be "
            "non-negative and sum to 1. For regression use mean_squared_error, for several labels binary_cross_entropy"
        )


def check_probabilities(name: str, label: Any, weight: Any = None, ignore_label: int | None = None) -> None:
    """Raise an error unless all labels are between 0 and 1.

    Raises:
        ValueError: with the first bad index.
    """
    label = np.asarray(label)
    bad = ~((label >= 0) & (label <= 1)) & nonzero(weight, len(label), label.ndim)
    if ignore_label is not None:
        bad &= label != ignore_label
    if bad.any():
        i, at = first_true(bad)
        raise ValueError(f"{name}: label[{at}] is {label[i]}; labels must be between 0 and 1")


def fraction_tolerance(dtype: Any) -> float:
    """The tolerance for the sum of class probabilities of this dtype to differ from 1."""
    return 1e-3 + 4 * float(jax.numpy.finfo(dtype).eps)


def check_finite(name: str, values: Any, weight: Any = None) -> None:
    """Raise an error if an example with nonzero weight contains NaN or infinity.

    Raises:
        ValueError: with the first bad index.
    """
    first = first_nonfinite(values, weight)
    if first is not None:
        where = ", ".join(map(str, first))
        raise ValueError(f"{name}[{where}] is {np.asarray(values)[first]}; all values must be finite: correct the data")


def first_nonfinite(values: Any, weight: Any = None) -> tuple[int, ...] | None:
    """The index of the first NaN or infinity in an example with nonzero weight; None if all are finite."""
    values = np.asarray(values)
    if not _is_floating(values.dtype) or values.size == 0:
        return None
    rows = max(1, _CHUNK // max(1, values[0].size)) if values.ndim else 1
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        finite = np.isfinite(_as_computed(part))
        if weight is not None:
            finite |= ~nonzero(weight[start : start + rows], len(part), part.ndim)
        if not finite.all():
            (row, *rest), _ = first_true(~finite)
            return (start + row, *rest)
    return None


def check_same_range(train_image: Any, eval_image: Any) -> None:
    """Raise an error if training and evaluation images have different ranges after scaling.

    uint8 images are divided by 255; other images are not scaled.

    Raises:
        ValueError: with both ranges.
    """
    train_image, eval_image = np.asarray(train_image), np.asarray(eval_image)
    if (train_image.dtype == np.uint8) != (eval_image.dtype == np.uint8):
        same = values_between(train_image, 0, 1) and values_between(eval_image, 0, 1)
    else:
        magnitudes = [_mean_magnitude(image) for image in (train_image, eval_image)]
        same = min(magnitudes) == 0 or max(magnitudes) / min(magnitudes) < _LARGEST_RATIO
    if not same:
        raise ValueError(
            f"train_data and eval_data have different ranges: {_range(train_image)}, and {_range(eval_image)}; "
            "give both in the same range: both as uint8, or both divided by 255"
        )


def values_between(images: Any, low: float, high: float) -> bool:
    """Whether all values are in [low, high], up to rounding. True for uint8, which is divided by 255."""
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return True
    slack = 1e-3 * (high - low)
    return float(np.nanmin(images)) >= low - slack and float(np.nanmax(images)) <= high + slack


def with_check(loss_fn: Any, check: Callable[[str, Any, Any, Any], None]) -> Any:
    """Attach a check to a loss. `fit` and `evaluate` call it once on all data: check(name, params, state, data).

    `functools.wraps` copies it to losses that wrap this one.
    """
    loss_fn.__dict__["check"] = check
    return loss_fn


def has_check(loss_fn: Any) -> bool:
    """Whether a loss has a check: the losses of this library, and transforms of them."""
    return hasattr(loss_fn, "check")


def check_for_loss(name: str, loss_fn: Any, params: Any, state: Any, data: Any) -> None:
    """Run the check of the loss, if it has one. Custom losses may have none."""
    if has_check(loss_fn):
        loss_fn.check(name, params, state, data)


def is_concrete(*values: Any) -> bool:
    """Whether all values are concrete, not tracers."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def check_weights(name: str, weight: Any) -> None:
    """Raise ValueError for a weight that is negative or not finite, with the first bad index."""
    weight = np.asarray(weight)
    bad = ~(np.isfinite(_as_computed(weight.astype(np.float64))) & (weight >= 0))
    if bad.any():
        i, at = first_true(bad)
        raise ValueError(f"{name}[{at}] is {weight[i]}; weights must be finite and at least 0")


def check_not_masked(name: str, value: Any) -> None:
    """Raise TypeError for a NumPy masked array: JAX would read the values below its mask."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask JAX ignores: convert it by .filled(); to leave out examples, give "
            'them "weight" 0, and to leave out labels, fill in an ignore_label'
        )


def check_wide_integers(name: str, values: Any) -> None:
    """Raise ValueError for integers that JAX would wrap when it reduces them to 32 bits."""
    if isinstance(values, jax.Array):
        return  # already reduced to 32 bits: a check would only copy it to the host
    values = np.asarray(values)
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if dtype == values.dtype or not np.issubdtype(dtype, np.integer) or values.size == 0:
        return
    bad = (values < np.iinfo(dtype).min) | (values > np.iinfo(dtype).max)
    if bad.any():
        i, at = first_true(bad)
        raise ValueError(f"{name}[{at}] is {values[i]}, which does not fit into {dtype}; convert the array to float32")


def _as_computed(values: np.ndarray) -> np.ndarray:
    """In the dtype that JAX computes with: float64 values may be infinite in float32."""
    with np.errstate(over="ignore"):
        return values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)


def _is_floating(dtype: Any) -> bool:
    return bool(jax.numpy.issubdtype(dtype, jax.numpy.floating))  # bfloat16 included


def _is_numeric(value: Any) -> bool:
    dtype = getattr(value, "dtype", None) or np.asarray(value).dtype
    return any(jax.numpy.issubdtype(dtype, kind) for kind in (jax.numpy.number, jax.numpy.bool_))


def _mean_magnitude(images: Any) -> float:
    """Mean |x| over the finite values of about a thousand images, with uint8 divided by 255."""
    sample = images[:: max(1, len(images) // 1000)].astype(np.float32)
    sample = np.abs(sample[np.isfinite(sample)])
    return float(sample.mean()) / (255 if images.dtype == np.uint8 else 1) if sample.size else 0.0


def _range(images: Any) -> str:
    if images.dtype == np.uint8:
        return "uint8, which is divided by 255"
    return f"{images.dtype} from {float(np.nanmin(images)):.4g} to {float(np.nanmax(images)):.4g}"


def nonzero(weight: Any, count: int, rank: int) -> np.ndarray:
    """(N, 1, .., 1) of this rank: whether the weight of each example is not 0."""
    nonzero = np.ones(count, bool) if weight is None else np.asarray(weight) != 0
    return nonzero.reshape(-1, *(1,) * (rank - 1))


def first_true(bad: np.ndarray) -> tuple[tuple[int, ...], str]:
    """The index of the first True, and its text."""
    index = tuple(map(int, np.unravel_index(int(bad.argmax()), bad.shape)))
    return index, ", ".join(map(str, index))


def _row(values: np.ndarray) -> str:
    first = ", ".join(f"{value:.4g}" for value in values[:8])
    return f"[{first}{', ..' if len(values) > 8 else ''}]"
