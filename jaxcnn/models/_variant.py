"""The type of the models in `MODELS`, and the functions that define them."""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from jaxcnn._layer import Layer, constructor

Build = TypeVar("Build", bound=Callable[..., Layer])


class Model(Protocol):
    """A function that builds one architecture. All settings are keyword arguments."""

    input_shape: tuple[int, ...]  # (*spatial, channels) of the published results, such as (height, width, channels)

    def __call__(self, classes: int | None = ..., **settings: Any) -> Layer: ...


class Models(dict[str, Model]):
    """A dict of models by name, whose KeyError suggests similar names."""

    def __missing__(self, name: str) -> Model:
        close = ", ".join(map(repr, difflib.get_close_matches(str(name), self, 3)))
        raise KeyError(
            f"unknown model {name!r}; " + (f"did you mean {close}?" if close else "sorted(MODELS) lists all")
        )


MODELS: dict[str, Model] = Models()


def input_shape(*shape: int) -> Callable[[Build], Build]:
    """Decorate a constructor to make it a `Model` for inputs (*spatial, channels), and add it to `MODELS`."""

    def mark(fn: Build) -> Build:
        build: Any = constructor(fn)
        build.input_shape = shape
        MODELS[fn.__name__] = build
        return build

    return mark


def variant(name: str, family: Callable[..., Layer], *, size: int | tuple[int, ...] = 224, **settings: Any) -> Model:
    """Return a `Model`: the family with these default settings, for images (size, size, 3) or inputs (*size, 3)."""
    call = functools.partial(family, **settings)

    @functools.wraps(family)
    def build(*args, **kwargs):
        return call(*args, **kwargs)

    build.__name__ = build.__qualname__ = name
    build.__module__ = "jaxcnn.models"
    vars(build)["__signature__"] = inspect.signature(call)
    spatial = (size, size) if isinstance(size, int) else size
    return cast(Model, input_shape(*spatial, 3)(build))
