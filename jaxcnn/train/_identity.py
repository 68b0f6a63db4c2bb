"""Comparison of a run with a checkpoint: settings, data, and the compiled programs of the model."""

import collections
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._path import paths
from jaxcnn._program import listing
from jaxcnn.data._source import array_fingerprint
from jaxcnn.train._config import Config, ConfigError, config_difference, first_lines
from jaxcnn.train.checkpoint import versions

_NO_START = "none"
# Settings that do not affect finite steps.
_IGNORED = ("runs", "folder", "report", "tensorboard", "restore_best", "keep", "every", "on_nonfinite")


def program_identity(fn: Callable[..., Any], *specs: Any) -> dict[str, Any]:
    """A hash of the program that JAX traces for `fn` and these shapes, and the count of each operation.

    Functions with the same traced program have the same hash, even if the Python objects differ. A closure with another
    dropout rate or activation has a different hash.
    """
    closed = jax.make_jaxpr(fn)(*specs)
    lines = listing(closed)
    counts = collections.Counter(line.split(" ", 1)[0] for line in lines)
    text = "\n".join(lines).encode() + b"".join(np.asarray(const).tobytes() for const in closed.consts)
    return {"hash": hashlib.sha256(text).hexdigest()[:16], "operations": dict(sorted(counts.items()))}


def start_identity(start: Any) -> str:
    """A hash of the names, shapes and values of the initial params and state that the caller passes."""
    if start is None:
        return _NO_START
    lines = map(array_fingerprint, paths(tuple(start)), jax.tree.leaves(tuple(start)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def difference(saved: Config, current: Config, defaults: Config, more_epochs: bool = False) -> str:
    """One line per setting or data set that differs; "" if training can resume.

    A setting that the saved run lacks was added in a later version, and has its default value. `more_epochs` tells
    whether the number of epochs may be larger than that of the saved run.
    """
    saved, current = json.loads(json.dumps([saved, current]))
    more_epochs = more_epochs and current["fit"]["epochs"] > saved["fit"]["epochs"]
    ignored = ("epochs", "train.epochs") if more_epochs else ()
    lines: dict[str, str] = {}
    for part, default in (("config", current["config"]), ("fit", defaults)):
        for path, line in config_difference(saved.get(part) or {}, current[part], default).items():
            reported = any(other == path or other.endswith(f".{path}") for other in lines)
            if path not in ignored and path.split(".")[-1] not in _IGNORED and not reported:
                lines[path] = line
    for part, missing in (("data", None), ("eval_data", None), ("start", _NO_START)):
        before, now = saved.get(part, missing), current.get(part, missing)
        if before != now:
            lines[part] = f"  {part}: was {before}, now {now}"
    return first_lines(lines.values())


def reject_different_run(
    path: pathlib.Path,
    about: Config,
    current: Config,
    defaults: Config,
    say: Callable[[str], None],
    more_epochs: bool | None = None,
) -> None:
    """Reject a checkpoint of a different run, see `difference`. Report packages with different versions.

    `more_epochs` is None if the number of epochs may never be larger than that of the saved run.

    Raises:
        ConfigError: for different settings, data, model, optimizer or augmentation.
    """
    saved = about["config"] or {}
    if lines := difference(saved, current, defaults, bool(more_epochs)):
        only_more_epochs = more_epochs is False and not difference(saved, current, defaults, more_epochs=True)
        why = "\n  (more epochs need a learning rate that does not depend on their number)" if only_more_epochs else ""
        raise ConfigError(f"{path} was saved with a different config; use its settings, or a new folder:\n{lines}{why}")
    packages = version_difference(about["versions"])
    programs = program_difference(saved, current)
    if programs and "jax" not in " ".join(packages):
        raise ConfigError(
            f"{path} was saved with a different model, optimizer or augmentation; use the same, or a new folder:\n"
            + "\n".join(programs)
        )
    if packages:
        say(f"{path} was saved with other package versions, so results may differ:\n" + "\n".join(packages))


def version_difference(saved: dict[str, str]) -> list[str]:
    """One line per package with a different version now."""
    now = versions()
    return [f"  {name}: was {saved.get(name)}, now {now[name]}" for name in now if saved.get(name) != now[name]]


def program_difference(saved: Config, current: Config) -> list[str]:
    """One line per program that differs: the model in training and evaluation, and functions passed to `fit`."""
    lines = []
    names = {"training": "model in training", "evaluation": "model in evaluation"}
    names |= {name: name for name in ("optimizer", "augmentation")}
    for part, name in names.items():
        before, now = saved.get(part, {}), current.get(part, {})
        if before.get("hash") == now.get("hash"):
            continue
        old, new = before.get("operations", {}), now.get("operations", {})
        counts = [
            f"{name} {old.get(name, 0)} -> {new.get(name, 0)}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        changes = ", ".join(counts[:6]) or "same operations with different constants, shapes or order"
        lines.append(f"  {name}: {changes}")
    return lines
