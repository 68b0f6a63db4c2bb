"""A trained model as one program with its weights in it, for use without this library."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from jaxcnn._layer import Layer, Params, State, as_layer, shown

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    model: Layer, params: Params, state: State, input_spec: Any, *, platforms: Sequence[str] = PLATFORMS
) -> jax.export.Exported:
    """(model, params, state) -> the program x -> y of evaluation in StableHLO, for batches of any size.

    y = model.apply(params, state, x, train=False)[0],  with params and state as constants

    The result's `serialize()` gives bytes (with the package flatbuffers, the extra `export`) that
    `jax.export.deserialize` reads on a machine that has jax alone; they are kept readable for months, see jax.export.

    Args:
        model: a layer.
        params, state: what was trained.
        input_spec: an array or `jax.ShapeDtypeStruct` like an input; its first dimension is the batch, of any size.
        platforms: for which it is compiled: "cpu", "cuda", "rocm", "tpu".

    Raises:
        TypeError: for an input_spec without shape and dtype.
        ValueError: for an input without a batch dimension.

    Example:
        >>> net = jaxcnn.serial(jaxcnn.conv(4), jax.nn.relu, jaxcnn.global_avg_pool, jaxcnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        >>> program = jaxcnn.export(net, params, state, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
        >>> loaded = jax.export.deserialize(program.serialize())
        >>> loaded.call(jnp.ones((5, 8, 8, 3))).shape
        (5, 2)
    """
    model = as_layer(model)
    if not (hasattr(input_spec, "shape") and hasattr(input_spec, "dtype")):
        raise TypeError(f"export needs an input, or a jax.ShapeDtypeStruct, got {shown(input_spec)}")
    if not input_spec.shape:
        raise ValueError("export needs an input_spec with a batch dimension, got that of a scalar")
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *input_spec.shape[1:]), input_spec.dtype)
    apply = functools.partial(model.apply, params, state, train=False)
    return jax.export.export(jax.jit(lambda x: apply(x)[0]), platforms=tuple(platforms))(x)
