"""Images per second of ImageNet networks at 224x224, against PyTorch.

    python -m experiments.benchmarks.imagenet_throughput [networks ...]

On a GPU: training and inference in bfloat16 on random images, each contender at its fastest batch size. PyTorch runs
torchvision's models with channels last, autocast and `torch.compile`. `of peak` is the multiply-adds per second as a
fraction of those of a large matrix product. On a CPU: inference in float32 with batch sizes 1 and 8. PyTorch is the
fastest of eager and compiled, with channels first and channels last.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class Work(NamedTuple):
    """Training or inference of a network on images of side x side pixels."""

    network: str
    batch: int
    training: bool
    side: int = 224

    def random_batch(self) -> tuple[np.ndarray, np.ndarray]:
        draw = np.random.default_rng(0)
        images = draw.standard_normal((self.batch, self.side, self.side, 3), np.float32)
        return images, draw.integers(0, 1000, self.batch, np.int32)


def jaxcnn_call(work: Work, dtype: Any) -> Call:
    images, labels = map(jnp.asarray, work.random_batch())
    model = jaxcnn.cast(MODELS[work.network](), dtype)
    if work.training:
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


def torch_call(work: Work, *, half: bool, compiled: bool, channels_last: bool) -> Call:
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = (torch.from_numpy(array).to(device) for array in work.random_batch())
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    net = _torchvision.models().get_model(work.network, weights=None)
    net = net.to(device, memory_format=layout).train(work.training)
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

    return train if work.training else infer


def labels_of_contenders() -> list[str]:
    """On a GPU, PyTorch only runs in the variant that is fastest there."""
    on_gpu = jax.default_backend() == "gpu"
    return ["jaxcnn", *(["torch compile channels_last"] if on_gpu else _networks.contenders(["torch"]))]


def build(label: str, work: Work) -> Call | None:
    """A call of a contender, after its first run. None if it fails, as it may for lack of memory."""
    half = jax.default_backend() == "gpu"
    try:
        if label == "jaxcnn":
            call = jaxcnn_call(work, jnp.bfloat16 if half else jnp.float32)
        else:
            options = {"compiled": "compile" in label, "channels_last": "channels_last" in label}
            call = torch_call(work, half=half, **options)
        call()
    except Exception as error:  # JAX and PyTorch raise different exceptions
        first_line = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        print(f"  {label} fails at batch size {work.batch}: {first_line[:100]}")
        return None
    return call


def rates(calls: Mapping[str, Call], batch: int, *, turns: int = 5, seconds: float = 1.0) -> dict[str, list[float]]:
    """Images per second of each turn."""
    _, turn_times = _measure.compare(calls, turns=turns, seconds=seconds)
    return {label: [batch / duration for duration in times] for label, times in turn_times.items()}


def best_rate(rows: list[dict[str, list[float]]], *, ours: bool) -> float | None:
    """The largest median over batch sizes, of jaxcnn if `ours`, otherwise of PyTorch. None if nothing ran."""
    medians = (statistics.median(turns) for row in rows for label, turns in row.items() if (label == "jaxcnn") == ours)
    return max(medians, default=None)


def peak_rate(size: int = 8192) -> float:
    """Multiply-adds per second of a product of random matrices in bfloat16. A GPU multiplies ones at a higher clock."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.bfloat16)
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
            measured = []
            for batch in batches:
                built = {label: build(label, Work(name, batch, training)) for label in labels_of_contenders()}
                measured.append(rates({label: call for label, call in built.items() if call}, batch))
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
