"""Weights in files: safetensors, which contain no executable code, and PyTorch's, whose code is not executed."""

import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import Params, State
from jaxcnn._path import leaves_by_path
from jaxcnn._replace import replace
from jaxcnn._stack import marked_depths, stacked_name
from jaxcnn._weights_error import WeightsError
from jaxcnn.data._error import DataError
from jaxcnn.data._file_path import file_path
from jaxcnn.weights._convert import TREES, from_torch, to_torch
from jaxcnn.weights._kind import describe, is_safetensors, is_torch
from jaxcnn.weights._pickle_data import DamagedError
from jaxcnn.weights._torch_file import read_torch

DTYPES = {  # the safetensors dtypes that NumPy or JAX supports; the reader in safetensors.numpy lacks some
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
# timm variants whose weights have the names and shapes of the models that begin with the group, but which compute
# different outputs
LOOKALIKES = {
    r"tf_(efficientnet|mobilenet)": "uses TensorFlow's padding (padding='tensorflow' of some models)",
    r"(resnet)(?:aa|blur)\d": "uses different pooling",
}


def save(path: str | os.PathLike, params: Params, state: State, *, model: str | None = None) -> None:
    """Save params and state to a safetensors file, under their jaxcnn paths or torchvision's or timm's names.

    An existing file is replaced atomically. The metadata are {"format": "jaxcnn"}, or {"format": "pt", "model": model}.
    For parameters of `repeat`, the metadata "stacked" holds the number of stacked axes of each.

    Args:
        path: the file, in an existing folder. Its suffix is .safetensors by convention.
        params, state: the model's parameters and state.
        model: its name in `MODELS`, to save with the names and layouts of `to_torch`.

    Raises:
        ImportError: if the package safetensors is not installed.
        WeightsError: if the name is not in `MODELS`, the trees are not nested dicts of arrays or both empty, a key is
            empty or contains "/", or the parameters do not fit `model`.
        TypeError, ValueError: if `path` is not a path, or has a suffix of PyTorch, .pt or .pth.
        OSError: if the file cannot be written, for example because its folder does not exist or `path` is a device.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jaxcnn.weights.save(f"{folder}/net.safetensors", {"kernel": jnp.ones((2, 3))}, {})
        ...     params, state = jaxcnn.weights.load(f"{folder}/net.safetensors")
        >>> params["kernel"].shape, state
        ((2, 3), {})
    """
    path = file_path("save: path", path)
    _require_writable(path)
    for kind, tree in zip(TREES, (params, state), strict=True):
        _require_storable(kind, tree)
    if not jax.tree.leaves((params, state)):
        raise WeightsError("save: params and state are both empty, so there is nothing to save")
    if model is None:
        metadata = {"format": "jaxcnn"}
        if depths := _depths(params):
            metadata["stacked"] = json.dumps(depths)
        arrays = {
            f"{kind}/{leaf_path}": leaf
            for kind, tree in zip(TREES, (params, state), strict=True)
            for leaf_path, leaf in leaves_by_path(tree).items()
        }
    else:
        metadata = {"format": "pt", "model": model}
        arrays = to_torch(model, params, state)
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = _safetensors().numpy.save(arrays, metadata)
    with replace(path) as file:
        file.write(data)


def load(path: str | os.PathLike, model: str | None = None, **options: Any) -> tuple[Params, State]:
    """Load (params, state) as NumPy arrays from a safetensors or PyTorch file.

    The names in the file are those of `save`, torchvision or timm. With `model`, the result fits that model, in
    float32. Without, it has the paths and dtypes of the file.

    PyTorch files (.pth, .pt, .ckpt, .bin; zip and legacy format) need no PyTorch. The pickle in them is read as data:
    nothing is imported or called, so a file cannot run code. In a checkpoint, the state dict is the dict that contains
    tensors, found under "state_dict", "model" and similar keys; the weights of the model come before their EMA.

    Args:
        path: the file. Its content decides the format, not its suffix.
        model: the model's name in `MODELS`. Required for files with torchvision's or timm's names.
        options: the model's options, such as classes=10.

    Raises:
        WeightsError: if the file cannot be read or is damaged, is of another format (the message explains how to
            convert it), contains other Python objects (the message names the opcode or global), or does not fit the
            model, as in `from_torch`.
        TypeError: if `path` is not a path, or for options without a model.
        ImportError: if the package safetensors is not installed and the file needs it.

    Example: `params, state = jaxcnn.weights.load("resnet18.pth", "resnet18")`
    """
    path = _file_to_read("load: path", path)
    if model is None and options:
        raise TypeError(f"load: {', '.join(options)}: options of a model need its name, load(path, model, ..)")
    if model is not None and options.get("padding") != "tensorflow":
        _require_no_lookalike(path, model)
    arrays, metadata = _read(path)
    has_jaxcnn_names = all(name.startswith(tuple(f"{kind}/" for kind in TREES)) for name in arrays)
    if model is not None:
        if metadata.get("model", model) != model:
            raise WeightsError(f"{path} contains weights of {metadata['model']!r}, expected {model!r}")
        try:
            return from_torch(model, arrays, **options)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}", error.missing, error.unused, error.wrong_shape) from error
    if not has_jaxcnn_names:
        hint = f"; its metadata name {metadata['model']!r}" if "model" in metadata else ""
        raise WeightsError(
            f"{path} has names such as {min(arrays)!r}, not jaxcnn's: pass their model, load(path, model){hint}"
        )
    if not arrays:
        raise WeightsError(f"{path} contains no weights")
    return _nested(path, arrays, _stacked(path, arrays, metadata))


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors or PyTorch file by name, for `from_torch` or `match` of your own network.

    A PyTorch file is read as in `load`: no code in it is run.

    Args:
        path: the file.

    Raises:
        WeightsError, TypeError: as in `load`.
        ImportError: for a safetensors file, if the package safetensors is not installed.

    Example: `params, state = weights.from_torch(net, weights.read_state_dict("net.pth"), x=x)`
    """
    return _read(_file_to_read("read_state_dict: path", path))[0]


def _file_to_read(name: str, path: Any) -> pathlib.Path:
    try:
        return file_path(name, path)
    except DataError as error:
        raise WeightsError(str(error)) from error


def _require_no_lookalike(path: pathlib.Path, model: str) -> None:
    """Raise WeightsError if the file, or its repository in Hugging Face's cache, has the name of a variant."""
    names = [path.name, *(part for part in path.parts[:-1] if part.startswith("models--"))]
    for pattern, reason in LOOKALIKES.items():
        variants = [found for name in names if (found := re.search(rf"(?:^|[^a-z]){pattern}", name))]
        if any(model.startswith(found[1]) for found in variants):
            raise WeightsError(
                f"{path} is named like a timm variant that {reason}, so the logits would differ. To load it as a "
                "starting point: from_torch(model, read_state_dict(path))"
            )


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a file."""
    try:
        if not is_safetensors(path):
            if path.is_dir() or not is_torch(path):
                raise WeightsError(f"{path}: {describe(path)}")
            try:
                return read_torch(path), {}
            except DamagedError as error:  # conversion by PyTorch fails too
                raise WeightsError(f"{path}: {error}") from error
            except WeightsError as error:
                raise WeightsError(f"{path}: {error}\nThe file is a {describe(path)}") from error
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    safetensors = _safetensors()
    try:
        entries = safetensors.deserialize(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
    except Exception as error:  # the errors of safetensors and of JSON share no base class
        raise WeightsError(f"{path} is not a complete safetensors file: {error}") from error
    arrays = {}
    for name, view in entries:
        if view["dtype"] not in DTYPES:
            raise WeightsError(f"{path}: {name} has dtype {view['dtype']}, expected one of {', '.join(DTYPES)}")
        try:
            array = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])
            arrays[name] = array.view(np.uint8) != 0 if array.dtype == np.bool_ else array
        except ValueError as error:  # more dimensions or larger ones than NumPy supports
            raise WeightsError(f"{path}: {name} has shape {short_repr(view['shape'])}: {error}") from error
    return arrays, header.get("__metadata__") or {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("the header has a duplicate key")
    return result


def _depths(params: Params) -> dict[str, int]:
    """Return the number of stacked axes of each stacked leaf, by its path in the file."""
    return {f"params/{name}": depth for name, depth in leaves_by_path(marked_depths(params)).items() if depth}


def _stacked(path: pathlib.Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> dict[str, int]:
    """Read the result of `_depths` from the metadata."""
    try:
        depths = json.loads(metadata.get("stacked", "{}"))
        if all(type(n) is int and 0 < n <= arrays[name].ndim for name, n in depths.items()):
            return depths
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise WeightsError(f"{path}: the metadata 'stacked' do not match the arrays")


def _nested(path: pathlib.Path, arrays: dict[str, np.ndarray], depths: dict[str, int]) -> tuple[Params, State]:
    """Convert arrays by path to the trees of params and state."""
    trees: dict[str, Any] = {kind: {} for kind in TREES}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        node = trees
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or leaf in node or not all((*parents, leaf)):
            raise WeightsError(f"{path}: the path {name!r} conflicts with another path, or has an empty part")
        node[stacked_name(leaf, depths.get(name, 0))] = array
    return trees["params"], trees["state"]


def _require_writable(path: pathlib.Path) -> None:
    """Raise an error that names the path, where that of the write would name a temporary file."""
    if path.suffix.lower() in (".pt", ".pth"):
        raise ValueError(
            f"save: {path} has a suffix of PyTorch, but the content is safetensors, which torch.load does not read; "
            f"save it as {path.with_suffix('.safetensors')}"
        )
    if path.is_dir():
        raise IsADirectoryError(f"save: {path} is a folder; pass a file in it, such as {path / 'net.safetensors'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: {path} is in a folder that does not exist; create {path.parent} first")


def _require_storable(kind: str, tree: Any) -> None:
    """Raise WeightsError for a tree that cannot be saved and loaded without loss."""
    if tree is None:
        raise WeightsError(f"{kind} is None, so there is nothing to save; pass the trees of model.init or of training")
    is_empty = lambda node: node is None or (isinstance(node, dict) and not node)
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_empty) if tree else []
    for path, leaf in leaves:
        keys: list[Any] = [getattr(entry, "key", None) for entry in path]
        if not keys or not all(map(_is_storable_key, keys)):
            where = kind + jax.tree_util.keystr(path)
            raise WeightsError(
                f"{where}: weights must be nested dicts whose keys are non-empty Unicode strings without '/'"
            )
        if is_empty(leaf):
            raise WeightsError(f"{kind}/{'/'.join(keys)} is {leaf}, which the file cannot hold; remove it")
        try:
            dtype = np.asarray(leaf).dtype.newbyteorder("=")
        except Exception as error:  # for example a random key
            raise WeightsError(f"{kind}/{'/'.join(keys)} cannot be read as an array: {error}") from error
        if dtype not in map(np.dtype, DTYPES.values()):
            raise WeightsError(f"{kind}/{'/'.join(keys)} has dtype {dtype}; safetensors supports {', '.join(DTYPES)}")


def _is_storable_key(key: Any) -> bool:
    if not isinstance(key, str) or not key or "/" in key:
        return False
    try:
        return bool(key.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("weight files need safetensors", "weights") from error
    return safetensors
