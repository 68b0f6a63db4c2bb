"""Architectures by name: what makes a function of a family's settings one of its published variants."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from jaxcnn._layer import Layer, constructor

Build = TypeVar("Build", bound=Callable[..., Layer])


class Model(Protocol):
    """A function that builds one architecture, with its settings as keywords."""

    input_shape: tuple[int, int, int]  # of the images that the published figures are for

    def __call__(self, classes: int | None = ..., **settings: Any) -> Layer: ...


class Models(dict[str, Model]):
    """Models by name."""

    def __missing__(self, name: str) -> Model:
        close = ", ".join(map(repr, difflib.get_close_matches(str(name), self, 3)))
        raise KeyError(
            f"unknown model {name!r}; " + (f"did you mean {close}?" if close else "sorted(MODELS) lists all")
        )


def input_shape(height: int, width: int, channels: int) -> Callable[[Build], Build]:
    """Mark a constructor as a `Model` for images of this shape."""

    def mark(fn: Build) -> Build:
        build: Any = constructor(fn)
        build.input_shape = (height, width, channels)
        return build

    return mark


def variant(name: str, family: Callable[..., Layer], *, size: int = 224, **settings: Any) -> Model:
    """The family with these settings, which the caller may override, for images (size, size, 3)."""
    call = functools.partial(family, **settings)

    @functools.wraps(family)
    def build(*args, **kwargs):
        return call(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__module__ = "jaxcnn.models"
    vars(build)["__signature__"] = inspect.signature(call)
    return cast(Model, input_shape(size, size, 3)(build))
