"""The log files of a run: JSON lines and CSV."""

import csv
import io
import json
import math
import os
import pathlib
from typing import Any

from jaxcnn._replace import replace
from jaxcnn.train._config import flat_entries

_MAX_DEPTH = 100  # deeper records could exceed the recursion limit when they are written again


def read_log(path: pathlib.Path) -> tuple[list[dict[str, Any]], str | None]:
    """The valid records of a log, and a description of the first problem, if any.

    An incomplete last line is not a problem: the process ended while writing it.
    """
    if path.exists() and not path.is_file():
        return [], "is not a file"  # reading a pipe would block
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
    """Replace the log by these records."""
    with replace(path) as file:
        file.writelines(_json_line(record) for record in records)


def append_log(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Append records. An incomplete last line is ended first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")
        file.writelines(_json_line(record) for record in records)


def write_csv(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
    """Write all records as CSV. A nested entry has the column "outer.inner"."""
    rows = [dict(flat_entries(record)) for record in records]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    with replace(path) as file:
        file.write(table.getvalue().encode("utf-8", "backslashreplace"))


def _json_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _record(line: bytes) -> dict[str, Any]:
    """The record in a line. Raises ValueError or RecursionError for an invalid line."""
    record = json.loads(line.decode("utf-8"), parse_constant=reject_constant, parse_float=_parse_finite)
    if not isinstance(record, dict):
        raise ValueError(f"expected a JSON object, found {line[:40]!r}")
    check_record(record)
    return record


def check_record(record: dict[str, Any]) -> None:
    """Raise ValueError for a record that `read_log` would call damaged."""
    step = record.get("step", 0)
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"step must be an integer, found {str(step)[:40]!r}")
    level = [record]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def _children(node: Any) -> list[Any]:
    return [*node.values()] if isinstance(node, dict) else node if isinstance(node, list) else []


def reject_constant(constant: str) -> Any:
    """For `json.loads(parse_constant=)`: NaN and Infinity, which Python reads, are not JSON."""
    raise ValueError(f"{constant} is not valid JSON")


def _parse_finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number
