"""Configs: nested dicts with strictly checked overrides from the command line."""

import copy
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxcnn._layer import short_repr
from jaxcnn._path import expected_one_of

Config = dict[str, Any]

_MISSING = "(none)"
_ABBREVIATIONS = {"lr": "learning_rate", "bs": "batch_size", "wd": "weight_decay"}


class ConfigError(ValueError):
    """An unknown or invalid setting, or settings that do not match a checkpoint."""


def override(config: Config, assignments: list[str]) -> Config:
    """A copy of `config` with each "key.path=value" of `assignments` set.

    The value is parsed as the type of the existing value. Lists are written as JSON; a number is a list of one number.

    Args:
        config: a nested dict of bools, ints, floats, strings and lists.
        assignments: such as ["optimizer.learning_rate=0.1", "data.name=mnist"].

    Raises:
        ConfigError: for an unknown key (the message suggests the closest one), or a value of the wrong type.

    Example:
        >>> jaxcnn.train.override({"train": {"epochs": 5, "batch_size": 64}}, ["train.epochs=2"])
        {'train': {'epochs': 2, 'batch_size': 64}}
    """
    config = copy.deepcopy(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"expected key.path=value, got {assignment!r}")
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
    """Check that numbers are within limits.

    Args:
        config: a nested dict.
        limits: key.path -> (minimum, bound). The value must be at least the minimum and below the bound.

    Raises:
        ConfigError: for a value outside its limits.

    Example:
        >>> jaxcnn.train.require({"train": {"epochs": 0}}, {"train.epochs": (1, 1000)})
        Traceback (most recent call last):
        jaxcnn.train._config.ConfigError: train.epochs must be at least 1 and below 1000, got 0
    """
    values = dict(flat_entries(config))
    for path, (minimum, bound) in limits.items():
        if not minimum <= values[path] < bound:
            raise ConfigError(f"{path} must be at least {minimum} and below {bound}, got {values[path]}")


def require_known(path: str, name: Any, known: Iterable[str]) -> None:
    """Raises ConfigError if the value of a setting is not one of the known names."""
    if name not in known:
        raise ConfigError(f"{path}: unknown {name!r}; {expected_one_of(name, known)}")


def unknown_key(path: str, keys: Sequence[str]) -> ConfigError:
    """The error for an unknown path. It suggests a similar path, or one with a similar last component."""
    by_last_component = {key.rpartition(".")[2]: key for key in reversed(keys)}
    last = _ABBREVIATIONS.get(path.rpartition(".")[2], path.rpartition(".")[2])
    similar = difflib.get_close_matches(path, keys, 1, cutoff=0.8) or [
        by_last_component[name] for name in difflib.get_close_matches(last, by_last_component, 1)
    ]
    closest = similar[0] if similar else ""
    return ConfigError(f"unknown key {path!r}; {expected_one_of(closest, keys)}")


def flat_entries(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all (key.path, value) pairs of a config."""
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from flat_entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def config_difference(old: Config, new: Config, defaults: Config) -> dict[str, str]:
    """path -> a line that describes the difference. A setting that `old` lacks has its default value."""
    old_values, new_values, default_values = (dict(flat_entries(config)) for config in (old, new, defaults))
    lines = {}
    for path in sorted({*old_values, *new_values}):
        before = old_values.get(path, default_values.get(path, _MISSING))
        after = new_values.get(path, _MISSING)
        if before != after:
            lines[path] = f"  {path}: was {_short(before)}, now {_short(after)}"
    return lines


def first_lines(lines: Iterable[str]) -> str:
    """The first eight lines, and the number of further lines."""
    lines = list(lines)
    return "\n".join(lines[:8] + ([f"  and {len(lines) - 8} more"] if len(lines) > 8 else []))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse(path: str, text: str, old: Any) -> Any:
    """`text` parsed as the type of `old`."""
    kind = type(old)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        new = kind(text) if kind in (int, float, str) else json.loads(text)
        json.dumps(new, allow_nan=False)  # ValueError for non-finite numbers
        if type(new) is kind:
            return new
        if kind is list and type(new) in (int, float):
            return [new]
    except (ValueError, KeyError, RecursionError):
        pass
    raise ConfigError(f"{path} must be of type {kind.__name__}, such as {as_argument(old)}, got {short_repr(text)}")


def as_argument(value: Any) -> str:
    """The value as `override` reads it from the command line."""
    return json.dumps(value) if isinstance(value, list) else str(value)
