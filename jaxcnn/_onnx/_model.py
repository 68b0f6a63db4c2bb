"""ONNX models of functions of one array."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._onnx._graph import Graph, proto
from jaxcnn._onnx._simplify import simplify
from jaxcnn._onnx._translate import output, translate
from jaxcnn._onnx._value import Tensor
from jaxcnn._program import equations, without_unused


def onnx_model(fn: Callable[[Any], Any], x: jax.ShapeDtypeStruct, metadata: dict[str, str]) -> Any:
    """The `onnx.ModelProto` of a function of one array, with the input "x" and the outputs "y" or "y0", "y1", ..

    The channel dimension stays the last one of inputs and outputs. A symbolic dimension of x is dynamic.
    """
    program = without_unused(jax.make_jaxpr(fn)(x))
    if any(
        getattr(var.aval, "dtype", None) == jnp.bfloat16 for equation in equations(program) for var in equation.outvars
    ):
        raise ValueError(
            "export: ONNX has no convolution in bfloat16; export the model without jaxcnn.cast, in float32"
        )
    graph = Graph()
    values = translate(graph, program, [Tensor("x", tuple(range(len(x.shape))), x.shape, np.dtype(x.dtype))])
    names: list[str] = []
    for value in values:
        name = output(graph, value)
        while name in names:  # each output has a node of its own
            name = graph.add("Identity", name)
        names.append(name)
    simplify(graph, names)
    outputs = ["y"] if len(names) == 1 else [f"y{number}" for number in range(len(names))]
    for name, new in zip(names, outputs, strict=True):
        graph.rename_output(name, new)
    specs = dict(zip(outputs, program.out_avals, strict=True))
    return proto(graph, {"x": x}, specs, metadata)
