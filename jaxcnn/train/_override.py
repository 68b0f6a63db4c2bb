"""Settings from the command line."""

import copy
import json
from collections.abc import Container
from typing import Any

from jaxcnn._arguments import short_repr
from jaxcnn.train._config import Config, ConfigError, as_argument, flat_entries, unknown_key
from jaxcnn.train._optimizer import OPTIMIZERS, optimizer_arguments


def override(config: Config, assignments: list[str]) -> Config:
    """A copy of `config` with each "key.path=value" of `assignments` set.

    The value is parsed as the type of the existing value. Lists are written as JSON; a number is a list of one number.
    An "optimizer" with a "name" also accepts arguments of optax's functions that the config does not contain.

    Args:
        config: a nested dict of bools, ints, floats, strings and lists.
        assignments: such as ["optimizer.learning_rate=0.1", "optimizer.momentum=0.9", "data.name=mnist"].

    Raises:
        ConfigError: for an unknown key (the message suggests the closest one), or a value of the wrong type.

    Example:
        >>> jaxcnn.train.override({"train": {"epochs": 5, "batch_size": 64}}, ["train.epochs=2"])
        {'train': {'epochs': 2, 'batch_size': 64}}
    """
    defaults, config = dict(flat_entries(config)), copy.deepcopy(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            key = assignment.lstrip("-")
            paths = [path for path in defaults if path == key or path.endswith(f".{key}")]
            raise ConfigError(
                f"expected key.path=value, got {assignment!r}" + (f"; did you mean {paths[0]}=..?" if paths else "")
            )
        if path in defaults:
            value = _parse(path, text, defaults[path])
        elif _is_optimizer_argument(path, defaults):
            value = _parse_argument(text)
        else:
            raise unknown_key(path, list(defaults))
        *parents, leaf = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return config


def _is_optimizer_argument(path: str, keys: Container[str]) -> bool:
    """Whether a path, such as train.optimizer.momentum, is an argument of an optimizer chosen by name in the config."""
    group, _, name = path.rpartition(".")
    if group.rpartition(".")[2] != "optimizer" or f"{group}.name" not in keys:
        return False
    return any(name in optimizer_arguments(optimizer) for optimizer in OPTIMIZERS)


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


def _parse_argument(text: str) -> Any:
    """A number, bool or string; `check_optimizer` refuses what is invalid."""
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
