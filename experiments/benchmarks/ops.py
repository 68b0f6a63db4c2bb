"""Times of single operations: forward pass, input gradient and kernel gradient.

    python -m experiments.benchmarks.ops                         all rows, 10 minutes on 2 cores
    python -m experiments.benchmarks.ops depthwise "max pool"    operations with these words in their names

The column `lax` is `lax.conv_general_dilated`, `lax.reduce_window` or the textbook formula of batch norm, under
`jax.jit`. PyTorch is the faster of its two memory layouts. Milliseconds are medians over turns. `/ torch` and `/ lax`
are the time of jaxcnn divided by theirs, also medians over turns. With words, the results of these operations are
replaced.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxcnn
from experiments.benchmarks import _measure


class Conv(NamedTuple):
    """(batch, *spatial, channels) -> (batch, *spatial', features); `groups` 0 means one group per channel."""

    name: str
    batch: int
    spatial: tuple[int, ...]
    channels: int
    features: int
    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    transposed: bool = False


class Pool(NamedTuple):
    name: str
    batch: int
    spatial: tuple[int, ...]
    channels: int
    size: int
    stride: int
    padding: int = 0
    mean: bool = False


class Norm(NamedTuple):
    name: str
    batch: int
    spatial: tuple[int, ...]
    channels: int


CASES = (
    Conv("3x3 16->16", 128, (32, 32), 16, 16, 3, padding=1),
    Conv("3x3 32->32", 128, (16, 16), 32, 32, 3, padding=1),
    Conv("3x3 64->64", 128, (16, 16), 64, 64, 3, padding=1),
    Conv("3x3 64->64, 8x8", 128, (8, 8), 64, 64, 3, padding=1),
    Conv("3x3 256->256", 64, (8, 8), 256, 256, 3, padding=1),
    Conv("3x3 64->64, valid", 128, (16, 16), 64, 64, 3),
    Conv("3x3 64->64, dilation 2", 128, (16, 16), 64, 64, 3, padding=2, dilation=2),
    Conv("3x3/2 16->32", 128, (32, 32), 16, 32, 3, stride=2, padding=1),
    Conv("3x3/2 64->128", 64, (32, 32), 64, 128, 3, stride=2, padding=1),
    Conv("1x1/2 64->128", 64, (32, 32), 64, 128, 1, stride=2),
    Conv("5x5 1->6", 128, (28, 28), 1, 6, 5, padding=2),
    Conv("5x5 6->16, valid", 128, (14, 14), 6, 16, 5),
    Conv("3x3 1->32", 128, (28, 28), 1, 32, 3, padding=1),
    Conv("3x3 3->16", 128, (32, 32), 3, 16, 3, padding=1),
    Conv("3x3 3->64", 64, (32, 32), 3, 64, 3, padding=1),
    Conv("7x7/2 3->64", 8, (112, 112), 3, 64, 7, stride=2, padding=3),
    Conv("4x4/4 3->96", 16, (64, 64), 3, 96, 4, stride=4),
    Conv("1x1 256->64", 16, (28, 28), 256, 64, 1),
    Conv("1x1 64->256", 16, (28, 28), 64, 256, 1),
    Conv("depthwise 3x3, 128", 16, (28, 28), 128, 128, 3, padding=1, groups=0),
    Conv("depthwise 3x3/2, 128", 16, (28, 28), 128, 128, 3, stride=2, padding=1, groups=0),
    Conv("depthwise 7x7, 96", 16, (28, 28), 96, 96, 7, padding=3, groups=0),
    Conv("grouped (32) 3x3 128->128", 16, (28, 28), 128, 128, 3, padding=1, groups=32),
    Conv("grouped (4) 3x3 128->128", 16, (28, 28), 128, 128, 3, padding=1, groups=4),
    Conv("1-D 9 1->32", 32, (4096,), 1, 32, 9, padding=4),
    Conv("1-D 9 64->64", 32, (512,), 64, 64, 9, padding=4),
    Conv("1-D depthwise 9, 64", 32, (512,), 64, 64, 9, padding=4, groups=0),
    Conv("3-D 3x3x3 16->16", 4, (16, 16, 16), 16, 16, 3, padding=1),
    Conv("3-D depthwise 3x3x3, 32", 4, (16, 16, 16), 32, 32, 3, padding=1, groups=0),
    Conv("transposed 4x4/2 64->32", 32, (16, 16), 64, 32, 4, stride=2, padding=1, transposed=True),
    Conv("transposed 2x2/2 64->32", 32, (16, 16), 64, 32, 2, stride=2, transposed=True),
    Conv("transposed depthwise 4x4/2, 64", 32, (16, 16), 64, 64, 4, stride=2, padding=1, groups=0, transposed=True),
    Pool("max pool 2x2", 128, (32, 32), 32, 2, 2),
    Pool("max pool 3x3/2", 128, (32, 32), 32, 3, 2, padding=1),
    Pool("max pool 3x3/1", 128, (16, 16), 32, 3, 1, padding=1),
    Pool("avg pool 2x2", 128, (32, 32), 32, 2, 2, mean=True),
    Pool("avg pool 3x3/2", 128, (32, 32), 32, 3, 2, padding=1, mean=True),
    Pool("avg pool 3x3/1", 128, (16, 16), 32, 3, 1, padding=1, mean=True),
    Norm("batch norm, 16", 128, (32, 32), 16),
    Norm("batch norm, 64", 128, (16, 16), 64),
    Norm("batch norm, 256", 16, (28, 28), 256),
)


def ours(case: Any) -> Callable[..., jax.Array]:
    """jaxcnn's layer as a function of (x,), (x, kernel) or (x, scale, bias)."""
    if isinstance(case, Norm):
        state = {"mean": jnp.zeros(case.channels), "var": jnp.ones(case.channels)}
        params = lambda scale, bias: {"scale": scale, "bias": bias}
        return lambda x, *p: jaxcnn.batch_norm().apply(params(*p), state, x, train=True)[0]
    if isinstance(case, Pool):
        if case.mean:
            pool = jaxcnn.avg_pool(case.size, stride=case.stride, padding=case.padding, count_include_pad=True)
        else:
            pool = jaxcnn.max_pool(case.size, stride=case.stride, padding=case.padding)
        return lambda x: pool.apply({}, {}, x, train=True)[0]
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "bias": False}
    make = jaxcnn.conv_transpose if case.transposed else jaxcnn.conv
    layer = make(case.features, case.size, groups=case.groups or case.channels, **options)
    return lambda x, w: layer.apply({"kernel": w}, {}, x, train=True)[0]


