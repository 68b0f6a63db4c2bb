"""Checkpoints: trees of arrays on disk, written atomically and verified by hashes.

    folder/
      1200/               a step
        arrays/           written by Orbax
        about.json        config, versions, metric, and the name, shape and dtype of each array
        manifest.json     the SHA-256 of every other file
      1300/ ...

A step is written under a temporary name, flushed, hashed and renamed, so a crash never damages earlier steps. Orbax
does not detect corrupted bytes; the manifest does, and `restore` then uses the previous step.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import pathlib
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn._arguments import check_integer, has_spec, short_repr
from jaxcnn._extra import MissingExtraError
from jaxcnn._path import paths
from jaxcnn._validate import check_wide_integers
from jaxcnn.train import _checkpoint_folder, _flock
from jaxcnn.train._checkpoint_folder import best as best
from jaxcnn.train._checkpoint_folder import steps as steps
from jaxcnn.train._config import Config, ConfigError, config_difference, first_lines
from jaxcnn.train._orbax import disk_name, is_key, orbax_spec, restored_leaf, shapes_and_dtypes, without_key_type

_ARRAYS = "arrays"
_ONE_AT_A_TIME = threading.RLock()  # Orbax has one global counter for the saves of all threads


class CheckpointError(RuntimeError):
    """A checkpoint or run folder cannot be written, or no checkpoint can be read."""


class Restored(NamedTuple):
    """step: the step number; tree: the arrays; about: a dict with "config", "metric", "note" and "versions"."""

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
    """Write a tree of arrays to `folder/step`, and remove old steps.

    With several processes, every process must call it, and all must share one file system.

    Args:
        folder: the folder that contains all steps.
        step: at least 0. If the step exists, it is replaced once the new one is complete.
        tree: a pytree of arrays, random keys and numbers.
        config: the settings that the arrays depend on; `restore` compares them.
        metric: larger is better. The step with the best metric is always kept.
        note: any JSON value; `restore` returns it.
        keep: number of latest steps to keep, at least 1, in addition to the best step and this one.

    Raises:
        TypeError, ValueError: if the metric is not a finite number, config or note are not JSON-serializable, or the
            tree has a leaf that JAX cannot hold, such as a string.
        CheckpointError: if the step cannot be written, for example on a full disk. Earlier steps are unchanged.
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
    step = check_integer("checkpoint.save", "step", step, 0, "an integer")
    keep = check_integer("checkpoint.save", "keep", keep, 1, "an integer")
    leaves = [_array(path or "the tree", leaf) for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)]
    if not any(leaf.size for leaf in leaves):
        raise ValueError("checkpoint.save: the tree has no array with values, so there is nothing to save")
    about = _as_json(step, tree, config, metric, note)
    partial = folder / f"{step}{_checkpoint_folder.PARTIAL}"
    first = jax.process_index() == 0
    with _ONE_AT_A_TIME, contextlib.ExitStack() as stack:
        try:
            if first:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_flock.one_at_a_time(folder))
                _checkpoint_folder.clean(folder)
                partial.mkdir()
            _wait_for_processes("partial")
            with _without_messages_of_orbax(), orbax.StandardCheckpointer() as checkpointer:
                checkpointer.save(partial / _ARRAYS, {disk_name(i): leaf for i, leaf in enumerate(leaves) if leaf.size})
            if first:
                _checkpoint_folder.finish(partial, about)
                _checkpoint_folder.prune(folder, keep, step)
            _wait_for_processes("saved")
        except (OSError, ValueError, RuntimeError) as error:  # Orbax raises ValueError on a full disk
            if first:
                with contextlib.suppress(OSError, ValueError):
                    _checkpoint_folder.clean(folder)
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
    """Read the arrays of the latest valid step, or of the given step.

    Before arrays are read, every file is compared with its SHA-256, and every path, shape and dtype with `like`. A
    damaged step is skipped with a warning.

    Args:
        folder: the folder that contains all steps.
        like: a tree of arrays, or of ShapeDtypeStructs with shardings, with the structure of the saved tree. The arrays
            are restored to the devices of `like`, which may differ from those they were saved from.
        config: must equal the config of the step; None accepts any.
        step: the only step to consider; None for the latest valid one.
        check: (step, about) -> None, called before the arrays are compared with `like`. It raises to reject the step.
        warn: called with a message for a damaged step that is skipped.

    Raises:
        CheckpointError: if the step does not exist, all steps are damaged, or the saved tree differs from `like`.
        ConfigError: for a different config; the message lists the differences.
        TypeError, ValueError: for a step that is not an integer of at least 0, or leaves of `like` without a shape.
        ImportError: without orbax-checkpoint, `pip install 'jaxcnn[train]'`.

    Example: see `save`.
    """
    orbax = _orbax()
    folder = pathlib.Path(folder).absolute()
    if step is not None:
        step = check_integer("checkpoint.restore", "step", step, 0, "an integer")
    for leaf in jax.tree.leaves(like):
        if not has_spec(leaf):
            raise TypeError(f"checkpoint.restore: like must hold arrays or their shapes, got {short_repr(leaf)}")
    chosen_step, about = first_process_result(lambda: _latest_valid(folder, step, warn))
    path = folder / str(chosen_step)
    if check is not None:
        check(chosen_step, about)
    if config is not None and (lines := config_difference(about["config"] or {}, json.loads(json.dumps(config)), {})):
        raise ConfigError(
            f"{path} was saved with a different config; use its settings, or a new folder:\n"
            + first_lines(lines.values())
        )
    if (saved := about["arrays"]) != (expected := shapes_and_dtypes(like)):
        different = [
            f"  {name}: expected {expected.get(name)}, found {saved.get(name)}"
            for name in sorted({*saved, *expected})
            if saved.get(name) != expected.get(name)
        ]
        raise CheckpointError(f"{path} has different arrays:\n{first_lines(different)}")
    leaves, structure = jax.tree.flatten(like)
    specs = {disk_name(i): orbax_spec(leaf) for i, leaf in enumerate(leaves)}
    target = {name: spec for name, spec in specs.items() if spec.size}  # Orbax cannot save empty arrays
    try:
        with _ONE_AT_A_TIME, orbax.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore(path / _ARRAYS, target)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot read the arrays: {error}") from error
    restored = [restored_leaf(leaf, arrays.get(disk_name(i))) for i, leaf in enumerate(leaves)]
    return Restored(chosen_step, jax.tree.unflatten(structure, restored), about)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on.

    Example:
        >>> list(jaxcnn.train.checkpoint.versions())
        ['python', 'jax', 'jaxlib', 'optax', 'numpy']
    """
    packages = ("jax", "jaxlib", "optax", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def check_installed() -> None:
    """Raise an error if Orbax is missing, without importing it, which would delay the first step by 0.15 s."""
    try:
        found = importlib.util.find_spec("orbax.checkpoint")
    except ModuleNotFoundError:  # of the package `orbax`
        found = None
    if found is None:
        raise MissingExtraError("checkpoints are written by Orbax", "train")


def _orbax() -> Any:
    check_installed()
    import orbax.checkpoint

    return orbax.checkpoint


@contextlib.contextmanager
def _without_messages_of_orbax() -> Iterator[None]:
    """A context in which Orbax logs nothing: each thread of it would log the traceback of an error that it raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _array(path: str, leaf: Any) -> Any:
    """The leaf as an array."""
    if not is_key(leaf):
        check_wide_integers(f"checkpoint.save: {path}", leaf)
    try:
        return without_key_type(leaf)
    except TypeError as error:
        raise TypeError(
            f"checkpoint.save: {path} must be an array of a dtype of JAX, a random key or a number, "
            f"got {short_repr(leaf)}; remove or convert it"
        ) from error


