"""Primitives with a default implementation and an optional one for CPUs."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._jax import LocalPrimitive, Primitive, ad, batching, mlir, on_one_device, result_type
from jaxcnn._jit import jit
from jaxcnn._lowering import _onednn


def primitive(
    name: str,
    plain: Callable[..., jax.Array],
    *,
    cpu: Callable[..., jax.Array] | None = None,
    cpu_models: Callable[..., jax.Array] | None = None,
    spec: Callable[..., Any] | None = None,
    examples: tuple[bool, ...],
) -> Primitive:
    """A primitive that runs `plain`, or on a CPU `cpu` if given. The caller registers its derivatives.

    If not all operands have examples, the primitive has a parameter `models`: whether it computes several models at
    once. Then all operands and the result have one more dimension, the first.

    Args:
        name: its name in a jaxpr.
        plain, cpu: functions of the arrays of one model, with hashable keyword parameters.
        cpu_models: on a CPU, the function of the arrays of several models; by default, `vmap` of `cpu`.
        spec: (*operands, **params) -> the `jax.ShapeDtypeStruct` of the result, because tracing `plain` takes longer.
        examples: for each operand, whether its first dimension is the batch. If `vmap` maps exactly these operands, or
            if all operands have examples, the new dimension is merged into the batch; otherwise into the models.
    """
    prim = LocalPrimitive(name)
    plain = _for_models(plain)
    vars(prim)["plain"] = plain  # read by `_program`

    def shape(*args, **params):
        specs = (jax.ShapeDtypeStruct(arg.shape, arg.dtype) for arg in args)
        out = spec(*args, **params) if spec else jax.eval_shape(functools.partial(plain, **params), *specs)
        if not any(examples):  # a sum over the examples
            return result_type(out.shape, out.dtype, args[0], None)
        return result_type(out.shape, out.dtype, args[examples.index(True)], int(params.get("models", False)))

    def batch(args, dims, **params):
        (count, *_) = (arg.shape[dim] for arg, dim in zip(args, dims, strict=True) if dim is not None)
        into_examples = all(examples) or [dim is not None for dim in dims] == list(examples)
        mapped = examples if into_examples else (True,) * len(args)
        models = params.get("models", False)
        axis = int(models) if into_examples else 0
        args = [
            _with_dimension(arg, dim, axis, count) if new else arg
            for arg, dim, new in zip(args, dims, mapped, strict=True)
        ]
        if not into_examples and not models:
            return prim.bind(*args, **params | {"models": True}), 0
        if any(new and arg.ndim == axis + 1 for arg, new in zip(args, mapped, strict=True)):
            return prim.bind(*args, **params), axis  # scalars of each example: the new dimension is the batch
        merged = [_merge(arg, axis) if new else arg for arg, new in zip(args, mapped, strict=True)]
        out = prim.bind(*merged, **params)
        both = args[mapped.index(True)].shape[axis : axis + 2]
        return out.reshape(*out.shape[:axis], *both, *out.shape[axis + 1 :]), axis

    def impl(*args, **params):
        with jax.disable_jit(False):  # without jit, `_run` would call the primitive without end
            return _run(*args, prim=prim, params=tuple(params.items()))

    prim.def_abstract_eval(shape)
    prim.def_impl(impl)
    mlir.register_lowering(prim, _lowering(plain))
    if cpu:
        mlir.register_lowering(prim, _cpu_lowering(_for_models(cpu, cpu_models)), platform="cpu")
    batching.primitive_batchers[prim] = batch
    return prim


def _lowering(fun: Callable[..., jax.Array]) -> Callable[..., Any]:
    lower = mlir.lower_fun(fun, multiple_results=False)

    def run(ctx, *args, **params):
        # The operations in `fun` would otherwise have to vary over the same axes of `jax.shard_map`, and to support the
        # sharding over Explicit axes of a mesh, too.
        return lower(ctx.replace(avals_in=[*map(on_one_device, ctx.avals_in)]), *args, **params)

    return run


def _cpu_lowering(fun: Callable[..., jax.Array]) -> Callable[..., Any]:
    lower = _lowering(fun)

    def run(ctx, *args, **params):
        exported = ctx.module_context.lowering_parameters.for_export
        with _onednn.excluded() if exported else contextlib.nullcontext():
            return lower(ctx, *args, **params)

    return run


def matmul_precision() -> str | None:
    """The current `jax.default_matmul_precision`. Gradients and compilation may come after its scope has ended."""
    config: Any = jax.config  # type checkers do not find its settings
    return config.jax_default_matmul_precision


def _for_models(one: Callable[..., jax.Array], several: Callable[..., jax.Array] | None = None) -> Callable[..., Any]:
    """The function of the arrays of one model, or if `models` is true, of several."""

    def run(*args, models=False, **params):
        if not models:
            return one(*args, **params)
        return several(*args, **params) if several else jax.vmap(functools.partial(one, **params))(*args)

    return run


def _with_dimension(x: jax.Array, dim: int | None, axis: int, count: int) -> jax.Array:
    """x with the mapped dimension at `axis`, repeated if x is not mapped."""
    if dim is None:
        return jnp.broadcast_to(jnp.expand_dims(x, axis), (*x.shape[:axis], count, *x.shape[axis:]))
    return jnp.moveaxis(x, dim, axis)


def _merge(x: jax.Array, axis: int) -> jax.Array:
    """x with the dimensions `axis` and `axis + 1` as one."""
    return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])


def linear_in(at: int, prim: Primitive, transpose: Callable[..., jax.Array]) -> None:
    """Register the derivatives of a primitive that is linear in one operand and constant in the others.

    Args:
        at: index of the operand.
        prim: the primitive.
        transpose: (cotangent, *other operands, **params) -> cotangent of the operand.
    """

    def jvp(primals, tangents, **params):
        out = prim.bind(*primals, **params)
        if isinstance(tangents[at], ad.Zero):
            return out, ad.Zero(out.aval.to_tangent_aval())
        return out, prim.bind(*primals[:at], tangents[at], *primals[at + 1 :], **params)

    ad.primitive_jvps[prim] = jvp
    transposed_in(at, prim, transpose)


def transposed_in(at: int, prim: Primitive, transpose: Callable[..., Any]) -> None:
    """Register the transpose of a primitive that is linear in one operand. The caller registers its derivatives.

    The arguments are as in `linear_in`.
    """

    def transposed(ct, *operands, **params):
        others = (*operands[:at], *operands[at + 1 :])
        result: list[Any] = [None] * len(operands)
        is_zero = isinstance(ct, ad.Zero)
        result[at] = ad.Zero(operands[at].aval) if is_zero else transpose(ct, *others, **params)
        return result

    ad.primitive_transposes[prim] = transposed


@functools.partial(jit, static_argnames=("prim", "params"))
def _run(*args: jax.Array, prim: Primitive, params: tuple[tuple[str, Any], ...]) -> jax.Array:
    return prim.bind(*args, **dict(params))
