"""The parts of `gpu` that measure time. Each is a generator of (name, function that returns a row).

A part first measures everything that is built quickly, and then compiles PyTorch, which takes minutes.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Generator
from typing import Any

import jax
import jax.numpy as jnp

import jaxcnn
from experiments import cifar10_speedrun
from experiments.benchmarks import _measure, _networks, imagenet_throughput, ops, vmap
from experiments.benchmarks import cifar10_speedrun as cifar10_benchmark
from experiments.benchmarks.compilation import compile_seconds
from jaxcnn import data
from jaxcnn.models import MODELS
from jaxcnn.train import override

Row = dict[str, Any]
Tasks = Generator[tuple[str, Callable[[], Row]]]

DTYPES = ("bfloat16", "float32")
EAGER, COMPILED = "torch channels_last", "torch compile channels_last"
TINY = _networks.Network(
    (6, 6, 2),
    3,
    (
        *(_networks.Conv(4, bias=False), _networks.Norm(), _networks.Relu(), _networks.MaxPool(2, 2)),
        *(_networks.Conv(4, groups=4), _networks.LayerNorm(), _networks.GlobalAvgPool(), _networks.Dense(10)),
    ),
)


def _repeats(tiny: bool) -> dict[str, Any]:
    """Options of `_measure.compare`."""
    return {"turns": 2, "seconds": 0.001} if tiny else {"turns": 5, "seconds": 0.05}


def torch_contenders(compiled: bool) -> list[str]:
    """The eager contender, followed by the compiled one, as far as they work here."""
    names = _networks.contenders(["torch"]) if compiled else _networks.installed_frameworks(["torch"]) and [EAGER]
    return [name for name in (EAGER, COMPILED) if name in names]


def networks(tiny: bool) -> Tasks:
    """Training and inference of the networks of `nets`. PyTorch uses channels last, autocast, and TF32 in float32."""
    _torch_settings()
    nets = {"tiny": TINY} if tiny else _networks.NETWORKS
    work = [(name, net._replace(dtype=dtype)) for (name, net), dtype in itertools.product(nets.items(), DTYPES)]
    peers = ["jaxcnn", *_networks.installed_frameworks(["flax"]), *torch_contenders(compiled=False)]
    built: dict[str, tuple[dict[str, _networks.Contender], Row]] = {}

    def measure(name, net, contenders):
        label = f"{name}, {net.dtype}"
        existing, seconds = built.setdefault(label, ({}, {"train": {}, "infer": {}}))
        new = {peer: contender for peer in contenders if (contender := _networks.create_contender(net, peer))}
        for (peer, contender), kind in itertools.product(new.items(), seconds):
            seconds[kind][peer] = compile_seconds(getattr(contender, kind))["passed"]
        measured = existing | new
        _networks.check(measured)
        row = {"net": name, "dtype": net.dtype, "batch": net.batch, "shape": net.shape, "compilation": seconds}
        for kind in seconds:
            calls = {peer: getattr(contender, kind) for peer, contender in measured.items()}
            row[kind] = timed(calls, **_repeats(tiny))
        if COMPILED not in new:  # keeping more than one compiled network would take too much memory
            existing.update(new)
        return row

    for name, net in work:
        yield f"{name}, {net.dtype}", lambda name=name, net=net: measure(name, net, peers)
    if COMPILED in torch_contenders(compiled=not tiny):
        for name, net in work:
            yield f"{name}, {net.dtype}", lambda name=name, net=net: measure(name, net, [COMPILED])


def _torch_settings() -> None:
    """Let PyTorch choose the fastest convolutions, and round float32 products to TF32, as XLA does."""
    if _measure.installed("torch"):
        import torch

        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")


def timed(calls: dict[str, Callable[[], Any]], **repeats: Any) -> Row:
    """Median seconds of each call, and the time of jaxcnn divided by that of the fastest call of each framework."""
    timings, turn_times = _measure.compare(calls, **repeats)
    ratios = {}
    for framework in ("torch", "flax"):
        if peers := [name for name in calls if name.split()[0] == framework]:
            ratios[framework] = _measure.ratio(turn_times, "jaxcnn", peers)
    return {"seconds": {name: timing._asdict() for name, timing in timings.items()}, "ratio": ratios}


def imagenet(tiny: bool) -> Tasks:
    """Images per second in bfloat16, in training and inference, as a fraction of the rate of a large matrix product."""
    _torch_settings()
    names, batch, side = (["mobilenet_v2"], 2, 32) if tiny else (imagenet_throughput.NETWORKS, 256, 224)
    peak = imagenet_throughput.peak_rate(64 if tiny else 8192)
    repeats = _repeats(tiny) | ({} if tiny else {"seconds": 0.3})
    work = [imagenet_throughput.Work(*item, side) for item in itertools.product(names, (batch,), (True, False))]
    built: dict[imagenet_throughput.Work, dict[str, Callable[[], Any]]] = {}

    def measure(item, labels):
        existing = built.setdefault(item, {})
        new = {label: call for label in labels if (call := imagenet_throughput.build(label, item))}
        rates = imagenet_throughput.rates(existing | new, batch, **repeats)
        if COMPILED not in labels:
            existing.update(new)
        image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        adds = jaxcnn.explain.summary(MODELS[item.network](), image).multiply_adds * (3 if item.training else 1)
        medians = {label: statistics.median(turns) for label, turns in rates.items()}
        of_peak = {label: median * adds / peak for label, median in medians.items()}
        row = {"network": item.network, "training": item.training, "batch": batch, "images_per_second": rates}
        return row | {"of_peak": of_peak, "peak": peak}

    def label(item):
        return f"{item.network}, {'training' if item.training else 'inference'}"

    eager = ["jaxcnn", *torch_contenders(compiled=False)]
    for item in work:
        yield label(item), lambda item=item: measure(item, eager)
    if COMPILED in torch_contenders(compiled=not tiny):
        for item in work:
            yield label(item), lambda item=item: measure(item, [COMPILED])


OPERATIONS = (
    *("3x3 256->256", "1x1 256->64", "depthwise 3x3, 128", "depthwise 7x7, 96", "grouped (32) 3x3 128->128"),
    *("7x7/2 3->64", "transposed 2x2/2 64->32", "max pool 3x3/2", "batch norm, 64", "3-D 3x3x3 16->16"),
)


def operations(tiny: bool) -> Tasks:
    """Operations of `ops` in both dtypes."""
    _torch_settings()
    by_name = {case.name: case for case in ops.CASES}
    for name, dtype in itertools.product(OPERATIONS[7:8] if tiny else OPERATIONS, DTYPES):
        case = by_name[name]._replace(**({"batch": 2, "spatial": (8, 8)} if tiny else {}))
        for kind in ops.kinds(case):
            yield (
                f"{name}, {kind}, {dtype}",
                lambda case=case, kind=kind, dtype=dtype: (
                    ops.measure(case, kind, dtype, **_repeats(tiny)) | {"dtype": dtype}
                ),
            )


def many(tiny: bool) -> Tasks:
    """32 networks in one program against a loop, as in `vmap`."""
    net, models = (TINY, 2) if tiny else (vmap.NETWORKS["lenet5"], 32)
    frameworks = ["jaxcnn", *_networks.installed_frameworks(["flax", "torch"])]
    for kind in ("train", "infer"):
        yield (
            f"{models} networks, {kind}",
            lambda kind=kind: vmap.measure(net, kind, models, frameworks, turns=_repeats(tiny)["turns"], limits={}),
        )


def cifar10(tiny: bool, deadline: float) -> Tasks:
    """Runs of the recipe of `cifar10_speedrun` and of its twin in PyTorch, until the deadline."""
    if not (root := os.environ.get("JAXCNN_DATA")):
        print("cifar10: skipped, it needs the folder of CIFAR-10 in JAXCNN_DATA")
        return
    # With a root, missing files are not downloaded.
    config = override(cifar10_speedrun.CONFIG, [f"data.root={root}", *(["small=true"] if tiny else [])])
    try:
        cifar10_speedrun.prepared(config)
    except data.DataError as error:
        print(f"cifar10: skipped, {error}")
        return
    contenders = {"jaxcnn": cifar10_speedrun.runs}
    if _measure.installed("torch"):
        contenders["PyTorch"] = cifar10_benchmark.torch_runs
    for done, (name, runs) in enumerate(contenders.items()):
        now = time.perf_counter()
        end = now + (deadline - now) / (len(contenders) - done)
        yield name, lambda name=name, runs=runs, end=end: {"contender": name} | collected(runs(config), end)


def collected(runs: Generator[tuple[float, float]], end: float) -> Row:
    """The accuracy and the seconds of each run until the time `end`, at least of one run."""
    results = []
    for result in runs:
        results.append(result)
        if time.perf_counter() + result[1] > end:
            break
    accuracies, seconds = zip(*results, strict=True)
    return {"accuracies": accuracies, "seconds": seconds}
