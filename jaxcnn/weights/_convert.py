"""Between the parameters of a model here and a state dict of PyTorch."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import Params, State
from jaxcnn._path import expected_one_of, paths
from jaxcnn.models import MODELS
from jaxcnn.weights._tables import Table, tables

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
COUNTER = "num_batches_tracked"  # of each batch norm there; counts steps for an average that is not used here
TREES = ("params", "state")  # the first part of names in files of this library
SHOWN = 5  # names of each kind in a message
PREFIXES = ("module.", "_orig_mod.", "model.")  # of wrapped models: data parallel, compiled, in a training class


class WeightsError(ValueError):
    """Weights that do not fit the model, or a file that is none."""


def from_torch(model_name: str, state_dict: Mapping[str, Any], **options: Any) -> tuple[Params, State]:
    """(name, state dict) -> (params, state) of `MODELS[name](**options)`, as NumPy arrays in float32.

    kernel[*k, i, o] = weight[o, i, *k];  scale = weight, mean = running_mean, var = running_var

    Networks of the same names are not always the same. timm's MobileNet v3 and EfficientNet b5 to b7 have an eps of
    1e-5 in their norms, where torchvision's have 1e-3. For timm's names, say `norm=jaxcnn.batch_norm`, here and where
    you build the model. timm's `tf_` variants pad as TensorFlow does; no model here does, so their logits differ.

    Args:
        model_name: a key of `MODELS`.
        state_dict: arrays by the names of torchvision, of timm where a table for it is there, or of `save`. Prefixes
            such as "module." are removed. Tensors that `numpy.asarray` takes will do.
        options: of the model, such as classes=10; classes=None leaves out the last layer, auxiliary=False the auxiliary
            heads, whose weights are not used.

    Raises:
        WeightsError: for keys that are missing, unused or of another shape, with the first of each and their number;
            for values that are not arrays of floats; for timm's names of a model whose eps there is another, without
            `norm`; or for a name that is not in `MODELS`.

    Example:
        >>> model = jaxcnn.models.lenet5()
        >>> params, state = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> weights = jaxcnn.weights.to_torch("lenet5", params, state)
        >>> weights["conv1.weight"].shape
        (6, 1, 5, 5)
        >>> again, _ = jaxcnn.weights.from_torch("lenet5", weights)
        >>> bool((again["dense1"]["kernel"] == params["dense1"]["kernel"]).all())
        True
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must map names to arrays, got {type(state_dict).__name__}; of a module: .state_dict()"
        )
    given = {name: _array(name, value) for name, value in _without_prefix(state_dict).items()}
    trees = _shapes(model_name, options)
    choices = [*((table, _places(trees, table)) for table in tables(model_name)), (None, _own_places(trees))]
    table, places = max(choices, key=lambda choice: len(given.keys() & choice[1].keys()))
    if table is not None:
        given = {name: x for name, x in given.items() if name in places or not re.fullmatch(table.optional, name)}
    if options.get("classes", 0) is None:
        with_head = _shapes(model_name, options | {"classes": 1})
        whole = _own_places(with_head) if table is None else _places(with_head, table)
        given = {name: value for name, value in given.items() if name in places or name not in whole}
    _require_fit(model_name, given, places)
    if table is not None and table.eps and "norm" not in options:
        raise WeightsError(
            f"these are timm's names. timm's {model_name} has eps={table.eps:g} in its norms, the model here has 1e-3, "
            f"as torchvision's. For timm's logits, build models.{model_name}(norm=jaxcnn.batch_norm) and say "
            "norm=jaxcnn.batch_norm here, too"
        )
    found = {place.leaf: _float32(name, place.layout.inverse(given[name])) for name, place in places.items()}
    return tuple(
        jax.tree.unflatten(jax.tree.structure(tree), [found[i, path] for path in paths(tree)])
        for i, tree in enumerate(trees)
    )


def to_torch(model_name: str, params: Params, state: State) -> dict[str, np.ndarray]:
    """(name, params, state) -> a state dict of NumPy arrays, by torchvision's names, or timm's where it has the model.

    The inverse of `from_torch`, to the bit. Models that neither has get the names that they have here, with dots.
    The number of batches that each batch norm has seen, which is not kept here, is written as 0.

    Args:
        model_name: a key of `MODELS`.
        params, state: of that model.

    Example: `torch.save({name: torch.from_numpy(w) for name, w in to_torch("resnet18", params, state).items()}, path)`
        >>> params, state = jaxcnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> list(jaxcnn.weights.to_torch("lenet5", params, state))[:2]
        ['conv1.bias', 'conv1.weight']
    """
    _known(model_name)
    places = _places((params, state), tables(model_name)[0])
    leaves = {
        (i, path): np.asarray(leaf)
        for i, tree in enumerate((params, state))
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }
    result = {name: place.layout.apply(leaves[place.leaf]) for name, place in places.items()}
    return result | {name: np.zeros((), np.int64) for name in _counters(result)}


