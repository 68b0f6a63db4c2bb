"""The settings of a sweep: which ones may vary, and the model and config of each run."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import short_repr
from jaxcnn._combine import AnyLayer
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, Params, State, as_layer
from jaxcnn._path import expected_one_of
from jaxcnn._trainable import trainable_params
from jaxcnn.train._config import SYNONYMS, Config, ConfigError, flat_entries
from jaxcnn.train._optimizer import argument_type
from jaxcnn.train._recipe import AUGMENTS, FIT, moves_constant_parameters, resolve
from jaxcnn.train._schedule import check_schedule

Values = dict[str, Any]  # the name of a setting, or of an argument of the model -> its value in one run

_UNSUPPORTED = ("patience", "restore_best", "tensorboard", "report", "on_nonfinite", "checkpoint.every")
_VARYING = (
    "optimizer",
    "schedule.end",
    "weight_decay.rate",
    "regularize",
    "clip_norm",
    "ema",
    "label_smoothing",
    "mixup",
    "cutmix",
    "augment",
    "seed",
)


def reject_unsupported(config: Config) -> None:
    """Raise ConfigError for settings of `fit` that a sweep does not support."""
    defaults, values = dict(flat_entries(FIT)), dict(flat_entries(config))
    for name in _UNSUPPORTED:
        if values[name] != defaults[name]:
            raise ConfigError(f"{name}: a sweep does not support it; use fit for a single run, got {values[name]!r}")


class Space:
    """All combinations of the values in `over`.

    Raises:
        ConfigError: for names that do not exist or cannot vary, and for values that are not valid.
    """

    def __init__(self, model: AnyLayer | Callable[..., AnyLayer], config: Config, over: dict[str, list[Any]]):
        as_python = lambda value: value.item() if isinstance(value, np.number) else value
        self.over = over = {name: [*map(as_python, values)] for name, values in over.items()}
        self.config, self._model = config, model
        parameters = {} if isinstance(model, Layer) else dict(inspect.signature(model).parameters)  # type: ignore[arg-type]
        self._arguments = [name for name in over if name in parameters and "." not in name]
        numbers = dict(_numbers(config))
        varying = [name for name in numbers if _can_vary(name, config)]
        for name, values in over.items():
            if name in self._arguments:
                if name in numbers:
                    raise ConfigError(
                        f"over: {name!r} is a setting and an argument of the model; rename the argument of the model"
                    )
            elif name not in numbers and name not in dict(flat_entries(config)):
                known = {key.split(".")[-1]: key for key in varying}
                similar = known.get(SYNONYMS.get(name, name), name)
                raise ConfigError(f"over: unknown {name!r}; {expected_one_of(similar, [*varying, *parameters])}")
            elif name not in varying:
                raise ConfigError(
                    f"over: {name!r} changes the compiled program; call sweep once for each of its values"
                )
            if not values or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
                raise ConfigError(f"over: {name!r} must have one or more numbers, got {short_repr(values)}")
            if len({*values}) < len(values):
                raise ConfigError(f"over: {name!r} has a value more than once: {short_repr(values)}")
            if name != "seed" and not all(abs(value) <= float(np.finfo(np.float32).max) for value in values):
                raise ConfigError(f"over: {name!r} must have numbers that are finite in float32, got {values}")
        if not over:
            raise ConfigError('over is empty; pass settings and their values, such as {"seed": range(5)}')
        for run in self.runs:
            check_schedule(resolve(self.model_and_config(run)[1]))

    @property
    def runs(self) -> list[Values]:
        """The values of each run, the last name fastest."""
        return [dict(zip(self.over, values, strict=True)) for values in itertools.product(*self.over.values())]

    def model_and_config(self, values: Values) -> tuple[Layer, Config]:
        """The model and the config of a run; `values` may be traced."""
        config = self.config
        for name, value in values.items():
            if name not in self._arguments:
                config = _replaced(config, name.split("."), value)
        model: Any = self._model
        if self._arguments:
            model = model(**{name: values[name] for name in self._arguments})
        return as_layer(model), config

    def check_models(self, image: jax.ShapeDtypeStruct) -> tuple[Params, State]:
        """The shapes of params and state, which must be the same in all runs."""
        shapes = lambda values: jax.eval_shape(self.model_and_config(values)[0].init, key_spec(), image)
        first = shapes(self.runs[0])
        for values in self.runs[1:] if self._arguments else []:
            if shapes(values) != first:
                names = ", ".join(f"{name}={values[name]}" for name in self._arguments)
                raise ConfigError(
                    f"over: {names} gives parameters of other shapes than the first run; call sweep once for each shape"
                )
        return first

    def trainable(self, params: Params, state: State, image: jax.ShapeDtypeStruct) -> Params | None:
        """Which parameters are trained, for `make_optimizer`; None if nothing changes the others."""
        runs = list(map(self.model_and_config, self.runs))
        if not any(moves_constant_parameters(config) for _, config in runs):
            return None
        return trainable_params(runs[0][0], params, state, image)


def stacked_values(runs: Sequence[Values], size: int) -> dict[str, jax.Array]:
    """The values of the runs as arrays of length `size`, filled up with those of the last run."""
    padded = [*runs, *[runs[-1]] * (size - len(runs))]
    dtype = lambda name: np.uint32 if name == "seed" else np.float32
    return {name: jnp.array([values[name] for values in padded], dtype(name)) for name in runs[0]}


def _can_vary(name: str, config: Config) -> bool:
    """Whether a number may be an input of the program. Not integers such as pixels of augmentations: they are sizes."""
    group, *path = name.split(".")
    if group == "optimizer":
        return argument_type(config["optimizer"]["name"], path[0]) is float
    if group != "augment" or len(path) != 2:
        return name in _VARYING or name.startswith(tuple(f"{v}." for v in _VARYING))
    entry, argument = map(int, path)
    parameters = [*inspect.signature(AUGMENTS[config["augment"][entry][0]]).parameters.values()]
    return parameters[argument - 1].annotation is not int


def _numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, number) of all numbers in a config, also in its lists, such as ("augment.0.1", 10)."""
    if isinstance(config, int | float) and not isinstance(config, bool):
        yield prefix.removesuffix("."), config
    items = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from _numbers(value, f"{prefix}{key}.")


def _replaced(config: Any, path: list[str], value: Any) -> Any:
    """A copy of the config with the value at the path."""
    if not path:
        return value
    key, *rest = path
    if isinstance(config, list):
        return [_replaced(item, rest, value) if str(i) == key else item for i, item in enumerate(config)]
    return config | {key: _replaced(config[key], rest, value)}
