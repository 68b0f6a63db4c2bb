"""The report's data on the trained network: computed once and saved in the run's folder."""

import functools
import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._array import spec_of
from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._replace import replace
from jaxcnn.data import DataError
from jaxcnn.explain._activations import feature_maps, filters
from jaxcnn.explain._mistakes import confusion_matrix, worst_mistakes
from jaxcnn.explain._receptive_field import Field, receptive_field
from jaxcnn.explain._saliency import grad_cam
from jaxcnn.explain._summary import indented, summary
from jaxcnn.metrics._calibration import bin_sums
from jaxcnn.report._examples import IMAGE, Data, batches, select, shrink, thumbnails
from jaxcnn.report._tasks import Columns, columns_of, maps, regression, task_of, together
from jaxcnn.report._tasks import labels as multi_label
from jaxcnn.report._worked import leaves, worked
from jaxcnn.train._checkpoint_folder import read_json

_ARRAYS, _INFO = "explain.npz", "explain.json"
_MISTAKES, _EXAMPLES, _IN_LAYERS, _CHANNELS, _FILTERS, _LAYERS = 12, 10, 2, 16, 64, 12  # maximum numbers
_BINS = 15  # of the confidence, as in `metrics.expected_calibration_error`
_TILE = 48  # maximum pixels per side of a feature map


def gather(run_folder: str | os.PathLike, model: AnyLayer, params: Params, state: State, data: Data) -> None:
    """Analyze a trained network and save what `report` shows: arrays in `explain.npz`, text in `explain.json`.

    The analysis contains the layers and the predictions. The task follows from the shapes of the output and the labels,
    and from the labels of the first batch:

        task                          output            labels
        classification                (N, K)            integers (N,), or class probabilities (N, K)
        multi-label classification    (N, K)            0 or 1, (N, K); for K = 1 also (N,)
        regression                    (N, K)            other numbers (N, K); for K = 1 also (N,)
        segmentation                  (N, *spatial, K)  integers (N, *spatial)
        segmentation by binary masks  (N, *spatial, K)  0 or 1 (N, *spatial, K); integers if the images have this shape
        reconstruction                (N, *spatial, C)  other numbers (N, *spatial, C)

    Images (N, H, W, C) and signals (N, T, C) are shown as examples. For the classification of images, the analysis also
    contains the filters of the first convolution, one output of it step by step, feature maps and Grad-CAM.

    Args:
        run_folder: the folder of a `train.Run`.
        model: maps images to the output; segmentation and multi-label classification need logits.
        params, state: trained parameters and state of the model.
        data: evaluation data in any form that `train.fit` accepts. uint8 images are divided by 255. The class names of
            a `Dataset` or `Stream` are those of the classes, labels or targets.

    Raises:
        DataError: if no example has a weight above 0.

    Example:
        >>> import tempfile
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> model = jaxcnn.models.lenet5()
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.report.gather(run.folder, model, params, state, digits)
        >>> (run.folder / "explain.npz").exists()
        True
    """
    model = as_layer(model)
    params, state = jax.tree.map(jnp.asarray, (params, state))
    apply = jit(functools.partial(model.apply, train=False))
    predict = lambda x: apply(params, state, x)[0]
    spec, task, parts = None, "", []
    for x, labels in batches(data):
        output = predict(x)
        if spec is None:
            spec, task = spec_of(x, 1), task_of(x.shape, output, labels)
        if task:
            parts.append(columns_of(task, np.asarray(output, np.float32), labels))
    if spec is None:
        raise DataError("gather: data must have at least one example with a weight above 0")
    has_fields = 3 <= spec.ndim <= 5 and jnp.issubdtype(spec.dtype, jnp.floating)
    fields = {layer.path: layer.fields for layer in receptive_field(model, spec).layers} if has_fields else {}
    info: dict[str, Any] = {"size": spec.shape[1:3], "maps": [], "first": None, "worked": None}
    arrays: dict[str, Any] = {}
    if task == "classification":
        columns = together(parts)
        found, arrays, examples = _classification(columns["output"], columns["label"], data)
        info |= found
        if examples and spec.ndim == 4:
            found, visualized = _visualize(model, params, state, jnp.asarray(select(data, examples)), fields)
            info, arrays = info | found, arrays | visualized
    elif task:
        arrays = _other_task(task, together(parts), data, predict)
        info |= {"task": task, "names": _names(data, output.shape[-1] if output.ndim > 1 else 1)}
    info |= _layers(model, spec, fields)
    _save(pathlib.Path(run_folder), info, {name: np.asarray(array) for name, array in arrays.items()})


def _names(data: Data, count: int) -> list[str]:
    """The class names of the data; indices where it has none."""
    classes = getattr(data, "classes", None)
    names = [] if classes is None else [str(name) for name in classes][:count]
    return [*names, *map(str, range(len(names), count))]


