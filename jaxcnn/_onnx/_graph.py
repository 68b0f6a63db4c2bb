"""An ONNX graph under construction: nodes and constants by name, and the file format."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxcnn._extra import MissingExtraError

OPSET = 18
IR_VERSION = 8  # the first with this opset


SECOND = "second output"  # a node that stands for the second output of the node it reads


class Node(NamedTuple):
    """One operator with one output."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]
    scope: str  # the path of the layer


class Graph:
    """Nodes in order of execution. The same operator on the same inputs is one node."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}  # by output
        self.constants: dict[str, np.ndarray] = {}
        self.terms: dict[str, int] = {}  # the number of terms of each sum
        self.flattened: dict[str, Any] = {}  # the tensor (N, ..) of each matrix (N, elements)
        self.merged: dict[str, Any] = {}  # the tensor (N, *spatial, C) of each array (N, positions, C), and its layout
        self.scope = ""
        self._names: dict[Any, str] = {}
        self._numbers = Counter(["x", "y"])

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        key = (op, inputs, repr(attributes))
        if self._names.get(key) not in self.nodes:  # new, or removed as unused
            name = self._names[key] = self._unused(f"{self.scope}/{op}" if self.scope else op)
            self.nodes[name] = Node(op, inputs, name, attributes, self.scope)
        return self._names[key]

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, str(array.dtype), array.shape, array.tobytes()) if array.size <= 64 else id(array)
        if key not in self._names:
            name = self._names[key] = self._unused(f"{self.scope}/constant" if self.scope else "constant")
            self.constants[name] = array
        return self._names[key]

    def integers(self, values: Sequence[Any]) -> str:
        """A constant for sizes and axes."""
        return self.constant([*values], np.int64)

    def producer(self, name: str, op: str) -> Node | None:
        """The node that computes a value, if it is this operator."""
        node = self.nodes.get(name)
        return node if node and node.op == op else None

    def rename_output(self, old: str, new: str) -> None:
        """Rename the output of a node everywhere."""
        self.nodes = {
            new if name == old else name: node._replace(
                output=new if name == old else name, inputs=tuple(new if i == old else i for i in node.inputs)
            )
            for name, node in self.nodes.items()
        }

    def _unused(self, name: str) -> str:
        self._numbers[name] += 1
        return f"{name}_{number}" if (number := self._numbers[name] - 1) else name


def proto(graph: Graph, inputs: dict[str, Any], outputs: dict[str, Any], metadata: dict[str, str]) -> Any:
    """The checked `onnx.ModelProto`. Inputs and outputs are the shapes and dtypes by name."""
    onnx = import_onnx()
    helper = onnx.helper

    def infos(specs: dict[str, Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                name,
                element_type(spec.dtype),
                [size if isinstance(size, int) else str(size) for size in spec.shape],
            )
            for name, spec in specs.items()
        ]

    second = {node.inputs[0]: node.output for node in graph.nodes.values() if node.op == SECOND}
    rest = lambda node: [second.get(node.output, f"{node.output}/indices")] if node.op == "TopK" else []
    nodes = [
        helper.make_node(node.op, node.inputs, [node.output, *rest(node)], name=node.output, **node.attributes)
        for node in graph.nodes.values()
        if node.op != SECOND
    ]
    used = {name for node in graph.nodes.values() for name in node.inputs}
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items() if name in used]
    body = helper.make_graph(nodes, "jaxcnn", infos(inputs), infos(outputs), weights)
    model = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcnn",
    )
    helper.set_model_props(model, metadata)
    if (
        sum(graph.constants[name].nbytes for name in used & graph.constants.keys()) < 2**31 - 2**24
    ):  # the checker's limit
        _check(onnx, model)
    return model


def _check(onnx: Any, model: Any) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        raise ValueError(
            f"export: an operation has no ONNX operator for its dtype: {error}; convert its operands to float32, apply "
            "it outside the exported model, or use format='stablehlo', which exports all models"
        ) from error


def element_type(dtype: Any) -> int:
    """ONNX's number of an element type."""
    return import_onnx().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def import_onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("export to ONNX needs the package onnx", "onnx") from error
    return onnx
