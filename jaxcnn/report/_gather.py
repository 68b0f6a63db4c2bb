"""What the page of a run shows of the network itself: computed once, and kept in the run's folder."""

import functools
import itertools
import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._loss import Batch
from jaxcnn._replace import replace
from jaxcnn.data import DataError, Dataset, Stream
from jaxcnn.explain._activations import feature_maps, filters
from jaxcnn.explain._mistakes import confusion_matrix, worst_mistakes
from jaxcnn.explain._receptive_field import Field, receptive_field
from jaxcnn.explain._saliency import grad_cam
from jaxcnn.explain._summary import indented, summary
from jaxcnn.report._worked import leaves, worked
from jaxcnn.train._steps import read_json

_ARRAYS, _WORDS = "explain.npz", "explain.json"
_BATCH, _BATCH_VALUES = 256, 2**26  # images, and values in all, of a batch, at most
_MISTAKES, _EXAMPLES, _IN_LAYERS, _CHANNELS, _FILTERS, _LAYERS = 12, 10, 2, 16, 64, 12  # at most
_IMAGE, _TILE = 96, 48  # pixels, at most, on a side of an image and of a feature map


def gather(
    run_folder: str | os.PathLike, model: AnyLayer, params: Params, state: State, data: Dataset | Batch | Stream
) -> None:
    """Keep in a run's folder what `report` shows of a trained network: `explain.npz`, and what is text, `explain.json`.

    These are its layers, confusion matrix and worst mistakes; for images (N, H, W, C) also the filters of the first
    convolution, feature maps, Grad-CAM, and one position of that convolution in numbers.

    Args:
        run_folder: of a `train.Run`.
        model: from images to logits (N, classes).
        params, state: of the model, trained.
        data: that it was not trained on, as `train.fit` takes it. Images of bytes are divided by 255.

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
    predict = jit(functools.partial(model.apply, train=False))
    spec, parts = None, []
    for x, labels in _batches(data):
        spec = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
        parts.append((np.asarray(predict(params, state, x)[0], np.float32), labels))
    if spec is None:
        raise DataError("gather: data must have at least one example with a weight above 0")
    logits, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    words: dict[str, Any] = {"size": spec.shape[1:3], "maps": [], "first": None, "worked": None}
    arrays: dict[str, Any] = {}
    fields = {}
    if spec.ndim == 4:
        fields = {layer.path: layer.fields for layer in receptive_field(model, spec).layers}
    if logits.ndim == 2 and labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        outputs = logits.shape[1]
        names = [str(name) for name in getattr(data, "classes", ())][:outputs]
        index = np.flatnonzero((labels >= 0) & (labels < outputs))
        words |= {"classes": [*names, *map(str, range(len(names), outputs))], "left_out": len(labels) - len(index)}
        if len(index):
            examples, arrays = _classified(logits, labels, index)
            if spec.ndim == 4:
                images = _images(data, [*examples, *arrays["mistakes_index"]])
                arrays |= {"examples": images[: len(examples)], "mistakes": images[len(examples) :]}
                inside = _inside(model, params, state, jnp.asarray(_rows(data, examples)), fields)
                words, arrays = words | inside[0], arrays | inside[1]
    table = summary(model, spec)
    words |= {"params": table.params, "multiply_adds": table.multiply_adds}
    words["layers"] = [
        {
            "name": indented(row.path),
            "output": _by(_shape(row.output)),
            "sees": _by(field.size for field in fields.get(row.path, ())),
            "params": row.params,
            "multiply_adds": row.multiply_adds,
        }
        for row in table.tree
    ]
    _save(pathlib.Path(run_folder), words, {name: np.asarray(array) for name, array in arrays.items()})


def _classified(logits: np.ndarray, labels: np.ndarray, index: np.ndarray) -> tuple[list[int], dict[str, Any]]:
    """The first example of each class, and arrays of how the examples `index` are classified."""
    logits, labels = logits[index], labels[index]
    mistakes = worst_mistakes(logits, labels, _MISTAKES)
    first = np.unique(labels, return_index=True)[1][:_EXAMPLES]
    certain = np.asarray(jax.nn.softmax(logits[first]))
    arrays = {f"mistakes_{name}": value for name, value in mistakes._asdict().items()} | {
        "mistakes_index": index[np.asarray(mistakes.index)],
        "matrix": confusion_matrix(labels, logits.argmax(-1), logits.shape[1]),
        "examples_index": index[first],
        "examples_label": labels[first],
        "examples_predicted": certain.argmax(-1),
        "examples_probability": certain.max(-1),
    }
    return index[first].tolist(), arrays


def gathered(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What was kept: text and arrays; None if nothing was.

    Raises:
        DataError: if the files cannot be read.
    """
    if not (folder / _WORDS).exists():
        return None
    try:
        words = read_json(folder / _WORDS)
        with (folder / _ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return words, dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{folder}: {_WORDS} and {_ARRAYS} cannot be read ({error}); call report.gather again"
        ) from error


def _save(folder: pathlib.Path, words: dict[str, Any], arrays: dict[str, Any]) -> None:
    """The text last, as it says that the arrays are there."""
    (folder / _WORDS).unlink(missing_ok=True)
    with replace(folder / _ARRAYS) as file:
        np.savez_compressed(file, **arrays)
    with replace(folder / _WORDS) as file:
        file.write(json.dumps(words, indent=1, allow_nan=False).encode() + b"\n")


