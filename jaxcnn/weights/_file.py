"""Weights in safetensors files: names, shapes and bytes, and nothing that could run."""

import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import Params, State
from jaxcnn._path import paths
from jaxcnn._replace import replace
from jaxcnn._stack import stack_depth, stacked_name
from jaxcnn.weights._convert import TREES, WeightsError, from_torch, to_torch
from jaxcnn.weights._kind import describe, is_safetensors

DTYPES = {  # of the format that NumPy and jax have; safetensors' own reader for NumPy lacks some
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# timm's variants whose weights have the names and shapes of a model here, which computes something else
LOOKALIKES = {
    r"tf_(efficientnet|mobilenet)": "pads as TensorFlow does, at the end first",
    r"resnet(aa|blur)\d": "has other pools, without weights of their own",
}


def save(path: str | os.PathLike, params: Params, state: State, *, model: str | None = None) -> None:
    """Writes params and state to a safetensors file, by their paths here, or by torchvision's or timm's names.

    The file takes the place of an old one only when it is whole. Its metadata say what it holds: {"format": "jaxcnn"},
    or {"format": "pt", "model": model}. For parameters of `repeat`, {"stacked": ..} says how often each is stacked.

    Args:
        path: of the file.
        params, state: of a model.
        model: its name in `MODELS`, for the names and layouts of `to_torch`.

    Raises:
        MissingExtraError: without the package safetensors.
        WeightsError: for a name that is not in `MODELS`; for trees that are not nested dicts of arrays, or with keys
            that are empty or have a "/"; with `model`, for parameters that are not that model's.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jaxcnn.weights.save(f"{folder}/net.safetensors", {"kernel": jnp.ones((2, 3))}, {})
        ...     params, state = jaxcnn.weights.load(f"{folder}/net.safetensors")
        >>> params["kernel"].shape, state
        ((2, 3), {})
    """
    for kind, tree in zip(TREES, (params, state), strict=True):
        _require_storable(kind, tree)
    if model is None:
        metadata = {"format": "jaxcnn"}
        if depths := _depths(params):
            metadata["stacked"] = json.dumps(depths)
        arrays = {
            f"{kind}/{leaf_path}": leaf
            for kind, tree in zip(TREES, (params, state), strict=True)
            for leaf_path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
        }
    else:
        metadata = {"format": "pt", "model": model}
        arrays = to_torch(model, params, state)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = _safetensors().numpy.save(arrays, metadata)
    with replace(path) as file:
        file.write(data)


def load(path: str | os.PathLike, model: str | None = None, **options: Any) -> tuple[Params, State]:
    """Reads (params, state), NumPy arrays, from a safetensors file that `save` wrote, or torchvision's or timm's names.

    With `model`, what is returned fits that model, in float32; without, it is what the file has, in its dtypes.

    Args:
        path: of the file.
        model: the name in `MODELS` of the model that the weights are for; needed for names that are not from here.
        options: of that model, such as classes=10.

    Raises:
        WeightsError: for a file that cannot be read; of another kind, with what it is and how to convert it (one of
            PyTorch's pickles is not opened); a damaged one; or weights that do not fit the model, as in `from_torch`.
        MissingExtraError: without the package safetensors.

    Example: `params, state = jaxcnn.weights.load("resnet18.safetensors", "resnet18")`
    """
    path = pathlib.Path(path)
    for pattern, reason in LOOKALIKES.items():
        if model is not None and re.search(rf"(?:^|[^a-z]){pattern}", str(path)):
            raise WeightsError(
                f"{path} is by its name for a variant of timm's that {reason}, which no model here does: its logits "
                "would differ. To train them on all the same: from_torch(model, safetensors.numpy.load_file(path))"
            )
    arrays, metadata = _read(path)
    own = all(name.startswith(tuple(f"{kind}/" for kind in TREES)) for name in arrays)
    if model is not None:
        if metadata.get("model", model) != model:
            raise WeightsError(f"{path} says that it holds weights of {metadata['model']!r}, expected {model!r}")
        try:
            return from_torch(model, arrays, **options)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error
    if not own:
        said = f"; it says that it is for {metadata['model']!r}" if "model" in metadata else ""
        raise WeightsError(
            f"{path} has names such as {min(arrays)!r}: say which model they are for, load(path, model){said}"
        )
    if not arrays and metadata.get("format") != "jaxcnn":
        raise WeightsError(f"{path} has no weights in it")
    return _nested(path, arrays, _stacked(path, arrays, metadata))


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file, and its metadata."""
    try:
        if not is_safetensors(path):
            raise WeightsError(f"{path}: {describe(path)}")
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    safetensors = _safetensors()
    try:
        entries = safetensors.deserialize(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
    except Exception as error:  # of its own classes, and of JSON
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    arrays = {}
    for name, view in entries:
        if view["dtype"] not in DTYPES:
            raise WeightsError(f"{path}: {name} is of dtype {view['dtype']}, which is not one of {', '.join(DTYPES)}")
        arrays[name] = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])
    return arrays, header.get("__metadata__") or {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is there twice in its header")
    return result


def _depths(params: Params) -> dict[str, int]:
    """How often the leaves that are stacked are so, by their paths in the file."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    depths = {f"params/{name}": stack_depth(at) for name, (at, _) in zip(paths(params), leaves, strict=True)}
    return {name: count for name, count in depths.items() if count}


def _stacked(path: pathlib.Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> dict[str, int]:
    """What `save` wrote of `_depths`."""
    try:
        depths = json.loads(metadata.get("stacked", "{}"))
        if all(isinstance(n, int) and 0 < n <= arrays[name].ndim for name, n in depths.items()):
            return depths
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise WeightsError(f"{path}: 'stacked' in its metadata does not fit its arrays")


def _nested(path: pathlib.Path, arrays: dict[str, np.ndarray], depths: dict[str, int]) -> tuple[Params, State]:
    """The trees of arrays by path."""
    trees: dict[str, Any] = {kind: {} for kind in TREES}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        at = trees
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                break
        if not isinstance(at, dict) or leaf in at or not all((*parents, leaf)):
            raise WeightsError(f"{path}: the path {name!r} is in conflict with another, or a part of it is empty")
        at[stacked_name(leaf, depths.get(name, 0))] = array
    return trees["params"], trees["state"]


def _require_storable(kind: str, tree: Any) -> None:
    """Refuse a tree that a file could not give back as it is."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys: list[Any] = [getattr(entry, "key", None) for entry in path]
        if not keys or not all(isinstance(key, str) and key and "/" not in key for key in keys):
            where = kind + jax.tree_util.keystr(path)
            raise WeightsError(f"{where}: weights are nested dicts whose keys are strings, not empty and without '/'")
        try:
            dtype = np.asarray(leaf).dtype.newbyteorder("=")
        except Exception as error:  # such as of a random key
            raise WeightsError(f"{kind}/{'/'.join(keys)} cannot be read as an array: {error}") from error
        if dtype not in map(np.dtype, DTYPES.values()):
            raise WeightsError(
                f"{kind}/{'/'.join(keys)} is of dtype {dtype}; a safetensors file has {', '.join(DTYPES)}"
            )


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("files of weights are read by safetensors", "weights") from error
    return safetensors
