"""Marks of stacked parameters: `repeat(layer, n)` and `ensemble(layer, n)` add a leading dimension n to each parameter.

The shape does not show this: a stacked dense kernel (n, in, out) looks like the kernel of a 1-D convolution. Therefore
they mark the keys of the dict that `init` returns. A marked key is a string that equals the plain one, and it
survives `jax.tree.map`, gradients and optimizers. Trees with and without marks have the same structure.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._array import readable
from jaxcnn._key import check_key, key_spec
from jaxcnn._layer import InitFn, Layer, Params
from jaxcnn._path import leaves_by_path


class Stacked(str):
    """A key of params. All leaves below it have `depth` leading dimensions from `repeat` and `ensemble`."""

    depth = 1


def stacked_init(layer: Layer, n: int) -> InitFn:
    """The init of n copies of a layer: each leaf has a leading dimension n. Copy i has the key fold_in(key, i)."""

    def init(key, x):
        check_key(key)
        params, state = jax.vmap(lambda i: layer.init(jax.random.fold_in(key, i), x))(jnp.arange(n))
        return mark_stacked(params), state

    return init


def check_stacked(name: str, params: Params, n: int) -> None:
    """Raise ValueError unless each parameter has a leading dimension n."""
    for path, leaf in leaves_by_path(params).items():
        if leaf.shape[:1] != (n,):
            raise ValueError(f"{name}: {path} has shape {leaf.shape}, but n={n} needs ({n}, ...)")


def mark_stacked(params: Params) -> Params:
    """The same tree with each key marked as stacked once more."""
    return {stacked_name(name, key_depth(name) + 1): child for name, child in params.items()}


def unmark_stacked(params: Params) -> Params:
    """The same tree with each key marked as stacked once less: the inverse of `mark_stacked`."""
    return {stacked_name(str(name), max(key_depth(name) - 1, 0)): child for name, child in params.items()}


def key_depth(name: str) -> int:
    """How often the key of a dict is marked as stacked."""
    return getattr(name, "depth", 0)


def stacked_name(name: str, depth: int) -> str:
    """`name`, marked as stacked `depth` times."""
    if depth == 0:
        return name
    marked = Stacked(name)
    marked.depth = depth
    return marked


def stack_depths(layer: Layer, x: Any) -> Params:
    """How often each parameter of the layer is stacked, from `init`: trained params may have lost the marks."""
    params, _ = jax.eval_shape(layer.init, key_spec(), jax.tree.map(readable, x))
    return marked_depths(params)


def marked_depths(params: Params) -> Params:
    """How often each parameter is stacked, by the marks of its keys."""
    return jax.tree_util.tree_map_with_path(lambda path, _: stack_depth(path), params)


def stack_depth(path: tuple) -> int:
    """How often the leaf at this path is stacked."""
    return sum(key_depth(getattr(entry, "key", "")) for entry in path)


def vmap_stacked(f: Callable[..., Any], depth: int) -> Callable[..., Any]:
    """f, vmapped over `depth` leading dimensions."""
    for _ in range(depth):
        f = jax.vmap(f)
    return f
