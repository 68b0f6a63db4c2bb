"""What the settings of several experiments have in common."""

import difflib

from jaxcnn.models import MODELS
from jaxcnn.train import ConfigError


def require_default(config: dict, defaults: dict, keys: tuple[str, ...], reason: str) -> None:
    """Refuse settings that were changed though they have no effect.

    Raises:
        ConfigError: that names the key.path, its value and the reason.
    """
    for path in keys:
        if _at(config, path) != _at(defaults, path):
            raise ConfigError(f"{path}={_at(config, path)} has no effect {reason}")


def require_one_of(config: dict, path: str, values: tuple[str, ...]) -> None:
    """Refuse a setting that is none of these.

    Raises:
        ConfigError: that names the key.path, its value and the others.
    """
    if _at(config, path) not in values:
        raise ConfigError(f"{path} must be one of {', '.join(values)}, got {_at(config, path)!r}")


def require_weights(config: dict, defaults: dict, images: str, keys: tuple[str, ...]) -> None:
    """Refuse weights without a model and images that they are for, and settings for them without weights.

    Args:
        config: with "weights", "model", "mean", "std".
        defaults: of all keys.
        images: the key.path of where the images are.
        keys: key.paths that have an effect with weights alone, besides those above.

    Raises:
        ConfigError: that names the key.
    """
    file, model = config["weights"], config["model"]
    if not file:
        require_default(config, defaults, ("model", images, "mean", "std", *keys), "without weights=FILE")
        return
    for key in ("model", images):
        if not _at(config, key):
            raise ConfigError(f"weights={file} needs {key}=..")
    if model not in MODELS:
        near = difflib.get_close_matches(model, MODELS, 3)
        raise ConfigError(f"model={model} is not in jaxcnn.models.MODELS; near it are {', '.join(near) or 'none'}")
    channels = MODELS[model].input_shape[2]
    for key, least in (("mean", -float("inf")), ("std", 0)):
        values = config[key]
        if len(values) != channels or not all(isinstance(v, (int, float)) and v > least for v in values):
            raise ConfigError(f"{key} must have a number for each of {channels} channels of {model}, got {values}")


def _at(config: dict, path: str) -> object:
    for key in path.split("."):
        config = config[key]
    return config