def _classification(
    logits: np.ndarray, labels: np.ndarray, data: Data
) -> tuple[dict[str, Any], dict[str, Any], list[int]]:
    """The class names, arrays on the predictions, and the indices of the first example of each class."""
    outputs = logits.shape[1]
    index = np.flatnonzero((labels >= 0) & (labels < outputs))
    info = {"classes": _names(data, outputs), "left_out": len(labels) - len(index)}
    if not len(index):
        return info, {}, []
    logits, labels = logits[index], labels[index]
    mistakes = worst_mistakes(logits, labels, _MISTAKES)
    first = np.unique(labels, return_index=True)[1][:_EXAMPLES]
    all_probabilities = jax.nn.softmax(logits)
    probabilities = np.asarray(all_probabilities[first])
    arrays = {f"mistakes_{name}": value for name, value in mistakes._asdict().items()} | {
        "mistakes_index": index[np.asarray(mistakes.index)],
        "matrix": confusion_matrix(labels, logits.argmax(-1), logits.shape[1]),
        "calibration": np.stack(bin_sums(all_probabilities, jnp.asarray(labels), jnp.ones(len(labels)), _BINS)),
        "examples_index": index[first],
        "examples_label": labels[first],
        "examples_predicted": probabilities.argmax(-1),
        "examples_probability": probabilities.max(-1),
    }
    examples = index[first].tolist()
    images = thumbnails(data, [*examples, *arrays["mistakes_index"]])
    if images is not None:
        arrays |= {"examples": images[: len(examples)], "mistakes": images[len(examples) :]}
    return info, arrays, examples


def _other_task(task: str, columns: Columns, data: Data, predict: Callable[[Any], Any]) -> dict[str, Any]:
    """Arrays on the predictions for a task other than classification."""
    if task in ("segmentation", "masks", "reconstruction"):
        return maps(task, columns, data, lambda x: np.asarray(predict(x), np.float32))
    arrays, chosen = (regression if task == "regression" else multi_label)(columns)
    images = thumbnails(data, chosen)
    return arrays if images is None else arrays | {"images": images}


def _layers(model: Layer, spec: Any, fields: dict[str, tuple[Field, ...]]) -> dict[str, Any]:
    """The table of layers and its sums."""
    table = summary(model, spec)
    rows = [
        {
            "name": indented(row.path),
            "output": _join_sizes(_shape(row.output)),
            "sees": _join_sizes(field.size for field in fields.get(row.path, ())),
            "params": row.params,
            "multiply_adds": row.multiply_adds,
        }
        for row in table.tree
    ]
    return {"params": table.params, "multiply_adds": table.multiply_adds, "layers": rows}


def read_gathered(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The text and arrays that `gather` saved, or None if it saved nothing.

    Raises:
        DataError: if a file cannot be read.
    """
    if not (folder / _INFO).exists():
        return None
    try:
        info = read_json(folder / _INFO)
        with (folder / _ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return info, dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{folder}: {_INFO} and {_ARRAYS} cannot be read ({error}); call report.gather again"
        ) from error


def _save(folder: pathlib.Path, info: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Write the arrays, then the text: the text file marks the arrays as complete."""
    (folder / _INFO).unlink(missing_ok=True)
    with replace(folder / _ARRAYS) as file:
        np.savez_compressed(file, **arrays)
    with replace(folder / _INFO) as file:
        file.write(json.dumps(info, indent=1, allow_nan=False).encode() + b"\n")


def _visualize(
    model: AnyLayer, params: Params, state: State, x: jax.Array, fields: dict[str, tuple[Field, ...]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Layer names and arrays for the feature maps, Grad-CAM, the filters and the worked convolution."""
    inner = [path for path in fields if path]
    if not inner:
        return {}, {}
    few = x[:_IN_LAYERS]
    activations = jit(functools.partial(feature_maps, model))(params, state, few)
    maps = {path: np.asarray(activations[path], np.float32) for path in inner if _is_map(activations[path], few)}
    order = [path for path in maps if not any(other.startswith(f"{path}/") for other in maps)]
    if not order:
        return {}, {}
    last = _outermost(order[-1], maps)
    cam_of = jit(functools.partial(grad_cam, model, layer=last))
    cam = jnp.concatenate([cam_of(params, state, x[i : i + 1]) for i in range(len(x))])  # one by one to limit memory
    shown = order
    if len(order) > _LAYERS:  # the last layer of each size
        shown = [*{maps[path].shape[1:3]: _outermost(path, maps) for path in order}.values()]
    info: dict[str, Any] = {"maps": [[path, _join_sizes(maps[path].shape[1:])] for path in shown], "cam": last}
    arrays = {f"map_{i}": shrink(maps[path][..., :_CHANNELS], _TILE) for i, path in enumerate(shown)}
    arrays["cam"] = jax.image.resize(cam.astype(jnp.float32), shrink(x, IMAGE).shape[:3], "linear")
    kernels = (path for path in order if np.ndim(leaves(params, path).get("kernel", 0)) == 4)
    if (first := next(kernels, None)) is not None:
        example = {path: maps[path][0] for path in order}
        example_info, example_arrays = worked(np.asarray(few[0], np.float32), example, fields, params, first)
        info |= {"first": first, "worked": example_info}
        arrays |= {"filters": filters(params, first)[:_FILTERS]} | example_arrays
    return info, arrays


def _is_map(y: Any, x: jax.Array) -> bool:
    """Whether an output is a map with several positions for each image of x."""
    return isinstance(y, jax.Array) and (y.ndim, len(y)) == (4, len(x)) and math.prod(y.shape[1:3]) > 1


def _outermost(path: str, maps: dict[str, np.ndarray]) -> str:
    """The outermost block around a layer whose output has the same spatial size."""
    names = path.split("/")
    blocks = ("/".join(names[:n]) for n in range(1, len(names) + 1))
    return next(block for block in blocks if block in maps and maps[block].shape[1:3] == maps[path].shape[1:3])


def _shape(tree: Any) -> list[int]:
    return [n for leaf in jax.tree.leaves(tree) for n in leaf.shape[1:]]


def _join_sizes(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
