"""A folder of saved steps: listing, verifying, adding, replacing and removing them.

    1200/                   a complete step
    1300.partial/           a step that is being written
    1200.removed/           a step that is being removed, or replaced by a new one with the same number

A step is renamed to its number when it is complete. A step that it replaces is renamed first and removed last, so a
complete copy of the old or the new step exists at all times.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
from typing import Any

from jaxcnn.train._log import reject_constant

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
PARTIAL, REMOVED = ".partial", ".removed"


def steps(folder: str | os.PathLike) -> list[int]:
    """The numbers of all steps in the folder, sorted. Damaged steps are included.

    Example:
        >>> jaxcnn.train.checkpoint.steps("runs/none/checkpoints")
        []
    """
    folder = pathlib.Path(folder)
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if _is_step(name))


def best(folder: str | os.PathLike) -> int | None:
    """The step in the folder with the largest metric, the latest of equals; None if no step has a finite metric.

    Example:
        >>> jaxcnn.train.checkpoint.best("runs/none/checkpoints")
    """
    candidates = []
    for step, about in _readable(pathlib.Path(folder)).items():
        metric = about["metric"]
        if isinstance(metric, int | float) and not isinstance(metric, bool) and -math.inf < metric < math.inf:
            candidates.append((metric, step))
    return max(candidates, default=(None, None))[1]


def finish(partial: pathlib.Path, about: str) -> None:
    """Complete a partial step that has its arrays: write about.json and the manifest, flush, and rename it."""
    final = partial.with_suffix("")
    (partial / ABOUT).write_text(about)
    hashes = {file: sha256(partial / file, flush=True) for file in _files(partial)}
    (partial / MANIFEST).write_text(json.dumps(hashes, separators=(",", ":")))
    sha256(partial / MANIFEST, flush=True)
    for directory in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
        _flush_folder(directory)
    replaced = _rename_removed(final) if os.path.lexists(final) else None
    partial.rename(final)
    _flush_folder(final.parent)
    if replaced:
        delete(replaced)


def prune(folder: pathlib.Path, keep: int, written: int) -> None:
    """Remove steps up to the one just written, except the latest `keep` and the best.

    Later steps can exist after a rollback; they stay until training reaches them. Unreadable steps do not count as
    latest steps.
    """
    kept = {*[step for step in _readable(folder) if step <= written][-keep:], best(folder), written}
    for step in steps(folder):
        if step <= written and step not in kept:
            remove(folder / str(step))


def remove(path: pathlib.Path) -> None:
    """Rename a step, then remove it, so that a partly removed step is never treated as complete."""
    delete(_rename_removed(path))


def recover(folder: pathlib.Path) -> None:
    """Rename complete steps that an interrupted `save` left as partial or removed, if their number is free."""
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob(f"*{REMOVED}")]:
        final = path.with_suffix("")
        if _is_step(final.name) and not os.path.lexists(final) and damage(path, int(final.name)) is None:
            with contextlib.suppress(OSError):  # the folder may be read-only
                path.rename(final)


def clean(folder: pathlib.Path) -> None:
    """Recover complete steps, then remove unfinished ones."""
    recover(folder)
    for path in [*folder.iterdir()]:
        if path.suffix in (PARTIAL, REMOVED) and _is_step(path.stem):
            delete(path)


def delete(path: pathlib.Path) -> None:
    """Remove a folder and its content, a file, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def damage(path: pathlib.Path, step: int) -> str | None:
    """A description of the damage to a step's files; None if the step is valid."""
    try:
        hashes = read_json(path / MANIFEST)
        files = {*_files(path)} - {MANIFEST}
        if not isinstance(hashes, dict) or ABOUT not in hashes:
            return f"{path / MANIFEST}: expected a hash for each file"
        if different := files ^ {*hashes}:
            return f"{path / min(different)}: is {'missing' if min(different) in hashes else 'not in the manifest'}"
        for file, expected in hashes.items():
            if sha256(path / file) != expected:
                return f"{path / file}: its SHA-256 differs from the manifest"
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read: {error}"
    about, problem = read_about(path)
    if about is not None and about["step"] != step:
        problem = f"{path / ABOUT}: belongs to step {about['step']}, not to step {step}"
    return problem


def read_about(path: pathlib.Path) -> tuple[dict[str, Any] | None, str | None]:
    """The content of about.json and None, or None and a description of the problem."""
    try:
        about = read_json(path / ABOUT)
    except (OSError, ValueError) as error:
        return None, f"{path / ABOUT}: cannot be read: {error}"
    kinds = {"step": int, "config": dict | None, "arrays": dict, "versions": dict}
    if not isinstance(about, dict) or about.get("format") != FORMAT or not {*kinds, "metric", "note"} <= about.keys():
        return None, f"{path / ABOUT}: unknown format"
    for name, kind in kinds.items():
        if not isinstance(about[name], kind) or isinstance(about[name], bool):
            return None, f"{path / ABOUT}: {name} has an invalid value: {str(about[name])[:40]!r}"
    return about, None


def _readable(folder: pathlib.Path) -> dict[int, dict[str, Any]]:
    """step -> about.json of each step that has a valid one with its own number; its arrays may be damaged."""
    abouts = {step: read_about(folder / str(step))[0] for step in steps(folder)}
    return {step: about for step, about in abouts.items() if about is not None and about["step"] == step}


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file. Raises OSError, or ValueError for invalid JSON."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a file")  # reading a pipe would block
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=reject_constant)
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def sha256(path: pathlib.Path, *, flush: bool = False) -> str:
    if flush:
        with path.open("r+b") as file:  # on Windows, a file must be open for writing
            os.fsync(file.fileno())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == str(int(name))


def _rename_removed(path: pathlib.Path) -> pathlib.Path:
    removed = path.with_name(path.name + REMOVED)
    delete(removed)
    path.rename(removed)
    return removed


def _files(path: pathlib.Path) -> list[str]:
    """The relative paths of all files below a folder."""
    files = []
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise OSError(f"{file} is a symbolic link")
        if file.is_file():
            files.append(file.relative_to(path).as_posix())
    return files


def _flush_folder(path: pathlib.Path) -> None:
    if os.name == "posix":  # other systems cannot open folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
