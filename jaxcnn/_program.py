"""An interpreter of jaxprs (the programs that jax traces) and queries on them. Other modules use these functions.

interpret(program, args, rule)     evaluates a program with another meaning of its operations
equations(program)                 all operations, including those of nested programs
inputs_used(program)               which inputs the results depend on
without_unused(program)            the program without operations that no result depends on
listing(program)                   one line of text per operation
plain(fn)                          a function that uses `lax` operations only
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn._arguments import is_function
from jaxcnn._jax import ClosedJaxpr, Jaxpr, Literal, dce_jaxpr

Program = ClosedJaxpr | Jaxpr
Rule = Callable[[Any, list[Any]], Sequence[Any]]  # (equation, operands) -> results

_ADDRESS = re.compile(r"0x[0-9a-f]+")


def plain(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the primitives of this library in `fn` by `lax` operations, for tools that read or convert jaxprs.

    plain(fn)(*args) = fn(*args)

    Convolutions, pools and sums are primitives of this library, with a fast lowering for each backend. `plain`
    replaces them everywhere, also inside `jit`, `scan`, `cond`, `remat` and functions with custom derivatives. The
    result can be transformed like any other function. Differentiate first, as in `plain(jax.grad(f))`: `lax` cannot
    differentiate a dilated max pool, and rules of `jax.custom_vjp` are not converted.

    Args:
        fn: a function of arrays. All its arguments are traced. Bind static arguments first, as in
            `plain(functools.partial(model.apply, train=False))`.

    Raises:
        TypeError: if `fn` is not a function.

    Example:
        >>> pool = lambda x: jaxcnn.max_pool(2).apply({}, {}, x, train=False)[0]
        >>> x = jnp.ones((1, 4, 4, 1))
        >>> [equation.primitive.name for equation in jax.make_jaxpr(pool)(x).eqns]
        ['jaxcnn_pool']
        >>> [equation.primitive.name for equation in jax.make_jaxpr(jaxcnn.plain(pool))(x).eqns]
        ['reduce_window_max']
    """
    if not is_function(fn):
        raise TypeError(f"plain needs a function of arrays, got {type(fn).__name__}; for a layer, pass its apply")

    @functools.wraps(fn)
    def in_lax(*args, **kwargs):
        program, out = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        results = interpret(program, jax.tree.leaves((args, kwargs)), _in_lax)
        return jax.tree.unflatten(jax.tree.structure(out), results)

    return in_lax


def interpret(
    program: Program, args: Sequence[Any], rule: Rule, constant: Callable[[Any], Any] = lambda value: value
) -> list[Any]:
    """Evaluate a program on values of any type.

    Args:
        program: the result of `jax.make_jaxpr`, or a program nested in it.
        args: one value per input.
        rule: evaluates an operation, (equation, operand values) -> result values.
        constant: converts an array in the program to a value.
    """
    jaxpr = jaxpr_of(program)
    values = dict(zip(jaxpr.invars, args, strict=True))
    values |= zip(jaxpr.constvars, map(constant, getattr(program, "consts", ())), strict=True)

    def read(var):
        return constant(var.val) if isinstance(var, Literal) else values[var]

    for equation in jaxpr.eqns:
        values |= zip(equation.outvars, rule(equation, [read(var) for var in equation.invars]), strict=True)
    return [read(var) for var in jaxpr.outvars]


def jaxpr_of(program: Program) -> Jaxpr:
    """The jaxpr of a program with or without constants."""
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def inner_programs(equation: Any) -> list[Program]:
    """The programs in the parameters of an operation, such as a loop body or the branches of a conditional."""
    return _programs([*equation.params.values()])


def equations(program: Program) -> Iterator[Any]:
    """All operations of a program in order, each followed by those of its nested programs."""
    for equation in jaxpr_of(program).eqns:
        yield equation
        for inner in inner_programs(equation):
            yield from equations(inner)


def inputs_used(program: ClosedJaxpr) -> list[bool]:
    """For each input, whether any result depends on it."""
    _, used = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars))
    return used


