"""State dicts in the files of torch.save, zip and legacy, read as data: no code in a file is imported or called."""

import io
import math
import pathlib
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._weights_error import WeightsError
from jaxcnn.weights._mismatch import MAX_SHOWN
from jaxcnn.weights._pickle_data import DamagedError, read_pickle
from jaxcnn.weights._torch_tensor import Opaque, Storage, Tensor

LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
NESTED = (  # keys of the state dict in a checkpoint, the first present one counts
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "weights",
    "params",
    "params_ema",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
)
TRAINING = re.compile("optim.*|.*scheduler.*|scaler", re.IGNORECASE)  # keys of tensors that are no weights
MAX_DEPTH = 4  # dicts around the state dict


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the state dict of a file that torch.save wrote, as arrays by name. They may share read-only memory.

    Raises:
        WeightsError: if the file is damaged, contains no state dict, or has an opcode, global or dtype that is not
            supported.
        OSError: if the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    root, read = (_zip if is_zip else _legacy)(path, size)
    return {name: _array(name, tensor, read, size) for name, tensor in _state_dict(root).items()}


Read = Callable[[Storage], np.ndarray]


def _zip(path: pathlib.Path, size: int) -> tuple[Any, Read]:
    """Return the object of a zip file, and the function that reads a storage of it."""
    entries = _entries(path, size)
    (root,) = (name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl"))
    content = entries[f"{root}data.pkl"]
    order = entries.get(f"{root}byteorder", b"little")
    if order not in (b"little", b"big"):
        raise WeightsError(f"the byte order is {short_repr(order)}, expected little or big")
    swap = order.decode() != sys.byteorder
    arrays: dict[tuple[str, np.dtype], np.ndarray] = {}

    def read(storage: Storage) -> np.ndarray:
        index = storage.key, storage.dtype
        if index not in arrays:
            data = entries.get(f"{root}data/{storage.key}")
            if data is None or len(data) != storage.total * storage.dtype.itemsize:
                raise WeightsError(f"the storage {short_repr(storage.key)} is missing or has another size")
            arrays[index] = _elements(data, storage.dtype, swap)
        return arrays[index]

    return read_pickle(io.BytesIO(content), size)[0], read


def _entries(path: pathlib.Path, size: int) -> dict[str, bytes]:
    """Return the content of each entry of a zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len({info.filename for info in infos}) < len(infos):
                raise WeightsError("two entries have the same name")
            if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
                raise WeightsError("an entry is compressed; torch.save writes none")
            if sum(info.file_size for info in infos) > size:
                raise WeightsError("the entries are larger than the file")
            if sum(info.filename.endswith("/data.pkl") for info in infos) != 1:
                raise WeightsError("it has not exactly one data.pkl")
            return {info.filename: archive.read(info) for info in infos}
    except WeightsError:
        raise
    except Exception as error:  # zipfile raises errors of many types on damaged files
        raise DamagedError(f"the zip archive is damaged: {error}; copy or download it again") from error


def _legacy(path: pathlib.Path, size: int) -> tuple[Any, Read]:
    """Return the object of a file in the format before PyTorch 1.6, and the function that reads a storage of it.

    The file has five pickles (magic number, version, system, object, storage keys). For each key, the count of elements
    as a little-endian int64 and the elements follow.
    """
    content = path.read_bytes()
    stream = io.BytesIO(content)
    (magic, _), (version, _), _, (root, dtypes), (keys, _) = [read_pickle(stream, size) for _ in range(5)]
    if (magic, version) != (LEGACY_MAGIC, LEGACY_VERSION):
        raise WeightsError("the magic number or version is not that of torch.save")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise WeightsError("the list of storages is damaged")
    arrays: dict[str, np.ndarray] = {}
    at = stream.tell()
    for key in keys:
        count = int.from_bytes(content[at : at + 8], "little")
        if key not in dtypes:
            raise WeightsError(f"no tensor uses the storage {short_repr(key)}, so its dtype is unknown")
        start, at = at + 8, at + 8 + count * dtypes[key].itemsize
        if at > len(content):
            raise DamagedError("the file ends inside a storage; copy or download it again")
        arrays[key] = _elements(memoryview(content)[start:at], dtypes[key], sys.byteorder == "big")

    def read(storage: Storage) -> np.ndarray:
        array = arrays.get(storage.key)
        if array is None or array.dtype != storage.dtype or len(array) != storage.total:
            raise WeightsError(f"the storage {short_repr(storage.key)} is missing or has another dtype or size")
        return array

    return root, read


def _elements(data: bytes | memoryview, dtype: np.dtype, swap: bool) -> np.ndarray:
    elements = np.frombuffer(data, f"u{dtype.itemsize}")
    return (elements.byteswap() if swap else elements).view(dtype)


def _state_dict(root: Any, depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of the state dict in a checkpoint."""
    if not isinstance(root, dict):
        raise WeightsError(f"it contains {_kind(root)}, expected a dict of tensors by name")
    dicts = {name: value for name, value in root.items() if isinstance(value, dict) and _may_hold_weights(name)}
    name = next((name for name in NESTED if _has_tensors(dicts.get(name))), None)
    tensors = {name: value for name, value in root.items() if isinstance(value, Tensor)}
    if tensors and name is None:  # besides a nested state dict, a tensor is a record such as an accuracy
        for name, value in root.items():
            if isinstance(value, Opaque) or not isinstance(name, str):
                raise WeightsError(f"the entry {short_repr(name)} of the state dict is {_kind(value)}")
        _require_no_others(root, tensors)
        return tensors
    if name is None and len(dicts) == 1:
        (name,) = dicts
        _require_no_others(root, dicts)
    if name is None or depth == MAX_DEPTH:
        raise WeightsError(f"it contains no state dict; the names are {_listed(root) or 'none'}")
    return _state_dict(dicts[name], depth + 1)


def _may_hold_weights(name: Any) -> bool:
    """The state of an optimizer is a dict of tensors, too, by the number of the parameter."""
    return isinstance(name, str) and not TRAINING.fullmatch(name)


def _require_no_others(root: dict[Any, Any], names: Collection[Any]) -> None:
    """Raise WeightsError if entries besides these contain tensors, which may be weights of the model."""
    visited: set[int] = set()
    others = [
        name
        for name, value in root.items()
        if name not in names and _may_hold_weights(name) and _has_tensors(value, visited)
    ]
    if others:
        raise WeightsError(
            f"it has tensors under {_listed(names)}, and others under {_listed(others)}, which would be ignored; "
            "save one dict of tensors by name"
        )


def _has_tensors(tree: Any, visited: set[int] | None = None) -> bool:
    """Whether dicts, lists and tuples contain a tensor at any depth. Each is visited once: they may repeat."""
    visited = set() if visited is None else visited
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Tensor):
            return True
        if isinstance(node, dict | list | tuple) and id(node) not in visited:
            visited.add(id(node))
            pending += node.values() if isinstance(node, dict) else node
    return False


