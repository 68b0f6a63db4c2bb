"""Inference of exported models: onnxruntime against jaxcnn, and the size of the ONNX graph.

    python -m experiments.benchmarks.onnx [networks ...]

Milliseconds per batch on a CPU, in float32, with batch sizes 1 and 8: medians, and the lower and upper quartile of the
turns. jaxcnn runs the model under `jaxcnn.jit` with its parameters as constants. onnxruntime runs the export of this
model with as many threads. `ratio` is the time of onnxruntime divided by the time of jaxcnn. `nodes` are the operators
of the export, `PyTorch` those of `torch.onnx.export` of the same network, without the nodes that hold weights.
"""

import collections
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from experiments.benchmarks import _measure
from experiments.benchmarks._tasks import TASKS, torchvision_model
from jaxcnn.models import MODELS

BATCHES = (1, 8)


class Net(NamedTuple):
    model: Callable[[], jaxcnn.Layer]
    module: Callable[[], Any]  # the same network in PyTorch
    shape: tuple[int, ...]  # of an example


def torch_lenet5() -> Any:
    from torch import nn

    convolutions = nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU()
    head = nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
    return nn.Sequential(*convolutions, nn.MaxPool2d(2), nn.Flatten(), *head)


NETWORKS = {
    name: Net(MODELS[name], torchvision_model(name), (224, 224, 3))
    for name in ("resnet50", "mobilenet_v3_large", "convnext_tiny")
}
NETWORKS["lenet5"] = Net(MODELS["lenet5"], torch_lenet5, (28, 28, 1))
NETWORKS["unet"] = Net(TASKS["unet"].model, TASKS["unet"].module, TASKS["unet"].shape)


class Pair(NamedTuple):
    """A network that both run."""

    infer: Callable[[Any], Any]  # in jaxcnn
    session: Any  # of onnxruntime
    nodes: int


def build(net: Net) -> Pair:
    import onnxruntime

    layer = net.model()
    x = jax.ShapeDtypeStruct((1, *net.shape), jnp.float32)
    params, state = jax.jit(layer.init)(jax.random.key(0), jnp.zeros(x.shape))
    model = jaxcnn.export(layer, params, state, x, format="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    # With the parameters as constants, as in the export, XLA folds the scale and shift of norms at compile time.
    infer = jaxcnn.jit(lambda x: layer.apply(params, state, x, train=False)[0])
    return Pair(infer, session, len(model.graph.node))


def torch_nodes(net: Net) -> int | None:
    """The number of operators in PyTorch's export; None if PyTorch is not installed."""
    if not _measure.installed("torch"):
        return None
    import onnx
    import torch

    x = torch.zeros(1, net.shape[-1], *net.shape[:-1])
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the newer exporter needs one more package
        torch.onnx.export(net.module().eval(), (x,), file, opset_version=18, dynamo=False)
    counts = collections.Counter(node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node)
    return counts.total() - counts["Constant"] - counts["Identity"]


def calls(pair: Pair, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Both contenders on the same images. Checks that their results are equal."""
    ours, theirs = np.asarray(pair.infer(x)), pair.session.run(None, {"x": x})[0]
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.abs(ours).max())
    on_device = jnp.asarray(x)
    return {
        "jaxcnn": lambda: pair.infer(on_device).block_until_ready(),
        "onnxruntime": lambda: pair.session.run(None, {"x": x}),
    }


def measure(name: str, turns: int, seconds: float, table: _measure.Table) -> list[dict[str, Any]]:
    """A row per batch size. Prints each as soon as it is measured."""
    net = NETWORKS[name]
    pair, torch = build(net), torch_nodes(net)
    rows = []
    for batch in BATCHES:
        x = np.random.default_rng(0).standard_normal((batch, *net.shape), np.float32)
        timings, turn_times = _measure.compare(calls(pair, x), turns=turns, seconds=seconds)
        both = {peer: timing._asdict() | {"turns": turn_times[peer]} for peer, timing in timings.items()}
        common = {"net": name, "batch": batch, "shape": net.shape, "nodes": pair.nodes, "torch_nodes": torch}
        rows.append(common | {"seconds": both})
        ratio = _measure.ratio(turn_times, "onnxruntime", ["jaxcnn"])
        table.row(name, batch, *(1e3 * timing.median for timing in timings.values()), ratio, pair.nodes, torch)
    return rows


def main(names: list[str]) -> None:
    table = _measure.Table(("ms per batch", 18), "batch", "jaxcnn", "onnxruntime", "ratio", "nodes", "PyTorch")
    for name in _measure.select_names(names, NETWORKS):
        rows = [*_measure.other_rows("onnx", "net", [name]), *measure(name, 9, 0.5, table)]
        path = _measure.save("onnx", rows)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