def _batches(data: Dataset | Batch | Stream) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and labels, some at a time, without those that only fill up a batch."""
    if isinstance(data, Stream):
        for batch in itertools.islice(data.batches(0), data.steps):
            weighted = np.flatnonzero(batch.get("weight", np.ones(len(batch["label"]))) > 0)
            yield _scaled(batch["image"][weighted]), batch["label"][weighted]
        return
    if isinstance(data, Dataset):
        data = {"image": data.images, "label": data.labels}
    images, labels = np.asarray(data["image"]), np.asarray(data["label"])
    there = np.flatnonzero(np.asarray(data.get("weight", np.ones(len(labels)))) > 0)
    count = max(1, min(_BATCH, _BATCH_VALUES // math.prod(images.shape[1:])))
    for start in range(0, len(there), count):
        at = there[start : start + count]
        yield _scaled(images[at]), labels[at]


def _scaled(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255) if images.dtype == np.uint8 else images


def _rows(data: Dataset | Batch | Stream, index: Sequence[int]) -> np.ndarray:
    """The images of these numbers."""
    found = dict(_numbered(data, index))
    return np.stack([found[i] for i in index])


def _images(data: Dataset | Batch | Stream, index: Sequence[int]) -> np.ndarray:
    """The images of these numbers as bytes, each made small when it is read."""
    found = {i: np.asarray(_shrunk(image[None], _IMAGE)[0]) for i, image in _numbered(data, index)}
    return _visible(np.stack([found[i] for i in index]))


def _numbered(data: Dataset | Batch | Stream, index: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(number, image) for these numbers, in the order of the data."""
    start = 0
    for images, _ in _batches(data):
        yield from ((i, images[i - start]) for i in sorted({*index}) if start <= i < start + len(images))
        start += len(images)
        if start > max(index):
            break


def _shrunk(x: Any, most: int) -> Any:
    """(N, H, W, C) whose longer side is at most so long."""
    height, width = x.shape[1:3]
    if max(height, width) <= most:
        return x
    size = (max(round(side * most / max(height, width)), 1) for side in (height, width))
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "linear")


def _visible(images: np.ndarray) -> np.ndarray:
    """Bytes (N, H, W, 1 or 3); images that are not from 0 to 1 are spread over that."""
    x = np.nan_to_num(np.asarray(images, np.float32)).astype(float)
    x = x if x.shape[-1] == 3 else x.mean(-1, keepdims=True)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1.0)
    return np.round(255 * (x - low) / (high - low)).astype(np.uint8)


def _inside(
    model: AnyLayer, params: Params, state: State, x: jax.Array, fields: dict[str, tuple[Field, ...]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Feature maps, Grad-CAM, filters and the numbers of a convolution: the names of layers, and arrays."""
    inside = [path for path in fields if path]
    if not inside:
        return {}, {}
    few = x[:_IN_LAYERS]
    seen = jit(functools.partial(feature_maps, model))(params, state, few)
    maps = {path: np.asarray(seen[path], np.float32) for path in inside if _is_map(seen[path], few)}
    order = [path for path in maps if not any(other.startswith(f"{path}/") for other in maps)]
    if not order:
        return {}, {}
    last = _outermost(order[-1], maps)
    one_cam = jit(functools.partial(grad_cam, model, layer=last))
    cam = jnp.concatenate([one_cam(params, state, x[i : i + 1]) for i in range(len(x))])  # large images one by one
    shown = order
    if len(order) > _LAYERS:  # the last of each size
        shown = [*{maps[path].shape[1:3]: _outermost(path, maps) for path in order}.values()]
    words: dict[str, Any] = {"maps": [[path, _by(maps[path].shape[1:])] for path in shown], "cam": last}
    arrays = {f"map_{i}": _shrunk(maps[path][..., :_CHANNELS], _TILE) for i, path in enumerate(shown)}
    arrays["cam"] = jax.image.resize(cam.astype(jnp.float32), _shrunk(x, _IMAGE).shape[:3], "linear")
    kernels = (path for path in order if np.ndim(leaves(params, path).get("kernel", 0)) == 4)
    if (first := next(kernels, None)) is not None:
        example = {path: maps[path][0] for path in order}
        numbers, parts = worked(np.asarray(few[0], np.float32), example, fields, params, first)
        words |= {"first": first, "worked": numbers}
        arrays |= {"filters": filters(params, first)[:_FILTERS]} | parts
    return words, arrays


def _is_map(y: Any, x: jax.Array) -> bool:
    """Whether an output has positions, for each of the images x."""
    return isinstance(y, jax.Array) and (y.ndim, len(y)) == (4, len(x)) and math.prod(y.shape[1:3]) > 1


def _outermost(path: str, maps: dict[str, np.ndarray]) -> str:
    """The largest block around a layer that has a map of its size."""
    names = path.split("/")
    blocks = ("/".join(names[:n]) for n in range(1, len(names) + 1))
    return next(block for block in blocks if block in maps and maps[block].shape[1:3] == maps[path].shape[1:3])


def _shape(tree: Any) -> list[int]:
    return [n for leaf in jax.tree.leaves(tree) for n in leaf.shape[1:]]


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
