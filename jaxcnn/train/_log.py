"""The records of a run as files: one JSON object a line, and a table."""

import csv
import json
import math
import os
import pathlib
from typing import Any

from jaxcnn.train._config import flat_entries

_DEEPEST = 100  # as far as a record can be written again from anywhere


def read_log(path: pathlib.Path) -> tuple[list[dict[str, Any]], str | None]:
    """The records of a log that are whole, and what is wrong with the others, if anything is.

    That the last line was cut off is not wrong: a process was ended while it wrote it.
    """
    if path.exists() and not path.is_file():
        return [], "is not a file"  # reading a pipe would never end
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"cannot be read: {error}"
    records, problem = [], None
    for number, line in enumerate(lines, 1):
        try:
            records.append(_record(line))
        except (ValueError, RecursionError) as error:
            problem = problem or f"line {number} is damaged: {error}"
    try:
        if last:
            records.append(_record(last))
    except (ValueError, RecursionError):
        pass
    return records, problem


def write_log(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Write all records, in place of those that are there."""
    partial = path.with_suffix(".part")
    partial.write_text("".join(json.dumps(record, allow_nan=False) + "\n" for record in records), encoding="utf-8")
    partial.replace(path)


def append_log(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Add records, on lines of their own even if the last one in the file was cut off."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.writelines(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records)


def write_csv(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Write all records as a table; a nested one has a column for each "name.of.part"."""
    rows = [dict(flat_entries(record)) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    partial = path.with_suffix(".csv.part")
    with partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _record(line: bytes) -> dict[str, Any]:
    """The record of a line; ValueError or RecursionError if it is none."""
    record = json.loads(line.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {line[:40]!r}")
    step = record.get("step", 0)
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"step must be an integer, found {str(step)[:40]!r}")
    level = [record]
    for _ in range(_DEEPEST):
        level = [part for node in level for part in _parts(node)]
    if level:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    return record


def _parts(node: Any) -> list[Any]:
    return [*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
