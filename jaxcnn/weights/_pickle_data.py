"""Interpretation of a pickle's opcodes as data. Nothing is imported or called; unknown content is an error."""

import dataclasses
import io
from collections.abc import Callable
from pickletools import genops
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import short_repr
from jaxcnn.weights._convert import WeightsError

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
IGNORED = {  # classes and functions of the other entries of checkpoints. Their results become `Opaque`
    "argparse.Namespace",
    "builtins.set",
    "__builtin__.set",
    "_codecs.encode",
    "collections.Counter",
    "collections.defaultdict",
    "builtins.dict",
    "__builtin__.dict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.device",
    "torch.torch_version.TorchVersion",
    *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    *DTYPES,
}
MAX_KEY = 2**63  # larger integers could be chosen to have equal hashes
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


def read_pickle(stream: io.BytesIO, size: int) -> tuple[Any, dict[str, np.dtype]]:
    """Return the next pickle of a stream (dicts, lists, tuples, numbers, strings, tensors), and the dtypes of storages.

    Args:
        stream: positioned at the pickle. Afterwards, it is positioned after it.
        size: the number of bytes of the file, which bounds work and memory.

    Raises:
        WeightsError: if the pickle is damaged or contains anything else. The message names the opcode or global.
    """
    machine = _Machine(size)
    name = "the start"
    try:
        for opcode, argument, _ in genops(stream):
            name = opcode.name
            if name == "STOP":
                break
            machine.step(name, argument)
        (result,) = machine.stack
    except WeightsError:
        raise
    except Exception as error:  # genops, the stack and the memo raise errors of many types on damaged files
        raise WeightsError(f"the pickle is damaged at the opcode {name}: {type(error).__name__}") from error
    if machine.outer:
        raise WeightsError("the pickle is damaged: MARK without an end")
    return result, machine.dtypes


class _Machine:
    """The stack and memo of the pickle protocol."""

    def __init__(self, size: int):
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each open MARK
        self.memo: dict[int, Any] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self.budget = size  # pairs that may still be copied

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "FLOAT" | "BINFLOAT":
                stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_SET":
                stack.append(Opaque("builtins.set"))
            case "MARK":
                self.outer.append(stack)
                self.stack = []
            case "TUPLE" | "LIST":
                items = self._until_mark()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "DICT":
                items = self._until_mark()
                self.stack.append(self._update({}, items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                items = [stack.pop() for _ in range(count)]
                stack.append(tuple(reversed(items)))
            case "APPEND":
                item = stack.pop()
                self._extend(stack[-1], [item], name)
            case "APPENDS" | "ADDITEMS":
                items = self._until_mark()
                self._extend(self.stack[-1], items, name)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._update(stack[-1], [key, value])
            case "SETITEMS":
                items = self._until_mark()
                self._update(self.stack[-1], items)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[_count(argument)] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(Global(".".join(argument.split(" ", 1))))
            case "STACK_GLOBAL":
                attribute, module = _string(stack.pop()), _string(stack.pop())
                stack.append(Global(f"{module}.{attribute}"))
            case "BINPERSID":
                storage = _storage(stack.pop())
                self.dtypes.setdefault(storage.key, storage.dtype)
                stack.append(storage)
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(name, function, arguments))
            case "BUILD":
                stack.pop()
                if not isinstance(stack[-1], (dict, Opaque)):  # the attributes of an OrderedDict are not needed
                    raise WeightsError(f"the opcode BUILD of {_described(stack[-1])} is not supported")
            case _:
                raise WeightsError(f"the opcode {name} is not supported")

    def _until_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def _extend(self, target: Any, items: list[Any], name: str) -> None:
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise WeightsError(f"the opcode {name} of {_described(target)} is not supported")

    def _update(self, target: Any, items: list[Any]) -> Any:
        if isinstance(target, Opaque):
            return target
        if not isinstance(target, dict):
            raise WeightsError(f"the opcode SETITEMS of {_described(target)} is not supported")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and -MAX_KEY <= key < MAX_KEY):
                raise WeightsError(f"a key of a dict is {_described(key)}, expected a string or an integer")
            target[key] = value
        return target

    def _call(self, opcode: str, function: Any, arguments: Any) -> Any:
        """Return a description of the result of function(*arguments)."""
        name = function.name if isinstance(function, Global) else None
        if name is None or not isinstance(arguments, tuple):
            raise WeightsError(f"the opcode {opcode} of {_described(function)} is not supported")
        if name in IGNORED:
            return Opaque(name)
        if opcode == "REDUCE" and name == "collections.OrderedDict":
            pairs = [item for pair in arguments[0] for item in self._pair(pair)] if arguments else []
            return self._update({}, pairs)
        if opcode == "REDUCE" and name in _CALLS:
            return _CALLS[name](*arguments)
        raise WeightsError(
            f"the global {short_repr(name)} (opcode {opcode}) is not supported. "
            "If the file contains a whole module, save its state_dict()"
        )

    def _pair(self, pair: Any) -> Any:
        self.budget -= 1
        if self.budget < 0 or not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise WeightsError("the pairs of an OrderedDict are damaged or repeat too often")
        return pair