def plain(case: Any) -> Callable[..., jax.Array]:
    """The same function in `lax`."""
    rank = len(case.spatial)
    if isinstance(case, Norm):

        def norm(x, scale, bias):
            axes, dtype = tuple(range(rank + 1)), x.dtype
            x = x.astype(jnp.float32)
            mean = x.mean(axes)
            var = jnp.maximum((x * x).mean(axes) - mean * mean, 0)
            return ((x - mean) * lax.rsqrt(var + 1e-5) * scale + bias).astype(dtype)

        return norm
    pads = ((case.padding, case.padding),) * rank
    if isinstance(case, Pool):
        window = ((1, *(case.size,) * rank, 1), (1, *(case.stride,) * rank, 1), ((0, 0), *pads, (0, 0)))
        if case.mean:
            return lambda x: lax.reduce_window(x, 0.0, lax.add, *window) / case.size**rank
        return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *window)
    letters = "DHW"[3 - rank :]
    names = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    groups, ones = case.groups or case.channels, (1,) * rank
    strides = (case.stride,) * rank
    if case.transposed:
        pads = tuple((case.size - 1 - low, case.size - 1 - high) for low, high in pads)
        conv = lambda x, w: lax.conv_general_dilated(x, w, ones, pads, strides, ones, names, groups)
        return lambda x, w: conv(x, jnp.flip(w, range(rank)))
    return lambda x, w: lax.conv_general_dilated(x, w, strides, pads, ones, (case.dilation,) * rank, names, groups)


def inputs(case: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(case.batch, *case.spatial, case.channels)]
    if isinstance(case, Conv):
        shapes.append(
            (*(case.size,) * len(case.spatial), case.channels // (case.groups or case.channels), case.features)
        )
    if isinstance(case, Norm):
        shapes += [(case.channels,)] * 2
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def kinds(case: Any) -> tuple[str, ...]:
    return ("forward", "dx", "dw") if isinstance(case, Conv) else ("forward", "forward + dx")


def in_dtype(case: Any, args: list[np.ndarray], dtype: str) -> list[jax.Array]:
    """The inputs on the device, in this dtype. Scale and bias of a norm stay float32."""
    kept = isinstance(case, Norm)
    return [jnp.asarray(args[0], dtype), *(jnp.asarray(arg, None if kept else dtype) for arg in args[1:])]


def jax_call(function: Callable, kind: str, jit: Callable, args: list[jax.Array]) -> Callable[[], jax.Array]:
    """A call that computes the output or one gradient, and waits for it."""
    if kind == "forward":
        compiled = jit(function)
    else:
        at = {"dx": 0, "dw": 1, "forward + dx": 0}[kind]
        y = jax.eval_shape(function, *args)
        dy = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), y.dtype)

        def gradient(dy, *args):
            y, back = jax.vjp(function, *args)
            return (y, back(dy)[at]) if kind == "forward + dx" else back(dy)[at]

        compiled, args = jit(gradient), [dy, *args]
    return lambda: jax.block_until_ready(compiled(*args))


