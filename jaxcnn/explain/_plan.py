"""The algorithm that computes each layer, and its speed."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcnn._arguments import check_choice
from jaxcnn._combine import AnyLayer
from jaxcnn._jit import jit
from jaxcnn._layer import as_layer
from jaxcnn._lowering import selected
from jaxcnn._program import Program, inner_programs, jaxpr_of
from jaxcnn.explain._summary import Line, _size, html_table, indented, specs, table

_RUNS = 7
_SECONDS = 0.02  # minimum duration of one run
_PEAK = 1024  # size of the square matrices whose product measures the peak


class PlanRow(NamedTuple):
    """A convolution or pool. Counts are for the whole batch.

    path: path of the layer.
    algorithm: algorithm of the forward pass.
    gradients: algorithms for the gradient of the input and, for a convolution, of the kernel.
    multiply_adds: number of multiply-adds; 0 for a pool.
    bytes: size of all operands and of the result, each read or written once.
    milliseconds: time of the forward pass, compiled separately; None if not measured.
    """

    path: str
    algorithm: str
    gradients: tuple[str, ...]
    multiply_adds: int
    bytes: int
    milliseconds: float | None = None

    @property
    def intensity(self) -> float:
        """Multiply-adds per byte."""
        return self.multiply_adds / self.bytes


class Plan(NamedTuple):
    """The convolutions and pools of a network in the order in which they run. `print` shows a table.

    backend: backend of the algorithms.
    rows: one row per convolution or pool.
    peak: multiply-adds per second of a matrix product, the fastest of several runs; None if not measured.
    """

    backend: str
    rows: tuple[PlanRow, ...]
    peak: float | None = None

    def peak_fraction(self, row: PlanRow) -> float | None:
        """The row's multiply-adds per second as a fraction of the peak; None if not measured."""
        if row.milliseconds is None or self.peak is None:
            return None
        return row.multiply_adds / (row.milliseconds / 1000) / self.peak

    def __str__(self) -> str:
        return f"{table(self._lines(), self._align())}\n{self._note()}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return html_table(self._lines(), self._align(), self._note())

    def _align(self) -> str:
        return "<<<>>>" + (">>" if self.peak else "")

    def _note(self) -> str:
        peak = f"; peak, measured with a matrix product: {self.peak:.3g} multiply-adds per second" if self.peak else ""
        return f"algorithms for {self.backend}{peak}"

    def _lines(self) -> list[Line]:
        head = ["layer", "algorithm", "gradients", "multiply-adds", "bytes", "per byte"]
        lines: list[Line] = [head + (["milliseconds", "of the peak"] if self.peak else []), None]
        for row in self.rows:
            counts = (f"{row.multiply_adds:,}", f"{row.intensity:.3g}") if row.multiply_adds else ("", "")
            line = [row.path or indented(""), row.algorithm, ", ".join(row.gradients)]
            line += [counts[0], _size(row.bytes), counts[1]]
            if self.peak:
                fraction = self.peak_fraction(row)
                line += [f"{row.milliseconds:.3g}", f"{fraction:.0%}" if fraction else ""]
            lines.append(line)
        return lines


