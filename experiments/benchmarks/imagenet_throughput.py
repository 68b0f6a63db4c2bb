"""Images a second of networks for ImageNet at 224x224, against PyTorch.

    python -m experiments.benchmarks.imagenet_throughput [networks ...]

On a GPU: training and inference in bfloat16 on random images, each at the batch size that is best for it, against
torchvision's models in channels last with autocast and `torch.compile`; and the share of the multiplications that the
GPU does in a large product of matrices. On a CPU: inference in float32 at batch 1 and 8, against the best of eager
and compiled PyTorch, channels first and last.
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


def ours(name: str, batch: int, dtype: Any, training: bool) -> Call:
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
    # With parameters for constants, as in `export`, what norms make of theirs is computed once.
    logits = jaxcnn.jit(lambda images: model.apply(params, state, images, train=False)[0])
    return lambda: logits(images).block_until_ready()


def theirs(name: str, batch: int, *, half: bool, training: bool, compiled: bool, channels_last: bool) -> Call:
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = (torch.from_numpy(array).to(device) for array in random_batch(batch))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    net = _torchvision.models().get_model(name, weights=None).to(device, memory_format=layout).train(training)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, 0.9)
    call = torch.compile(net) if compiled else net
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def train():
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(call(images), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait()

    @torch.inference_mode()
    def infer():
        with torch.autocast(device, torch.bfloat16, enabled=half):
            call(images)
        wait()

    return train if training else infer


def contenders(name: str, batch: int, training: bool) -> dict[str, Callable[[], Call]]:
    """What builds each; on a GPU, of PyTorch the kind that is known to be fastest there."""
    half = jax.default_backend() == "gpu"
    found = {"jaxcnn": functools.partial(ours, name, batch, jnp.bfloat16 if half else jnp.float32, training)}
    for label in ["torch compile channels_last"] if half else _networks.contenders(["torch"]):
        options = {"compiled": "compile" in label, "channels_last": "channels_last" in label}
        found[label] = functools.partial(theirs, name, batch, half=half, training=training, **options)
    return found


def rates(name: str, batch: int, training: bool) -> dict[str, list[float]]:
    """Images a second in each turn, of each contender that has the memory for this batch."""
    built = {}
    for label, build in contenders(name, batch, training).items():
        try:
            call = build()
            call()
            built[label] = call
        except Exception as error:  # out of memory, in the words of either framework
            print(f"  {label} not at batch {batch}: {str(error).strip().splitlines()[0][:100]}")
    _, taken = _measure.compare(built, turns=5, seconds=1.0)
    return {label: [batch / seconds for seconds in turns] for label, turns in taken.items()}


def best(found: list[dict[str, list[float]]], *, ours: bool) -> float | None:
    """The largest median of jaxcnn, or of the others, over batches."""
    medians = (statistics.median(turns) for row in found for label, turns in row.items() if (label == "jaxcnn") == ours)
    return max(medians, default=None)


def peak(size: int = 8192) -> float:
    """Multiply-adds a second in a product of two matrices in bfloat16."""
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
    most = peak() if on_gpu else None
    # A GPU gets the batch that suits it; on a CPU, one image and a few are asked for.
    groups = [BATCHES["gpu"]] if on_gpu else [(batch,) for batch in BATCHES["cpu"]]
    rows = []
    table = _measure.Table(("images a second", 18), ("", 11), "batch", "jaxcnn", "PyTorch", "ratio", "of peak")
    for name in _measure.chosen(names, NETWORKS):
        work = jaxcnn.explain.summary(MODELS[name](), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).multiply_adds
        for training, batches in itertools.product((True, False) if on_gpu else (False,), groups):
            found = [rates(name, batch, training) for batch in batches]
            rows += [
                {"network": name, "training": training, "batch": batch, "images_per_second": row}
                for batch, row in zip(batches, found, strict=True)
            ]
            own, other = best(found, ours=True), best(found, ours=False)
            ratio = own / other if own and other else None
            share = own * work * (3 if training else 1) / most if own and most else None
            label = batches[0] if len(batches) == 1 else "best"
            table.row(name, "training" if training else "inference", label, own, other, ratio, share)
    if not names:
        print(_measure.save("imagenet_throughput", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
