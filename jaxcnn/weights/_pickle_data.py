"""Interpretation of a pickle's opcodes as data. Nothing is imported or called; unknown content is an error."""

import io
from pickletools import genops
from typing import Any

import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._weights_error import WeightsError
from jaxcnn.weights._torch_tensor import CALLS, DTYPES, Global, Opaque, as_count, as_string, described, storage_of

IGNORED = {  # classes and functions of the other entries of checkpoints. Their results become `Opaque`
    "argparse.Namespace",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("bytearray", "complex", "dict", "frozenset", "range", "set", "slice", "xrange")
    ),
    "_codecs.encode",
    "collections.Counter",
    "collections.defaultdict",
    *(f"datetime.{name}" for name in ("date", "datetime", "timedelta", "timezone")),
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
    "torch.device",
    "torch.torch_version.TorchVersion",
    *(f"torch.{name}" for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
    *DTYPES,
}
MAX_KEY = 2**63  # larger integers could be chosen to have equal hashes


class DamagedError(WeightsError):
    """The file is incomplete or changed, so no program can read it."""


def read_pickle(stream: io.BytesIO, size: int) -> tuple[Any, dict[str, np.dtype]]:
    """Return the next pickle of a stream (dicts, lists, tuples, numbers, strings, tensors), and the dtypes of storages.

    Args:
        stream: positioned at the pickle. Afterwards, it is positioned after it.
        size: the number of bytes of the file, which bounds work and memory.

    Raises:
        DamagedError: if the stream ends inside the pickle.
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
        if name != "STOP" and not stream.read(1):
            raise DamagedError("the file ends inside a pickle; copy or download it again") from error
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
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8" | "BYTEARRAY8":
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
            case "FROZENSET":
                self._until_mark()
                self.stack.append(Opaque("builtins.frozenset"))
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
                self.memo[as_count(argument)] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(Global(".".join(argument.split(" ", 1))))
            case "STACK_GLOBAL":
                attribute, module = as_string(stack.pop()), as_string(stack.pop())
                stack.append(Global(f"{module}.{attribute}"))
            case "BINPERSID":
                storage = storage_of(stack.pop())
                self.dtypes.setdefault(storage.key, storage.dtype)
                stack.append(storage)
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(name, function, arguments))
            case "BUILD":
                stack.pop()
                if not isinstance(stack[-1], (dict, Opaque)):  # the attributes of an OrderedDict are not needed
                    raise WeightsError(f"the opcode BUILD of {described(stack[-1])} is not supported")
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
            raise WeightsError(f"the opcode {name} of {described(target)} is not supported")

    def _update(self, target: Any, items: list[Any]) -> Any:
        if isinstance(target, Opaque):
            return target
        if not isinstance(target, dict):
            raise WeightsError(f"the opcode SETITEMS of {described(target)} is not supported")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) and not (isinstance(key, int) and -MAX_KEY <= key < MAX_KEY):
                raise WeightsError(f"a key of a dict is {described(key)}, expected a string or an integer")
            target[key] = value
        return target

    def _call(self, opcode: str, function: Any, arguments: Any) -> Any:
        """Return a description of the result of function(*arguments)."""
        name = function.name if isinstance(function, Global) else None
        if name is None or not isinstance(arguments, tuple):
            raise WeightsError(f"the opcode {opcode} of {described(function)} is not supported")
        if name in IGNORED:
            return Opaque(name)
        if opcode == "REDUCE" and name == "collections.OrderedDict":
            pairs = [item for pair in arguments[0] for item in self._pair(pair)] if arguments else []
            return self._update({}, pairs)
        if opcode == "REDUCE" and name in CALLS:
            return CALLS[name](*arguments)
        raise WeightsError(
            f"the global {short_repr(name)} (opcode {opcode}) is not supported. "
            "If the file contains a whole module, save its state_dict()"
        )

    def _pair(self, pair: Any) -> Any:
        self.budget -= 1
        if self.budget < 0 or not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise WeightsError("the pairs of an OrderedDict are damaged or repeat too often")
        return pair
