"""Images a second of networks for ImageNet at 224x224, against PyTorch.

    python -m experiments.benchmarks.imagenet_throughput [networks ...]

On a GPU: training and inference in bfloat16 on random pictures, each at the batch size that is best for it, against
torchvision's models in channels last with autocast and `torch.compile`; and the share of the multiplications that the
GPU does in a large product of matrices. On a CPU: inference in float32 at batch 1 and 8, against the best of eager
and compiled PyTorch, channels first and last.
"""

import functools
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


def pictures(batch: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((batch, 224, 224, 3), np.float32), draw.integers(0, 1000, batch, np.int32)


def ours(name: str, batch: int, dtype: Any, training: bool) -> Call:
    images, labels = map(jnp.asarray, pictures(batch))
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
    apply = jaxcnn.jit(functools.partial(model.apply, train=False))
    return lambda: jax.block_until_ready(apply(params, state, images)[0])


def theirs(name: str, batch: int, *, half: bool, training: bool, compiled: bool, channels_last: bool) -> Call:
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = (torch.from_numpy(array).to(device) for array in pictures(batch))
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


def fastest(calls: dict[str, Callable[[], Call]], batch: int) -> dict[str, tuple[float, list[float]]]:
    """(images a second, those of each turn) of each contender that has the memory for this batch."""
    built = {}
    for name, build in calls.items():
        try:
            built[name] = build()
            built[name]()
        except Exception as error:  # out of memory, in the words of either framework
            built.pop(name, None)
            print(f"  {name} not at batch {batch}: {str(error).strip().splitlines()[0][:100]}")
    _, taken = _measure.compare(built, turns=5, seconds=1.0)
    return {name: (batch / float(np.median(times)), [batch / t for t in times]) for name, times in taken.items()}


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
    dtype = jnp.bfloat16 if on_gpu else jnp.float32
    kinds = [
        (compiled, layout)
        for compiled in (True, False)
        for layout in (True, False)
        if not on_gpu or (compiled and layout)
    ]
    if not on_gpu and _networks.contenders(["torch"]).count("torch compile") == 0:
        kinds = [kind for kind in kinds if not kind[0]]
    most = peak() if on_gpu else None
    rows = []
    table = _measure.Table(("images a second", 18), ("", 11), "batch", "jaxcnn", "PyTorch", "ratio", "of peak")
    for name in names or NETWORKS:
        work = jaxcnn.explain.summary(MODELS[name](), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)).multiply_adds
        for training in (True, False) if on_gpu else (False,):
            best = {}
            for batch in BATCHES[jax.default_backend()]:
                calls = {"jaxcnn": functools.partial(ours, name, batch, dtype, training)}
                for compiled, layout in kinds:
                    label = f"torch{' compile' if compiled else ''}{' channels_last' if layout else ''}"
                    options = {"half": on_gpu, "training": training, "compiled": compiled, "channels_last": layout}
                    calls[label] = functools.partial(theirs, name, batch, **options)
                results = fastest(calls, batch)
                others = {label: result for label, result in results.items() if label != "jaxcnn"}
                rows.append({"network": name, "training": training, "batch": batch, "images_per_second": results})
                pair = {"jaxcnn": results.get("jaxcnn"), "PyTorch": max(others.values(), default=None)}
                if on_gpu:
                    best = {who: max(filter(None, (best.get(who), pair[who])), default=None) for who in pair}
                    if batch != BATCHES["gpu"][-1]:
                        continue
                    pair, batch = best, "best"
                if None in pair.values():
                    continue
                own, other = pair["jaxcnn"][0], pair["PyTorch"][0]
                share = own * work * (3 if training else 1) / most if most else None
                table.row(name, "training" if training else "inference", batch, own, other, own / other, share)
    if not names:
        print(_measure.save("imagenet_throughput", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
