"""Checkpoints: a tree of arrays on disk that is either whole, and says so by hashes, or not there.

    folder/
      1200/               a step
        arrays/           as Orbax writes them
        about.json        config, versions, metric, and the name, shape and dtype of each array
        manifest.json     the SHA-256 of every other file
      1300/ ...

A step is written under another name, flushed, hashed and renamed, so that whoever pulls the plug leaves the steps
before it. Orbax itself does not notice a flipped bit; a manifest does, and then the step before is used.
"""

import contextlib
import importlib.metadata
import json
import math
import operator
import os
import pathlib
import platform
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import short_repr
from jaxcnn.train import _flock, _steps
from jaxcnn.train._arrays import described, disk_name, orbax_spec, plain, restored_as
from jaxcnn.train._config import Config, ConfigError, config_difference, first_lines
from jaxcnn.train._steps import best as best
from jaxcnn.train._steps import steps as steps

_ARRAYS = "arrays"
_ONE_AT_A_TIME = threading.RLock()  # Orbax counts the saves of all threads with one counter


class CheckpointError(RuntimeError):
    """A checkpoint or run folder that cannot be written, or no checkpoint that can be read."""


class Restored(NamedTuple):
    """step: the number it was saved under; tree: the arrays; about: what else was saved, a dict."""

    step: int
    tree: Any
    about: dict[str, Any]


def save(
    folder: str | os.PathLike,
    step: int,
    tree: Any,
    *,
    config: Config | None = None,
    metric: float | None = None,
    note: Any = None,
    keep: int = 3,
) -> None:
    """Write a tree of arrays as `folder/step`, and remove steps that need not be kept.

    With several processes, all call it, and all see one file system.

    Args:
        folder: of all steps.
        step: at least 0; one that is there already is replaced, and removed only after the new one is complete.
        tree: of arrays, random keys and numbers.
        config: what the arrays depend on; `restore` compares it.
        metric: the larger, the better: the best step is kept.
        note: what else should be there at `restore`, as JSON.
        keep: how many of the latest steps to keep, at least 1; the best and this one are kept beside them.

    Raises:
        TypeError, ValueError: for a metric that is not a finite number, or a config or note that JSON cannot hold.
        CheckpointError: if it cannot be written, such as on a full disk; the steps before are as they were.
        ImportError: without Orbax, `pip install 'jaxcnn[train]'`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> jaxcnn.train.checkpoint.save(folder, 10, {"w": jnp.ones(3)}, note="a note")
        >>> step, tree, about = jaxcnn.train.checkpoint.restore(folder, {"w": jnp.zeros(3)})
        >>> step, tree["w"].tolist(), about["note"]
        (10, [1.0, 1.0, 1.0], 'a note')
    """
    orbax = _orbax()
    folder = pathlib.Path(folder).absolute()
    step, keep = _integer("step", step), _integer("keep", keep)
    if step < 0 or keep < 1:
        raise ValueError(f"checkpoint.save: step must be at least 0 and keep at least 1, got {step} and {keep}")
    leaves = [plain(leaf) for leaf in jax.tree.leaves(tree)]
    about = _as_json(step, tree, config, metric, note)
    partial = folder / f"{step}{_steps.PARTIAL}"
    first = jax.process_index() == 0
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            if first:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_flock.one_at_a_time(folder))
                _steps.clean(folder)
                partial.mkdir()
            _together("partial")
            with orbax.StandardCheckpointer() as checkpointer:
                checkpointer.save(partial / _ARRAYS, {disk_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size})
            if first:
                _steps.finish(partial, about)
                _steps.prune(folder, keep, step)
            _together("saved")
        except (OSError, ValueError, RuntimeError) as error:  # Orbax tells a full disk by ValueError
            if first:
                with contextlib.suppress(OSError, ValueError):
                    _steps.clean(folder)
            size = sum(leaf.nbytes for leaf in leaves)
            raise CheckpointError(f"{folder / str(step)}: cannot write {size:,} bytes of arrays: {error}") from error


