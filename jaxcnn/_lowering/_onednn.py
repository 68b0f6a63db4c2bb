"""Convolutions and matrix products by oneDNN, the library of PyTorch on CPUs, which jaxlib contains for x86 processors.

XLA has an experimental option that replaces operations by calls of oneDNN. It also replaces kernel gradients of
convolutions, where oneDNN is slower, and merges activations into the calls: a ReLU then turns NaN into 0. So this
module writes the calls itself. Their configuration is described in XLA's onednn_config.proto.
"""

import contextlib
import functools
import json
import math
import platform
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._jit import has_compilation_cache
from jaxcnn._lowering._problem import Problem

# The releases of jaxlib whose configuration is known. Another configuration could end the process.
_RELEASES = ((0, 10), (0, 11), (0, 12))
_MACHINES = ("x86_64", "AMD64")
_MIN_PRODUCT = 2**20  # of the sizes of two matrices: below it, a call takes longer than XLA's loop

_portable = jax.make_user_context(False)


@contextlib.contextmanager
def excluded() -> Iterator[None]:
    """Programs that are lowered inside do not call oneDNN: another release of jaxlib may not have it."""
    with _portable(True):
        yield


def fits(problem: Problem) -> bool:
    """Whether oneDNN is available and can compute the problem."""
    window = problem.window
    return (
        problem.dtype == "float32"
        and len(problem.spatial) <= 3
        and set(window.input_dilation) == {1}
        and min(map(min, window.padding)) >= 0
        and problem.has_static_shapes
        and usable()
    )


def usable() -> bool:
    """Whether a program that is lowered now may call oneDNN.

    XLA cannot save such programs in a compilation cache, or divide the call between devices.
    """
    return not (_portable.value or has_compilation_cache() or jax.local_device_count("cpu") > 1) and _works()


@functools.cache
def _works() -> bool:
    """Whether jaxlib has oneDNN, tried with a small program."""
    version = jax.lib.__version__  # pyright: ignore[reportPrivateImportUsage]  # public, see jax's API documentation
    major, minor, *_ = version.split(".")
    if (int(major), int(minor)) not in _RELEASES or platform.machine() not in _MACHINES:
        return False
    x, w = np.ones((1, 3, 3, 1), np.float32), np.ones((2, 2, 1, 1), np.float32)
    window = ((2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)))  # output, stride, dilation, padding
    program = lambda x, w: _matmul(_convolution(x, w, *window, 1).reshape(2, 2), jnp.eye(2, dtype=jnp.float32))
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            compiled = jax.jit(program).lower(x, w).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return bool(np.all(np.asarray(compiled(x, w)) == 4))


def forward(x: jax.Array, w: jax.Array, problem: Problem) -> jax.Array:
    window = problem.window
    return _convolution(x, w, problem.output, window.stride, window.dilation, window.padding, problem.groups)


def _convolution(x, w, output, stride, dilation, padding, groups):
    """The configuration of a convolution has the position of each dimension, and numbers as texts."""
    rank = len(output)
    texts = lambda numbers: [*map(str, numbers)]
    starts, ends = zip(*padding, strict=True)
    data = {"data": {"batch_dim": "0", "feature_dim": str(rank + 1), "spatial_dims": texts(range(1, rank + 1))}}
    kernel = {
        "input_feature_dim": str(rank),
        "output_feature_dim": str(rank + 1),
        "spatial_dims": texts(range(rank)),
        "shape": texts(w.shape),
    }
    window = {
        "pad_left": texts(starts),
        "pad_right": texts(ends),
        "strides": texts(stride),
        "window_dilations": texts(dilation),
    }
    config = {
        "dims": str(rank + 2),
        "feature_groups": str(groups),
        "input": data,
        "output": data,
        "kernel": {"filter": kernel},
        "window": window,
    }
    return _call("convolution", (x, w), (x.shape[0], *output, w.shape[-1]), {"onednn_conv_config": config})


def can_multiply(a: jax.Array, b: jax.Array) -> bool:
    """Whether oneDNN is available and can multiply two arrays as matrices, and they are not too small for a call."""
    sizes = (*a.shape, *b.shape)
    return (
        a.dtype == b.dtype == jnp.float32
        and all(isinstance(size, int) and size > 0 for size in sizes)
        and math.prod(sizes) >= _MIN_PRODUCT
        and usable()
    )


def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """(..., C), (C, F) -> (..., F): x w."""
    return _matmul(_rows(x), w).reshape(*x.shape[:-1], -1)


def product_transposed(dy: jax.Array, w: jax.Array) -> jax.Array:
    """(..., F), (C, F) -> (..., C): dy w^T."""
    return _matmul(_rows(dy), w, transposed="b").reshape(*dy.shape[:-1], -1)


def sum_of_products(x: jax.Array, dy: jax.Array) -> jax.Array:
    """(..., C), (..., F) -> (C, F): x^T dy."""
    return _matmul(_rows(x), _rows(dy), transposed="a")


def sums_of_products(x: jax.Array, dy: jax.Array) -> jax.Array:
    """(B, P, C), (B, P, F) -> (B, C, F): x^T dy for each of B."""
    return _matmul(x, dy, transposed="a")


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def _matmul(a: jax.Array, b: jax.Array, transposed: str = "") -> jax.Array:
    config = {"transpose_a": transposed == "a", "transpose_b": transposed == "b"}
    shape = *a.shape[:-2], a.shape[-1 if transposed == "a" else -2], b.shape[-2 if transposed == "b" else -1]
    return _call("matmul", (a, b), shape, {"onednn_matmul_config": config})


def _call(name: str, operands: tuple[Any, Any], shape: tuple[int, ...], config: dict[str, Any]) -> jax.Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    text = json.dumps(config)
    call = jax.ffi.ffi_call(f"__onednn${name}", result, custom_call_api_version=2, legacy_backend_config=text)
    return call(*operands)
