"""Configs: nested dicts of settings, their checks and comparison."""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._path import expected_one_of

Config = dict[str, Any]

_MISSING = "(none)"
SYNONYMS = {  # names that other libraries use -> settings
    "lr": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "early_stopping": "patience",
    "grad_clip": "clip_norm",
    "gradient_clip": "clip_norm",
    "gradient_clip_val": "clip_norm",
    "max_grad_norm": "clip_norm",
    "gradient_accumulation_steps": "accumulate",
    "num_epochs": "epochs",
}


class ConfigError(ValueError):
    """An unknown or invalid setting, or settings that do not match a checkpoint."""


def require(config: Config, limits: Mapping[str, tuple[float, float]]) -> None:
    """Check that numbers are within limits.

    Args:
        config: a nested dict.
        limits: key.path -> (minimum, bound). The value must be at least the minimum and below the bound.

    Raises:
        ConfigError: for a value that is missing, not a number, or outside its limits.

    Example:
        >>> jaxcnn.train.require({"train": {"epochs": 0}}, {"train.epochs": (1, 1000)})
        Traceback (most recent call last):
        jaxcnn.train._config.ConfigError: train.epochs must be at least 1 and below 1000, got 0
    """
    values = dict(flat_entries(config))
    for path, (minimum, bound) in limits.items():
        if path not in values:
            raise ConfigError(f"{path} is missing")
        value: Any = values[path]
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise ConfigError(f"{path} must be a number, got {short_repr(value)}")
        if not minimum <= value < bound:
            upper = "finite" if bound == math.inf else f"below {bound}"
            raise ConfigError(f"{path} must be at least {minimum} and {upper}, got {value}")


def require_known(path: str, name: Any, known: Iterable[str]) -> None:
    """Raise ConfigError if the value of a setting is not one of the known names."""
    if name not in known:
        raise ConfigError(f"{path}: unknown {name!r}; {expected_one_of(name, known)}")


def unknown_key(path: str, keys: Sequence[str]) -> ConfigError:
    """The error for an unknown path. It suggests a similar path, or one with a similar last component."""
    if path in keys:  # a dict has the path itself as a key
        *groups, last = path.split(".")
        nested = "".join(f'{{"{group}": ' for group in groups) + f'{{"{last}": ..' + "}" * len(path.split("."))
        return ConfigError(f"unknown key {path!r}; settings are nested: write {nested}")
    by_last_component = {key.rpartition(".")[2]: key for key in reversed(keys)}
    group, dot, last = path.rpartition(".")
    last = SYNONYMS.get(last, last)
    similar = difflib.get_close_matches(f"{group}{dot}{last}", keys, 1, cutoff=0.8) or [
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


def as_argument(value: Any) -> str:
    """The value as `override` reads it from the command line."""
    return json.dumps(value) if isinstance(value, list) else str(value)
