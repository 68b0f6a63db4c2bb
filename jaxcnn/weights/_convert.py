"""Conversion between the parameters of a jaxcnn model and a PyTorch state dict."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_choice, has_spec, short_repr
from jaxcnn._array import spec_of
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, Params, State
from jaxcnn._path import compile_pattern, expected_one_of, leaves_by_path, paths
from jaxcnn._stack import marked_depths
from jaxcnn._weights_error import WeightsError
from jaxcnn.models import MODELS
from jaxcnn.weights._layout import Layout, layout, torch_name, without_ones
from jaxcnn.weights._mismatch import require_fit, require_options
from jaxcnn.weights._tables import Table, tables
from jaxcnn.weights._uses import Leaf, Use, leaf_uses

COUNTER = "num_batches_tracked"  # an entry of every PyTorch batch norm, which jaxcnn does not need
TREES = ("params", "state")  # the first part of every name in a jaxcnn file
_AVERAGED = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel, beside the entries of the model
# added by DataParallel, torch.compile, training wrappers and networks with a backbone
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")
FLATTEN_ORDERS = ("CHW", "HWC")
Names = Mapping[str, str] | Sequence[tuple[str, str]]


def from_torch(
    model: str | Layer,
    state_dict: Mapping[str, Any],
    *,
    x: Any = None,
    names: Names = (),
    flatten: str = "CHW",
    **options: Any,
) -> tuple[Params, State]:
    """(model, state dict) -> (params, state) of `MODELS[model](**options)` or of a layer, as float32 NumPy arrays.

    kernel[*k, i, o] = weight[o, i, *k];  scale = weight, mean = running_mean, var = running_var

    The scale and bias of a norm over whole maps, such as `layer_norm(axis=1)`, are (*spatial, C) here and (C, *spatial)
    in PyTorch.

    The name of a leaf in the state dict is its path with dots and PyTorch's leaf names, `block1/conv/kernel` ->
    "block1.conv.weight". Models in `MODELS` have tables of the names in torchvision and timm, and `names` gives those
    of other networks. `match` proposes them.

    Models of the same name can differ between libraries. timm's MobileNet v3 and EfficientNet b5 to b7 use eps=1e-5 in
    their norms, torchvision's use 1e-3. For weights with timm's names, pass `norm=jaxcnn.batch_norm` here and when you
    build the model. timm's `tf_` EfficientNets and MobileNets v3 need `padding="tensorflow"` in both calls, b0 to b4
    also `norm=functools.partial(jaxcnn.batch_norm, eps=1e-3)`. transformers' MobileNets v1 and v2 need both. If an
    option is missing, the error gives the call.

    Args:
        model: a key of `MODELS`, or a layer.
        state_dict: arrays by name. Prefixes such as "module." or "backbone." of all names are removed. Values may be
            tensors that `numpy.asarray` accepts. They may have more or fewer dimensions of size 1: a 1x1 convolution
            fits a dense layer. The kernel of a dense layer may also be (in, out), as in ONNX.
        x: an example input or its `jax.ShapeDtypeStruct`, with the batch dimension. Required for a layer.
        names: (regular expression, replacement) pairs, applied in order to each path, such as
            ("^stem/conv/", "conv1/"). Or a dict from path to name in the state dict, such as the result of `match`.
        flatten: the order in which the PyTorch network flattens a feature map before a dense layer. "CHW": PyTorch's
            own, converted to (H, W, C). "HWC": if it permutes the dimensions first, so that both orders agree. The
            order of features that are joined, sliced or reshaped to a map cannot be converted, which is an error.
        options: the options of a model in `MODELS`, such as classes=10. classes=None omits the last layer and
            auxiliary=False the auxiliary heads; their weights are ignored.

    Raises:
        WeightsError: if keys are missing, unused or have a different shape (the message lists the first of each, its
            attributes all), a value is not a floating-point array, a library's names need other options, the
            model's name is not in `MODELS`, or the order of flattened features cannot be converted.
        ValueError: for an unknown `flatten`.
        TypeError: if `state_dict` does not map strings to arrays, `x` has no shape and dtype, or `model`, `names` or
            `options` have another type.

    Example:
        >>> net = jaxcnn.serial(conv=jaxcnn.conv(4), act=jax.nn.relu, flat=jaxcnn.flatten, head=jaxcnn.dense(2))
        >>> trained = {
        ...     "features.0.weight": np.ones((4, 1, 3, 3)), "features.0.bias": np.ones(4),
        ...     "classifier.weight": np.ones((2, 256)), "classifier.bias": np.ones(2),
        ... }
        >>> params, state = jaxcnn.weights.from_torch(
        ...     net, trained, x=jnp.zeros((1, 8, 8, 1)), names=[("^conv", "features/0"), ("^head", "classifier")]
        ... )
        >>> params["conv"]["kernel"].shape, params["head"]["kernel"].shape
        ((3, 3, 1, 4), (256, 2))
    """
    check_choice("from_torch", "flatten", flatten, FLATTEN_ORDERS)
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict must map names to arrays, got {type(state_dict).__name__}; pass module.state_dict()"
        )
    given = {name: as_array(name, value) for name, value in state_dict.items()}
    trees = _shapes(model, options, x)
    label = model if isinstance(model, str) else "the layer"
    if isinstance(model, str) and not names:
        of_libraries = _tables(model, flatten)
        choices = [*((table, _targets(trees, table)) for table in of_libraries), (None, _jaxcnn_targets(trees))]
    else:
        own = _own_table(names)
        choices = [(own, _targets(trees, own, uses(model, trees, options, x, flatten)))]
    candidates = [(arrays, table, targets) for arrays in _without_prefixes(given) for table, targets in choices]
    common_names = [len(arrays.keys() & targets.keys()) for arrays, _, targets in candidates]
    given, table, targets = candidates[common_names.index(max(common_names))]
    if table is not None and table.optional:
        given = {name: x for name, x in given.items() if name in targets or not re.fullmatch(table.optional, name)}
    if options.get("classes", 0) is None:
        with_head = _shapes(model, options | {"classes": 1}, x)
        with_head_targets = _jaxcnn_targets(with_head) if table is None else _targets(with_head, table)
        given = {name: value for name, value in given.items() if name in targets or name not in with_head_targets}
    given = _in_torch_shapes(given, targets)
    shapes = {name: target.layout.torch_shape for name, target in targets.items()}
    wrong = [name for name, shape in shapes.items() if name in given and given[name].shape != shape]
    require_fit(label, given, shapes, wrong, _counters(shapes))
    if table is not None:
        require_options(label, table, options)
    leaves = {target.leaf: _float32(name, target.layout.inverse(given[name])) for name, target in targets.items()}
    return tuple(
        jax.tree.unflatten(jax.tree.structure(tree), [leaves[i, path] for path in paths(tree)])
        for i, tree in enumerate(trees)
    )


def to_torch(
    model: str | Layer, params: Params, state: State, *, x: Any = None, names: Names = (), flatten: str = "CHW"
) -> dict[str, np.ndarray]:
    """(model, params, state) -> a PyTorch state dict of NumPy arrays.

    The exact inverse of `from_torch`. The names are those of torchvision, or of timm for models that torchvision lacks.
    Models that neither has keep their jaxcnn paths, with dots. `num_batches_tracked` of each batch norm is set to 0.

    Args:
        model: a key of `MODELS`, or a layer.
        params, state: the model's parameters and state.
        x, names, flatten: as in `from_torch`.

    Raises:
        WeightsError: if the name is not in `MODELS`, `params` has none of its layers, or the order of flattened
            features cannot be converted.
        ValueError: for an unknown `flatten`.

    Example: `torch.save({name: torch.from_numpy(w) for name, w in to_torch("resnet18", params, state).items()}, path)`
        >>> params, state = jaxcnn.models.lenet5().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> list(jaxcnn.weights.to_torch("lenet5", params, state))[:2]
        ['conv1.bias', 'conv1.weight']
    """
    check_choice("to_torch", "flatten", flatten, FLATTEN_ORDERS)
    trees = params, state
    if isinstance(model, str) and not names:
        _require_model(model, trees)
        targets = _targets(trees, _tables(model, flatten)[0])
    else:
        shapes = jax.eval_shape(lambda: trees)
        targets = _targets(trees, _own_table(names), uses(model, shapes, {}, x, flatten))
    leaves = {
        (i, path): np.asarray(leaf) for i, tree in enumerate(trees) for path, leaf in leaves_by_path(tree).items()
    }
    result = {name: target.layout.apply(leaves[target.leaf]) for name, target in targets.items()}
    return result | {name: np.zeros((), np.int64) for name in _counters(result)}


def _tables(model: str, flatten: str) -> Sequence[Table]:
    """Return the tables of a model, for features that PyTorch flattens in this order."""
    found = tables(model)
    return found if flatten == "CHW" else [table._replace(flattened={}) for table in found]


def _require_model(model: str, trees: tuple[Params, State]) -> None:
    """Raise WeightsError if the parameters have no layer of the model besides its head.

    Layers and shapes are not compared one by one, because they depend on the options of the model.
    """
    expected, _ = _shapes(model, {"classes": None})
    if not expected.keys() & trees[0].keys():
        raise WeightsError(
            f"these parameters do not fit {model}: none of {', '.join(expected)} in params, which has "
            f"{', '.join(trees[0]) or 'no layers'}",
            missing=expected,
        )


def uses(
    model: str | Layer, trees: tuple[Params, State], options: dict[str, Any], x: Any, flatten: str = "CHW"
) -> dict[Leaf, Use]:
    """Return the first use of each leaf in the network, in order of execution."""
    layer, spec = _layer(model, options, x)
    try:
        found = leaf_uses(layer.apply, trees, spec)
    except ValueError as error:
        if not isinstance(model, str):
            raise
        raise WeightsError(
            f"the parameters are not those of {model} with its default options ({error}); pass the layer, such as "
            f"models.{model}(classes=10), and x"
        ) from error
    if flatten == "CHW":
        return found
    return {leaf: use._replace(flattened=(), is_lost=False) for leaf, use in found.items()}


class Target(NamedTuple):
    """A leaf, (0, path) in the parameters or (1, path) in the state, and the layout of its PyTorch weight."""

    leaf: Leaf
    layout: Layout


def _targets(
    trees: tuple[Params, State], table: Table, first_uses: Mapping[Leaf, Use] | None = None
) -> dict[str, Target]:
    """Return the leaf and layout of each PyTorch name."""
    targets: dict[str, Target] = {}
    for i, tree in enumerate(trees):
        depths = leaves_by_path(marked_depths(tree))
        for path, leaf in leaves_by_path(tree).items():
            if depths[path] and path.endswith("kernel"):
                raise WeightsError(
                    f"{path} holds several kernels, stacked by repeat or ensemble; PyTorch has an array for each. "
                    "Convert a network without repeat and ensemble, and stack its parameters"
                )
            name = torch_name(path, table)
            use = (first_uses or {}).get((i, path))
            if use and use.is_lost:
                raise WeightsError(_lost_order(path))
            if name in targets:
                other, source = targets[name].leaf[1], "names" if table.names or table.renames else "PyTorch"
                raise WeightsError(f"{source} gives {other!r} and {path!r} the same name, {name!r}; pass other names")
            targets[name] = Target((i, path), layout(path, leaf.shape, table, use))
    return targets


def _lost_order(path: str) -> str:
    return (
        f"the layer of {path!r}: features are flattened in the order (C, H, W) in PyTorch and (H, W, C) here, and this "
        "network joins, slices or reshapes them such that the order cannot be converted. Pass flatten='HWC' if the "
        "PyTorch network permutes the dimensions itself, or to convert without this order and reorder the weights "
        "of that layer by hand"
    )


def _jaxcnn_targets(trees: tuple[Params, State]) -> dict[str, Target]:
    """Return the leaf and layout of each name that `save` writes without a model."""
    return {
        f"{kind}/{path}": Target((i, path), Layout(leaf.shape, leaf.shape, tuple(range(len(leaf.shape))), leaf.shape))
        for i, (kind, tree) in enumerate(zip(TREES, trees, strict=True))
        for path, leaf in leaves_by_path(tree).items()
    }


def as_array(name: Any, value: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"state_dict must map names to arrays, got the key {short_repr(name)}; make it a str")
    if isinstance(value, Mapping):
        raise WeightsError(f"state_dict[{name!r}] is a dict; pass the inner dict that maps names to arrays")
    try:
        return np.asarray(value)
    except Exception as error:  # for example PyTorch tensors in bfloat16 or with gradients
        hint = "; pass {name: x.detach().cpu().float() for name, x in state_dict.items()}" * hasattr(value, "detach")
        raise WeightsError(f"state_dict[{name!r}] cannot be read as an array: {error}{hint}") from error


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise WeightsError(f"{name} has dtype {array.dtype}, expected floats; quantized weights are not supported")
    with np.errstate(over="raise"):
        try:
            return np.ascontiguousarray(array, np.float32).reshape(array.shape)
        except FloatingPointError as error:
            raise WeightsError(f"{name} has values above the largest float32") from error


def _counters(names: Iterable[str]) -> list[str]:
    """Return the counter names of all batch norms among the names."""
    means = (name.removesuffix("running_mean") for name in names if re.fullmatch(r"(.*\.)?running_mean", name))
    return sorted(mean + COUNTER for mean in means)


def _shapes(model: str | Layer, options: dict[str, Any], x: Any = None) -> tuple[Params, State]:
    layer, spec = _layer(model, options, x)
    return jax.eval_shape(layer.init, key_spec(), spec)


def _layer(model: str | Layer, options: dict[str, Any], x: Any) -> tuple[Layer, Any]:
    """Return the layer and the shape of its input."""
    if not all(map(has_spec, jax.tree.leaves(x))):
        raise TypeError(f"x must be an example input or its jax.ShapeDtypeStruct, got {short_repr(x)}")
    spec = spec_of(x)
    if isinstance(model, str):
        build = _builder(model)
        return build(**options), jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32) if x is None else spec
    if not isinstance(model, Layer):
        if not (isinstance(model, tuple) and len(model) == 2 and all(map(callable, model))):
            raise TypeError(f"model must be a name in MODELS or a layer, got {short_repr(model)}")
        model = Layer(*model)  # a pair of functions (init, apply)
    if options:
        raise TypeError(f"options such as {min(options)} are those of a name in MODELS; set them in the layer")
    if x is None:
        raise TypeError("a layer needs x, an example input or its jax.ShapeDtypeStruct")
    return model, spec


def _builder(model_name: str) -> Any:
    if model_name not in MODELS:
        raise WeightsError(f"{model_name!r} is not in MODELS; {expected_one_of(model_name, MODELS)}")
    return MODELS[model_name]


def _own_table(names: Names) -> Table:
    """Return the table of the argument `names`."""
    if isinstance(names, Mapping):
        return Table(names=names)
    for pair in names:
        if isinstance(pair, str) or len(pair) != 2:
            raise TypeError(f"names must hold (regular expression, replacement) pairs, got {short_repr(pair)}")
        compile_pattern(pair[0])
    return Table(renames=tuple(names))


def _without_prefixes(given: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Return the arrays under their names, and without each prefix that all names have."""
    given = {name: value for name, value in given.items() if name != _AVERAGED}
    choices = [given]
    while prefix := next((p for p in PREFIXES if given and all(name.startswith(p) for name in given)), None):
        given = {name.removeprefix(prefix): value for name, value in given.items()}
        choices.append(given)
    return choices


