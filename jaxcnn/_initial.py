"""Default initial values of parameters, without a compiled program for each shape.

`jax.random` and `jnp.zeros` compile one: for the shapes of a ResNet-50, for several seconds. Here, one program draws
blocks of random numbers of one size, and NumPy does the rest.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._jax import Tracer
from jaxcnn._jit import jit
from jaxcnn._layer import Initializer

# At the default level, LLVM unrolls the random number generator. The values are the same.
FAST_COMPILE = {"xla_backend_optimization_level": 1}
_BLOCK = 2**14  # values with one key
_BLOCKS = 4  # in one call of the program, so that it uses several cores
_STD = 0.8796256610342398  # of the standard normal distribution, truncated to [-2, 2]


def truncated_normal(gain: float) -> Initializer:
    """(key, shape, dtype) -> array: variance gain / fan_in; no value is further from 0 than 2.3 standard deviations.

    The fan-in of a kernel (*size, C, F) is its number of inputs per output, the product of size and C. The distribution
    is that of `jax.nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")`, with other numbers.

    Source: LeCun et al., "Efficient BackProp", 1998 (gain 1); He et al., "Delving deep into rectifiers", 2015 (gain 2).
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        std = math.sqrt(gain / max(1, math.prod(shape[:-1]))) / _STD
        return _draw(key, shape, dtype, std)

    return init


def zeros(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """(key, shape, dtype) -> array of zeros."""
    return jax.device_put(np.zeros(shape, dtype))


def filled(shape: tuple[int, ...], value: float) -> jax.Array:
    """A float32 array with one value."""
    return jax.device_put(np.full(shape, value, np.float32))


def _draw(key: jax.Array, shape: tuple[int, ...], dtype: Any, std: float) -> jax.Array:
    size, length = math.prod(shape), _BLOCKS * _BLOCK
    starts = range(0, size, length)
    if size and not isinstance(first := _blocks(key, 0), Tracer):
        # NumPy joins the blocks, because jax.numpy would compile a program for each shape.
        values = np.empty(size, np.float32)
        for start in starts:
            drawn, part = _blocks(key, start // _BLOCK) if start else first, values[start : start + length]
            np.multiply(jax.device_get(drawn).ravel()[: len(part)], np.float32(std), out=part)
        values = values.astype(dtype, copy=False).reshape(shape)
        return jax.device_put(values, first.sharding if first.committed else None)
    blocks = lax.map(functools.partial(_blocks, key), _BLOCKS * jnp.arange(len(starts)))
    return (std * blocks.ravel()[:size].reshape(shape)).astype(dtype)


@functools.partial(jit, compiler_options=FAST_COMPILE)
def _blocks(key: jax.Array, i: Any) -> jax.Array:
    """(key, number) -> (blocks, values): random numbers of the blocks from number i."""
    draw = lambda i: jax.random.truncated_normal(jax.random.fold_in(key, i), -2, 2, (_BLOCK,), jnp.float32)
    return jax.vmap(draw)(i + jnp.arange(_BLOCKS))
