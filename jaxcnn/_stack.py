"""Which parameters are stacked: those of `repeat(layer, n)` have a leading dimension n, one for each repeat around.

A stacked dense kernel (n, in, out) has the shape of a 1-D convolution's, so shapes cannot tell. `repeat` therefore
notes it in the names of the dict that `init` returns: they are strings like any other, equal to plain ones, and go
through `jax.tree.map`, gradients and optimizers. Trees with and without the note have the same structure.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._layer import Layer, Params


class Stacked(str):
    """The name of an entry of params all of whose leaves have `depth` leading dimensions from `repeat`."""

    depth = 1


def mark_stacked(params: Params) -> Params:
    """The same tree, noted as stacked once more."""
    return {stacked_name(name, getattr(name, "depth", 0) + 1): child for name, child in params.items()}


def stacked_name(name: str, depth: int) -> str:
    """`name`, noted as that of an entry that is stacked `depth` times."""
    if depth == 0:
        return name
    noted = Stacked(name)
    noted.depth = depth
    return noted


def stack_depths(layer: Layer, x: Any) -> Params:
    """For each parameter of the layer, how often it is stacked. From `init`, as params in use may be plain dicts."""
    params, _ = jax.eval_shape(layer.init, jax.eval_shape(lambda: jax.random.key(0)), x)
    return jax.tree_util.tree_map_with_path(lambda path, _: stack_depth(path), params)


def stack_depth(path: tuple) -> int:
    """How often the leaf at this path was stacked."""
    return sum(getattr(getattr(entry, "key", None), "depth", 0) for entry in path)


def vmap_stacked(f: Callable[..., Any], depth: int) -> Callable[..., Any]:
    """f of each of the arrays that are stacked along `depth` leading dimensions."""
    for _ in range(depth):
        f = jax.vmap(f)
    return f
