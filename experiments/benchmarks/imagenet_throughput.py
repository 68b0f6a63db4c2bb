"""Images per second of ImageNet networks at 224x224, against PyTorch.

    python -m experiments.benchmarks.imagenet_throughput [networks ...]

On a GPU: training and inference in bfloat16 on random images, each contender at its fastest batch size. PyTorch runs
torchvision's models with channels last, autocast and `torch.compile`. `of peak` is the multiply-adds per second as a
fraction of those of a large matrix product. On a CPU: inference in float32 with batch sizes 1 and 8. PyTorch is the
fastest of eager and compiled, with channels first and channels last.
"""

import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcnn
from experiments.benchmarks import _measure, _networks, _torchvision
from jaxcnn.models import MODELS

NETWORKS = ("resnet50", "convnext_tiny", "efficientnet_b0", "mobilenet_v2")
BATCHES = {"gpu": (64, 128, 256, 512), "cpu": (1, 8)}
Call = Callable[[], Any]


def random_batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((batch, 224, 224, 3), np.float32), draw.integers(0, 1000, batch, np.int32)


def jaxcnn_call(name: str, batch: int, dtype: Any, training: bool) -> Call:
    images, labels = map(jnp.asarray, random_batch(batch))
    model = jaxcnn.cast(MODELS[name](), dtype)
    if training:
        optimizer = optax.sgd(1e-3, 0.9)
        state = jaxcnn.train.TrainState.create(model, optimizer, jax.random.key(0), images)
        step = jaxcnn.train.make_step(jaxcnn.cross_entropy(model), optimizer)

        def train():
            nonlocal state
            state, metrics = step(state, {"image": images, "label": labels})
            jax.block_until_ready(metrics)

        return train
    params, state = jax.jit(model.init)(jax.random.key(0), images)
    # With the parameters as constants, as in `export`, XLA folds the scale and shift of norms at compile time.
    logits = jaxcnn.jit(lambda images: model.apply(params, state, images, train=False)[0])
    return lambda: logits(images).block_until_ready()


def torch_call(name: str, batch: int, *, half: bool, training: bool, compiled: bool, channels_last: bool) -> Call:
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = (torch.from_numpy(array).to(device) for array in random_batch(batch))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    net = _torchvision.models().get_model(name, weights=None).to(device, memory_format=layout).train(training)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, 0.9)
    call = torch.compile(net) if compiled else net
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def train():
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(call(images), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        synchronize()

    @torch.inference_mode()
    def infer():
        with torch.autocast(device, torch.bfloat16, enabled=half):
            call(images)
        synchronize()

    return train if training else infer


def contenders(name: str, batch: int, training: bool) -> dict[str, Callable[[], Call]]:
    """Functions that build each contender. On a GPU, PyTorch only runs in the variant that is fastest there."""
    half = jax.default_backend() == "gpu"
    builders = {"jaxcnn": functools.partial(jaxcnn_call, name, batch, jnp.bfloat16 if half else jnp.float32, training)}
    for label in ["torch compile channels_last"] if half else _networks.contenders(["torch"]):
        options = {"compiled": "compile" in label, "channels_last": "channels_last" in label}
        builders[label] = functools.partial(torch_call, name, batch, half=half, training=training, **options)
    return builders


def rates(name: str, batch: int, training: bool) -> dict[str, list[float]]:
    """Images per second of each turn, for each contender that runs at this batch size without an error."""
    built = {}
    for label, build in contenders(name, batch, training).items():
        try:
            call = build()
            call()
            built[label] = call
        except Exception as error:  # out of memory; JAX and PyTorch raise different exceptions
            print(f"  {label} fails at batch size {batch}: {str(error).strip().splitlines()[0][:100]}")
    _, turn_times = _measure.compare(built, turns=5, seconds=1.0)
    return {label: [batch / seconds for seconds in turns] for label, turns in turn_times.items()}


def best_rate(rows: list[dict[str, list[float]]], *, ours: bool) -> float | None:
    """The largest median over batch sizes, of jaxcnn if `ours`, otherwise of PyTorch. None if nothing ran."""
    medians = (statistics.median(turns) for row in rows for label, turns in row.items() if (label == "jaxcnn") == ours)
    return max(medians, default=None)


def peak_rate(size: int = 8192) -> float:
    """Multiply-adds per second of a matrix product in bfloat16."""
    a = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    began = time.perf_counter()
    for _ in range(10):
        product(a).block_until_ready()
    return 10 * size**3 / (time.perf_counter() - began)


def main(names: list[str]) -> None:
    jaxcnn.train.reuse_memory()
    on_gpu = jax.default_backend() == "gpu"
    peak = peak_rate() if on_gpu else None
    # One row for the fastest batch size on a GPU, one row per batch size on a CPU.
    groups = [BATCHES["gpu"]] if on_gpu else [(batch,) for batch in BATCHES["cpu"]]
    rows = []
    table = _measure.Table(("images per second", 18), ("", 11), "batch", "jaxcnn", "PyTorch", "ratio", "of peak")
    for name in _measure.select_names(names, NETWORKS):
        work = jaxcnn.explain.summary(MODELS[name](), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).multiply_adds
        for training, batches in itertools.product((True, False) if on_gpu else (False,), groups):
            measured = [rates(name, batch, training) for batch in batches]
            rows += [
                {"network": name, "training": training, "batch": batch, "images_per_second": row}
                for batch, row in zip(batches, measured, strict=True)
            ]
            jaxcnn_rate, torch_rate = best_rate(measured, ours=True), best_rate(measured, ours=False)
            ratio = jaxcnn_rate / torch_rate if jaxcnn_rate and torch_rate else None
            of_peak = jaxcnn_rate * work * (3 if training else 1) / peak if jaxcnn_rate and peak else None
            label = batches[0] if len(batches) == 1 else "best"
            table.row(name, "training" if training else "inference", label, jaxcnn_rate, torch_rate, ratio, of_peak)
    if not names:
        print(_measure.save("imagenet_throughput", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
