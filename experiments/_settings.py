"""Checks of settings, shared by several experiments."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator

from jaxcnn import weights
from jaxcnn.models import MODELS
from jaxcnn.train import ConfigError


def require_default(config: dict, defaults: dict, keys: tuple[str, ...], reason: str) -> None:
    """Reject changed settings that have no effect.

    Raises:
        ConfigError: if a setting differs from its default. The message names the key path, its value and the reason.
    """
    for path in keys:
        if _value_at(config, path) != _value_at(defaults, path):
            raise ConfigError(f"{path}={_value_at(config, path)} has no effect {reason}")


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
    if _value_at(config, path) not in values:
        raise ConfigError(f"{path} must be one of {', '.join(values)}, got {_value_at(config, path)!r}")


def require_weights(
    config: dict, defaults: dict, images: str, keys: tuple[str, ...], reason: str = "without weights=FILE"
) -> None:
    """Reject weights without a model and images, and settings that need weights if none are given.

    Args:
        config: contains "weights", "model", "mean" and "std".
        defaults: default values of all keys.
        images: key path of the setting for the images.
        keys: key paths of further settings that need weights.
        reason: why they have no effect if no weights are given.

    Raises:
        ConfigError: names the invalid setting.
    """
    weights_file, model = config["weights"], config["model"]
    if not weights_file:
        require_default(config, defaults, ("model", images, "mean", "std", *keys), reason)
        return
    for key in ("model", images):
        if not _value_at(config, key):
            raise ConfigError(f"weights={weights_file} needs {key}=..")
    channels = require_image_model(model)
    for key, lower_bound, kind in (("mean", -float("inf"), "number"), ("std", 0, "positive number")):
        values = config[key]
        if len(values) != channels or not all(isinstance(v, (int, float)) and v > lower_bound for v in values):
            raise ConfigError(f"{key} must have one {kind} per channel ({model} has {channels}), got {values}")


def require_image_model(model: str) -> int:
    """Reject names that are not in `MODELS`, and networks for signals or volumes. Return the number of channels.

    Raises:
        ConfigError: names the model.
    """
    if model not in MODELS:
        raise ConfigError(f"model={model} is not in jaxcnn.models.MODELS{_hint(model, MODELS)}")
    *spatial, channels = MODELS[model].input_shape
    if len(spatial) != 2:
        raise ConfigError(f"model={model} is for inputs of shape {(*spatial, channels)}, not for images")
    return channels


def require_model_of(name: str, model: str) -> None:
    """Reject names that are not in `weights.available`, and another model than that of the weights.

    Raises:
        ConfigError: names the weights and the model.
    """
    models = {entry.name: entry.model for entry in weights.available()}
    full = name if "/" in name else f"timm/{name}"
    if full not in models:
        raise ConfigError(f"weights={name} is neither a file nor in jaxcnn.weights.available(){_hint(full, models)}")
    if models[full] != model:
        raise ConfigError(f"weights={name} are those of model={models[full]}, got model={model}")


def _hint(name: str, names: Iterable[str]) -> str:
    """A question with similar names, or an empty string."""
    close = ", ".join(map(repr, difflib.get_close_matches(name, names, 3)))
    return f"; did you mean {close}?" if close else ""


def _value_at(config: dict, path: str) -> object:
    for key in path.split("."):
        config = config[key]
    return config