def restore(
    folder: str | os.PathLike,
    like: Any,
    *,
    config: Config | None = None,
    step: int | None = None,
    check: Callable[[int, dict[str, Any]], None] | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> Restored:
    """The arrays of the latest step that is as it was written, or of the one named.

    Every file is compared with its SHA-256, and every name, shape and dtype with those of `like`, before an array is
    read. A damaged step is passed over with a warning.

    Args:
        folder: of all steps.
        like: a tree of arrays, or shapes with shardings, of the same structure; the arrays go to the same devices,
            however many they came from.
        config: must be that of the step; None for any.
        step: to restore this one or none.
        check: (step, about) -> None, called before the arrays are compared with `like`; it raises to refuse the step.
        warn: called with a line about a damaged step that is passed over.

    Raises:
        CheckpointError: if there is no such step, all are damaged, or it holds another tree.
        ConfigError: for another config; it names the settings that differ.
    """
    orbax = _orbax()
    folder = pathlib.Path(folder).absolute()
    chosen, about = agreed(lambda: _choose(folder, step, warn))
    if check is not None:
        check(chosen, about)
    if config is not None and (lines := config_difference(about["config"] or {}, json.loads(json.dumps(config)), {})):
        raise ConfigError(
            f"{folder / str(chosen)} was made under another config; go on with that, or begin in another folder:\n"
            + first_lines(lines.values())
        )
    if (found := about["arrays"]) != (expected := described(like)):
        different = [
            f"  {name}: expected {expected.get(name)}, found {found.get(name)}"
            for name in sorted({*found, *expected})
            if found.get(name) != expected.get(name)
        ]
        more = [f"  and {len(different) - 5} more"] if len(different) > 5 else []
        raise CheckpointError("\n".join([f"{folder / str(chosen)} holds other arrays:", *different[:5], *more]))
    leaves, structure = jax.tree.flatten(like)
    target = {
        disk_name(i): shape for i, leaf in enumerate(leaves) if (shape := orbax_spec(leaf)).size
    }  # Orbax knows no empty ones
    try:
        with _ONE_AT_A_TIME, orbax.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore(folder / str(chosen) / _ARRAYS, target)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder / str(chosen)}: cannot be read: {error}") from error
    restored = [restored_as(leaf, arrays.get(disk_name(i))) for i, leaf in enumerate(leaves)]
    return Restored(chosen, jax.tree.unflatten(structure, restored), about)


def versions() -> dict[str, str]:
    """Of what results depend on to the bit."""
    packages = ("jax", "jaxlib", "optax", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise MissingExtraError("checkpoints are written by Orbax", "train") from error
    return orbax.checkpoint


def _as_json(step: int, tree: Any, config: Config | None, metric: float | None, note: Any) -> str:
    """What `restore` is to know about a step."""
    if metric is not None:
        try:
            metric = float(1.0 * metric)  # the product refuses text
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"checkpoint.save: metric must be a number or None, got {short_repr(metric)}") from None
        if not math.isfinite(metric):
            raise ValueError(f"checkpoint.save: metric must be a finite number or None, got {metric}")
    about = {
        "format": _steps.FORMAT,
        "step": step,
        "config": config,
        "metric": metric,
        "note": note,
        "versions": versions(),
        "arrays": described(tree),
    }
    try:
        return json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"checkpoint.save: config and note must be what JSON can hold: {error}") from error


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"checkpoint.save: {name} must be an integer, got {short_repr(value)}") from None


def recovered(folder: pathlib.Path) -> list[int]:
    """The steps in the folder, after those that lost their names to unfinished ones have them back.

    It waits for who is saving there, so as not to recover a step that is being replaced.
    """
    if folder.is_dir():
        with _ONE_AT_A_TIME, _flock.one_at_a_time(folder):
            _steps.recover(folder)
    return steps(folder)


def _choose(folder: pathlib.Path, step: int | None, warn: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
    """The step to restore, and what is known about it."""
    there = recovered(folder)
    damaged: list[str] = []
    for candidate in [step] if step is not None else there[::-1]:
        path = folder / str(candidate)
        problem = _steps.damage(path, candidate)
        about, _ = _steps.read_about(path)
        if problem is None and about is not None:
            if damaged:
                warn(f"{damaged[0]}; step {candidate} is used instead")
            return candidate, about
        damaged.append(str(problem))
    raise CheckpointError("; ".join([f"{folder}: no step that can be used", *damaged]))


def _together(name: str) -> None:
    """Wait for the other processes."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"jaxcnn checkpoint {name}")


def agreed(compute: Callable[[], Any]) -> Any:
    """What the first process computes, as JSON, in all of them; so is its CheckpointError."""
    if jax.process_count() == 1:
        return compute()
    from jax.experimental import multihost_utils

    text = b""
    if jax.process_index() == 0:
        try:
            text = json.dumps([compute()]).encode()
        except CheckpointError as error:
            text = json.dumps(str(error)).encode()
    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(text))))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    answer = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))
    if isinstance(answer, str):
        raise CheckpointError(answer)
    return answer[0]
