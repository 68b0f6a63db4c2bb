"""Conversion between the parameters of a jaxcnn model and a PyTorch state dict."""

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

LEAF_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
COUNTER = "num_batches_tracked"  # an entry of every PyTorch batch norm, which jaxcnn does not need
TREES = ("params", "state")  # the first part of every name in a jaxcnn file
MAX_SHOWN = 5  # names per list in a message
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")  # added by DataParallel, torch.compile and training wrappers


class WeightsError(ValueError):
    """The weights do not fit the model, or the file is not readable."""


def from_torch(model_name: str, state_dict: Mapping[str, Any], **options: Any) -> tuple[Params, State]:
    """(name, state dict) -> (params, state) of `MODELS[name](**options)`, as float32 NumPy arrays.

    kernel[*k, i, o] = weight[o, i, *k];  scale = weight, mean = running_mean, var = running_var

    Models of the same name can differ between libraries. timm's MobileNet v3 and EfficientNet b5 to b7 use eps=1e-5 in
    their norms, torchvision's use 1e-3. For weights with timm's names, pass `norm=jaxcnn.batch_norm` here and when you
    build the model. timm's `tf_` variants use TensorFlow's padding. No model here does, so their logits differ.

    Args:
        model_name: a key of `MODELS`.
        state_dict: arrays by name, with the names of torchvision, timm (for models with a table) or `save`. Prefixes
            such as "module." are removed. Values may be tensors that `numpy.asarray` accepts.
        options: the model's options, such as classes=10. classes=None omits the last layer and auxiliary=False the
            auxiliary heads; their weights are ignored.

    Raises:
        WeightsError: if keys are missing, unused or have a different shape (the message lists the first of each), a
            value is not a floating-point array, timm's names need `norm`, or the name is not in `MODELS`.

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
            f"state_dict must map names to arrays, got {type(state_dict).__name__}; pass module.state_dict()"
        )
    given = {name: _array(name, value) for name, value in _without_prefix(state_dict).items()}
    trees = _shapes(model_name, options)
    choices = [*((table, _targets(trees, table)) for table in tables(model_name)), (None, _jaxcnn_targets(trees))]
    table, targets = max(choices, key=lambda choice: len(given.keys() & choice[1].keys()))
    if table is not None:
        given = {name: x for name, x in given.items() if name in targets or not re.fullmatch(table.optional, name)}
    if options.get("classes", 0) is None:
        with_head = _shapes(model_name, options | {"classes": 1})
        with_head_targets = _jaxcnn_targets(with_head) if table is None else _targets(with_head, table)
        given = {name: value for name, value in given.items() if name in targets or name not in with_head_targets}
    _require_fit(model_name, given, targets)
    if table is not None and table.eps and "norm" not in options:
        raise WeightsError(
            f"these weights have timm's names. timm's {model_name} uses eps={table.eps:g} in its norms, but this model "
            f"uses 1e-3 by default, as in torchvision. Build models.{model_name}(norm=jaxcnn.batch_norm), and pass "
            "norm=jaxcnn.batch_norm here"
        )
    leaves = {target.leaf: _float32(name, target.layout.inverse(given[name])) for name, target in targets.items()}
    return tuple(
        jax.tree.unflatten(jax.tree.structure(tree), [leaves[i, path] for path in paths(tree)])
        for i, tree in enumerate(trees)
    )


def to_torch(model_name: str, params: Params, state: State) -> dict[str, np.ndarray]:
    """(name, params, state) -> a PyTorch state dict of NumPy arrays.

    The exact inverse of `from_torch`. The names are those of torchvision, or of timm for models that torchvision lacks.
    Models that neither has keep their jaxcnn paths, with dots. `num_batches_tracked` of each batch norm is set to 0.

    Args:
        model_name: a key of `MODELS`.
        params, state: the model's parameters and state.

    Example: `torch.save({name: torch.from_numpy(w) for name, w in to_torch("resnet18", params, state).items()}, path)`
        >>> params, state = jaxcnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> list(jaxcnn.weights.to_torch("lenet5", params, state))[:2]
        ['conv1.bias', 'conv1.weight']
    """
    _builder(model_name)
    targets = _targets((params, state), tables(model_name)[0])
    leaves = {
        (i, path): np.asarray(leaf)
        for i, tree in enumerate((params, state))
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }
    result = {name: target.layout.apply(leaves[target.leaf]) for name, target in targets.items()}
    return result | {name: np.zeros((), np.int64) for name in _counters(result)}


class Layout(NamedTuple):
    """The PyTorch array is `x.reshape(view).transpose(axes).reshape(torch_shape)`, for x of shape `shape`."""

    shape: tuple[int, ...]
    view: tuple[int, ...]
    axes: tuple[int, ...]
    torch_shape: tuple[int, ...]

    def apply(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.reshape(self.view).transpose(self.axes)).reshape(self.torch_shape)

    def inverse(self, y: np.ndarray) -> np.ndarray:
        return y.reshape([self.view[axis] for axis in self.axes]).transpose(np.argsort(self.axes)).reshape(self.shape)


class Target(NamedTuple):
    """A leaf, (0, path) in the parameters or (1, path) in the state, and the layout of its PyTorch weight."""

    leaf: tuple[int, str]
    layout: Layout


def _targets(trees: tuple[Params, State], table: Table) -> dict[str, Target]:
    """Return the leaf and layout of each PyTorch name."""
    return {
        _name(path, table): Target((i, path), _layout(path, leaf.shape, table))
        for i, tree in enumerate(trees)
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }


def _jaxcnn_targets(trees: tuple[Params, State]) -> dict[str, Target]:
    """Return the leaf and layout of each name that `save` writes without a model."""
    return {
        f"{kind}/{path}": Target((i, path), Layout(leaf.shape, leaf.shape, tuple(range(len(leaf.shape))), leaf.shape))
        for i, (kind, tree) in enumerate(zip(TREES, trees, strict=True))
        for path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
    }


def _array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Mapping):
        raise WeightsError(f"state_dict[{name!r}] is a dict; pass the inner dict that maps names to arrays")
    try:
        return np.asarray(value)
    except Exception as error:  # for example PyTorch tensors in bfloat16 or with gradients
        raise WeightsError(f"state_dict[{name!r}] cannot be read as an array: {error}") from error


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{name} has dtype {array.dtype}, expected floats; quantized weights are not supported")
    with np.errstate(over="raise"):
        try:
            return np.ascontiguousarray(array, np.float32).reshape(array.shape)
        except FloatingPointError as error:
            raise WeightsError(f"{name} has values above the largest float32") from error


def _name(path: str, table: Table) -> str:
    for pattern, replacement in table.renames:
        path = re.sub(pattern, replacement, path)
    *modules, leaf = path.split("/")
    return ".".join([*modules, LEAF_NAMES.get(leaf, leaf)])


def _layout(path: str, shape: tuple[int, ...], table: Table) -> Layout:
    view, axes = shape, tuple(range(len(shape)))
    if path.endswith("kernel"):
        axes = (len(shape) - 1, len(shape) - 2, *range(len(shape) - 2))
    torch_shape = tuple(view[axis] for axis in axes)
    if path in table.flattened:
        channels, height, width = table.flattened[path]
        view, axes = (height, width, channels, shape[-1]), (3, 2, 0, 1)
    for pattern, count in table.trailing_ones.items():
        if re.fullmatch(pattern, path):
            torch_shape += (1,) * count
    return Layout(shape, view, axes, torch_shape)


def _counters(names: Iterable[str]) -> list[str]:
    """Return the counter names of all batch norms among the names."""
    means = (name.removesuffix("running_mean") for name in names if name.endswith(".running_mean"))
    return sorted(mean + COUNTER for mean in means)


def _shapes(model_name: str, options: dict[str, Any]) -> tuple[Params, State]:
    build = _builder(model_name)
    x = jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32)
    return jax.eval_shape(build(**options).init, jax.eval_shape(lambda: jax.random.key(0)), x)


def _builder(model_name: str) -> Any:
    if model_name not in MODELS:
        raise WeightsError(f"{model_name!r} is not in MODELS; {expected_one_of(model_name, MODELS)}")
    return MODELS[model_name]


def _without_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    names = dict(state_dict)
    while prefix := next((p for p in PREFIXES if names and all(name.startswith(p) for name in names)), None):
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    return names


def _require_fit(model_name: str, given: dict[str, np.ndarray], targets: dict[str, Target]) -> None:
    shapes = {name: target.layout.torch_shape for name, target in targets.items()}
    known = shapes.keys() | {*_counters(shapes)}
    if shapes and not given.keys() & known:
        found = f"got the names {_shortened(map(repr, given))}" if given else "got no weights"
        raise WeightsError(f"these weights do not fit {model_name}: {found}; expected {_shortened(map(repr, shapes))}")
    lists = {
        "missing": [f"{name} {shape}" for name, shape in shapes.items() if name not in given],
        "unused": [f"{name} {value.shape}" for name, value in given.items() if name not in known],
        "wrong shape": [
            f"{name} {given[name].shape}, expected {shape}"
            for name, shape in shapes.items()
            if name in given and given[name].shape != shape
        ],
    }
    if any(lists.values()):
        parts = [f"{kind} ({len(names)}): {_shortened(names)}" for kind, names in lists.items() if names]
        raise WeightsError(f"these weights do not fit {model_name} with these options\n  " + "\n  ".join(parts))


def _shortened(names: Iterable[str]) -> str:
    names = list(names)
    return "; ".join(names[:MAX_SHOWN]) + (f"; .. ({len(names)} in total)" if len(names) > MAX_SHOWN else "")
