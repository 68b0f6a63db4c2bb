"""A trained model as one program with its weights in it, for use without this library."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import Layer, Params, State, as_layer, short_repr

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    model: Layer,
    params: Params,
    state: State,
    input_spec: Any,
    *,
    classes: Sequence[str] = (),
    platforms: Sequence[str] = PLATFORMS,
) -> jax.export.Exported:
    """(model, params, state) -> the program x -> y of evaluation in StableHLO, for batches of any size.

    y = model.apply(params, state, x, train=False)[0],  with params and state as constants; for bytes, of x / 255

    A program for images of bytes divides them by 255 first, as `train.fit` does.

    The result's `serialize()` gives bytes (with the package flatbuffers, the extra `export`) that
    `jax.export.deserialize` reads on a machine that has jax alone; they are kept readable for months, see jax.export.

    Args:
        model: a layer.
        params, state: what was trained.
        input_spec: an array or `jax.ShapeDtypeStruct` like an input; its first dimension is the batch, of any size.
        classes: the class names, one for each output; they are in the program's `fun_name`, as JSON.
        platforms: for which it is compiled: "cpu", "cuda", "rocm", "tpu".

    Raises:
        TypeError: for an input_spec without shape and dtype.
        ValueError: for an input without a batch dimension, or another number of class names than outputs.

    Example:
        >>> net = jaxcnn.serial(jaxcnn.conv(4), jax.nn.relu, jaxcnn.global_avg_pool, jaxcnn.dense(2))
        >>> params, state = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        >>> images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8)
        >>> program = jaxcnn.export(net, params, state, images, classes=("cat", "dog"))
        >>> loaded = jax.export.deserialize(program.serialize())
        >>> loaded.call(jnp.full((5, 8, 8, 3), 255, jnp.uint8)).shape
        (5, 2)
        >>> import json
        >>> json.loads(loaded.fun_name)["classes"]
        ['cat', 'dog']
    """
    model = as_layer(model)
    if not (hasattr(input_spec, "shape") and hasattr(input_spec, "dtype")):
        raise TypeError(f"export needs an input, or a jax.ShapeDtypeStruct, got {short_repr(input_spec)}")
    if not input_spec.shape:
        raise ValueError("export needs an input_spec with a batch dimension, got that of a scalar")
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *input_spec.shape[1:]), input_spec.dtype)

    def evaluate(x):
        x = x / np.float32(255) if x.dtype == jnp.uint8 else x
        return model.apply(params, state, x, train=False)[0]

    program = jax.export.export(jax.jit(evaluate), platforms=tuple(platforms))(x)
    if not classes:
        return program
    shapes = [output.shape for output in program.out_avals]
    if len(shapes) != 1 or shapes[0][-1:] != (len(classes),):
        raise ValueError(f"export: {len(classes)} class names for outputs of shapes {shapes}; give one for each output")
    return dataclasses.replace(program, fun_name=json.dumps({"classes": [str(name) for name in classes]}))
