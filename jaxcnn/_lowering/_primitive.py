"""Primitives with a default implementation and an optional one for CPUs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._jax import Primitive, ShapedArray, ad, batching, mlir
from jaxcnn._jit import jit


def primitive(
    name: str,
    plain: Callable[..., jax.Array],
    *,
    cpu: Callable[..., jax.Array] | None = None,
    examples: tuple[bool, ...],
) -> Primitive:
    """A primitive that runs `plain`, or on a CPU `cpu` if given. The caller registers its derivatives.

    Args:
        name: its name in a jaxpr.
        plain, cpu: functions of arrays, with hashable keyword parameters.
        examples: for each operand, whether its first dimension is the batch. If `vmap` maps exactly these operands, the
            new dimension is merged into the batch; otherwise it maps `plain`.
    """
    prim = Primitive(name)
    vars(prim)["plain"] = plain  # read by `_program`

    def shape(*args, **params):
        specs = (jax.ShapeDtypeStruct(arg.shape, arg.dtype) for arg in args)
        out = jax.eval_shape(functools.partial(plain, **params), *specs)
        return ShapedArray(out.shape, out.dtype)

    def batch(args, dims, **params):
        if [dim is not None for dim in dims] != list(examples):
            return jax.vmap(functools.partial(plain, **params), dims)(*args), 0
        moved = [jnp.moveaxis(arg, dim, 0) if dim is not None else arg for arg, dim in zip(args, dims, strict=True)]
        flat = [arg.reshape(-1, *arg.shape[2:]) if new else arg for arg, new in zip(moved, examples, strict=True)]
        out = prim.bind(*flat, **params)
        return out.reshape(*moved[examples.index(True)].shape[:2], *out.shape[1:]), 0

    prim.def_abstract_eval(shape)
    prim.def_impl(lambda *args, **params: _run(*args, prim=prim, params=tuple(params.items())))
    mlir.register_lowering(prim, mlir.lower_fun(plain, multiple_results=False))
    if cpu:
        mlir.register_lowering(prim, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")
    batching.primitive_batchers[prim] = batch
    return prim


def linear_in(at: int, prim: Primitive, transpose: Callable[..., jax.Array]) -> None:
    """Registers the derivatives of a primitive that is linear in one operand and constant in the others.

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

    def transposed(ct, *operands, **params):
        others = (*operands[:at], *operands[at + 1 :])
        result: list[Any] = [None] * len(operands)
        is_zero = isinstance(ct, ad.Zero)
        result[at] = ad.Zero(operands[at].aval) if is_zero else transpose(ct, *others, **params)
        return result

    ad.primitive_jvps[prim] = jvp
    ad.primitive_transposes[prim] = transposed


@functools.partial(jit, static_argnames=("prim", "params"))
def _run(*args: jax.Array, prim: Primitive, params: tuple[tuple[str, Any], ...]) -> jax.Array:
    return prim.bind(*args, **dict(params))