class Layout(NamedTuple):
    """`x.reshape(view).transpose(axes).reshape(there)` is the array there, x of shape `here`."""

    here: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    there: tuple[int, ...]

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.reshape(self.view).transpose(self.axes)).reshape(self.there)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y.reshape([self.view[axis] for axis in self.axes]).transpose(np.argsort(self.axes)).reshape(self.here)


class Place(NamedTuple):
    """Which leaf a weight is: (0, path) in the parameters or (1, path) in the state, and how it is laid out."""

    leaf: tuple[int, str]
    layout: Layout


def _places(trees: tuple[Params, State], table: Table) -> dict[str, Place]:
    """By the names there."""
    return {
        _name(path, table): Place((i, path), _layout(path, leaf.shape, table))
        for i, tree in enumerate(trees)
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }


def _own_places(trees: tuple[Params, State]) -> dict[str, Place]:
    """By the names of `save` without a model."""
    return {
        f"{kind}/{path}": Place((i, path), Layout(leaf.shape, leaf.shape, tuple(range(len(leaf.shape))), leaf.shape))
        for i, (kind, tree) in enumerate(zip(TREES, trees, strict=True))
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        raise WeightsError(f"state_dict[{name!r}] is a dict of its own; pass the one that maps names to arrays")
    try:
        return np.asarray(value)
    except Exception as error:  # such as tensors of PyTorch in bfloat16 or with gradients
        raise WeightsError(f"state_dict[{name!r}] cannot be read as an array: {error}") from error


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{name} is of dtype {array.dtype}, expected floats; quantized weights are not read here")
    with np.errstate(over="raise"):
        try:
            return np.ascontiguousarray(array, np.float32).reshape(array.shape)
        except FloatingPointError as error:
            raise WeightsError(f"{name} has values above the largest float32") from error


def _name(path: str, table: Table) -> str:
    for pattern, instead in table.names:
        path = re.sub(pattern, instead, path)
    *modules, leaf = path.split("/")
    return ".".join([*modules, LEAVES.get(leaf, leaf)])


def _layout(path: str, shape: tuple[int, ...], table: Table) -> Layout:
    view, axes = shape, tuple(range(len(shape)))
    if path.endswith("kernel"):
        axes = (len(shape) - 1, len(shape) - 2, *range(len(shape) - 2))
    there = tuple(view[axis] for axis in axes)
    if path in table.flattened:
        channels, height, width = table.flattened[path]
        view, axes = (height, width, channels, shape[-1]), (3, 2, 0, 1)
    for pattern, ones in table.ones.items():
        if re.fullmatch(pattern, path):
            there += (1,) * ones
    return Layout(shape, view, axes, there)


def _counters(names: Iterable[str]) -> list[str]:
    """The names of the counters that come with those of all batch norms."""
    means = (name.removesuffix("running_mean") for name in names if name.endswith(".running_mean"))
    return sorted(mean + COUNTER for mean in means)


def _shapes(model_name: str, options: dict[str, Any]) -> tuple[Params, State]:
    build = _known(model_name)
    x = jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32)
    return jax.eval_shape(build(**options).init, jax.eval_shape(lambda: jax.random.key(0)), x)


def _known(model_name: str) -> Any:
    if model_name not in MODELS:
        raise WeightsError(f"{model_name!r} is not in MODELS; {expected_one_of(model_name, MODELS)}")
    return MODELS[model_name]


def _without_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    names = dict(state_dict)
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    return names


def _require_fit(model_name: str, given: dict[str, np.ndarray], places: dict[str, Place]) -> None:
    shapes = {name: place.layout.there for name, place in places.items()}
    known = shapes.keys() | {*_counters(shapes)}
    if shapes and not given.keys() & known:
        found = f"its names are such as {_few(map(repr, given))}" if given else "it is empty"
        raise WeightsError(f"these weights are not those of {model_name}: {found}; expected {_few(map(repr, shapes))}")
    lists = {
        "missing": [f"{name} {shape}" for name, shape in shapes.items() if name not in given],
        "unused": [f"{name} {value.shape}" for name, value in given.items() if name not in known],
        "of another shape": [
            f"{name} {given[name].shape}, expected {shape}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ],
    }
    if any(lists.values()):
        parts = [f"{kind} ({len(names)}): {_few(names)}" for kind, names in lists.items() if names]
        raise WeightsError(f"these weights are not those of {model_name} with these options\n  " + "\n  ".join(parts))


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return "; ".join(names[:SHOWN]) + (f"; .. ({len(names)} in all)" if len(names) > SHOWN else "")
