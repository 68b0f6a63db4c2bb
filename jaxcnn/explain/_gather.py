"""What the page of a run shows of the network itself: computed once, and kept in the run's folder."""

import functools
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import Params, State, as_layer
from jaxcnn._loss import Batch
from jaxcnn.data import DataError, Dataset, Stream
from jaxcnn.explain._activations import feature_maps, filters
from jaxcnn.explain._mistakes import confusion_matrix, worst_mistakes
from jaxcnn.explain._receptive_field import Field, receptive_field
from jaxcnn.explain._saliency import grad_cam
from jaxcnn.explain._summary import indented, summary
from jaxcnn.explain._worked import leaves, worked

_ARRAYS, _WORDS = "explain.npz", "explain.json"
_BATCH = 256
_MISTAKES, _EXAMPLES, _IN_LAYERS, _CHANNELS, _FILTERS, _LAYERS = 12, 10, 2, 16, 64, 12  # at most
_PICTURE, _TILE = 96, 48  # pixels, at most, on a side of a picture and of a feature map


def gather(
    run_folder: str | os.PathLike, model: AnyLayer, params: Params, state: State, data: Dataset | Batch | Stream
) -> None:
    """Keep in a run's folder what `report` shows of a trained network: `explain.npz`, and what is text, `explain.json`.

    These are its layers, confusion matrix and worst mistakes; for pictures (N, H, W, C) also the filters of the first
    convolution, feature maps, Grad-CAM, and one position of that convolution in numbers.

    Args:
        run_folder: of a `train.Run`.
        model: from images to logits (N, classes).
        params, state: of the model, trained.
        data: that it was not trained on, as `train.fit` takes it. Pictures of bytes are divided by 255.

    Example:
        >>> import tempfile
        >>> digits = jaxcnn.data.load("mnist_small", "test")
        >>> run = jaxcnn.train.Run("example", {}, folder=tempfile.mkdtemp())
        >>> model = jaxcnn.models.lenet5()
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.explain.gather(run.folder, model, params, state, digits)
        >>> (run.folder / "explain.npz").exists()
        True
    """
    model = as_layer(model)
    params, state = jax.tree.map(jnp.asarray, (params, state))
    predict = jit(functools.partial(model.apply, train=False))
    parts = [(np.asarray(predict(params, state, x)[0], np.float32), labels) for x, labels in _batches(data)]
    logits, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    mistakes = worst_mistakes(logits, labels, _MISTAKES)
    examples = np.unique(labels, return_index=True)[1][:_EXAMPLES]  # the first of each class
    x = jnp.asarray(_rows(data, [*examples, *np.asarray(mistakes.index)]))
    certain = np.asarray(jax.nn.softmax(logits[examples]))
    arrays = {f"mistakes_{name}": value for name, value in mistakes._asdict().items()} | {
        "matrix": confusion_matrix(labels, logits.argmax(-1), logits.shape[1]),
        "examples_index": examples,
        "examples_label": labels[examples],
        "examples_predicted": certain.argmax(-1),
        "examples_probability": certain.max(-1),
    }
    classes = getattr(data, "classes", ())
    classes = [*classes, *map(str, range(len(classes), logits.shape[1]))]
    spec = jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    words: dict[str, Any] = {"classes": classes, "size": x.shape[1:3], "maps": [], "first": None, "worked": None}
    fields = {}
    if x.ndim == 4:
        fields = {layer.path: layer.fields for layer in receptive_field(model, spec).layers}
        pictures = _visible(_shrunk(x, _PICTURE))
        arrays |= {"examples": pictures[: len(examples)], "mistakes": pictures[len(examples) :]}
        inside = _inside(model, params, state, x[: len(examples)], fields)
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


def gathered(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What was kept: text and arrays; None if nothing was.

    Raises:
        DataError: if the files cannot be read.
    """
    if not (folder / _WORDS).exists():
        return None
    try:
        words = json.loads((folder / _WORDS).read_text(encoding="utf-8"))
        with np.load(folder / _ARRAYS, allow_pickle=False) as file:
            return words, dict(file)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder}: {_WORDS} and {_ARRAYS} cannot be read ({error}); call explain.gather again"
        ) from error


def _save(folder: pathlib.Path, words: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """The text last, as it says that the arrays are there."""
    (folder / _WORDS).unlink(missing_ok=True)
    partial = folder / f"{_ARRAYS}.part"
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(folder / _ARRAYS)
    partial = folder / f"{_WORDS}.part"
    partial.write_text(json.dumps(words, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / _WORDS)


def _batches(data: Dataset | Batch | Stream) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures and labels, some at a time, without those that only fill up a batch."""
    if isinstance(data, Stream):
        for batch in itertools.islice(data.batches(0), data.steps):
            there = batch.get("weight", np.ones(len(batch["label"]))) > 0
            yield _scaled(batch["image"][there]), batch["label"][there]
        return
    images, labels = data[:2] if isinstance(data, Dataset) else (np.asarray(data[name]) for name in ("image", "label"))
    for start in range(0, len(labels), _BATCH):
        at = slice(start, start + _BATCH)
        yield _scaled(images[at]), labels[at]


def _scaled(images: np.ndarray) -> np.ndarray:
    return images / np.float32(255) if images.dtype == np.uint8 else images


def _rows(data: Dataset | Batch | Stream, index: Sequence[int]) -> np.ndarray:
    """The pictures of these numbers."""
    found, start = {}, 0
    for images, _ in _batches(data):
        found |= {i: images[i - start] for i in index if start <= i < start + len(images)}
        start += len(images)
        if start > max(index):
            break
    return np.stack([found[i] for i in index])


def _shrunk(x: Any, most: int) -> Any:
    """(N, H, W, C) whose longer side is at most so long."""
    height, width = x.shape[1:3]
    if max(height, width) <= most:
        return x
    size = (max(round(side * most / max(height, width)), 1) for side in (height, width))
    return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "linear")


def _visible(x: jax.Array) -> np.ndarray:
    """Bytes (N, H, W, 1 or 3); pictures that are not from 0 to 1 are spread over that."""
    x = np.nan_to_num(np.asarray(x, np.float32))
    x = x if x.shape[-1] == 3 else x.mean(-1, keepdims=True)
    low, high = min(x.min(), 0), max(x.max(), 1)
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
    cam = jit(functools.partial(grad_cam, model, layer=last))(params, state, x)
    shown = order
    if len(order) > _LAYERS:  # the last of each size
        shown = [*{maps[path].shape[1:3]: _outermost(path, maps) for path in order}.values()]
    words = {"maps": [[path, _by(maps[path].shape[1:])] for path in shown], "cam": last}
    arrays = {f"map_{i}": _shrunk(maps[path][..., :_CHANNELS], _TILE) for i, path in enumerate(shown)}
    arrays["cam"] = jax.image.resize(cam.astype(jnp.float32), _shrunk(x, _PICTURE).shape[:3], "linear")
    kernels = (path for path in order if np.ndim(leaves(params, path).get("kernel")) == 4)
    if (first := next(kernels, None)) is not None:
        example = {path: maps[path][0] for path in order}
        numbers, parts = worked(np.asarray(few[0], np.float32), example, fields, params, first)
        words |= {"first": first, "worked": numbers}
        arrays |= {"filters": filters(params, first)[:_FILTERS]} | parts
    return words, arrays


def _is_map(y: Any, x: jax.Array) -> bool:
    """Whether an output has positions, for each of the pictures x."""
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
