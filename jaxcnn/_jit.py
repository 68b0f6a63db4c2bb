"""`jax.jit` with compiler options that make convolutional networks faster on the current backend."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._jax import Tracer
from jaxcnn._memory import BLOCK, reuse_memory_by_default

# Options per backend, as {release of jaxlib (major, minor): options}; None stands for all other releases.
#
# cpu, disabled passes: cse_barrier_expander removes optimization barriers before fusion, so they have no effect.
# Without this pass, gradients of a ResNet-20 are not recomputed while they are transposed: a step 345 -> 240 ms.
# small-while-loop-hoisting compiles a small loop into one kernel, and aborts if the loop contains a barrier.
# cpu, vector width: the full width of the processor; LLVM prefers 256 bits. Zen 5: depthwise 7x7 1.6 -> 1.0 ms,
# 3x3 max pool forward and backward 1.7 -> 1.1 ms.
# cpu, temporary memory in blocks that glibc keeps (`_memory`), instead of one of any size: without page faults, a step
# of a MobileNet takes 135 -> 95 ms and one of a ResNet-20 345 -> 300 ms. XLA cannot save such programs, so they stay
# whole if JAX has a compilation cache.
# cpu, 0.10: the default YNNPACK is slower than Eigen on most convolutions. ResNet-like 3x3 64->64 on 16x16, batch 128,
# 2 cores: forward 25 -> 14 ms, gradients 65 -> 32 ms. Its reductions are fast, but some are wrong and some crash
# (openxla/xla#48714, jax-ml/jax#39103, #40412), so they are disabled too. 0.12 has a different version.
_CPU = {
    "xla_disable_hlo_passes": "cse_barrier_expander,small-while-loop-hoisting",
    "xla_cpu_prefer_vector_width": "512",
}
_BLOCKS = {"xla_multiheap_size_constraint_per_heap": BLOCK}
_OPTIONS = {"cpu": {(0, 10): _CPU | {"xla_cpu_experimental_ynn_fusion_type": ""}, None: _CPU}}


def jit(fun: Callable | None = None, /, **options: Any) -> Any:
    """`jax.jit` with compiler options that make convolutional networks faster on the default backend.

    The options apply to this function only. They are chosen at the first call, and omitted if the compiler does not
    accept them. Inside another transformation (`jax.grad`, an outer `jax.jit`, ..) it behaves as plain `jax.jit`,
    because only the outermost compilation accepts options.

    Args:
        fun: a function of arrays. Without it, `jit` returns a decorator.
        options: as for `jax.jit`, such as `static_argnames` and `donate_argnums`. `compiler_options` are added to the
            defaults and override them.

    Returns:
        a function with `lower`, `trace`, `eval_shape` and `clear_cache`, as those of `jax.jit`.

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

    @functools.cached_property
    def _compiled(self) -> Any:  # the type that jax.jit returns has no clear_cache
        backend = jax.default_backend()
        if backend == "cpu":
            reuse_memory_by_default()
        config: Any = jax.config  # type checkers do not find its settings
        defaults = backend_options(backend, cached=bool(config.jax_compilation_cache_dir))
        chosen = defaults | self._options.get("compiler_options", {})
        return jax.jit(self._fun, **(self._options | {"compiler_options": chosen})) if chosen else self._traced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._traced(*args, **kwargs)
        try:
            return self._compiled(*args, **kwargs)
        except ValueError:  # jax rejects options under an outer jit, where new arrays are tracers
            if isinstance(jnp.zeros(()), Tracer):
                return self._traced(*args, **kwargs)
            raise

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        return self._compiled.lower(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        return self._compiled.trace(*args, **kwargs)

    def eval_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self._traced.eval_shape(*args, **kwargs)

    def clear_cache(self) -> None:
        self._compiled.clear_cache()
        self._traced.clear_cache()


@functools.cache
def backend_options(backend: str, *, cached: bool = False) -> dict[str, Any]:
    """The options for this backend and jaxlib; none if compiling an empty program with them fails.

    `cached`: whether JAX saves compiled programs.
    """
    version = jax.lib.__version__  # pyright: ignore[reportPrivateImportUsage]  # public, see jax's API documentation
    major, minor, *_ = version.split(".")
    release = int(major), int(minor)
    by_release = _OPTIONS.get(backend, {None: {}})
    options = by_release.get(release, by_release[None]) | (_BLOCKS if backend == "cpu" and not cached else {})
    try:
        jax.jit(lambda: None, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
