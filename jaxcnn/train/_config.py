"""Configs are plain nested dicts; a command line overrides them, strictly."""

import copy
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxcnn._layer import short_repr
from jaxcnn._path import expected_one_of

Config = dict[str, Any]

_MISSING = "(none)"


class ConfigError(ValueError):
    """A setting that does not exist or cannot be."""


def override(config: Config, assignments: list[str]) -> Config:
    """A copy of `config` with each "key.path=value" of `assignments` set.

    The value is read as the type that the config has there; a list is written as JSON.

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
        keys = [key for key, _ in flat_entries(config)]
        if path not in keys:
            raise unknown_key(path, keys)
        *parents, leaf = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[leaf] = _parse(path, text, node[leaf])
    return config


def require(config: Config, limits: Mapping[str, tuple[float, float]]) -> None:
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
    values = dict(flat_entries(config))
    for path, (least, below) in limits.items():
        if not least <= values[path] < below:
            raise ConfigError(f"{path} must be at least {least} and below {below}, got {values[path]}")


def unknown_key(path: str, keys: Sequence[str]) -> ConfigError:
    """The error for a path that is not one of these, with the nearest: one of the same last part, if there is one."""
    last = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(path.rpartition(".")[2], last, 1)
    whole = difflib.get_close_matches(path, keys, 1, cutoff=0.8)
    return ConfigError(
        f"unknown key {path!r}; {expected_one_of((whole or [last[name] for name in near] or [path])[0], keys)}"
    )


def flat_entries(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All (key.path, value) of a config."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat_entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def config_difference(old: Config, new: Config, defaults: Config) -> dict[str, str]:
    """By path, a line for each setting that differs; one that `old` does not have counts with its default."""
    before, now, default = (dict(flat_entries(config)) for config in (old, new, defaults))
    lines = {}
    for path in sorted({*before, *now}):
        was, is_now = before.get(path, default.get(path, _MISSING)), now.get(path, _MISSING)
        if was != is_now:
            lines[path] = f"  {path}: it had {_short(was)}, now {_short(is_now)}"
    return lines


def first_lines(lines: Iterable[str]) -> str:
    """The first lines, and how many more there are."""
    lines = list(lines)
    return "\n".join(lines[:8] + ([f"  and {len(lines) - 8} more"] if len(lines) > 8 else []))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse(path: str, text: str, old: Any) -> Any:
    """`text` as a value of the type of `old`."""
    kind = type(old)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        new = kind(text) if kind in (int, float, str) else json.loads(text)
        json.dumps(new, allow_nan=False)  # ValueError if it, or a part of it, is not finite
        if type(new) is kind:
            return new
    except (ValueError, KeyError, RecursionError):
        pass
    raise ConfigError(f"{path} must be of type {kind.__name__}, such as {old!r}, got {short_repr(text)}")
