"""What `gather` computes for each task: columns of each batch, then arrays for the page."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.metrics import average_precision
from jaxcnn.report._chart import evenly_spaced
from jaxcnn.report._examples import Data, indexed, shrink, thinned, to_bytes

Columns = dict[str, np.ndarray]

_FIRST, _WORST = 4, 8  # examples shown
_POINTS = 500  # maximum points of a scatter plot
_MAP = 192  # maximum pixels per side of a map


def task_of(image: tuple[int, ...], output: Any, label: np.ndarray) -> str:
    """The task that a batch belongs to, by shapes, dtypes and values; see `gather`. "" for an unknown one."""
    if not hasattr(output, "shape") or output.ndim == 0:
        return ""
    integers = np.issubdtype(label.dtype, np.integer) or label.dtype == bool
    zeros_and_ones = bool(np.isin(label, (0, 1)).all())
    if label.ndim == 1 and output.shape in (label.shape, (*label.shape, 1)):
        return "labels" if zeros_and_ones else "regression"
    if integers and label.shape == output.shape[:-1]:
        return "classification" if label.ndim == 1 else "segmentation"
    if label.shape != output.shape:
        return ""
    if label.ndim > 2:
        is_mask = zeros_and_ones and (integers or label.shape != image)
        return "masks" if is_mask else "reconstruction"
    if label.shape[1] > 1 and (label >= 0).all() and np.allclose(label.sum(1), 1):
        return "classification"
    return "labels" if zeros_and_ones else "regression"


def columns_of(task: str, output: np.ndarray, label: np.ndarray) -> Columns:
    """Arrays of one batch. Arrays named "counts" are added over batches, others concatenated."""
    if task in ("segmentation", "masks"):
        right, counts = _compared(task, output, label)
        positions = tuple(range(1, right.ndim))
        counted = np.isfinite(right).sum(positions)
        with np.errstate(invalid="ignore"):  # NaN for an image without a position that counts
            return {"counts": counts, "error": 1 - np.nansum(right, positions) / counted}
    if task == "reconstruction":
        difference = (output - label).reshape(len(label), -1)
        return {"error": np.square(difference).mean(1), "absolute": np.abs(difference).mean(1)}
    if task == "classification":
        return {"output": output, "label": label.argmax(1) if label.ndim == 2 else label}
    rows = lambda x: np.asarray(x, np.float32).reshape(len(x), -1)
    return {"output": rows(output), "label": rows(label)}


def together(parts: Sequence[Columns]) -> Columns:
    """The columns of all batches."""
    combine = lambda name: np.sum if name == "counts" else np.concatenate
    return {name: combine(name)([part[name] for part in parts], axis=0) for name in parts[0]}


def _compared(task: str, output: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each position is right, NaN where it does not count; and (3, K): hits, predicted, actual positions."""
    classes = output.shape[-1]
    if task == "masks":
        predicted, actual = output > 0, label > 0.5
        counts = np.array([x.reshape(-1, classes).sum(0) for x in (predicted & actual, predicted, actual)])
        return (predicted == actual).astype(float), counts
    predicted, valid = output.argmax(-1), (label >= 0) & (label < classes)
    right = predicted == label
    count = lambda values: np.bincount(values, minlength=classes)
    counts = np.array([count(label[valid & right]), count(predicted[valid]), count(label[valid])])
    return np.where(valid, right, np.nan), counts


def shown(error: np.ndarray, nan: float = np.inf) -> list[int]:
    """The first examples, and those with the largest errors among the others. NaN counts as `nan`."""
    worst = np.argsort(-np.nan_to_num(error, nan=nan), kind="stable")
    first = min(_FIRST, len(error))
    return [*range(first), *(int(i) for i in worst if i >= first)][: first + _WORST]