def plan(model: AnyLayer, x: Any, *, backend: str | None = None, measure: bool = False) -> Plan:
    """Return the algorithm, multiply-adds and memory traffic of each convolution and pool of `model`.

    The plan is for evaluation mode and needs only shapes: it allocates and computes nothing unless `measure` is True.
    Multiply-adds and bytes are for the whole batch. The arithmetic intensity is the number of multiply-adds per byte: a
    layer with a low intensity is limited by memory bandwidth, one with a high intensity by arithmetic. A layer inside
    `repeat` counts once per repetition.

    Args:
        model: a layer.
        x: an input with a batch dimension, or a `jax.ShapeDtypeStruct`.
        backend: "cpu", "gpu" or "tpu"; None is the default backend.
        measure: whether to compile and time each operation on this machine. The plan then has the median times, and
            each speed as a fraction of the speed of a matrix product.

    Raises:
        TypeError: if x has no shape.
        ValueError: if the backend is unknown, or if measure=True and it is not the default backend.

    Example:
        >>> net = jaxcnn.serial(conv1=jaxcnn.conv(8), pool=jaxcnn.max_pool(2), conv2=jaxcnn.conv(32))
        >>> print(jaxcnn.explain.plan(net, jnp.zeros((1, 32, 32, 3)), backend="cpu"))
        layer  algorithm  gradients              multiply-adds    bytes  per byte
        -------------------------------------------------------------------------
        conv1  direct     col2im, over examples        221,184  45.9 kB      4.82
        pool   lax        tap slices                              41 kB
        conv2  direct     col2im, over examples        589,824  50.2 kB      11.8
        algorithms for cpu

    Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", 2009 (intensity).
    """
    if backend is not None:
        check_choice("plan", "backend", backend, ("cpu", "gpu", "tpu"))
    if measure and backend not in (None, jax.default_backend()):
        raise ValueError(f"plan: measure=True requires the default backend, {jax.default_backend()}, got {backend!r}")
    backend = backend or jax.default_backend()
    model = as_layer(model)
    x, params, state = specs(model, x, "plan")
    program = jax.make_jaxpr(lambda params, state, x: model.apply(params, state, x, train=False)[0])(params, state, x)
    rows = tuple(_row(*call, backend, measure) for call in _calls(program))
    return Plan(backend, rows, _peak() if measure else None)


def _calls(program: Program, path: str = "", times: int = 1) -> Iterator[tuple[str, int, Any]]:
    """Yield (layer path, number of runs, equation) for each convolution and pool, including inner programs."""
    for eqn in jaxpr_of(program).eqns:
        layer = "/".join(filter(None, (path, str(eqn.source_info.name_stack))))
        if hasattr(eqn.primitive, "problem"):
            yield layer, times, eqn
        for inner in inner_programs(eqn):
            yield from _calls(inner, layer, times * eqn.params.get("length", 1))


def _row(path: str, times: int, eqn: Any, backend: str, measure: bool) -> PlanRow:
    operands = [var.aval for var in eqn.invars]
    problem = eqn.primitive.problem(*operands, **eqn.params)
    convolutions = ("forward", "input gradient", "kernel gradient")
    if problem.operation in convolutions:
        gradients = tuple(operation for operation in convolutions if operation != problem.operation)
    else:
        gradients = (f"{problem.operation} gradient",)
    with jax.default_matmul_precision(problem.precision):  # rules depend on it
        rule, *gradient_rules = (
            selected(problem._replace(operation=operation), backend).name
            for operation in (problem.operation, *gradients)
        )
    run = lambda *args: eqn.primitive.bind(*args, **eqn.params)
    return PlanRow(
        path,
        rule,
        tuple(gradient_rules),
        times * problem.multiply_adds if problem.operation in convolutions else 0,
        times * sum(aval.size * aval.dtype.itemsize for aval in (*operands, eqn.outvars[0].aval)),
        times * statistics.median(_milliseconds(run, operands)) if measure else None,
    )


def _milliseconds(f: Callable[..., jax.Array], operands: Any) -> list[float]:
    """The time per call in several runs. Each run repeats the call until it lasts long enough to time."""
    keys = jax.random.split(jax.random.key(0), len(operands))
    args = [jax.random.normal(key, aval.shape, aval.dtype) for key, aval in zip(keys, operands, strict=True)]
    compiled = jit(f).lower(*args).compile()

    def run(calls):
        start = time.perf_counter()
        for _ in range(calls):
            y = compiled(*args)
        jax.block_until_ready(y)
        return (time.perf_counter() - start) / calls

    run(1)
    calls = math.ceil(_SECONDS / run(1))
    return [1000 * run(calls) for _ in range(_RUNS)]


def _peak() -> float:
    """Multiply-adds per second of a product of two float32 matrices."""
    matrix = jax.ShapeDtypeStruct((_PEAK, _PEAK), jnp.float32)
    return _PEAK**3 / (min(_milliseconds(jnp.matmul, [matrix, matrix])) / 1000)
