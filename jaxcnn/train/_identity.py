"""What a run is: its settings, data, and the program of its model, and how they differ from a checkpoint's."""

import collections
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._program import listing
from jaxcnn.train._config import Config, ConfigError, config_difference, first_lines
from jaxcnn.train.checkpoint import versions

_FREE = ("runs", "folder", "report", "tensorboard", "restore_best")  # settings that training does not depend on
_GO_ON = "go on with that, or begin in another folder"


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


def difference(saved: Config, current: Config, defaults: Config) -> str:
    """A line for each setting, and for the data, if they are not the same; none if training can go on.

    A setting that the saved run does not have came with a later version: it counts with its default.
    """
    saved, current = json.loads(json.dumps([saved, current]))
    lines: dict[str, str] = {}
    for part, default in (("config", current["config"]), ("fit", defaults)):
        for path, line in config_difference(saved.get(part) or {}, current[part], default).items():
            known = any(other == path or other.endswith(f".{path}") for other in lines)
            if path.split(".")[-1] not in _FREE and not known:
                lines[path] = line
    for part in ("data", "eval_data"):
        if saved.get(part) != current[part]:
            lines[part] = f"  {part}: it had {saved.get(part)}, now {current[part]}"
    return first_lines(lines.values())


def refuse_another_run(
    where: pathlib.Path, about: Config, current: Config, defaults: Config, say: Callable[[str], None]
) -> None:
    """Refuse to go on from a checkpoint of another run; say which packages, with which results may differ, are others.

    Raises:
        ConfigError: for other settings, data, or programs of the model.
    """
    saved = about["config"] or {}
    if lines := difference(saved, current, defaults):
        raise ConfigError(f"{where} was made under another config; {_GO_ON}:\n{lines}")
    packages = version_difference(about["versions"])
    model = model_difference(saved, current)
    if model and "jax" not in " ".join(packages):
        raise ConfigError(f"{where} was made with another model; {_GO_ON}:\n" + "\n".join(model))
    if packages:
        say(f"{where} was made with other packages, so results may differ:\n" + "\n".join(packages))


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
