"""Replacement of parameters by path."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._path import expected_one_of


def transplant(params: Any, part: Any) -> Any:
    """Return `params` with the values of `part` at the paths of `part`.

    For fine-tuning: copy a trained backbone into a larger model and keep the other parameters. It also accepts states,
    and shapes (`jax.eval_shape`) to validate a part before any computation.

    Args:
        params: a nested dict of arrays.
        part: a nested dict with a subset of the paths. Values are cast to the dtypes of `params`.

    Raises:
        ValueError: if `params` lacks a path of `part`, or the shapes differ.

    Example:
        >>> params = {"body": {"kernel": jnp.zeros(2)}, "head": {"kernel": jnp.zeros(1)}}
        >>> jaxcnn.weights.transplant(params, {"body": {"kernel": [1, 2]}})["body"]["kernel"].tolist()
        [1.0, 2.0]
    """
    return _replaced(params, part, "")


def _replaced(tree: Any, part: Any, path: str) -> Any:
    if isinstance(tree, dict):
        if not isinstance(part, dict):
            raise ValueError(f"transplant: {path[:-1] or 'the part'} must be a dict; {expected_one_of('', tree)}")
        for name in part:
            if name not in tree:
                inside = [key for key, value in tree.items() if isinstance(value, dict) and part.keys() <= value.keys()]
                hint = f"; is the part that of {path}{inside[0]}, as in {{{inside[0]!r}: part}}?" if inside else ""
                raise ValueError(f"transplant: the model has no {path}{name}; {expected_one_of(name, tree)}{hint}")
        return {
            name: _replaced(value, part[name], f"{path}{name}/") if name in part else value
            for name, value in tree.items()
        }
    if isinstance(part, dict) or np.shape(part) != tree.shape:
        found = "a dict" if isinstance(part, dict) else f"shape {np.shape(part)}"
        raise ValueError(
            f"transplant: {path[:-1]} has {found}, the model needs {tree.shape}; leave out layers that differ, such as "
            "the last one of a classifier for other classes"
        )
    return jnp.asarray(part, tree.dtype)
