"""Variants of a family of networks are rows of a table; each becomes a function with a name."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxcnn._layer import Layer

Build = Callable[..., Layer]


def variants(
    family: Build, rows: Mapping[str, Mapping[str, Any]], *, size: int = 224, channels: int = 3
) -> dict[str, Build]:
    """For each row a function that calls `family` with that row's settings, which the caller may override.

    It has an attribute `input_shape`, (size, size, channels): that of the pictures that the published figures are for.
    A row may have a "size" of its own.
    """
    return {name: _variant(family, name, {"size": size} | row, channels) for name, row in rows.items()}


def _variant(family: Build, name: str, row: Mapping[str, Any], channels: int) -> Build:
    settings = {key: value for key, value in row.items() if key != "size"}
    call = functools.partial(family, **settings)

    @functools.wraps(family)
    def build(*args, **kwargs):
        return call(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__module__ = "jaxcnn.models"
    build.__signature__ = inspect.signature(call)
    build.input_shape = (row["size"], row["size"], channels)
    return build
