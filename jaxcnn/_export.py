"""Exports a trained model, including its weights, as a program that runs without this library."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._layer import Layer, Params, State, as_layer, short_repr
from jaxcnn._onnx import onnx_model

PLATFORMS = ("cpu", "cuda", "tpu")


def export(
    model: Layer,
    params: Params,
    state: State,
    input_spec: Any,
    *,
    classes: Sequence[str] = (),
    platforms: Sequence[str] = PLATFORMS,
    format: Literal["stablehlo", "onnx"] = "stablehlo",
) -> Any:
    """Exports a model in evaluation mode as a StableHLO program x -> y for any batch size.

    y = model.apply(params, state, x, train=False)[0],  with params and state as constants

    A program for uint8 images divides them by 255 first, as `train.fit` does.

    `serialize()` of the result returns bytes; it needs the package flatbuffers (the extra `export`).
    `jax.export.deserialize` reads them on a machine that has only jax. See jax.export for compatibility guarantees.

    Args:
        model: a layer.
        params, state: the trained parameters and state.
        input_spec: an array or `jax.ShapeDtypeStruct` of the input. The size of its first dimension is ignored.
        classes: class names, one per output. The program's `fun_name` stores them as JSON.
        platforms: target platforms: "cpu", "cuda", "rocm", "tpu".

    Raises:
        TypeError: if `input_spec` has no shape and dtype.
        ValueError: if the input has no batch dimension, or the number of class names differs from that of outputs.

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
        raise TypeError(f"export needs an input array or a jax.ShapeDtypeStruct, got {short_repr(input_spec)}")
    if not input_spec.shape:
        raise ValueError("export needs an input_spec with a batch dimension, got a scalar")
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *input_spec.shape[1:]), input_spec.dtype)

    def evaluate(x):
        x = x / np.float32(255) if x.dtype == jnp.uint8 else x
        return model.apply(params, state, x, train=False)[0]

    if format == "onnx":
        return onnx_model(evaluate, x, {})
    program = jax.export.export(jax.jit(evaluate), platforms=tuple(platforms))(x)
    if not classes:
        return program
    shapes = [output.shape for output in program.out_avals]
    if len(shapes) != 1 or shapes[0][-1:] != (len(classes),):
        raise ValueError(f"export: {len(classes)} class names for outputs of shapes {shapes}; give one per output")
    return dataclasses.replace(program, fun_name=json.dumps({"classes": [str(name) for name in classes]}))