def _in_torch_shapes(given: dict[str, np.ndarray], targets: Mapping[str, Target]) -> dict[str, np.ndarray]:
    """Return the arrays in the shapes of the layouts, as far as they fit.

    Arrays of another rank fit without their dimensions of size 1: a 1x1 convolution fits a dense layer, but a 3x1
    convolution does not fit a 1x3 one. A dense kernel fits as (in, out) too, unless that is ambiguous.
    """
    result, swapped, square = dict(given), [], []
    for name, target in targets.items():
        if name not in given:
            continue
        found, shape = given[name], target.layout.torch_shape
        is_dense = len(shape) == 2 and target.leaf[1].endswith("kernel")
        if is_dense and found.shape == shape == shape[::-1]:
            square.append(name)
        elif found.ndim != len(shape) and without_ones(found.shape) in (
            without_ones(shape),
            without_ones(target.layout.transposed_shape),  # a convolution over the whole feature map
        ):
            result[name] = found.reshape(shape)
        elif is_dense and found.shape == shape[::-1] != shape:
            result[name] = found.T
            swapped.append(name)
    if swapped and square:
        raise WeightsError(
            f"{swapped[0]} {given[swapped[0]].shape} is (in, out), so {square[0]} {given[square[0]].shape} may be "
            "(in, out) too, or (out, in) as in PyTorch. Transpose all dense kernels to (out, in) first"
        )
    return result
