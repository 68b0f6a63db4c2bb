"""94 % of CIFAR-10 in seconds on one GPU: the record recipe (Jordan's "airbench94_muon", 2025) in JAX.

    python -m experiments.cifar10_speedrun runs=50           on a GPU: mean and std of accuracy and time
    python -m experiments.cifar10_speedrun small=true        a short, narrow run for any machine
    python -m experiments.cifar10_speedrun train.dtype=float32 warm_up=false    on a CPU, for its accuracy

The first convolution is fixed and whitens the input: its outputs are uncorrelated. The other convolutions start as
identities (dirac). Muon trains them with orthogonal steps; SGD trains all other parameters. Each image is flipped in
every other epoch, and test-time augmentation averages six views. All epochs are one program on the device.
As in the record, the time includes whitening, training and evaluation, with the images already on the device. It
excludes compilation and a warm-up run on random labels. Needs CIFAR-10 in data.root or JAXCNN_DATA.
"""

import itertools
import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments._settings import require_default, require_one_of
from jaxcnn import batch_norm, cast, conv, cross_entropy, data, dense, flatten, jit, max_pool, serial, train
from jaxcnn.data import augment

CONFIG = {
    "runs": 1,
    "warm_up": True,  # if False, the time of the first run includes compilation
    "small": False,
    "data": {"root": ""},
    "train": {"seed": 0, "epochs": 8, "batch_size": 2000, "label_smoothing": 0.2, "dtype": "bfloat16"},
    "widths": [64, 256, 256],
    "whitening": {"enabled": True, "images": 5000, "epochs": 3.0},  # epochs: how long its bias is trained
    "dirac": True,
    "muon": {"enabled": True, "learning_rate": 0.24, "momentum": 0.6},
    # the learning rates of three kinds of parameters, then momentum and decay
    "sgd": {"bias": 0.053, "head": 0.67, "kernel": 0.02, "momentum": 0.85, "decay": 0.004},
    "flip": "alternating",  # or "random"
    "translate": 2,
    "tta": "flip_and_shift",
}
LIMITS = {
    "runs": (1, 10**6),
    "train.epochs": (1, 10**6),
    "train.batch_size": (1, 50001),
    "translate": (0, 32),
    "sgd.bias": (1e-9, 1e9),
    "sgd.head": (1e-9, 1e9),
    "sgd.kernel": (1e-9, 1e9),
}
SMALL = {"widths": [16, 32, 32], "train": {"epochs": 2, "batch_size": 250, "dtype": "float32"}}
SMALL_IMAGES = 4000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TORCH_INIT = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's default