def _as_json(step: int, tree: Any, config: Config | None, metric: float | None, note: Any) -> str:
    """The content of about.json."""
    if metric is not None:
        try:
            metric = float(1.0 * metric)  # the product rejects strings
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"checkpoint.save: metric must be a number or None, got {short_repr(metric)}") from None
        if not math.isfinite(metric):
            raise ValueError(f"checkpoint.save: metric must be a finite number or None, got {metric}")
    about = {
        "format": _checkpoint_folder.FORMAT,
        "step": step,
        "config": config,
        "metric": metric,
        "note": note,
        "versions": versions(),
        "arrays": shapes_and_dtypes(tree),
    }
    try:
        return json.dumps(about, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"checkpoint.save: config and note must be JSON-serializable: {error}") from error


def recovered_steps(folder: pathlib.Path) -> list[int]:
    """The steps in the folder, after recovering those that an interrupted `save` left under a temporary name.

    If another process is saving to the folder, it waits, since that process still uses its temporary names.

    Raises:
        CheckpointError: if the path is not a folder, because `save` would fail after an epoch.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        kind = "a link to a missing folder" if folder.is_symlink() and not folder.exists() else "not a folder"
        raise CheckpointError(f"{folder} is {kind}; remove or rename it")
    if folder.is_dir():
        with _ONE_AT_A_TIME, _flock.one_at_a_time(folder):
            _checkpoint_folder.recover(folder)
    return steps(folder)


def _latest_valid(folder: pathlib.Path, step: int | None, warn: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
    """The requested step, or the latest valid one, and the content of its about.json."""
    existing = recovered_steps(folder)
    damaged: list[str] = []
    for candidate in [step] if step is not None else existing[::-1]:
        path = folder / str(candidate)
        problem = _checkpoint_folder.damage(path, candidate)
        about, _ = _checkpoint_folder.read_about(path)
        if problem is None and about is not None:
            if damaged:
                warn(f"{damaged[0]}; using step {candidate} instead")
            return candidate, about
        damaged.append(str(problem))
    raise CheckpointError("; ".join([f"{folder}: no valid checkpoint", *damaged]))


def _wait_for_processes(name: str) -> None:
    """Wait until all processes have reached this point."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"jaxcnn checkpoint {name}")


def first_process_result(compute: Callable[[], Any]) -> Any:
    """The result of `compute()` in the first process, sent to all as JSON. A CheckpointError is raised in all."""
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