def without_unused(program: ClosedJaxpr) -> ClosedJaxpr:
    """The program without operations on which no result depends. It has the same inputs."""
    jaxpr, _ = dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), True)
    return ClosedJaxpr(jaxpr, program.consts)


def listing(program: ClosedJaxpr) -> list[str]:
    """One line per operation, followed by those of its nested programs. Variables are numbered by first appearance.

    Programs with the same operations have the same listing, independent of function names.
    """
    return [*_lines(program)]


def _in_lax(equation: Any, operands: list[Any]) -> Sequence[Any]:
    """The results of an operation, computed with `lax` operations only."""
    primitive, params = equation.primitive, equation.params
    if form := _lax_form(primitive):
        return [plain(functools.partial(form, **params))(*operands)]
    if any(map(_uses_library, inner_programs(equation))):
        params = {name: _with_programs_in_lax(value) for name, value in params.items()}
        if primitive.name == "remat2":  # its program cannot hold constants: pass them as operands
            params["jaxpr"], consts = _without_consts(params["jaxpr"])
            operands = [*consts, *operands]
    results = primitive.bind(*operands, **primitive.get_bind_params(params))
    return results if primitive.multiple_results else [results]


def _lax_form(primitive: Any) -> Callable[..., Any] | None:
    """The `lax` implementation of a primitive of this library; None for primitives of jax."""
    return getattr(primitive, "plain", None)


def _uses_library(program: Program) -> bool:
    return any(_lax_form(equation.primitive) for equation in equations(program))


def _with_programs_in_lax(value: Any) -> Any:
    """A parameter of an operation, with all programs in it converted to `lax` operations."""
    if not _programs(value):
        return value
    if isinstance(value, tuple | list):
        return type(value)(map(_with_programs_in_lax, value))
    shapes = (var.aval for var in jaxpr_of(value).invars)
    return jax.make_jaxpr(lambda *args: interpret(value, args, _in_lax))(*shapes)


def _without_consts(program: ClosedJaxpr) -> tuple[Jaxpr, list[Any]]:
    """The program with its constants as additional first operands, and the constants."""
    evaluate = lambda consts, args: interpret(ClosedJaxpr(program.jaxpr, consts), args, _in_lax)
    return jax.make_jaxpr(evaluate)(program.consts, program.in_avals).jaxpr, program.consts


def _programs(value: Any) -> list[Program]:
    if isinstance(value, ClosedJaxpr | Jaxpr):
        return [value]
    return [program for part in value for program in _programs(part)] if isinstance(value, tuple | list) else []


def _lines(program: Program) -> Iterator[str]:
    jaxpr = jaxpr_of(program)
    numbers: dict[Any, int] = {}

    def variables(atoms: Sequence[Any]) -> str:
        return " ".join(
            f"{np.asarray(var.val).tolist()}"
            if isinstance(var, Literal)
            else f"{numbers.setdefault(var, len(numbers))}:{var.aval.str_short()}"
            for var in atoms
        )

    yield f"inputs {variables([*jaxpr.constvars, *jaxpr.invars])}"
    for equation in jaxpr.eqns:
        params = dict(sorted(equation.params.items()))
        operands, results = variables(equation.invars), variables(equation.outvars)
        description = " ".join(f"{name}={_description(value)}" for name, value in params.items())
        yield f"{equation.primitive.name} {operands} -> {results} {description}"
        for inner in _programs([*params.values()]):
            yield from _lines(inner)
    yield f"outputs {variables(jaxpr.outvars)}"


def _description(value: Any) -> str:
    """Text for a parameter of an operation: checksums of the constants of a program, no details of a function."""
    if isinstance(value, ClosedJaxpr):
        return f"program {[zlib.crc32(np.asarray(const).tobytes()) for const in value.consts]}"
    if isinstance(value, Jaxpr):
        return "program"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return f"[{', '.join(map(_description, value))}]"
    if callable(value) and not isinstance(value, type):
        return "function"
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{value.shape} {zlib.crc32(np.asarray(value).tobytes()):08x}"
    return _ADDRESS.sub("0x", repr(value))
