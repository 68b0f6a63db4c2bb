"""Known values in the place of others, by their paths."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn._path import expected_one_of


def transplant(params: Any, part: Any) -> Any:
    """The tree `params` with the values of `part` at the paths that `part` has.

    For fine-tuning: a trained backbone goes into a larger model, whose other parameters stay as they are. It works on
    states as well, and on shapes (`jax.eval_shape`) to check a part before anything is computed.

    Args:
        params: a nested dict of arrays.
        part: a nested dict with some of its paths. Values get the dtypes of `params`.

    Raises:
        ValueError: for a path that `params` does not have, or an array of another shape.

    Example:
        >>> params = {"body": {"kernel": jnp.zeros(2)}, "head": {"kernel": jnp.zeros(1)}}
        >>> jaxcnn.weights.transplant(params, {"body": {"kernel": [1, 2]}})["body"]["kernel"].tolist()
        [1.0, 2.0]
    """
    return _over(params, part, "")


def _over(tree: Any, part: Any, path: str) -> Any:
    if isinstance(tree, dict):
        if not isinstance(part, dict):
            raise ValueError(f"transplant: {path[:-1] or 'the part'} must be a dict; {expected_one_of('', tree)}")
        for name in part:
            if name not in tree:
                raise ValueError(f"transplant: the model has no {path}{name}; {expected_one_of(name, tree)}")
        return {name: _over(old, part[name], f"{path}{name}/") if name in part else old for name, old in tree.items()}
    if isinstance(part, dict) or np.shape(part) != tree.shape:
        found = "a dict" if isinstance(part, dict) else f"shape {np.shape(part)}"
        raise ValueError(f"transplant: {path[:-1]} has {found}, the model needs {tree.shape}")
    return jnp.asarray(part, tree.dtype)