def maps(task: str, columns: Columns, data: Data, predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Arrays for segmentation, masks and reconstruction. Images and maps of the shown examples are predicted again."""
    # A reconstruction of NaN is bad, but a map of NaN has no position that counts.
    index = shown(columns["error"], np.inf if task == "reconstruction" else -np.inf)
    arrays: dict[str, Any] = {"index": index, "error": columns["error"][index]}
    if task == "reconstruction":
        arrays["mean"] = [columns["error"].mean(), columns["absolute"].mean()]
    else:
        arrays["counts"] = columns["counts"]
    found = {}
    for i, image, label in indexed(data, index):
        output = predict(image[None])[0]
        if task == "reconstruction":
            found[i] = tuple(_small(x, "linear") for x in (image, label, output))
        else:
            label, output = _class_maps(task, output, label)
            same = image.shape[:-1] == label.shape
            found[i] = tuple(_small(x, "nearest") for x in (label, output)) + (_small(image, "linear"),) * same
    columns_of_maps = [np.stack(column) for column in zip(*(found[i] for i in index), strict=True)]
    if columns_of_maps[0].ndim not in (3, 4):  # volumes are not drawn
        return arrays
    if task == "reconstruction":
        image, label, output = columns_of_maps
        difference = np.abs(output - label).mean(-1)
        if label.ndim == 3:
            return arrays | {"input": image, "true": label, "predicted": output}
        both = to_bytes(np.concatenate([label, output]))
        return arrays | {
            "input": to_bytes(image),
            "true": both[: len(label)],
            "predicted": both[len(label) :],
            "difference": difference,
        }
    if columns_of_maps[0].ndim == 3:
        true, predicted, *images = columns_of_maps
        arrays |= {"true": true, "predicted": predicted}
        if images:
            arrays["input"] = to_bytes(images[0])
    return arrays


def _class_maps(task: str, output: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true and predicted class of each position, -1 where it is none."""
    if task == "masks":
        first = lambda mask: np.where(mask.any(-1), mask.argmax(-1), -1)
        return first(label > 0.5), first(output > 0)
    return np.where((label >= 0) & (label < output.shape[-1]), label.astype(np.int32), -1), output.argmax(-1)


def _small(x: np.ndarray, method: str) -> np.ndarray:
    """An image (H, W, C), map (H, W) or signal (T, C), reduced if it is large; other arrays are unchanged."""
    is_map = x.ndim == 2 and method == "nearest"
    if not is_map and x.ndim != 3:
        return thinned(x) if x.ndim == 2 else x
    values = x[None, ..., None] if is_map else x[None]
    small = np.asarray(shrink(jnp.asarray(values, jnp.float32), _MAP, method))[0]
    return small[..., 0].astype(np.int16) if is_map else small


def regression(columns: Columns) -> tuple[dict[str, Any], list[int]]:
    """Arrays of errors per target, points of the scatter plots, and the examples with the largest errors."""
    predicted, true = columns["output"], columns["label"]
    error, variance = (predicted - true).astype(float), np.var(true.astype(float), 0)
    squared = np.square(error).mean(0)
    r2 = np.where(variance > 0, 1 - squared / np.where(variance > 0, variance, 1), np.nan)
    points = evenly_spaced(len(true), _POINTS)
    relative = (np.square(error) / np.where(variance > 0, variance, 1)).mean(1)
    index = np.argsort(-np.nan_to_num(relative, nan=np.inf), kind="stable")[: _FIRST + _WORST]
    arrays = {
        "errors": np.stack([np.abs(error).mean(0), np.sqrt(squared), r2]),
        "count": len(true),
        "points_true": true[points],
        "points_predicted": predicted[points],
        "index": index,
        "true": true[index],
        "predicted": predicted[index],
    }
    return arrays, index.tolist()


def labels(columns: Columns) -> tuple[dict[str, Any], list[int]]:
    """Arrays of the quality per label, and examples: the first, and those with most wrong labels."""
    output, actual = columns["output"], columns["label"] > 0.5
    predicted = output > 0
    hits = (predicted & actual).sum(0)
    ratio = lambda total: np.where(total > 0, hits / np.maximum(total, 1), np.nan)
    metric, weight = average_precision(), jnp.ones(len(output))
    areas = [
        metric.compute(metric.update(output[:, k : k + 1], {"label": actual[:, k : k + 1], "weight": weight}))
        if actual[:, k].any() and not actual[:, k].all()
        else np.nan
        for k in range(output.shape[1])
    ]
    index = shown((predicted != actual).mean(1))
    arrays = {
        "quality": np.stack([actual.mean(0), ratio(predicted.sum(0)), ratio(actual.sum(0)), np.array(areas, float)]),
        "index": index,
        "true": actual[index],
        "predicted": predicted[index],
        "probability": np.asarray(jax.nn.sigmoid(output[index])),
    }
    return arrays, index
