"""99 % of MNIST in seconds on a CPU, from the start of the process: import, data, compilation, training and test.

    python -m experiments.mnist_speedrun                     needs all of MNIST in data.root or JAXCNN_DATA
    python -m experiments.benchmarks.mnist_speedrun          20 runs, compared with the same recipe in PyTorch
    python -m experiments.benchmarks.ablations mnist_speedrun

The time is short for five reasons: the first convolution has a stride; pooling comes before norm and activation;
training takes less than an epoch, at a high learning rate with linear warmup and decay; all steps and the test are one
program, without random numbers; and the compiler uses a low optimization level.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments._settings import config_error
from jaxcnn import batch_norm, conv, cross_entropy, data, dense, flatten, jit, max_pool, serial, train

CONFIG = {
    "data": {"name": "mnist", "root": ""},
    "widths": [16, 24, 48],
    "stem": {"size": 4, "stride": 2},
    "pool_first": True,  # before norm and activation, which then process a quarter of the values
    "norm_decay": 0.8,
    "train": {
        "seed": 0,
        "epochs": 0.9,
        "batch_size": 256,
        "optimizer": {"learning_rate": 0.02, "betas": [0.8, 0.95]},  # betas: Adam
        "schedule": {"warmup": 0.2},  # fraction of the steps with a growing learning rate
        "label_smoothing": 0.05,
    },
    "optimization_level": 1,  # LLVM level, default 3: compilation 3.7 -> 2.5 s, and the program is not slower
}
LIMITS = {"train.batch_size": (1, 8001), "train.epochs": (0.01, 1e6), "train.schedule.warmup": (0, 1)}
MEAN, STD = (0.1307,), (0.3081,)
TEST_BATCH = 500


def network(config):
    first, *others = config["widths"]
    stem = conv(first, config["stem"]["size"], stride=config["stem"]["stride"], padding=1, bias=False)
    norm_relu = serial(batch_norm(decay=config["norm_decay"]), jax.nn.relu)
    layers = {"stem": serial(stem, norm_relu)}
    for i, width in enumerate(others, 1):
        after = (max_pool(2), norm_relu) if config["pool_first"] else (norm_relu, max_pool(2))
        layers[f"block{i}"] = serial(conv(width, bias=False), *after)
    return serial(normalize=data.normalize(MEAN, STD), **layers, flatten=flatten, head=dense(10))


def schedule(config, steps):
    """Linear warmup, then linear decay."""
    warmup_steps = round(config["train"]["schedule"]["warmup"] * steps)
    rate = config["train"]["optimizer"]["learning_rate"]
    phases = optax.linear_schedule(rate / 5, rate, warmup_steps), optax.linear_schedule(rate, 0, steps - warmup_steps)
    return optax.join_schedules(phases, [warmup_steps])


def program(config, count):
    """Return the initial state, the order of `count` training images (steps, batch size), and the compiled function.

    The function maps (state, order, images, labels, test images, test labels) to the test accuracy. State and order are
    drawn outside of it, because compiling random numbers takes longer than drawing them.
    """
    settings = config["train"]
    size = settings["batch_size"]
    steps = int(settings["epochs"] * count / size)
    if steps < 1:
        raise train.ConfigError(
            f"train.epochs={settings['epochs']} of {count} images are no step with train.batch_size={size}"
        )
    model = network(config)
    optimizer = optax.adam(schedule(config, steps), *settings["optimizer"]["betas"])
    step = train.make_step(cross_entropy(model, label_smoothing=settings["label_smoothing"]), optimizer)
    spec = jax.ShapeDtypeStruct((size, 28, 28, 1), jnp.float32)
    state = train.TrainState.create(model, optimizer, jax.random.key(settings["seed"]), spec)
    rng = np.random.default_rng(settings["seed"])
    order = np.concatenate([rng.permutation(count) for _ in range(math.ceil(settings["epochs"]))])

    def to_float(images):
        return images.astype(jnp.float32) / 255

    def run(state, order, images, labels, test_images, test_labels):
        def train_step(state, rows):
            return step(state, {"image": to_float(images[rows]), "label": labels[rows]})

        state, _ = lax.scan(train_step, state, order)

        def accuracy(part):
            logits, _ = model.apply(state.params, state.state, to_float(part[0]), train=False)
            return (logits.argmax(-1) == part[1]).mean()

        parts = (test_images.reshape(-1, TEST_BATCH, *test_images.shape[1:]), test_labels.reshape(-1, TEST_BATCH))
        return lax.map(accuracy, parts).mean()

    options = {"xla_backend_optimization_level": config["optimization_level"]}
    return state, order[: steps * size].reshape(steps, size), jit(run, compiler_options=options)


def main(config):
    train.require(config, LIMITS)
    began = time.perf_counter()
    digits, test_digits = (
        data.load(config["data"]["name"], split, root=config["data"]["root"] or None) for split in ("train", "test")
    )
    with config_error("network and training"):
        state, order, run = program(config, len(digits.images))
    arguments = (state, order, digits.images, digits.labels, test_digits.images, test_digits.labels)
    compiled = run.lower(*arguments).compile()
    ready = time.perf_counter()
    accuracy = float(compiled(*arguments))
    print(
        f"test accuracy {accuracy:.2%}; {ready - began:.1f} s to read and compile, "
        f"{time.perf_counter() - ready:.1f} s to train and test"
    )
    return accuracy


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
