"""99 % of MNIST in seconds from the start of the process, on a CPU: import, data, compilation, training and test.

    python -m experiments.mnist_speedrun                     needs all of MNIST in data.root or JAXCNN_DATA
    python -m experiments.benchmarks.mnist_speedrun          20 runs, beside the same in PyTorch
    python -m experiments.benchmarks.ablations mnist_speedrun

What makes it short: a first convolution with stride, pools before norms, less than an epoch at a high learning rate
that rises and falls on a line, all steps and the test in one program, and a compiler told to hurry.
"""

import math
import time

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxcnn import batch_norm, conv, cross_entropy, data, dense, flatten, jit, max_pool, serial, train

CONFIG = {
    "data": {"name": "mnist", "root": ""},
    "widths": [16, 24, 48],
    "stem": {"size": 4, "stride": 2},
    "pool_first": True,  # before norm and activation, which then have a quarter to do
    "norm_decay": 0.8,
    "train": {
        "seed": 0,
        "epochs": 0.9,
        "batch_size": 256,
        "optimizer": {"learning_rate": 0.02, "betas": [0.8, 0.95]},  # of Adam
        "schedule": {"warmup": 0.2},  # the fraction of the steps in which the learning rate grows
        "label_smoothing": 0.05,
    },
    "optimization_level": 1,  # of LLVM, 3 as a rule: compilation 3.7 -> 2.5 s, and no slower a program here
}
LIMITS = {"train.batch_size": (1, 8001), "train.epochs": (0.01, 1e6), "train.schedule.warmup": (0, 1)}
MEAN, STD = (0.1307,), (0.3081,)
TEST_BATCH = 500


def network(config):
    first, *others = config["widths"]
    stem = conv(first, config["stem"]["size"], stride=config["stem"]["stride"], padding=1, bias=False)
    active = serial(batch_norm(decay=config["norm_decay"]), jax.nn.relu)
    layers = {"stem": serial(stem, active)}
    for i, width in enumerate(others, 1):
        after = (max_pool(2), active) if config["pool_first"] else (active, max_pool(2))
        layers[f"block{i}"] = serial(conv(width, bias=False), *after)
    return serial(normalize=data.normalize(MEAN, STD), **layers, flatten=flatten, head=dense(10))


def schedule(config, steps):
    """A line up, and a line down."""
    rise = round(config["train"]["schedule"]["warmup"] * steps)
    rate = config["train"]["optimizer"]["learning_rate"]
    lines = optax.linear_schedule(rate / 5, rate, rise), optax.linear_schedule(rate, 0, steps - rise)
    return optax.join_schedules(lines, [rise])


def program(config, count):
    """(key, images, labels, test images, test labels) -> test accuracy, for `count` training images."""
    settings = config["train"]
    size = settings["batch_size"]
    steps = int(settings["epochs"] * count / size)
    model = network(config)
    optimizer = optax.adam(schedule(config, steps), *settings["optimizer"]["betas"])
    step = train.make_step(cross_entropy(model, label_smoothing=settings["label_smoothing"]), optimizer)

    def floats(images):
        return images.astype(jnp.float32) / 255

    def run(key, images, labels, unseen, unseen_labels):
        state = train.TrainState.create(model, optimizer, key, floats(images[:size]))

        keys = jax.random.split(key, math.ceil(settings["epochs"]))
        order = jax.vmap(lambda key: jax.random.permutation(key, count))(keys).ravel()

        def one(state, rows):
            return step(state, {"image": floats(images[rows]), "label": labels[rows]})

        state, _ = lax.scan(one, state, order[: steps * size].reshape(steps, size))

        def right(part):
            logits, _ = model.apply(state.params, state.state, floats(part[0]), train=False)
            return (logits.argmax(-1) == part[1]).mean()

        parts = (unseen.reshape(-1, TEST_BATCH, *unseen.shape[1:]), unseen_labels.reshape(-1, TEST_BATCH))
        return lax.map(right, parts).mean()

    return jit(run, compiler_options={"xla_backend_optimization_level": config["optimization_level"]})


def main(config):
    train.require(config, LIMITS)
    began = time.perf_counter()
    digits, unseen = (
        data.load(config["data"]["name"], split, root=config["data"]["root"] or None) for split in ("train", "test")
    )
    run = program(config, len(digits.images))
    arrays = (digits.images, digits.labels, unseen.images, unseen.labels)
    compiled = run.lower(jax.random.key(config["train"]["seed"]), *arrays).compile()
    ready = time.perf_counter()
    accuracy = float(compiled(jax.random.key(config["train"]["seed"]), *arrays))
    print(
        f"test accuracy {accuracy:.2%}; {ready - began:.1f} s to read and compile, "
        f"{time.perf_counter() - ready:.1f} s to train and test"
    )
    return accuracy


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
