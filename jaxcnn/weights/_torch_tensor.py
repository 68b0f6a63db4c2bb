"""What the pickle of a PyTorch file refers to: storages and tensors, as descriptions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._weights_error import WeightsError

STORAGES = {  # storage classes of the module torch -> dtype
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "UntypedStorage": np.uint8,
}
DTYPES = {  # dtypes without a storage class; `_rebuild_tensor_v3` passes them
    "torch.uint16": np.uint16,
    "torch.uint32": np.uint32,
    "torch.uint64": np.uint64,
    "torch.float8_e4m3fn": jnp.float8_e4m3fn,
    "torch.float8_e5m2": jnp.float8_e5m2,
}
MAX_INTEGER = 2**63
MAX_NAME = 256  # each opcode STACK_GLOBAL copies two names, and the names can be from the memo
MAX_DIMS = 32


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Global:
    """A reference to a class or function, by name."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Opaque:
    """An object of a class in `IGNORED`, whose content is not interpreted."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """The elements [start, start + count) of the storage `key`."""

    key: str
    dtype: np.dtype
    total: int  # elements of the whole storage
    start: int
    count: int


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """x[i] = storage[offset + sum(i * stride)], in elements of dtype."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def storage_of(identifier: Any) -> Storage:
    """Return the storage of ("storage", class, key, device, count) and, in old files, (key, start, count) of a view."""
    if not isinstance(identifier, tuple) or not 5 <= len(identifier) <= 6 or identifier[0] != "storage":
        raise WeightsError("the opcode BINPERSID does not refer to a storage")
    _, kind, key, _, total, *view = identifier
    name = kind.name if isinstance(kind, Global) else ""
    module, _, name = name.rpartition(".")
    if module not in ("torch", "torch.cuda", "torch.storage") or name not in STORAGES:
        raise WeightsError(f"a storage has the class {described(kind)}, expected one of {', '.join(STORAGES)}")
    total, start, count = as_count(total), 0, total
    if view and view[0] is not None:
        _, start, count = view[0]
        start, count = as_count(start), as_count(count)
    if start + count > total:
        raise WeightsError("a view of a storage is outside the storage")
    return Storage(as_string(key), np.dtype(STORAGES[name]), total, start, count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any, dtype: Any = None) -> Tensor:
    if not isinstance(storage, Storage):
        raise WeightsError(f"a tensor has no storage, but {described(storage)}")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or not len(shape) == len(stride) <= MAX_DIMS:
        raise WeightsError("the shape or stride of a tensor is damaged")
    return Tensor(
        storage, dtype or storage.dtype, as_count(offset), tuple(map(as_count, shape)), tuple(map(as_count, stride))
    )


def _tensor_v2(*arguments: Any) -> Tensor:
    if len(arguments) > 6 and arguments[6]:
        raise WeightsError("a tensor has a conjugate or negative bit, which is not supported")
    return _tensor(*arguments)


def _tensor_v3(*arguments: Any) -> Tensor:
    dtype = arguments[6]
    if not isinstance(dtype, Global) or dtype.name not in DTYPES or arguments[7:] not in ((), (None,), ({},)):
        raise WeightsError(f"a tensor has the dtype {described(dtype)}, expected one of {', '.join(DTYPES)}")
    return _tensor(*arguments[:4], dtype=np.dtype(DTYPES[dtype.name]))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _size(dims: Any) -> tuple[int, ...]:
    if not isinstance(dims, tuple):
        raise WeightsError(f"a torch.Size has {described(dims)}")
    return dims


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
}


def as_count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_INTEGER:
        raise WeightsError(f"an index, count or stride is {described(value)}, expected an integer from 0 to 2^63 - 1")
    return value


def as_string(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise WeightsError(
            f"the name of a global or storage is {described(value)}, expected a string of at most {MAX_NAME} characters"
        )
    return value


def described(value: Any) -> str:
    """Describe a value without its content, which may be large, nested or cyclic."""
    return f"the global {short_repr(value.name)}" if isinstance(value, (Global, Opaque)) else type(value).__name__
