"""Weights in safetensors files: names, shapes and bytes, and nothing that could run."""

import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn._layer import Params, State
from jaxcnn._path import paths
from jaxcnn.weights._convert import WeightsError, from_torch, to_torch

TREES = ("params", "state")
DTYPES = {  # of the format that NumPy and jax have; safetensors' own reader for NumPy lacks bfloat16
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def save(path: str | os.PathLike, params: Params, state: State, *, model: str | None = None) -> None:
    """Writes params and state to a safetensors file, by their paths here, or by torchvision's or timm's names.

    The file has its name only when it is whole.

    Args:
        path: of the file.
        params, state: of a model.
        model: its name in `MODELS`, for the names and layouts of `to_torch`.

    Raises:
        MissingExtraError: without the package safetensors.
        WeightsError: for a name that is not in `MODELS`.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     jaxcnn.weights.save(f"{folder}/net.safetensors", {"kernel": jnp.ones((2, 3))}, {})
        ...     params, state = jaxcnn.weights.load(f"{folder}/net.safetensors")
        >>> params["kernel"].shape, state
        ((2, 3), {})
    """
    if model is None:
        arrays = {
            f"{kind}/{leaf_path}": np.asarray(leaf)
            for kind, tree in zip(TREES, (params, state), strict=True)
            for leaf_path, leaf in zip(paths(tree), jax.tree.leaves(tree), strict=True)
        }
    else:
        arrays = to_torch(model, params, state)
    data = _safetensors().numpy.save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    path = pathlib.Path(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def load(path: str | os.PathLike, model: str | None = None, **options: Any) -> tuple[Params, State]:
    """Reads (params, state), NumPy arrays, from a safetensors file that `save` wrote, or torchvision's or timm's names.

    Args:
        path: of the file.
        model: the name in `MODELS` of the model that the weights are for; needed for names that are not from here.
        options: of that model, such as classes=10.

    Raises:
        WeightsError: for a file of another kind (one of PyTorch's pickles is not opened), a damaged one, or weights
            that do not fit the model: all names that are missing, unused or of another shape.
        MissingExtraError: without the package safetensors.
        OSError: if there is no such file.

    Example: `params, state = jaxcnn.weights.load("resnet18.safetensors", "resnet18")`
    """
    path = pathlib.Path(path)
    with path.open("rb") as file:
        start = file.read(10)
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl") or start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        raise WeightsError(
            f"{path} is a pickle, which can run any code when it is read, and is not read here. To convert it:\n"
            "  import torch, safetensors.torch\n"
            f"  safetensors.torch.save_file(torch.load({str(path)!r}, weights_only=True), "
            f"{str(path.with_suffix('.safetensors'))!r})"
        )
    safetensors = _safetensors()
    try:
        arrays = {
            name: np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in safetensors.deserialize(path.read_bytes())
        }
    except Exception as error:  # of its own classes, and of NumPy
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    if not all(name.startswith(tuple(f"{kind}/" for kind in TREES)) for name in arrays):
        if model is None:
            raise WeightsError(
                f"{path} has names such as {min(arrays)!r}: say which model they are for, load(path, model)"
            )
        return from_torch(model, arrays, **options)
    trees = {kind: {} for kind in TREES}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        at = trees
        for parent in parents:
            at = at.setdefault(parent, {})
        at[leaf] = array
    return trees["params"], trees["state"]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("files of weights are read by safetensors", "weights") from error
    return safetensors
