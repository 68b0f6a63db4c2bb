"""Validation of path arguments."""

import os
import pathlib
from typing import Any

from jaxcnn._arguments import short_repr
from jaxcnn.data._error import DataError


def file_path(name: str, path: Any) -> pathlib.Path:
    """As `folder_path` for the argument called `name`. Raises TypeError if it is not a path."""
    try:
        return folder_path(path)
    except TypeError as error:
        raise TypeError(f"{name} must be a str or an os.PathLike, got {short_repr(path)}") from error


def folder_path(path: str | os.PathLike) -> pathlib.Path:
    """Return the path with the home folder for ~, or raise DataError for one that no file can have."""
    try:
        expanded = pathlib.Path(path).expanduser()
    except RuntimeError as error:  # an unknown user
        raise DataError(f"{path}: {error}") from error
    if "\0" in str(expanded):
        raise DataError(f"{short_repr(str(path))} contains a NUL character, which no path has")
    return expanded
