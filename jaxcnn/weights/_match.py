"""A proposal of names for a network without a table, from the order and the shapes of its layers."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxcnn._layer import Layer
from jaxcnn._path import leaves_by_path
from jaxcnn.weights._convert import _shapes, as_array, uses
from jaxcnn.weights._layout import LEAF_NAMES, layout, without_ones
from jaxcnn.weights._tables import PLAIN
from jaxcnn.weights._uses import Leaf

# PyTorch's names of the arrays of a module, and what other libraries call them
KINDS = {
    "weight": ("weight", "weights", "kernel", "scale", "gamma", "w"),
    "bias": ("bias", "offset", "beta", "b"),
    "running_mean": ("running_mean", "moving_mean", "mean"),
    "running_var": ("running_var", "moving_variance", "variance", "var"),
}
KIND_OF = {alias: kind for kind, aliases in KINDS.items() for alias in aliases}
SUFFIX = re.compile(rf"(?:(.*?)[._/])??({'|'.join(sorted(KIND_OF, key=len, reverse=True))})(_\d+|:0)?", re.IGNORECASE)


class Match(dict[str, str]):
    """The path of each leaf -> its proposed name in the state dict: the argument `names` of `from_torch`.

    It prints as a table.

    Attributes:
        ambiguous: path -> why order and shapes do not determine its name.
        missing: paths without a name.
        unused: names without a path.
    """

    def __init__(self, names: Mapping[str, str], ambiguous: dict[str, str], missing: list[str], unused: list[str]):
        super().__init__(names)
        self.ambiguous, self.missing, self.unused = ambiguous, missing, unused

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        marks = {path: f"  (ambiguous: {reason})" for path, reason in self.ambiguous.items()}
        lines = [f"{path:{width}} -> {name}{marks.get(path, '')}" for path, name in self.items()]
        lines += [f"{kind}: {entry}" for kind in ("missing", "unused") for entry in getattr(self, kind)]
        return "\n".join(lines)


class _Module(NamedTuple):
    """Arrays that belong together: the kind of each -> its path or name, and its shape."""

    name: str
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    leaves: frozenset[Leaf] = frozenset()  # those that the network uses
    sources: frozenset[Leaf] = frozenset()  # the leaves on which its input depends
    alphabetical: bool = False  # the order of the file is that of the names


def match(model: str | Layer, state_dict: Mapping[str, Any], x: Any = None, **options: Any) -> Match:
    """(model, state dict) -> the names of the model's leaves in the state dict, as `from_torch(names=)` accepts them.

    The k-th layer of certain shapes in the network is the k-th module of these shapes in the file. The order of the
    network is that of execution. The order of the file is that of the state dict, or if it is alphabetical, as in
    safetensors files, that of the numbers in the names. Within a module, the names identify weight, bias, mean and
    variance. Arrays of integers are ignored.

    The result is a proposal. Layers of the same shapes are `ambiguous` if they are in parallel branches, if the file
    has another number of them, or if the file is alphabetical and their names differ in letters. Check these, and
    correct an entry by `names["branch1/kernel"] = "branch_a.weight"`.

    Args:
        model, x, options: as in `from_torch`.
        state_dict: arrays by name.

    Raises:
        WeightsError: if a value is not an array, or a name is not in `MODELS`.

    Example:
        >>> net = jaxcnn.serial(conv=jaxcnn.conv(4, bias=False), norm=jaxcnn.batch_norm())
        >>> trained = {"0.weight": jnp.ones((4, 3, 3, 3))}
        >>> trained |= {f"1.{name}": jnp.ones(4) for name in ("weight", "bias", "running_mean", "running_var")}
        >>> names = jaxcnn.weights.match(net, trained, jnp.zeros((1, 8, 8, 3)))
        >>> names
        conv/kernel -> 0.weight
        norm/scale  -> 1.weight
        norm/bias   -> 1.bias
        norm/mean   -> 1.running_mean
        norm/var    -> 1.running_var
        >>> params, state = jaxcnn.weights.from_torch(net, trained, x=jnp.zeros((1, 8, 8, 3)), names=names)
    """
    ours, theirs = _modules_of_network(model, x, options), _modules_of_file(state_dict)
    everything = dict.fromkeys(
        module.arrays[k][0] for module in ours for k in (*KINDS, *module.arrays) if k in module.arrays
    )
    names: dict[str, str] = {}
    ambiguous: dict[str, str] = {}
    ours, theirs = _paired(ours, theirs, _shapes_of, names, ambiguous, same_count=True)
    ours, theirs = _paired(ours, theirs, _loose_shapes_of, names, ambiguous)
    ours, theirs = _paired(_single(ours), _single(theirs), _any_shape_of, names, ambiguous)
    missing, unused = ([name for module in side for name, _ in module.arrays.values()] for side in (ours, theirs))
    return Match({path: names[path] for path in everything if path in names}, ambiguous, missing, unused)


def _paired(
    ours: list[_Module],
    theirs: list[_Module],
    key: Callable[[_Module], Any],
    names: dict[str, str],
    ambiguous: dict[str, str],
    *,
    same_count: bool = False,
) -> tuple[list[_Module], list[_Module]]:
    """Add the names of modules with the same key, in order, and return the others.

    With `same_count`, only keys that both sides have equally often count.
    """
    left_here, left_there = _by_key(ours, key), _by_key(theirs, key)
    for value, here in left_here.items():
        there = left_there.get(value, [])
        if same_count and len(here) != len(there):
            continue
        for one, other in zip(here, there, strict=False):
            kinds = sorted(one.arrays), sorted(other.arrays)
            for kind, other_kind in zip(*kinds, strict=True):
                names[one.arrays[kind][0]] = other.arrays[other_kind][0]
        count = min(len(here), len(there))
        for module, reason in _ambiguities(here, there):
            ambiguous |= {path: reason for path, _ in module.arrays.values() if path in names}
        left_here[value], left_there[value] = here[count:], there[count:]
    remaining = [{id(module) for group in side.values() for module in group} for side in (left_here, left_there)]
    return [m for m in ours if id(m) in remaining[0]], [m for m in theirs if id(m) in remaining[1]]


def _modules_of_network(model: str | Layer, x: Any, options: dict[str, Any]) -> list[_Module]:
    """Return the modules in order of execution; those that evaluation does not use are last."""
    trees = _shapes(model, options, x)
    leaf_shapes = {(i, path): leaf.shape for i, tree in enumerate(trees) for path, leaf in leaves_by_path(tree).items()}
    found = uses(model, trees, options, x)
    modules: dict[str, _Module] = {}
    for i, path in [*found, *(leaf for leaf in leaf_shapes if leaf not in found)]:
        *parents, leaf = path.split("/")
        use = found.get((i, path))
        module = modules.setdefault("/".join(parents), _Module("/".join(parents) or path, {}))
        shape = layout(path, leaf_shapes[i, path], PLAIN, use).torch_shape
        module.arrays[LEAF_NAMES.get(leaf, leaf)] = path, shape
        if use:
            modules["/".join(parents)] = module._replace(
                leaves=module.leaves | {(i, path)}, sources=module.sources | use.sources
            )
    return list(modules.values())


def _modules_of_file(state_dict: Mapping[str, Any]) -> list[_Module]:
    arrays = {name: as_array(name, value) for name, value in state_dict.items()}
    names = [name for name, array in arrays.items() if jnp.issubdtype(array.dtype, jnp.floating)]
    alphabetical = names == sorted(names)
    if alphabetical:
        names.sort(key=_natural)
    modules: dict[str, _Module] = {}
    for name in names:
        parts = SUFFIX.fullmatch(name)
        module_name, kind = (parts[1] or "", KIND_OF[parts[2].lower()]) if parts else (name, "weight")
        module = modules.setdefault(module_name, _Module(module_name or name, {}, alphabetical=alphabetical))
        module.arrays[kind if kind not in module.arrays else name] = name, arrays[name].shape
    return list(modules.values())


def _natural(name: str) -> list[Any]:
    """Return a sort key in which layer2 is before layer10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _single(modules: list[_Module]) -> list[_Module]:
    return [
        module._replace(name=array[0], arrays={kind: array})
        for module in modules
        for kind, array in module.arrays.items()
    ]


