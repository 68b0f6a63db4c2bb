"""Images per second of `train.fit`, against a bare training step on one batch.

    python -m experiments.benchmarks.pipeline [networks ...]

`train.fit` also shuffles and gathers batches, scales uint8 images, augments them, checks every step for non-finite
values and accumulates metrics. It compiles all of this into one program with the step.
"""

import statistics
import sys
import tempfile
import time

import jax
import numpy as np
import optax

from experiments.benchmarks import _measure
from experiments.mnist_cnn import network
from jaxcnn import cross_entropy, data, models, train

TURNS = 3
SECONDS = 4  # of each measurement

DIGITS = data.load("mnist_small", "train")
COLOR = data.Dataset(
    np.random.default_rng(0).integers(0, 256, (4096, 32, 32, 3), np.uint8),
    np.arange(4096, dtype=np.int32) % 10,
    ("",) * 10,
)
CASES = {  # model, data set, batch size, augmentation
    "LeNet-5": (models.lenet5(), DIGITS, 128, []),
    "LeNet-5, translated": (models.lenet5(), DIGITS, 128, [["translate", 2]]),
    "mnist_cnn, as it is trained": (network(DIGITS, 24, 0.4), DIGITS, 128, [["rotate", 10], ["translate", 2]]),
    "ResNet-20, as it is trained": (models.resnet20(), COLOR, 128, [["random_crop", 4], ["flip"]]),
}


def measure_bare_step(model, dataset, batch_size):
    """A function that measures the images per second of `make_step` alone."""
    optimizer = optax.adam(1e-3)
    batch = {"image": dataset.images[:batch_size] / np.float32(255), "label": dataset.labels[:batch_size]}
    batch = jax.tree.map(jax.numpy.asarray, batch)
    state = train.TrainState.create(model, optimizer, jax.random.key(0), batch["image"])
    step = train.make_step(cross_entropy(model), optimizer)
    state, _ = step(state, batch)

    def measure():
        nonlocal state
        image_count, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            image_count += batch_size
        return image_count / (time.perf_counter() - began)

    return measure


def fit_throughput(model, dataset, batch_size, augment, images):
    """Images per second of `fit` on about `images` images."""
    epochs = max(2, round(images / len(dataset.images)))
    config = {"epochs": epochs, "batch_size": batch_size, "augment": augment, "checkpoint": {"keep": 0}}
    config["optimizer"] = {"name": "adam", "learning_rate": 1e-3}
    with tempfile.TemporaryDirectory() as folder:
        history = train.fit(model, dataset, config=config, run=train.Run("pipeline", config, folder=folder)).history
    return statistics.median(record["images_per_second"] for record in history[1:])


def main(names: list[str]) -> None:
    train.reuse_memory()
    rows = []
    for name in _measure.select_names(names, CASES):
        model, dataset, batch_size, augment = CASES[name]
        measure = measure_bare_step(model, dataset, batch_size)
        turns = []
        for _ in range(TURNS):
            bare = measure()
            turns.append((fit_throughput(model, dataset, batch_size, augment, SECONDS * bare), bare))
        ratio = statistics.median(fit / bare for fit, bare in turns)
        rows.append({"case": name, "images_per_second": turns, "ratio": ratio})
        print(f"{name:30} {ratio:.0%} of the throughput of the bare step")
    if not names:
        print(_measure.save("pipeline", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
