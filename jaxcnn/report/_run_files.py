"""The files of a run folder that `train.Run` writes: what the run is, and its records."""

import pathlib
from typing import Any

from jaxcnn.data import DataError
from jaxcnn.train._checkpoint_folder import read_json
from jaxcnn.train._log import read_log


def read_run(folder: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of config.json ("experiment", "config", "versions" and "device"), and the records of metrics.jsonl.

    Raises:
        DataError: if the folder is not that of a run, or a file is damaged.
    """
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: expected the folder of a run, found no config.json, which train.Run writes")
    return _about(folder / "config.json"), _records(folder / "metrics.jsonl")


def _about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the JSON that train.Run writes, found {error}") from error
    kinds = {"experiment": str, "config": dict, "versions": dict, "device": str}
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path}: expected experiment, config, versions and device, found {str(about)[:80]}")
    return about


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    records, problem = read_log(path)
    if problem or not path.exists():
        raise DataError(f"{path}: expected the records of a run, {problem or 'but the file does not exist'}")
    for i, record in enumerate(records, 1):
        if not _has_metrics(record):
            raise DataError(f"{path}, line {i}: expected a record as train.Run.log writes it, found {str(record)[:80]}")
    return records


def _has_metrics(record: dict[str, Any]) -> bool:
    """Whether epoch, metrics and seconds, if present, are numbers. None stands for a value that was not finite.

    Metrics may also be lists of numbers.
    """
    parts = [record.get(part, {}) for part in ("train", "test")]
    if not isinstance(record.get("epoch", 0), int) or not all(isinstance(part, dict) for part in parts):
        return False
    values = [value for part in parts for value in part.values()]
    return all(_shape(value) is not None for value in values) and _shape(record.get("seconds")) == ()


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of nested lists of numbers or None, () for one of them; None if it is neither."""
    if not isinstance(value, list):
        return () if value is None or isinstance(value, int | float) else None
    shapes = {_shape(part) for part in value} or {()}
    inner = shapes.pop()
    return None if shapes or inner is None else (len(value), *inner)
