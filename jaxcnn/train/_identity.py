"""What a run is: fingerprints of its model's program and of its data, and how they differ from a checkpoint's."""

import collections
import hashlib
import json
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._program import listing
from jaxcnn.data import Dataset, Stream
from jaxcnn.train._config import Config, entries
from jaxcnn.train.checkpoint import versions

_MISSING = "(none)"
_FREE = ("runs", "folder", "report", "tensorboard")  # settings that training does not depend on


def program_identity(fn: Callable[..., Any], *specs: Any) -> dict[str, Any]:
    """What `fn` computes for arguments of these shapes: a hash of its program, and how often it uses each operation.

    The program is what jax traces, not the Python object: another function that computes the same has the same hash,
    and a closure with another rate or activation has another.
    """
    closed = jax.make_jaxpr(fn)(*specs)
    lines = listing(closed)
    counts = collections.Counter(line.split(" ", 1)[0] for line in lines)
    text = "\n".join(lines).encode() + b"".join(np.asarray(const).tobytes() for const in closed.consts)
    return {"hash": hashlib.sha256(text).hexdigest()[:16], "operations": dict(sorted(counts.items()))}


def data_fingerprint(data: Any) -> str:
    """Another for other values, shapes or types, very probably; of a stream, what it says of itself."""
    if data is None:
        return "none"
    if isinstance(data, Stream):
        shape = "x".join(map(str, data.image.shape))
        return f"{data.steps} batches {shape} {data.image.dtype} {data.fingerprint}".rstrip()
    if isinstance(data, Dataset):
        data = {"image": data.images, "label": data.labels}
    return " ".join(_array_fingerprint(name, data[name]) for name in sorted(data))


def difference(saved: Config, current: Config, defaults: Config) -> list[str]:
    """A line for each setting, and for the data, if they are not the same; none if training can go on.

    A setting that the saved run does not have came with a later version: it counts with its default.
    """
    saved, current = json.loads(json.dumps([saved, current]))
    lines: dict[str, str] = {}
    for part, of_old in (("config", None), ("fit", dict(entries(defaults)))):
        before, now = dict(entries(saved.get(part) or {})), dict(entries(current[part]))
        for path in sorted({*before, *now}):
            old = before.get(path, now[path] if of_old is None else of_old.get(path, _MISSING))
            known = any(other == path or other.endswith(f".{path}") for other in lines)
            if old != (new := now.get(path, _MISSING)) and path.split(".")[-1] not in _FREE and not known:
                lines[path] = f"  {path}: it had {_shown(old)}, now {_shown(new)}"
    for part in ("data", "eval_data"):
        if saved.get(part) != current[part]:
            lines[part] = f"  {part}: it had {saved.get(part)}, now {current[part]}"
    told = list(lines.values())
    return told[:8] + ([f"  and {len(told) - 8} more"] if len(told) > 8 else [])


def version_difference(saved: dict[str, str]) -> list[str]:
    """A line for each package that has another version now."""
    now = versions()
    return [f"  {name}: it had {saved.get(name)}, now {now[name]}" for name in now if saved.get(name) != now[name]]


def model_difference(saved: Config, current: Config) -> list[str]:
    """The same for the programs of the model."""
    lines = []
    for part in ("training", "evaluation"):
        before, now = saved.get(part, {}), current[part]
        if before.get("hash") == now["hash"]:
            continue
        old, new = before.get("operations", {}), now["operations"]
        counts = [
            f"{name} {old.get(name, 0)} -> {new.get(name, 0)}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        what = ", ".join(counts[:6]) or "the same operations with other constants, shapes or order"
        lines.append(f"  model in {part}: {what}")
    return lines


def _array_fingerprint(name: str, array: Any) -> str:
    array = np.ascontiguousarray(array)
    shape = "x".join(map(str, array.shape))
    return f"{name} {array.dtype} {shape} {zlib.crc32(array.reshape(-1).view(np.uint8)):08x}"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
