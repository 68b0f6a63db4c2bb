"""What tests of all models share: weights made from nothing but their names in PyTorch, so that both sides can."""

import hashlib
import math
import zlib
from collections.abc import Iterable

import numpy as np
import pytest

BATCH = 4


def size_of(model_name: str) -> int:
    """The side of the images on which a model is compared: small, but legal."""
    larger = {"inception_v3": 299, "xception": 71, "alexnet_2012": 227, "zfnet": 224, "unet": 188}
    if model_name.startswith("deeplabv3_"):
        return 225  # the dilated kernels extend over 49 positions of stride 8
    return larger.get(model_name, 97 if model_name.startswith(("fcn_", "lraspp_")) else 64)


def shape_of(model_name: str, own: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the inputs on which a model with this shape of its own is compared, without the batch."""
    if len(own) == 3:
        return (size_of(model_name), size_of(model_name), own[-1])
    if model_name == "s3d":  # which needs all of it
        return own
    return {2: (64, own[-1]), 4: (8, 32, 32, own[-1])}[len(own)]


def full_but(small: set[str], names: Iterable[str]) -> list:
    """Names of models for `parametrize`; those that are not among the small ones are for full runs."""
    return [name if name in small else pytest.param(name, marks=pytest.mark.full) for name in names]


def images(shape: tuple[int, ...]) -> np.ndarray:
    """(N, *spatial, C), standard normal. The generator's name determines the values of the golden files."""
    return _generator("pictures").standard_normal(shape, np.float32)


def sampled(y):
    """Every 16th row and column of logits (.., N, H, W, K), for small golden files; logits (.., N, K) unchanged."""
    return y[..., ::16, ::16, :] if y.ndim > 3 else y


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array for a name of a state dict, scaled so that activations neither die nor explode."""
    draw = _generator(name)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return draw.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) >= 2 and max(shape) < math.prod(shape):  # a kernel; what is (C, 1, 1) scales channels
        return draw.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / math.prod(shape[1:])))
    if name.endswith("weight") or "layer_scale" in name or name.endswith("gamma"):
        return draw.uniform(0.5, 1.0, shape).astype(np.float32)
    return draw.normal(0, 0.1, shape).astype(np.float32)


def names_hash(shapes: dict[str, tuple[int, ...]]) -> str:
    """Of all names and shapes of a state dict, in whatever order."""
    return hashlib.sha256("\n".join(f"{name} {tuple(shapes[name])}" for name in sorted(shapes)).encode()).hexdigest()


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
