"""`jax.jit` with the compiler options that measurably help convolutional networks on the backend at hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._jax import Tracer

# Candidates by backend, as {release of jaxlib (major, minor): options}; None stands for all other releases.
#
# cpu: the pass that takes optimization barriers out comes before fusion, which then undoes what they are for. Without
# it, gradients of a ResNet-20 are not computed anew while they are transposed: a step 345 -> 240 ms. Another pass makes
# one kernel of a small loop, for which the compiler knows no barriers (it aborts): without it, they are as others.
# cpu, 0.10: YNNPACK, the default there, is slower than Eigen on most convolutions. ResNet-like 3x3 64->64 on
# 16x16, batch 128, 2 cores: forward 25 -> 14 ms, gradients 65 -> 32 ms. Its reductions are fast, but some are wrong and
# some crash (openxla/xla#48714, jax-ml/jax#39103, #40412), so not even they are kept. 0.12 has another one.
# cpu: vectors as wide as the processor has them, where LLVM would take 256 bits. Zen 5: depthwise 7x7 1.6 -> 1.0 ms,
# 3x3 max pool forward and backward 1.7 -> 1.1 ms.
_CPU = {
    "xla_disable_hlo_passes": "cse_barrier_expander,small-while-loop-hoisting",
    "xla_cpu_prefer_vector_width": "512",
}
_OPTIONS = {"cpu": {(0, 10): _CPU | {"xla_cpu_experimental_ynn_fusion_type": ""}, None: _CPU}}


def jit(fun: Callable | None = None, /, **options: Any) -> Any:
    """`jax.jit` with the compiler options that help on the default backend, for this one function.

    Nothing global is changed. The options are looked up at the first call, and left out if this compiler
    does not know them. Inside another transformation (`jax.grad`, an outer `jax.jit`, ..) only the outermost
    compilation has options, so there it is plain `jax.jit`.

    Args:
        fun: a function of arrays; without it, a decorator is returned.
        options: as for `jax.jit`, such as `static_argnames` and `donate_argnums`. `compiler_options` given here
            are added to ours.

    Returns:
        a function with `lower`, `trace`, `eval_shape` and `clear_cache` as `jax.jit` gives it.

    Example:
        >>> float(jaxcnn.jit(lambda x: x + 1)(1.0))
        2.0
    """
    if fun is None:
        return functools.partial(jit, **options)
    return _Jitted(fun, options)


class _Jitted:
    """A function compiled with options when it is called from outside, and without when it is traced."""

    def __init__(self, fun: Callable, options: dict[str, Any]):
        functools.update_wrapper(self, fun)
        self._fun, self._options = fun, options
        self._traced: Any = jax.jit(
            fun, **{name: value for name, value in options.items() if name != "compiler_options"}
        )

    @functools.cached_property
    def _compiled(self) -> Any:  # what jax.jit returns, whose type has no clear_cache
        chosen = backend_options(jax.default_backend()) | self._options.get("compiler_options", {})
        return jax.jit(self._fun, **(self._options | {"compiler_options": chosen})) if chosen else self._traced

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._traced(*args, **kwargs)
        try:
            return self._compiled(*args, **kwargs)
        except ValueError:  # jax refuses options under an outer jit, which shows only in what it makes
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
def backend_options(backend: str) -> dict[str, str]:
    """The options of `_OPTIONS` for this backend and compiler that it accepts, found by compiling an empty program."""
    version = jax.lib.__version__  # pyright: ignore[reportPrivateImportUsage]  # public, see jax's API documentation
    major, minor, *_ = version.split(".")
    release = int(major), int(minor)
    by_release = _OPTIONS.get(backend, {None: {}})
    options = by_release.get(release, by_release[None])
    try:
        jax.jit(lambda: None, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
