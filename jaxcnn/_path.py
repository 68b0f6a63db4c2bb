"""Parameters by path: a path such as `block1/conv/kernel` names one leaf, a regular expression selects several."""

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

import jax

KERNELS = "(.*/)?kernel"  # the default of regularizers and weight decay


def paths(tree: Any) -> list[str]:
    """The path of every leaf, in the order of `jax.tree.leaves`.

    Example:
        >>> jaxcnn.paths({"conv": {"kernel": 0, "bias": 0}})
        ['conv/bias', 'conv/kernel']
    """
    return [_join(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """path -> leaf, in the order of `jax.tree.leaves`."""
    return {_join(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def merged(params: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`params` updated recursively with the leaves of `new`."""
    update = lambda name, child: merged(params.get(name, {}), child) if isinstance(child, dict) else child
    return params | {name: update(name, child) for name, child in new.items()}


def mask(params: Any, pattern: str) -> Any:
    """A tree of bools, True for leaves whose whole path matches the regular expression `pattern`.

    For masks in optax: `optax.add_decayed_weights(1e-4, mask=mask(params, ".*/kernel"))`.

    Args:
        params: a nested dict of arrays.
        pattern: regular expression that matches a whole path, such as `block1/.*`.

    Raises:
        ValueError: if the pattern matches no path, or is not a regular expression.

    Example:
        >>> jaxcnn.mask({"conv": {"kernel": 0, "bias": 0}}, ".*/kernel")
        {'conv': {'bias': False, 'kernel': True}}
    """
    names = paths(params)
    chosen = set(matching(names, pattern, "parameter"))
    return jax.tree_util.tree_map_with_path(lambda path, _: _join(path) in chosen, params)


def count_params(params: Any, pattern: str = ".*") -> int:
    """The number of parameters in all leaves whose whole path matches `pattern`.

    Args:
        params: a nested dict of arrays, or of `jax.ShapeDtypeStruct`.
        pattern: regular expression, as in `mask`.

    Raises:
        TypeError: if a leaf has no shape, for example in a Layer instead of its params.
        ValueError: if the tree has leaves and the pattern matches none of them.

    Example:
        >>> import numpy as np
        >>> jaxcnn.count_params({"conv": {"kernel": np.zeros((5, 5, 3, 1)), "bias": np.zeros(1)}}, ".*/kernel")
        75
    """
    leaves = jax.tree.leaves(params)
    if not leaves:
        return 0
    if not all(hasattr(leaf, "shape") for leaf in leaves):
        raise TypeError("count_params needs a tree of arrays, such as the params that init returns")
    chosen = jax.tree.leaves(mask(params, pattern))
    return sum(math.prod(leaf.shape) for leaf, hit in zip(leaves, chosen, strict=True) if hit)


def matching(names: list[str], pattern: str, kind: str) -> list[str]:
    """Those of `names` that match `pattern` as a whole; raises ValueError if none does."""
    expression = compile_pattern(pattern)
    chosen = [name for name in names if expression.fullmatch(name)]
    if not chosen:
        raise ValueError(f"{pattern!r} does not match the whole path of any {kind}; {expected_one_of(pattern, names)}")
    return chosen


def compile_pattern(pattern: str) -> re.Pattern:
    """Compile a regular expression; raise ValueError if it is invalid."""
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error


def expected_one_of(name: Any, names: Iterable[str]) -> str:
    """Text for error messages, `expected one of: a, b; did you mean 'a'?`: some names, and the closest to `name`."""
    names = list(names)
    if not names:
        return "none exist"
    some = ", ".join(names[:12]) + (f", .. ({len(names)} in total)" if len(names) > 12 else "")
    by_lower_case = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, 1)
    return f"expected one of: {some}" + (f"; did you mean {by_lower_case[close[0]]!r}?" if close else "")


def _join(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