def dirac(key, shape, dtype):
    """Initialize the first filters as identities, one per input channel, and the others randomly."""
    *window, channels, features = shape
    identities = min(channels, features)
    kernel = TORCH_INIT(key, shape, dtype).at[..., :identities].set(0)
    return kernel.at[window[0] // 2, window[1] // 2, jnp.arange(identities), jnp.arange(identities)].set(1)


def unit_std(key, shape, dtype):
    kernel = TORCH_INIT(key, shape, dtype)
    return kernel / kernel.std()


def network(config):
    init = dirac if config["dirac"] else TORCH_INIT
    gelu = lambda x: jax.nn.gelu(x, approximate=False)
    norm = lambda: batch_norm(decay=0.6, eps=1e-12, scale=False)

    def group(width):
        return serial(
            conv1=conv(width, bias=False, kernel_init=init),
            pool=max_pool(2),
            norm1=norm(),
            gelu1=gelu,
            conv2=conv(width, bias=False, kernel_init=init),
            norm2=norm(),
            gelu2=gelu,
        )

    net = serial(
        whiten=conv(24, 2, padding="VALID", kernel_init=TORCH_INIT),  # 31 x 31
        gelu=gelu,
        **{f"group{i}": group(width) for i, width in enumerate(config["widths"], 1)},  # 15, 7, 3
        pool=max_pool(3),
        flatten=flatten,
        head=dense(10, bias=False, kernel_init=unit_std),
        scale=lambda x: x / config["widths"][-1],
    )
    return serial(normalize=data.normalize(MEAN, STD), net=cast(net, config["train"]["dtype"]))


def whitening(images):
    """(N, H, W, 3) -> kernel (2, 2, 3, 24): whitens 2 x 2 patches. The last 12 filters are the first 12, negated."""
    patches = jnp.stack([images[:, i : i + 31, j : j + 31] for i in (0, 1) for j in (0, 1)], -2).reshape(-1, 12)
    patches = patches - patches.mean(0)
    variance, directions = jnp.linalg.eigh(patches.T @ patches / (len(patches) - 1))
    kernel = (directions / jnp.sqrt(variance + 5e-4)).reshape(2, 2, 3, 12)
    return jnp.concatenate([kernel, -kernel], -1)


def orthogonal(matrices):
    """(n, rows, columns) -> approximately U V^T of each U S V^T, by three Newton-Schulz steps (Jordan, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.astype(jnp.bfloat16)
    x = x / (jnp.linalg.norm(x.astype(jnp.float32), axis=(1, 2), keepdims=True) + 1e-7).astype(x.dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(3):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).astype(matrices.dtype)


class Muon(NamedTuple):
    count: jax.Array
    trace: optax.Updates


def muon(schedule, momentum):
    """Step along the orthogonal matrix nearest to the momentum.

    Kernels (*window, C, features) are first rescaled to norm sqrt(features). Kernels of the same shape form one batch.
    """

    def update(gradients, state, params):
        trace = jax.tree.map(lambda m, g: momentum * m + g, state.trace, gradients)
        lookahead = jax.tree.map(lambda m, g: momentum * m + g, trace, gradients)  # Nesterov
        leaves, tree = jax.tree.flatten(lookahead)
        directions = [None] * len(leaves)
        for shape in {leaf.shape for leaf in leaves}:
            at = [i for i, leaf in enumerate(leaves) if leaf.shape == shape]
            matrices = orthogonal(jnp.stack([leaves[i].reshape(-1, shape[-1]).T for i in at]))
            for i, matrix in zip(at, matrices, strict=True):
                directions[i] = matrix.T.reshape(shape)
        rate = schedule(state.count)

        def step(direction, p):
            scaled = p * jnp.sqrt(p.shape[-1]) / jnp.linalg.norm(p)
            return scaled - rate * direction - p

        return jax.tree.map(step, jax.tree.unflatten(tree, directions), params), Muon(state.count + 1, trace)

    return optax.GradientTransformation(lambda params: Muon(jnp.int32(0), jax.tree.map(jnp.zeros_like, params)), update)


def make_optimizer(config, steps, params):
    """Return an optimizer per kind of parameter. All learning rates decay linearly to zero."""
    sgd_config, size, whiten = config["sgd"], config["train"]["batch_size"], config["whitening"]

    def linear_decay(rate, steps):
        return optax.linear_schedule(rate, 0, max(1, round(steps)))

    def sgd(rate, steps=steps):
        return optax.chain(
            optax.scale(size),  # the recipe sums the loss over a batch
            optax.add_decayed_weights(sgd_config["decay"] / rate),
            optax.sgd(linear_decay(rate, steps), sgd_config["momentum"], nesterov=True),
        )

    kernels = muon(linear_decay(config["muon"]["learning_rate"], steps), config["muon"]["momentum"])
    optimizers = {
        "fixed": optax.set_to_zero(),
        "kernel": kernels if config["muon"]["enabled"] else sgd(sgd_config["kernel"]),
        "bias": sgd(sgd_config["bias"]),
        "whitening": sgd(sgd_config["bias"], whiten["epochs"] * steps / config["train"]["epochs"]),
        "head": sgd(sgd_config["head"]),
    }

    def label(path, leaf):
        names = [entry.key for entry in path]
        if "whiten" in names:
            return {"bias": "whitening", "kernel": "fixed" if whiten["enabled"] else "kernel"}[names[-1]]
        return "head" if "head" in names else names[-1]

    return optax.multi_transform(optimizers, jax.tree_util.tree_map_with_path(label, params))


def whole_run(config, images, test_batch):
    """Return one program: (key, images, labels, test images, test labels) -> (test accuracy, loss per epoch)."""
    model = network(config)
    size, epochs = config["train"]["batch_size"], config["train"]["epochs"]
    steps = len(images) // size
    loss_fn = cross_entropy(model, label_smoothing=config["train"]["label_smoothing"])
    flip = augment.alternating_flip() if config["flip"] == "alternating" else augment.flip()
    augmentation = augment.compose(flip, augment.random_crop(config["translate"]))
    shape = jax.ShapeDtypeStruct((size, *images.shape[1:]), jnp.float32)
    optimizer = make_optimizer(config, epochs * steps, jax.eval_shape(model.init, jax.random.key(0), shape)[0])
    step = train.make_step(loss_fn, optimizer)
    tta_model = train.with_tta(model, config["tta"])

    def to_float(images):
        return images.astype(jnp.float32) / 255

    def run(key, images, labels, test_images, test_labels):
        state = train.TrainState.create(model, optimizer, key, shape)
        if config["whitening"]["enabled"]:
            sample = (to_float(images[: config["whitening"]["images"]]) - jnp.array(MEAN)) / jnp.array(STD)
            state.params["net"]["whiten"]["kernel"] = whitening(sample)

        def epoch(state, number):
            key_order, key_augment = jax.random.split(jax.random.fold_in(key, number))
            order = jax.random.permutation(key_order, len(images))[: steps * size].reshape(steps, size)

            def train_step(state, step_and_rows):
                i, rows = step_and_rows
                augmented = augmentation(
                    jax.random.fold_in(key_augment, i), to_float(images[rows]), augment.When(rows, number)
                )
                return step(state, {"image": augmented, "label": labels[rows]})

            return lax.scan(train_step, state, (jnp.arange(steps), order))

        state, metrics = lax.scan(epoch, state, jnp.arange(epochs))

        def accuracy(part):
            images, labels = part
            logits, _ = tta_model.apply(state.params, state.state, to_float(images), train=False)
            return (logits.argmax(-1) == labels).mean()

        parts = jax.tree.map(lambda a: a.reshape(-1, test_batch, *a.shape[1:]), (test_images, test_labels))
        return lax.map(accuracy, parts).mean(), metrics["loss"].mean(-1)

    return jit(run)


def prepared(config):
    """Return the config and [images, labels, test images, test labels], both reduced if small=true."""
    parts = (data.load("cifar10", split, root=config["data"]["root"] or None) for split in ("train", "test"))
    arrays = [array for part in parts for array in (part.images, part.labels)]
    if not config["small"]:
        return config, arrays
    reduced = config | SMALL | {"train": config["train"] | SMALL["train"]}
    return reduced, [array[:SMALL_IMAGES] for array in arrays]


def runs(config):
    """The test accuracy and the seconds of one run after the other, without end. The first call compiles."""
    config, arrays = prepared(config)
    images, labels, *test = (jax.device_put(array) for array in arrays)
    run = whole_run(config, images, min(2000, len(test[0])))
    if config["warm_up"]:
        print("compiling, then a warm-up run on random labels ...", flush=True)
        shuffled = jnp.asarray(np.random.default_rng(0).permutation(labels))
        jax.block_until_ready(run(jax.random.key(0), images, shuffled, *test))
    for seed in itertools.count(config["train"]["seed"]):
        began = time.perf_counter()
        accuracy, losses = jax.block_until_ready(run(jax.random.key(seed), images, labels, *test))
        seconds = time.perf_counter() - began
        print(f"run {seed}: {accuracy:.2%} in {seconds:.2f} s; loss per epoch {np.round(losses, 3)}", flush=True)
        yield float(accuracy), seconds


def main(config):
    train.require(config, LIMITS)
    require_one_of(config, "flip", ("alternating", "random"))
    if config["small"]:
        require_default(config, CONFIG, ("widths", *(f"train.{key}" for key in SMALL["train"])), "with small=true")
    accuracies, seconds = map(list, zip(*itertools.islice(runs(config), config["runs"]), strict=True))
    if config["runs"] > 1:
        print(f"{statistics.mean(accuracies):.2%} +- {statistics.stdev(accuracies):.2%}", end=" in ")
        print(f"{statistics.mean(seconds):.3f} +- {statistics.stdev(seconds):.3f} s, {config['runs']} runs")
    return {"accuracies": accuracies, "seconds": seconds}


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
