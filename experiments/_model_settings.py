"""Checks of settings that name a model or its weights, shared by several experiments."""

import difflib
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from experiments._settings import require_default, value_at
from jaxcnn import batch_norm, weights
from jaxcnn.models import MODELS
from jaxcnn.train import ConfigError


def require_weights(
    config: dict,
    defaults: dict,
    images: str,
    keys: tuple[str, ...],
    reason: str = "without weights=FILE",
    size: tuple[int, int] = (0, 0),
) -> None:
    """Reject weights without a model and images, and settings that need weights if none are given.

    Args:
        config: contains "weights", "model", "eps", "mean" and "std".
        defaults: default values of all keys.
        images: key path of the setting for the images.
        keys: key paths of further settings that need weights.
        reason: why they have no effect if no weights are given.
        size: as for `require_image_model`.

    Raises:
        ConfigError: names the invalid setting.
    """
    weights_file, model = config["weights"], config["model"]
    if not weights_file:
        require_default(config, defaults, ("model", images, "mean", "std", *keys), reason)
        return
    for key in ("model", images):
        if not value_at(config, key):
            raise ConfigError(f"weights={weights_file} needs {key}=..")
    *_, channels = require_image_model(model, size, config["eps"], pretrained=True)
    for key, lower_bound, kind in (("mean", -float("inf"), "number"), ("std", 0, "positive number")):
        values = config[key]
        if len(values) != channels or not all(isinstance(v, (int, float)) and v > lower_bound for v in values):
            raise ConfigError(f"{key} must have one {kind} per channel ({model} has {channels}), got {values}")


def require_image_model(
    model: str, size: tuple[int, int] = (0, 0), eps: float = 0.0, *, pretrained: bool = False
) -> tuple[int, int, int]:
    """Reject names that are not in `MODELS` or not of image classifiers, sizes that the model cannot read, unused eps.

    Args:
        model: the name.
        size: (height, width) in pixels. 0 is the size that the model was designed for.
        eps: epsilon of its norms, or 0 for the default.
        pretrained: whether the parameters are those of the size that the model was designed for.

    Returns:
        (height, width, channels).

    Raises:
        ConfigError: names the model.
    """
    if model not in MODELS:
        raise ConfigError(f"model={model} is not in jaxcnn.models.MODELS{_hint(model, MODELS)}")
    build = MODELS[model]
    *spatial, channels = build.input_shape
    if len(spatial) != 2:
        raise ConfigError(f"model={model} is for inputs of shape {(*spatial, channels)}, not for images")
    if eps and _default_norm(model) is None:
        raise ConfigError(f"eps={eps:g} has no effect on model={model}, which has no batch norms")
    height, width = (wanted or designed for wanted, designed in zip(size, spatial, strict=True))
    outputs = _outputs(model, (height, width, channels), build.input_shape if pretrained else (height, width, channels))
    if [len(output.shape) for output in outputs] != [2]:
        shapes = ", ".join(str(("N", *output.shape[1:])) for output in outputs)
        raise ConfigError(f"model={model} is no classifier: its output has shape {shapes}, expected ('N', classes)")
    return height, width, channels


def norm_options(model: str, eps: float) -> dict[str, Any]:
    """The option `norm` of a model that has batch norms: its own, with this epsilon. Empty if eps is 0."""
    return {"norm": functools.partial(_default_norm(model), eps=eps)} if eps else {}


def _default_norm(model: str) -> Any:
    """The constructor of the model's batch norms, with its settings; None if it has no batch norms."""
    option = inspect.signature(MODELS[model]).parameters.get("norm")
    norm = option and option.default
    return norm if getattr(norm, "func", norm) is batch_norm else None


def _outputs(model: str, shape: tuple[int, ...], shape_of_weights: tuple[int, ...]) -> list[jax.ShapeDtypeStruct]:
    """Return the shapes of the outputs for an image of this shape. Raises ConfigError if the model cannot read it."""
    layer = MODELS[model]()
    image, designed = (jax.ShapeDtypeStruct((1, *sizes), jnp.float32) for sizes in (shape, shape_of_weights))
    try:
        trees = jax.eval_shape(layer.init, jax.random.key(0), designed)
        outputs = jax.eval_shape(functools.partial(layer.apply, train=False), *trees, image)[0]
    except (TypeError, ValueError) as error:
        reason, *_ = str(error).splitlines()
        raise ConfigError(f"model={model} cannot read images of {shape[0]} x {shape[1]} pixels: {reason}") from error
    return jax.tree.leaves(outputs)


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