def _by_key(modules: list[_Module], key: Callable[[_Module], Any]) -> dict[Any, list[_Module]]:
    result: dict[Any, list[_Module]] = {}
    for module in modules:
        result.setdefault(key(module), []).append(module)
    return result


def _shapes_of(module: _Module) -> Any:
    return tuple(sorted((kind, shape) for kind, (_, shape) in module.arrays.items()))


def _loose_shapes_of(module: _Module) -> Any:
    """A 1x1 convolution may be a dense layer."""
    return tuple(sorted((kind, without_ones(shape)) for kind, (_, shape) in module.arrays.items()))


def _any_shape_of(module: _Module) -> Any:
    """Dense kernels may be (in, out)."""
    return tuple(tuple(sorted(without_ones(shape))) for _, shape in module.arrays.values())


def _ambiguities(here: list[_Module], there: list[_Module]) -> Iterator[tuple[_Module, str]]:
    """Yield the modules of the same shapes that could be those of other names, and why."""
    for module in here if there else ():
        if len(here) != len(there):
            yield module, f"{len(here)} of these shapes in the model, {len(there)} in the file"
        elif any(_is_parallel(module, other) for other in here):
            yield module, "parallel to a layer of the same shapes"
        elif not all(itertools.starmap(_is_ordered, itertools.pairwise(there))):
            yield module, "in alphabetical order among layers of the same shapes"


def _is_parallel(one: _Module, other: _Module) -> bool:
    """Neither module depends on the other."""
    return one is not other and not (one.sources & other.leaves or other.sources & one.leaves)


def _is_ordered(one: _Module, other: _Module) -> bool:
    """Whether numbers order two names of an alphabetical file, as in conv2 and conv10."""
    keys = _natural(one.name), _natural(other.name)
    first = next((pair for pair in zip(*keys, strict=False) if pair[0] != pair[1]), None)
    return not one.alphabetical or (first is not None and all(number >= 0 for number, _ in first))