def _listed(names: Iterable[Any]) -> str:
    names = [*names]
    return ", ".join(map(short_repr, names[:MAX_SHOWN])) + (", .." if len(names) > MAX_SHOWN else "")


def _kind(value: Any) -> str:
    return f"the object {value.name}" if isinstance(value, Opaque) else f"a {type(value).__name__}"


def _array(name: str, tensor: Tensor, read: Read, size: int) -> np.ndarray:
    """Return a view of the tensor's storage."""
    storage, shape, itemsize = tensor.storage, tensor.shape, tensor.dtype.itemsize
    data = read(storage)[storage.start : storage.start + storage.count].view(np.uint8)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(shape, tensor.stride, strict=True))
    strides = [step * itemsize if n > 1 else 0 for n, step in zip(shape, tensor.stride, strict=True)]
    if math.prod(shape) <= size and max(shape, default=0) <= size:  # an expanded tensor may exceed its storage
        if 0 in shape and math.prod(n for n in shape if n) <= size:
            return np.zeros(shape, tensor.dtype)
        if 0 not in shape and (last + 1) * itemsize <= len(data):
            return np.ndarray(shape, tensor.dtype, data, tensor.offset * itemsize, strides)
    raise WeightsError(f"{short_repr(name)} has shape {short_repr(shape)}, which its storage does not contain")
