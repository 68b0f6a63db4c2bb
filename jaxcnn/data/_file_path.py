"""Validation of path arguments."""

import pathlib
from typing import Any

from jaxcnn._layer import short_repr


def file_path(name: str, path: Any) -> pathlib.Path:
    """Return the argument called `name` as a path, or raise TypeError if it is not one."""
    try:
        return pathlib.Path(path)
    except TypeError as error:
        raise TypeError(f"{name} must be a str or an os.PathLike, got {short_repr(path)}") from error
