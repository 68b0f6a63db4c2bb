"""`jax.jit` with compiler options that make convolutional networks faster on the current backend."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._jax import Tracer
from jaxcnn._memory import BLOCK, reuse_memory_by_default
from jaxcnn._program import Program, equations

# Options per backend. Measurements of each are in experiments/benchmarks/results/lowering-notes.json.
_OPTIONS = {
    "cpu": {
        # cse_barrier_expander removes optimization barriers before fusion: XLA would recompute gradients while it
        # transposes them. small-while-loop-hoisting aborts if a small loop contains a barrier.
        "xla_disable_hlo_passes": "cse_barrier_expander,small-while-loop-hoisting",
        # The full width of the processor; LLVM prefers 256 bits.
        "xla_cpu_prefer_vector_width": "512",
        # Without YNNPACK, the default of jaxlib 0.10 to 0.12: it is slower than Eigen on most convolutions, and in 0.10
        # some of its reductions are wrong and some crash (openxla/xla#48714, jax-ml/jax#39103, #40412).
        "xla_cpu_experimental_ynn_fusion_type": "",
    }
}
# Temporary memory in blocks that glibc keeps (`_memory`), which avoids page faults. Not with a compilation cache,
# because XLA cannot save such programs, and not if an array exceeds a block, because XLA then reuses less memory and
# prints thousands of warnings.
_BLOCKS = {"xla_multiheap_size_constraint_per_heap": BLOCK}


def jit(fun: Callable | None = None, /, **options: Any) -> Any:
    """`jax.jit` with compiler options that make convolutional networks faster on the default backend.

    The options apply to this function only. They are chosen when it is called, and omitted if the compiler does not
    accept them. Inside another transformation (`jax.grad`, an outer `jax.jit`, ..) it behaves like plain `jax.jit`,
    because only the outermost compilation accepts options.

    Args:
        fun: a function of arrays. Without it, `jit` returns a decorator.
        options: as for `jax.jit`, such as `static_argnames` and `donate_argnums`. `compiler_options` are added to the
            defaults and override them.

    Returns:
        a function with `lower`, `trace`, `eval_shape` and `clear_cache`, like those of `jax.jit`.

    Example:
        >>> float(jaxcnn.jit(lambda x: x + 1)(1.0))
        2.0
    """
    if fun is None:
        return functools.partial(jit, **options)
    return _Jitted(fun, options)


class _Jitted:
    """A function that is compiled with options when called on concrete values, and without when traced."""

    def __init__(self, fun: Callable, options: dict[str, Any]):
        functools.update_wrapper(self, fun)
        self._fun, self._options = fun, options
        self._traced: Any = jax.jit(
            fun, **{name: value for name, value in options.items() if name != "compiler_options"}
        )
        self._in_blocks: dict[Any, bool] = {}  # whether temporary memory is split, by the shapes of the arguments

    def _compiled(self, leaves: list[Any], args: Any, kwargs: Any) -> Any:
        """The `jax.jit` of the function with the options for a call. `leaves` are those of the arguments."""
        config: Any = jax.config  # type checkers do not find its settings
        if jax.default_backend() != "cpu" or has_compilation_cache() or config.jax_disable_jit:
            return self._whole
        shapes = tuple([getattr(leaf, "shape", ()) for leaf in leaves])
        if shapes not in self._in_blocks:
            self._in_blocks[shapes] = _largest_array(self._traced.trace(*args, **kwargs).jaxpr) <= BLOCK
        return self._split if self._in_blocks[shapes] else self._whole

    @functools.cached_property
    def _whole(self) -> Any:  # the type that jax.jit returns has no clear_cache
        return self._with_options(split=False)

    @functools.cached_property
    def _split(self) -> Any:
        return self._with_options(split=True)

    def _with_options(self, *, split: bool) -> Any:
        backend = jax.default_backend()
        if backend == "cpu":
            reuse_memory_by_default()
        chosen = backend_options(backend, split=split) | self._options.get("compiler_options", {})
        return jax.jit(self._fun, **(self._options | {"compiler_options": chosen})) if chosen else self._traced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves((args, kwargs))
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return self._traced(*args, **kwargs)
        try:
            return self._compiled(leaves, args, kwargs)(*args, **kwargs)
        except ValueError as error:
            if isinstance(
                jnp.zeros(()), Tracer
            ):  # jax rejects options under an outer jit, where new arrays are tracers
                return self._traced(*args, **kwargs)
            if "deleted" in str(error):
                error.add_note("a function that donates its arguments, such as a step, has used them: pass its result")
            raise

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        return self._compiled(jax.tree.leaves((args, kwargs)), args, kwargs).lower(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        return self._compiled(jax.tree.leaves((args, kwargs)), args, kwargs).trace(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self._traced.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        self._in_blocks.clear()
        for name in ("_whole", "_split", "_traced"):
            if name in vars(self):  # the first use of a cached property would compile trial programs
                vars(self)[name].clear_cache()


def _largest_array(program: Program) -> int:
    """Bytes of the largest result of an operation whose size is known."""
    arrays = (var.aval for equation in equations(program) for var in equation.outvars)
    return max((x.size * x.dtype.itemsize for x in arrays if isinstance(getattr(x, "size", None), int)), default=0)


def has_compilation_cache() -> bool:
    """Whether JAX saves compiled programs."""
    config: Any = jax.config  # type checkers do not find its settings
    return bool(config.jax_enable_compilation_cache and config.jax_compilation_cache_dir)


@functools.cache
def backend_options(backend: str, *, split: bool = False) -> dict[str, Any]:
    """The options for this backend, without those that its compiler does not accept.

    `split`: whether temporary memory is split into blocks.
    """
    options = _OPTIONS.get(backend, {}) | (_BLOCKS if split else {})
    if _accepted(options):
        return options
    return {name: value for name, value in options.items() if _accepted({name: value})}


def _accepted(options: dict[str, Any]) -> bool:
    """Whether an empty program compiles with these options."""
    try:
        jax.jit(lambda: None, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