def _storage(identifier: Any) -> Storage:
    """Return the storage of ("storage", class, key, device, count) and, in old files, (key, start, count) of a view."""
    if not isinstance(identifier, tuple) or not 5 <= len(identifier) <= 6 or identifier[0] != "storage":
        raise WeightsError("the opcode BINPERSID does not refer to a storage")
    _, kind, key, _, total, *view = identifier
    name = kind.name if isinstance(kind, Global) else ""
    module, _, name = name.rpartition(".")
    if module not in ("torch", "torch.cuda", "torch.storage") or name not in STORAGES:
        raise WeightsError(f"a storage has the class {_described(kind)}, expected one of {', '.join(STORAGES)}")
    total, start, count = _count(total), 0, total
    if view and view[0] is not None:
        _, start, count = view[0]
        start, count = _count(start), _count(count)
    if start + count > total:
        raise WeightsError("a view of a storage is outside the storage")
    return Storage(_string(key), np.dtype(STORAGES[name]), total, start, count)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any, dtype: Any = None) -> Tensor:
    if not isinstance(storage, Storage):
        raise WeightsError(f"a tensor has no storage, but {_described(storage)}")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple) or not len(shape) == len(stride) <= MAX_DIMS:
        raise WeightsError("the shape or stride of a tensor is damaged")
    return Tensor(
        storage, dtype or storage.dtype, _count(offset), tuple(map(_count, shape)), tuple(map(_count, stride))
    )


def _tensor_v2(*arguments: Any) -> Tensor:
    if len(arguments) > 6 and arguments[6]:
        raise WeightsError("a tensor has a conjugate or negative bit, which is not supported")
    return _tensor(*arguments)


def _tensor_v3(*arguments: Any) -> Tensor:
    dtype = arguments[6]
    if not isinstance(dtype, Global) or dtype.name not in DTYPES or arguments[7:] not in ((), (None,), ({},)):
        raise WeightsError(f"a tensor has the dtype {_described(dtype)}, expected one of {', '.join(DTYPES)}")
    return _tensor(*arguments[:4], dtype=np.dtype(DTYPES[dtype.name]))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _size(dims: Any) -> tuple[int, ...]:
    if not isinstance(dims, tuple):
        raise WeightsError(f"a torch.Size has {_described(dims)}")
    return dims


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
}


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_KEY:
        raise WeightsError(f"an index, count or stride is {_described(value)}, expected an integer >= 0")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise WeightsError(f"the name of a global or storage is {_described(value)}, expected a string")
    return value


def _described(value: Any) -> str:
    """Describe a value without its content, which may be large, nested or cyclic."""
    return f"the global {short_repr(value.name)}" if isinstance(value, (Global, Opaque)) else type(value).__name__
