"""Images a second of `train.fit`, from bytes in memory to the metrics, against a bare training step on one batch.

    python -m experiments.benchmarks.pipeline [networks ...]

What the pipeline adds: batches drawn in the order of the epoch, bytes scaled, the augmentation of each case, the check
of every step for what is not finite, sums of metrics. All of it is in one program with the step.
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


def bare(model, dataset, batch_size):
    """Images a second of `make_step` alone."""
    optimizer = optax.adam(1e-3)
    batch = {"image": dataset.images[:batch_size] / np.float32(255), "label": dataset.labels[:batch_size]}
    batch = jax.tree.map(jax.numpy.asarray, batch)
    state = train.TrainState.create(model, optimizer, jax.random.key(0), batch["image"])
    step = train.make_step(cross_entropy(model), optimizer)
    state, _ = step(state, batch)

    def measure():
        nonlocal state
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            done += batch_size
        return done / (time.perf_counter() - began)

    return measure


def fitted(model, dataset, batch_size, augment, images):
    """Images a second of a run of `fit` over about so many."""
    epochs = max(2, round(images / len(dataset.images)))
    config = {"epochs": epochs, "batch_size": batch_size, "augment": augment, "checkpoint": {"keep": 0}}
    config["optimizer"] = {"name": "adam", "learning_rate": 1e-3}
    with tempfile.TemporaryDirectory() as folder:
        history = train.fit(model, dataset, config=config, run=train.Run("pipeline", config, folder=folder)).history
    return statistics.median(record["images_per_second"] for record in history[1:])


def main(names: list[str]) -> None:
    train.reuse_memory()
    rows = []
    for name in _measure.chosen(names, CASES):
        model, dataset, batch_size, augment = CASES[name]
        measure = bare(model, dataset, batch_size)
        turns = []
        for _ in range(TURNS):
            alone = measure()
            turns.append((fitted(model, dataset, batch_size, augment, SECONDS * alone), alone))
        ratio = statistics.median(whole / alone for whole, alone in turns)
        rows.append({"case": name, "images_per_second": turns, "ratio": ratio})
        print(f"{name:30} {ratio:.0%} of the bare step's images a second")
    if not names:
        print(_measure.save("pipeline", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
