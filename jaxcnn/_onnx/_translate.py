"""Translates a program of jax into an ONNX graph. Operations on constants are computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._jax import Literal, scan_counts
from jaxcnn._onnx import _elementwise, _gather, _order, _shape, _window
from jaxcnn._onnx._graph import Graph
from jaxcnn._onnx._value import Constant, Tensor, Value, arranged, batch_size
from jaxcnn._program import Program, inner_programs, interpret, jaxpr_of

RULES = _elementwise.RULES | _shape.RULES | _gather.RULES | _order.RULES | _window.RULES
# Element-wise functions of NumPy, which does not compile a program per shape.
NUMPY: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "stop_gradient": np.asarray,
    "jaxcnn_stored": np.asarray,
    "jaxcnn_stored_gradient": np.asarray,
}
CALLS = {"checkpoint", "closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "remat2"}
LOOPS = {"cond", "scan", "while"}
ELEMENTWISE = {*_elementwise.RULES, "nextafter"}


def translate(graph: Graph, program: Program, inputs: Sequence[Value]) -> list[Value]:
    """The results of the program."""
    values = interpret(program, inputs, functools.partial(_translated, graph), _constant)
    return [*map(_with_dtype, values, jaxpr_of(program).outvars)]


def output(graph: Graph, value: Value) -> str:
    """The name of a result in the layout of its array, never that of an input or a constant."""
    name = arranged(graph, value, range(len(value.shape)))
    return name if name in graph.nodes else graph.add("Identity", name)


def _constant(value: Any) -> Constant:
    array = np.asarray(value)
    return Constant(array, array.shape)


def _with_dtype(value: Value, var: Any) -> Value:
    """Literals are Python numbers, whose dtype only the variable knows."""
    if isinstance(var, Literal) and isinstance(value, Constant):
        aval: Any = var.aval
        return value._replace(array=value.array.astype(aval.dtype))
    return value


def _translated(graph: Graph, equation: Any, operands: list[Value]) -> Sequence[Value]:
    scope = graph.scope
    stack = str(equation.source_info.name_stack)
    graph.scope = "/".join(filter(None, (scope, stack)))
    name = equation.primitive.name
    operands = [*map(_with_dtype, operands, equation.invars)]
    try:
        try:
            return _results(graph, equation, operands)
        except (NotImplementedError, jax.errors.InconclusiveDimensionOperation) as error:
            layer = f" in layer '{graph.scope}'" if graph.scope else ""
            first, *_ = str(error).split("\n")
            reason = f": {first}" if first else ""
            raise ValueError(
                f"export: ONNX has no translation of the operation {name!r}{layer}{reason}; apply it outside the "
                "exported model, or use format='stablehlo', which exports all models"
            ) from error
    finally:
        graph.scope = scope


def _results(graph: Graph, equation: Any, operands: list[Any]) -> Sequence[Value]:
    primitive: Any = equation.primitive
    params: dict[str, Any] = equation.params
    name, outs = primitive.name, [var.aval for var in equation.outvars]
    if name == "jaxcnn_broadcast":
        name = "broadcast_in_dim"
        params = params | {"broadcast_dimensions": (*range(params["models"]), len(outs[0].shape) - 1)}
        operands = operands[:1]
    if name == "broadcast_in_dim" and isinstance(operands[0], Constant):
        return [_broadcast(operands[0], params, outs[0])]
    if name == "tile" and (repeated := _repeated(operands[0], params["reps"], outs[0])):
        return [repeated]
    if name == "iota":
        return [_iota(graph, params["dimension"], outs[0])]
    if name == "dim_as_value":
        return [_batch_size(graph, params["dim"], outs[0])]
    if name == "optimization_barrier":
        return operands
    if name not in CALLS | LOOPS and all(isinstance(operand, Constant) for operand in operands):
        return _computed(equation, operands)
    if name == "scan":
        return _unrolled(graph, params, operands)
    if name == "cond":
        index, *args = operands
        if not isinstance(index, Constant):
            raise NotImplementedError("a branch that depends on the input")
        branch = params["branches"][min(max(int(index.array), 0), len(params["branches"]) - 1)]
        return translate(graph, branch, args)
    program = _gather.PROGRAMS.get(params["name"]) if name == "jit" else None
    if program and (result := program(graph, outs[0], *operands)):
        return [result]
    if name in CALLS:
        return translate(graph, inner_programs(equation)[0], operands)
    if (rule := RULES.get(name)) and not params.get("models"):  # several models are translated from `plain`
        result = rule(graph, params, outs if primitive.multiple_results else outs[0], *operands)
        return result if isinstance(result, list) else [result]
    if plain := getattr(primitive, "plain", None):
        specs = [jax.ShapeDtypeStruct(operand.shape, operand.dtype) for operand in operands]
        return translate(graph, jax.make_jaxpr(functools.partial(plain, **params))(*specs), operands)
    raise NotImplementedError


def _broadcast(x: Constant, params: dict[str, Any], out: Any) -> Constant:
    """Dimensions are added, but none is repeated."""
    rank = len(out.shape)
    sizes = [1] * rank
    for old, new in enumerate(params["broadcast_dimensions"]):
        sizes[new] = x.array.shape[old]
    return Constant(x.array.reshape(sizes), out.shape)


def _repeated(x: Value, repeats: Sequence[Any], out: Any) -> Constant | None:
    """The constant in a larger shape, if only dimensions along which it does not vary are repeated."""
    if not isinstance(x, Constant) or any(repeats[dim] != 1 for dim in x.dims):
        return None
    return Constant(x.array, out.shape)


def _iota(graph: Graph, dim: int, out: Any) -> Value:
    """0, 1, 2, .. along a dimension."""
    if isinstance(size := out.shape[dim], int):
        sizes = [size if at == dim else 1 for at in range(len(out.shape))]
        return Constant(np.arange(size, dtype=out.dtype).reshape(sizes), out.shape)
    limit = _batch_size(graph, size, jax.ShapeDtypeStruct((), np.int64)).name
    name = graph.add("Range", graph.constant(0, np.int64), limit, graph.constant(1, np.int64))
    return _elementwise.cast(graph, {}, out, Tensor(name, (dim,), out.shape, np.dtype(np.int64)))


def _batch_size(graph: Graph, size: Any, out: Any) -> Any:
    """The batch size as a scalar."""
    if str(size) != "batch":
        raise NotImplementedError(f"the size {size}, which depends on the batch size")
    name = graph.add("Squeeze", batch_size(graph))
    return _elementwise.cast(graph, {}, out, Tensor(name, (), (), np.dtype(np.int64)))


def _computed(equation: Any, operands: list[Any]) -> list[Constant]:
    """The results of an operation on constants."""
    outs = [var.aval for var in equation.outvars]
    name = equation.primitive.name
    if any(jnp.issubdtype(out.dtype, jax.dtypes.prng_key) for out in outs):
        raise NotImplementedError("random numbers")
    if function := NUMPY.get(name):
        with np.errstate(all="ignore"):
            array = function(*(operand.array for operand in operands)).astype(outs[0].dtype)
        return [Constant(array, outs[0].shape)]
    if name in ELEMENTWISE:  # without repeating elements
        sizes = np.broadcast_shapes(*(operand.array.shape for operand in operands))
        arrays = [np.broadcast_to(operand.array, sizes) for operand in operands]
    else:
        arrays = [operand.full() for operand in operands]
        if not all(isinstance(size, int) for out in outs for size in out.shape):
            raise NotImplementedError(f"a constant array of shape {outs[0].shape}, which depends on the batch size")
    results = equation.primitive.bind(*arrays, **equation.primitive.get_bind_params(equation.params))
    results = results if equation.primitive.multiple_results else [results]
    return [Constant(np.asarray(result), out.shape) for result, out in zip(results, outs, strict=True)]


def _unrolled(graph: Graph, params: dict[str, Any], operands: list[Value]) -> list[Value]:
    """The steps of a loop with a fixed number of steps."""
    body, (constants, carried) = params["jaxpr"], scan_counts(params)
    fixed, carry, rows = (
        operands[:constants],
        operands[constants : constants + carried],
        operands[constants + carried :],
    )
    steps = range(params["length"])
    stacked: list[list[Value]] = []
    for step in reversed(steps) if params["reverse"] else steps:
        results = translate(graph, body, [*fixed, *carry, *(_row(graph, value, step) for value in rows)])
        carry = results[:carried]
        stacked.append(results[carried:])
    columns = zip(*(stacked[::-1] if params["reverse"] else stacked), strict=True)
    return [*carry, *(_stack(graph, column) for column in columns)]


def _row(graph: Graph, value: Value, step: int) -> Value:
    if isinstance(value, Constant):
        array = value.array[step] if value.array.shape[0] > 1 else value.array[0]
        return Constant(array, value.shape[1:])
    out = jax.ShapeDtypeStruct((1, *value.shape[1:]), value.dtype)
    row = _shape.cut(graph, value, {0: (step, step + 1, 1)}, out)
    return _shape.squeeze(graph, {"dimensions": (0,)}, jax.ShapeDtypeStruct(value.shape[1:], value.dtype), row)


def _stack(graph: Graph, column: Sequence[Value]) -> Value:
    shape = (len(column), *column[0].shape)
    if all(isinstance(value, Constant) for value in column):
        return Constant(np.stack([value.full() for value in column if isinstance(value, Constant)]), shape)
    return _shape.stack(graph, {"axis": 0}, jax.ShapeDtypeStruct(shape, column[0].dtype), *column)
