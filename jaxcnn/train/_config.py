"""Configs are plain nested dicts; a command line overrides them, strictly."""

import ast
import copy
from collections.abc import Iterator
from typing import Any

from jaxcnn._path import nearest

Config = dict[str, Any]


class ConfigError(ValueError):
    """A setting that does not exist or cannot be."""


def override(config: Config, assignments: list[str]) -> Config:
    """A copy of `config` with each "key.path=value" of `assignments` set.

    Values are Python literals; what is none is a string. Where the config has a float, an int will do.

    Args:
        config: a nested dict of bools, ints, floats, strings and lists.
        assignments: such as ["optimizer.learning_rate=0.1", "data.name=mnist"].

    Raises:
        ConfigError: for a key that `config` does not have, with the nearest that it has, or a value of another type.

    Example:
        >>> jaxcnn.train.override({"train": {"epochs": 5, "batch_size": 64}}, ["train.epochs=2"])
        {'train': {'epochs': 2, 'batch_size': 64}}
    """
    config = copy.deepcopy(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} is not of the form key.path=value")
        keys = [key for key, _ in entries(config)]
        if path not in keys:
            raise ConfigError(f"unknown key {path!r}{nearest(path, keys)}; the keys are {', '.join(keys)}")
        *parents, leaf = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[leaf] = _parse(path, text, node[leaf])
    return config


def require(config: Config, limits: dict[str, tuple[float, float]]) -> None:
    """Refuse a config with a number outside its limits.

    Args:
        config: a nested dict.
        limits: for each key.path (least, below): the least value that will do, and the first that will not.

    Raises:
        ConfigError: that names the key, its limits and its value.

    Example:
        >>> jaxcnn.train.require({"train": {"epochs": 0}}, {"train.epochs": (1, 1000)})
        Traceback (most recent call last):
        jaxcnn.train._config.ConfigError: train.epochs must be at least 1 and below 1000, got 0
    """
    values = dict(entries(config))
    for path, (least, below) in limits.items():
        if not least <= values[path] < below:
            raise ConfigError(f"{path} must be at least {least} and below {below}, got {values[path]}")


def entries(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All (key.path, value) of a config."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse(path: str, text: str, old: Any) -> Any:
    """`text` as a value of the type of `old`."""
    if isinstance(old, str):
        return text
    try:
        new = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        new = text
    if isinstance(old, float) and type(new) is int:
        new = float(new)
    if type(new) is not type(old):
        raise ConfigError(f"{path} must be of type {type(old).__name__}, such as {old!r}, got {text!r}")
    return new
