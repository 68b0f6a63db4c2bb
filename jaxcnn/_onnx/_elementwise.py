"""Operators that act on each element."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn._onnx._graph import SECOND, Graph, element_type
from jaxcnn._onnx._rounding import reciprocal
from jaxcnn._onnx._value import Constant, Tensor, Value, aligned, common_layout

Rule = Callable[..., Any]  # (graph, params, result, *operands); the result has the shape and dtype

# Primitives with an ONNX operator of the same meaning.
OPERATORS = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}


def emit(graph: Graph, op: str, result: Any, *operands: Value, **attributes: Any) -> Tensor:
    """Add an element-wise operator. Its layout has all dimensions of the operands."""
    layout = common_layout(operands)
    dims = set().union(*(operand.dims for operand in operands))
    name = graph.add(op, *(aligned(graph, operand, layout) for operand in operands), **attributes)
    return Tensor(name, tuple(dim if dim in dims else None for dim in layout), result.shape, np.dtype(result.dtype))


def operator(op: str) -> Rule:
    return lambda graph, params, result, *operands: emit(graph, op, result, *operands)


def bitwise(op: str) -> Rule:
    """A logical operator for booleans, the bitwise one for integers."""
    return lambda graph, params, result, *operands: emit(
        graph, op if result.dtype == np.bool_ else f"Bitwise{op}", result, *operands
    )


def computed_from(x: Tensor, name: str, result: Any) -> Tensor:
    """The tensor of this name, which has the layout of x. The result may repeat it, as in scalar * vector."""
    return x._replace(name=name, shape=result.shape)


def constant_of(value: Any, like: Any) -> Constant:
    """A scalar of this dtype, broadcast to the shape."""
    return Constant(np.asarray(value, like.dtype).reshape((1,) * len(like.shape)), like.shape)


def add(graph: Graph, params: Any, result: Any, x: Any, y: Any) -> Value:
    x, y = (y, x) if isinstance(x, Constant) else (x, y)
    return computed_from(x, x.name, result) if _is_integer(y, 0) else emit(graph, "Add", result, x, y)


def sub(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    if isinstance(y, Constant) and _is_float(y):
        return add(graph, params, result, x, y._replace(array=-y.array))
    return emit(graph, "Sub", result, x, y)


def mul(graph: Graph, params: Any, result: Any, x: Any, y: Any) -> Value:
    x, y = (y, x) if isinstance(x, Constant) else (x, y)
    if _is_integer(y, 1):
        return computed_from(x, x.name, result)
    if isinstance(y, Constant):
        return mean_of(graph, result, x, y.array) or emit(graph, "Mul", result, x, y)
    for left, right in ((x, y), (y, x)):
        gate = graph.producer(right.name, "HardSigmoid")
        if gate and gate.inputs == (left.name,) and left.layout == right.layout:
            return computed_from(left, graph.add("HardSwish", left.name), result)
    return emit(graph, "Mul", result, x, y)


def div(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    if isinstance(y, Constant) and _is_float(y):
        if y.scalar == 6 and isinstance(x, Tensor) and (base := _relu6_of_plus_3(graph, x.name)):
            return computed_from(x, graph.add("HardSigmoid", base, alpha=1 / 6, beta=0.5), result)
        if (factor := reciprocal(y.array)) is not None:
            return mul(graph, params, result, x, y._replace(array=factor))
    return emit(graph, "Div", result, x, y)


def mean_of(graph: Graph, result: Any, x: Tensor, factor: np.ndarray) -> Tensor | None:
    """The mean, if x is a sum and the factor divides it by its number of terms."""
    node = graph.producer(x.name, "ReduceSum")
    terms = graph.terms.get(node.output) if node else None
    if not node or not terms or factor.size != 1 or not np.isclose(factor.item() * terms, 1, rtol=1e-6):
        return None
    axes = graph.constants[node.inputs[1]].tolist()
    if len(x.layout) > 2 and axes == [*range(2, len(x.layout))]:
        return computed_from(x, graph.add("GlobalAveragePool", node.inputs[0]), result)
    return computed_from(x, graph.add("ReduceMean", *node.inputs, keepdims=1), result)


def maximum(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    x, y = (y, x) if isinstance(x, Constant) else (x, y)
    if isinstance(y, Constant) and y.scalar == 0 and _is_float(y) and isinstance(x, Tensor):
        return computed_from(x, graph.add("Relu", x.name), result)
    return emit(graph, "Max", result, x, y)


def minimum(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    x, y = (y, x) if isinstance(x, Constant) else (x, y)
    node = graph.producer(x.name, "Relu") if isinstance(x, Tensor) else None
    if isinstance(x, Tensor) and isinstance(y, Constant) and y.scalar is not None and node:
        low, high = graph.constant(np.zeros((), x.dtype)), graph.constant(y.array.reshape(()))
        return computed_from(x, graph.add("Clip", node.inputs[0], low, high), result)
    return emit(graph, "Min", result, x, y)


def clamp(graph: Graph, params: Any, result: Any, low: Value, x: Value, high: Value) -> Value:
    return emit(graph, "Min", result, emit(graph, "Max", result, x, low), high)


def erfc(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    """1 + erf(-x), so that runtimes recognize gelu."""
    negative = emit(graph, "Mul", result, x, constant_of(-1, result))
    return emit(graph, "Add", result, emit(graph, "Erf", result, negative), constant_of(1, result))


def rsqrt(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return emit(graph, "Reciprocal", result, emit(graph, "Sqrt", result, x))


def square(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return emit(graph, "Mul", result, x, x)


def integer_pow(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    if params["y"] == 2:
        return square(graph, params, result, x)
    return emit(graph, "Pow", result, x, constant_of(params["y"], result))


def log1p(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    """x * log(y) / (y - 1) with y = 1 + x, where the rounding of y cancels; softplus if x is an exponential.

    The denominator is finite, so that the result for infinity is infinity.
    """
    exp = graph.producer(x.name, "Exp")
    if exp and result.dtype != np.float64:  # onnxruntime's Softplus of float64 is inaccurate for negative numbers
        return computed_from(x, graph.add("Softplus", exp.inputs[0]), result)
    one = constant_of(1, result)
    y = emit(graph, "Add", result, x, one)
    rounded = emit(graph, "Sub", result, y, one)
    is_one = emit(graph, "Equal", jax.ShapeDtypeStruct(result.shape, np.bool_), y, one)
    finite = emit(graph, "Min", result, rounded, constant_of(np.finfo(result.dtype).max, result))
    ratio = emit(graph, "Div", result, emit(graph, "Log", result, y), finite)
    return emit(graph, "Mul", result, x, emit(graph, "Where", result, is_one, one, ratio))


def expm1(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    """tanh(x / 2) * (exp(x) + 1), which is accurate for small x."""
    tanh = emit(graph, "Tanh", result, emit(graph, "Mul", result, x, constant_of(0.5, result)))
    return emit(
        graph, "Mul", result, tanh, emit(graph, "Add", result, emit(graph, "Exp", result, x), constant_of(1, result))
    )


def neg(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    if x.dtype.kind == "u":
        raise NotImplementedError(f"the negative of {x.dtype}; convert it to int32")
    return emit(graph, "Mul", result, x, constant_of(-1, result))


def less(graph: Graph, params: Any, result: Any, x: Value, y: Value) -> Value:
    """Positions are never negative, so what jax does with negative ones is left out."""
    if isinstance(x, Tensor) and isinstance(y, Constant) and y.scalar == 0:
        cast = graph.producer(x.name, "Cast")
        node = graph.nodes.get(cast.inputs[0] if cast else x.name)
        if node and node.op in ("ArgMax", "ArgMin", "Range", SECOND):
            return constant_of(False, result)
    return emit(graph, "Less", result, x, y)


def select(graph: Graph, params: Any, result: Any, which: Value, *cases: Value) -> Value:
    if isinstance(which, Constant) and which.scalar is not None:
        return cases[int(which.scalar)]
    if len(cases) != 2 or which.dtype != np.bool_:
        raise NotImplementedError(f"a selection among {len(cases)} cases by {which.dtype}")
    if wide := _SELECTED_AS.get(str(result.dtype)):  # onnxruntime has no Where for these
        as_wide = lambda spec: jax.ShapeDtypeStruct(spec.shape, wide)
        y = select(graph, params, as_wide(result), which, *(cast(graph, {}, as_wide(case), case) for case in cases))
        return cast(graph, {}, result, y)
    return emit(graph, "Where", result, which, cases[1], cases[0])


def round_(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    if params["rounding_method"] != jax.lax.RoundingMethod.TO_NEAREST_EVEN:
        raise NotImplementedError("halves away from zero; jnp.round has a translation")
    return emit(graph, "Round", result, x)


def is_finite(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return emit(graph, "Not", result, emit(graph, "Or", result, *(emit(graph, op, result, x) for op in _NOT_FINITE)))


def cast(graph: Graph, params: Any, result: Any, x: Value) -> Value:
    if x.dtype == result.dtype:
        return x
    if isinstance(x, Constant):
        return x._replace(array=x.array.astype(result.dtype))
    return x._replace(name=graph.add("Cast", x.name, to=element_type(result.dtype)), dtype=np.dtype(result.dtype))


def identity(graph: Graph, params: Any, result: Any, x: Value) -> Value:
    return x


_NOT_FINITE = ("IsInf", "IsNaN")
_SELECTED_AS = {"bool": np.int32, "int8": np.int32, "int16": np.int32, "uint16": np.int32, "uint32": np.int64}


def _is_integer(value: Value, number: int) -> bool:
    """Whether the value is this number, as in the positions that jax computes."""
    return isinstance(value, Constant) and value.dtype.kind in "iu" and value.scalar == number


def _is_float(value: Value) -> bool:
    return value.dtype.kind not in "biu"


def _relu6_of_plus_3(graph: Graph, name: str) -> str | None:
    """x, if the value is min(max(x + 3, 0), 6)."""
    clip = graph.producer(name, "Clip")
    plus = clip and graph.producer(clip.inputs[0], "Add")
    if not clip or not plus or [graph.constants[bound].item() for bound in clip.inputs[1:]] != [0, 6]:
        return None
    offset = graph.constants.get(plus.inputs[1])
    return plus.inputs[0] if offset is not None and offset.size == 1 and offset.item() == 3 else None


RULES: dict[str, Rule] = {name: operator(op) for name, op in OPERATORS.items()} | {
    "add": add,
    "add_any": add,
    "and": bitwise("And"),
    "clamp": clamp,
    "convert_element_type": cast,
    "copy": identity,
    "div": div,
    "erfc": erfc,
    "exp2": lambda graph, params, result, x: emit(graph, "Pow", result, constant_of(2, result), x),
    "expm1": expm1,
    "integer_pow": integer_pow,
    "is_finite": is_finite,
    "jaxcnn_stored": identity,
    "jaxcnn_stored_gradient": identity,
    "log1p": log1p,
    "lt": less,
    "max": maximum,
    "min": minimum,
    "mul": mul,
    "name": identity,
    "ne": lambda graph, params, result, x, y: emit(graph, "Not", result, emit(graph, "Equal", result, x, y)),
    "neg": neg,
    "not": bitwise("Not"),
    "or": bitwise("Or"),
    "rem": lambda graph, params, result, x, y: emit(graph, "Mod", result, x, y, fmod=1),
    "round": round_,
    "rsqrt": rsqrt,
    "select_n": select,
    "square": square,
    "stop_gradient": identity,
    "sub": sub,
    "xor": bitwise("Xor"),
}
