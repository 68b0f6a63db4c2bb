"""Default initial values of parameters, without a compiled program for each shape.

`jax.random` and `jnp.zeros` compile one: for the shapes of a ResNet-50, for several seconds. Here, one program draws
blocks of random numbers of one size, and NumPy does the rest. The numbers are those of `jax.random.truncated_normal`
for each block, from the same generator in a form that takes a third of the time on a CPU and compiles faster.
"""

import concurrent.futures
import contextlib
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._jax import Tracer
from jaxcnn._jit import jit
from jaxcnn._key import fold_in
from jaxcnn._layer import Initializer
from jaxcnn._shapes_only import SHAPES_ONLY

_BLOCK = 2**14  # values with one key
_BLOCKS = 8  # in one call of the program, so that it uses several cores
_LIMIT = 2.0  # of the truncated normal distribution
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


@contextlib.contextmanager
def shapes_only(key: jax.Array) -> Iterator[None]:
    """Inside, initial values are zeros, to trace shapes. Meanwhile, threads compile the programs that draw them."""
    with concurrent.futures.ThreadPoolExecutor() as threads:
        if not isinstance(key, Tracer):
            for program in (fold_in.lower(key, np.uint32(0)), _blocks.lower(key, 0)):
                threads.submit(program.compile)
        with SHAPES_ONLY(True):
            yield


def _draw(key: jax.Array, shape: tuple[int, ...], dtype: Any, std: float) -> jax.Array:
    if SHAPES_ONLY.value:
        return lax.full(shape, 0, dtype)
    size, length = math.prod(shape), _BLOCKS * _BLOCK
    starts = range(0, size, length)
    if size and not isinstance(first := _blocks(key, 0), Tracer):
        # NumPy joins the blocks, because jax.numpy would compile a program for each shape.
        values = _aligned_empty(size)
        for start in starts:
            drawn, part = _blocks(key, start // _BLOCK) if start else first, values[start : start + length]
            np.multiply(jax.device_get(drawn).ravel()[: len(part)], np.float32(std), out=part)
        values = values.astype(dtype, copy=False).reshape(shape)
        return jax.device_put(values, first.sharding if first.committed else None)
    blocks = lax.map(functools.partial(_blocks, key), _BLOCKS * jnp.arange(len(starts)))
    blocks = lax.optimization_barrier(blocks)  # fused with what follows, some values would differ from those above
    return (std * blocks.ravel()[:size].reshape(shape)).astype(dtype)


def _aligned_empty(size: int) -> np.ndarray:
    """An array of float32 at an address divisible by 64, which `device_put` uses without a copy on a CPU."""
    memory = np.empty(size + 15, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size]


@jit
def _blocks(key: jax.Array, number: Any) -> jax.Array:
    """(key, number) -> (_BLOCKS, _BLOCK): random numbers of the blocks from this number.

    Those of block i: jax.random.truncated_normal(jax.random.fold_in(key, i), -2, 2, (_BLOCK,)).
    """
    key0, key1 = jax.random.key_data(key)[:2]  # keys of other generators have more numbers, which repeat these
    number = (number + jnp.arange(_BLOCKS)).astype(jnp.uint32)
    # The barriers keep three loops apart, which is faster than one: keys, random bits, their conversion to values.
    key0, key1 = lax.optimization_barrier(_threefry(key0, key1, jnp.zeros_like(number), number))
    count = lax.broadcasted_iota(jnp.uint32, (_BLOCKS, _BLOCK), 1)
    key0, key1 = (jnp.broadcast_to(part[:, None], count.shape) for part in (key0, key1))
    high, low = _threefry(key0, key1, jnp.zeros_like(count), count)
    bits = lax.optimization_barrier(high ^ low)
    one_to_two = lax.bitcast_convert_type(bits >> 9 | np.uint32(0x3F800000), jnp.float32)
    bound = np.float32(math.erf(_LIMIT / math.sqrt(2)))
    uniform = jnp.maximum(-bound, (one_to_two - 1) * (2 * bound) - bound)
    largest = np.nextafter(np.float32(_LIMIT), np.float32(0))
    return jnp.clip(np.float32(math.sqrt(2)) * lax.erf_inv(uniform), -largest, largest)


def _threefry(key0: jax.Array, key1: jax.Array, x0: Any, x1: Any) -> tuple[jax.Array, jax.Array]:
    """Encrypt the 64 bits (x0, x1) with a key of 64 bits: the random number generator of JAX, Threefry-2x32-20.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    keys = key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for i in range(5):
        for bits in ((13, 15, 26, 6), (17, 29, 16, 24))[i % 2]:
            x0 = x0 + x1
            x1 = x0 ^ (x1 << bits | x1 >> 32 - bits)
        x0, x1 = x0 + keys[(i + 1) % 3], x1 + (keys[(i + 2) % 3] + np.uint32(i + 1))
    return x0, x1
