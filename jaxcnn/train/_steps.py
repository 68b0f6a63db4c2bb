"""A folder of saved steps: which are there and whole, and how one is added, replaced or removed.

    1200/                   a whole step
    1300.partial/           a step that is being written
    1200.removed/           a step that is being removed, or replaced by a new one of the same number

A step gets its name when it is complete. One that it replaces is renamed before and removed after, so at each moment
there is a whole copy of either the old step or the new one.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
from typing import Any

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"
PARTIAL, REMOVED = ".partial", ".removed"


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps in the folder, in order, whether they are as they were written or not."""
    folder = pathlib.Path(folder)
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if _is_step(name))


def best(folder: str | os.PathLike) -> int | None:
    """The step of the largest metric, the latest of equals; None if none has a metric that is a finite number."""
    found = []
    for step, about in _known(pathlib.Path(folder)).items():
        metric = about["metric"]
        if isinstance(metric, int | float) and not isinstance(metric, bool) and -math.inf < metric < math.inf:
            found.append((metric, step))
    return max(found, default=(None, None))[1]


def finish(partial: pathlib.Path, about: str) -> None:
    """Give a step that has its arrays the name it is found by, in place of an older one of that name."""
    final = partial.with_suffix("")
    (partial / ABOUT).write_text(about)
    hashes = {file: sha256(partial / file, flush=True) for file in _files(partial)}
    (partial / MANIFEST).write_text(json.dumps(hashes, separators=(",", ":")))
    sha256(partial / MANIFEST, flush=True)
    for place in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
        _flush_folder(place)
    replaced = _set_aside(final) if os.path.lexists(final) else None
    partial.rename(final)
    _flush_folder(final.parent)
    if replaced:
        delete(replaced)


def prune(folder: pathlib.Path, keep: int, written: int) -> None:
    """Of the steps up to the one just written, remove all but the latest ones and the best.

    Later ones, of a part of the run that is done again, are left until that reaches them. Those that cannot be used
    are not counted among the latest.
    """
    kept = {*[step for step in _known(folder) if step <= written][-keep:], best(folder), written}
    for step in steps(folder):
        if step <= written and step not in kept:
            remove(folder / str(step))


def remove(path: pathlib.Path) -> None:
    """Rename a step, then remove it, so that half a step is never taken for one."""
    delete(_set_aside(path))


def recover(folder: pathlib.Path) -> None:
    """Give each step its name that is complete and was not renamed any more, or else the one that it was to replace."""
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob(f"*{REMOVED}")]:
        final = path.with_suffix("")
        if _is_step(final.name) and not os.path.lexists(final) and damage(path, int(final.name)) is None:
            with contextlib.suppress(OSError):  # in a folder that is read-only, it stays as it is
                path.rename(final)


def clean(folder: pathlib.Path) -> None:
    """Recover, then remove what earlier processes left unfinished."""
    recover(folder)
    for path in [*folder.iterdir()]:
        if path.suffix in (PARTIAL, REMOVED) and _is_step(path.stem):
            delete(path)


def delete(path: pathlib.Path) -> None:
    """Remove a folder with all below it, or a file, or a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def damage(path: pathlib.Path, step: int) -> str | None:
    """What is wrong with a step's files, if anything is."""
    try:
        hashes = read_json(path / MANIFEST)
        there = {*_files(path)} - {MANIFEST}
        if not isinstance(hashes, dict) or ABOUT not in hashes:
            return f"{path / MANIFEST}: expected a hash of each file"
        if different := there ^ {*hashes}:
            return f"{path / min(different)}: is {'missing' if min(different) in hashes else 'not in the manifest'}"
        for file, expected in hashes.items():
            if sha256(path / file) != expected:
                return f"{path / file}: does not have the SHA-256 in the manifest"
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read: {error}"
    about, problem = read_about(path)
    if about is not None and about["step"] != step:
        problem = f"{path / ABOUT}: is of step {about['step']}, not of {step}"
    return problem


def read_about(path: pathlib.Path) -> tuple[dict[str, Any] | None, str | None]:
    """What a step says about itself, or what is wrong with that."""
    try:
        about = read_json(path / ABOUT)
    except (OSError, ValueError) as error:
        return None, f"{path / ABOUT}: cannot be read: {error}"
    kinds = {"step": int, "config": dict | None, "arrays": dict, "versions": dict}
    if not isinstance(about, dict) or about.get("format") != FORMAT or not {*kinds, "metric", "note"} <= about.keys():
        return None, f"{path / ABOUT}: not of a format that is known"
    for name, kind in kinds.items():
        if not isinstance(about[name], kind) or isinstance(about[name], bool):
            return None, f"{path / ABOUT}: {name} is {str(about[name])[:40]!r}"
    return about, None


def _known(folder: pathlib.Path) -> dict[int, dict[str, Any]]:
    """What each step says about itself, of those that say that they are this step; their files may be damaged."""
    found = {step: read_about(folder / str(step))[0] for step in steps(folder)}
    return {step: about for step, about in found.items() if about is not None and about["step"] == step}


def read_json(path: pathlib.Path) -> Any:
    """What a file holds. Raises OSError, or ValueError for anything but JSON that can be read."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name} is not a file")  # reading a pipe would never end
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def sha256(path: pathlib.Path, *, flush: bool = False) -> str:
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == str(int(name))


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _set_aside(path: pathlib.Path) -> pathlib.Path:
    removed = path.with_name(path.name + REMOVED)
    delete(removed)
    path.rename(removed)
    return removed


def _files(path: pathlib.Path) -> list[str]:
    """All files below, by their paths from there."""
    found = []
    for file in sorted(path.rglob("*")):
        if file.is_symlink():
            raise OSError(f"{file} is a link")
        if file.is_file():
            found.append(file.relative_to(path).as_posix())
    return found


def _flush_folder(path: pathlib.Path) -> None:
    if os.name == "posix":  # elsewhere, folders cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
