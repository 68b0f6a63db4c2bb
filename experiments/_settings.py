"""What the settings of several experiments have in common."""

from jaxcnn.train import ConfigError


def require_default(config: dict, defaults: dict, keys: tuple[str, ...], reason: str) -> None:
    """Refuse settings that were changed though they have no effect.

    Raises:
        ConfigError: that names the key.path, its value and the reason.
    """
    for path in keys:
        value, default = config, defaults
        for key in path.split("."):
            value, default = value[key], default[key]
        if value != default:
            raise ConfigError(f"{path}={value} has no effect {reason}")


def require_one_of(config: dict, path: str, values: tuple[str, ...]) -> None:
    """Refuse a setting that is none of these.

    Raises:
        ConfigError: that names the key.path, its value and the others.
    """
    value = config
    for key in path.split("."):
        value = value[key]
    if value not in values:
        raise ConfigError(f"{path} must be one of {', '.join(values)}, got {value!r}")
