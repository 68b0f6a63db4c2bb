"""Images per second of ImageNet networks at 224x224, against PyTorch and Flax.

    python -m experiments.benchmarks.imagenet_throughput [networks ...]

On a GPU: training and inference in bfloat16 on random images, each contender at its fastest batch size. PyTorch runs
torchvision's models with channels last, autocast and `torch.compile`. `of peak` is the multiply-adds per second as a
fraction of those of a large matrix product. On a CPU, in float32: inference with batch sizes 1 and 8, and training with
batch size 8. PyTorch is the fastest of eager and compiled, with channels first and channels last. For training,
ResNet-50 in Flax is measured, too. With names, the results of these networks are replaced.
"""

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
# (training, batch sizes): one row of the table for each, with the fastest batch size.
GROUPS = {
    "gpu": [(True, (64, 128, 256, 512)), (False, (64, 128, 256, 512))],
    "cpu": [(True, (8,)), (False, (1,)), (False, (8,))],
}
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


def labels_of_contenders(work: Work) -> list[str]:
    """On a GPU, PyTorch only runs in the variant that is fastest there. Of these networks, Flax has ResNet-50."""
    if jax.default_backend() == "gpu":
        return ["jaxcnn", "torch compile channels_last"]
    flax = ["flax"] if work.training and work.network == "resnet50" else []
    return ["jaxcnn", *_networks.contenders([*flax, "torch"])]


def build(label: str, work: Work) -> Call | None:
    """A call of a contender, after its first run. None if it fails, as it may for lack of memory."""
    half = jax.default_backend() == "gpu"
    try:
        if label == "jaxcnn":
            call = jaxcnn_call(work, jnp.bfloat16 if half else jnp.float32)
        elif label == "flax":
            contender = _networks.create_contender(_networks.resnet50(work.batch), label)
            call = contender.train
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


def best_rate(rows: list[dict[str, list[float]]], framework: str) -> float | None:
    """The largest median over batch sizes and variants of a framework. None if nothing ran."""
    medians = (
        statistics.median(turns) for row in rows for label, turns in row.items() if label.split()[0] == framework
    )
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
    rows = []
    table = _measure.Table(
        ("images per second", 18), ("", 11), "batch", "jaxcnn", "PyTorch", "ratio", "of peak", "Flax"
    )
    selected = _measure.select_names(names, NETWORKS)
    for name in selected:
        summary = jaxcnn.explain.summary(MODELS[name](), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
        for training, batches in GROUPS["gpu" if on_gpu else "cpu"]:
            measured = []
            for batch in batches:
                work = Work(name, batch, training)
                built = {label: build(label, work) for label in labels_of_contenders(work)}
                measured.append(rates({label: call for label, call in built.items() if call}, batch))
            rows += [
                {"network": name, "training": training, "batch": batch, "images_per_second": row}
                for batch, row in zip(batches, measured, strict=True)
            ]
            ours, torch, flax = (best_rate(measured, framework) for framework in ("jaxcnn", "torch", "flax"))
            ratio = ours / torch if ours and torch else None
            of_peak = ours * summary.multiply_adds * (3 if training else 1) / peak if ours and peak else None
            label = batches[0] if len(batches) == 1 else "best"
            table.row(name, "training" if training else "inference", label, ours, torch, ratio, of_peak, flax)
    print(
        _measure.save("imagenet_throughput", [*_measure.other_rows("imagenet_throughput", "network", selected), *rows])
    )


if __name__ == "__main__":
    main(sys.argv[1:])