def torch_calls(case: Any, kind: str, args: list[np.ndarray], dtype: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, call) for each layout that PyTorch has for the case."""
    import torch
    import torch.nn.functional as F

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    rank = len(case.spatial)
    formats = {"torch": torch.contiguous_format}
    if rank > 1:
        formats["torch channels_last"] = torch.channels_last if rank == 2 else torch.channels_last_3d
    for name, layout in formats.items():
        to_device = lambda a: torch.from_numpy(np.ascontiguousarray(a)).to(device)
        x = to_device(np.moveaxis(args[0], -1, 1)).to(getattr(torch, dtype), memory_format=layout)
        if isinstance(case, Conv):
            order = (-2, -1) if case.transposed else (-1, -2)
            w = np.moveaxis(args[1], order, (0, 1))
            if case.transposed:  # (C / groups, features, ..) -> (C, features / groups, ..)
                groups = case.groups or case.channels
                w = (
                    w.reshape(w.shape[0], groups, -1, *w.shape[2:])
                    .swapaxes(0, 1)
                    .reshape(case.channels, -1, *w.shape[2:])
                )
            w = to_device(w).to(x.dtype, memory_format=layout)
            options = ([case.stride] * rank, [case.padding] * rank, [case.dilation] * rank, case.transposed)
            options = (*options, [0] * rank, case.groups or case.channels)
            forward = functools.partial(torch.ops.aten.convolution, x, w, None, *options)
            mask = [kind == "dx", kind == "dw", False]
            dy = torch.randn_like(forward())
            backward = functools.partial(torch.ops.aten.convolution_backward, dy, x, w, None, *options, mask)
        else:
            if isinstance(case, Norm):
                scale, bias = map(to_device, args[1:])
                mean, var = torch.zeros_like(scale), torch.ones_like(scale)
                function = functools.partial(F.batch_norm, running_mean=mean, running_var=var, training=True)
                function = functools.partial(function, weight=scale, bias=bias)
            else:
                pool = F.avg_pool2d if case.mean else F.max_pool2d
                function = functools.partial(pool, kernel_size=case.size, stride=case.stride, padding=case.padding)
            forward = functools.partial(function, x)
            backward = functools.partial(_forward_and_backward, function, x, torch.randn_like(forward()))
        call = forward if kind == "forward" else backward
        yield name, call if device == "cpu" else functools.partial(_call_and_synchronize, call)


def _forward_and_backward(function: Callable, x: Any, dy: Any) -> Any:
    import torch

    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x, dy)


def _call_and_synchronize(call: Callable) -> None:
    import torch

    call()
    torch.cuda.synchronize()


def measure(case: Any, kind: str, dtype: str = "float32", **repeats: Any) -> dict[str, Any]:
    """Times of an operation. `repeats` are options of `_measure.compare`."""
    args = inputs(case)
    arrays = in_dtype(case, args, dtype)
    calls = {
        "jaxcnn": jax_call(ours(case), kind, jaxcnn.jit, arrays),
        "lax": jax_call(plain(case), kind, jax.jit, arrays),
    }
    found, expected = (np.asarray(jax.tree.leaves(call())[-1], np.float32) for call in calls.values())
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=(0.01 if dtype == "float32" else 0.05) * abs(expected).max()
    )
    if _measure.installed("torch"):
        calls |= torch_calls(case, kind, args, dtype)
    timings, turn_times = _measure.compare(calls, **repeats)
    peers = [name for name in calls if name.startswith("torch")]
    return {
        "case": case.name,
        "kind": kind,
        "milliseconds": {name: [1e3 * seconds for seconds in timing] for name, timing in timings.items()},
        "of torch": _measure.ratio(turn_times, "jaxcnn", peers) if peers else None,
        "of lax": _measure.ratio(turn_times, "jaxcnn", ["lax"]),
    }


def main(words: list[str]) -> None:
    jaxcnn.train.reuse_memory()
    rows = []
    table = _measure.Table(("operation", 32), ("", 12), "jaxcnn", "torch", "lax", "/ torch", "/ lax")
    for case in CASES:
        if words and not any(word in case.name for word in words):
            continue
        for kind in kinds(case):
            row = measure(case, kind)
            rows.append(row)
            times = {name: median for name, (median, _, _) in row["milliseconds"].items()}
            torch = min((time for name, time in times.items() if name.startswith("torch")), default=None)
            table.row(case.name, kind, times["jaxcnn"], torch, times["lax"], row["of torch"], row["of lax"])
    print(_measure.save("ops", [*_measure.other_rows("ops", "case", {row["case"] for row in rows}), *rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
