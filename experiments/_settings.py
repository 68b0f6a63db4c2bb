"""Checks of settings, shared by several experiments."""

import contextlib
from collections.abc import Iterator

from jaxcnn.data import Dataset
from jaxcnn.train import ConfigError


def require_default(config: dict, defaults: dict, keys: tuple[str, ...], reason: str) -> None:
    """Reject changed settings that have no effect.

    Raises:
        ConfigError: if a setting differs from its default. The message names the key path, its value and the reason.
    """
    for path in keys:
        if value_at(config, path) != value_at(defaults, path):
            raise ConfigError(f"{path}={value_at(config, path)} has no effect {reason}")


@contextlib.contextmanager
def config_error(what: str) -> Iterator[None]:
    """A context that creates `what` from settings: its ValueError or TypeError becomes a ConfigError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {error}") from error


def require_one_of(config: dict, path: str, values: tuple[str, ...]) -> None:
    """Reject a setting that is not one of `values`.

    Raises:
        ConfigError: if it is not. The message names the key path, its value and the valid values.
    """
    if value_at(config, path) not in values:
        raise ConfigError(f"{path} must be one of {', '.join(values)}, got {value_at(config, path)!r}")


def require_gray(config: dict, digits: Dataset) -> None:
    """Reject a data set whose images are not gray images of 28 x 28 pixels.

    Raises:
        ConfigError: if they are not. The message names the data set and the shape of its images.
    """
    shape = digits.images.shape[1:]
    if shape != (28, 28, 1):
        raise ConfigError(f"data.name={config['data']['name']}: the images must be (28, 28, 1), but are {shape}")


def value_at(config: dict, path: str) -> object:
    """The setting at a key path such as "train.seed"."""
    for key in path.split("."):
        config = config[key]
    return config
