"""94 % of CIFAR-10 in seconds on one GPU: the recipe of the record (Jordan's "airbench94_muon", 2025), in JAX.

    python -m experiments.cifar10_speedrun runs=50           on a GPU: mean and std of accuracy and time
    python -m experiments.cifar10_speedrun small=true        any machine: a short, narrow run that shows that it works
    python -m experiments.cifar10_speedrun train.dtype=float32 warm_up=false    on a CPU, for its accuracy

The first convolution is fixed: it makes neighboring pixels uncorrelated (whitening). The others begin as identities
(dirac) and are trained by Muon, whose steps are orthogonal matrices; what else there is, by SGD. An image is mirrored
in every other epoch, and the test looks at six views. All epochs are one program on the device.
Timed as the record is: from images on the device to the test accuracy, with whitening, training and evaluation;
without compilation and a run to warm up, which sees random labels. Needs CIFAR-10 in data.root or JAXCNN_DATA.
"""

import statistics
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from experiments._settings import require_default
from jaxcnn import batch_norm, cast, conv, cross_entropy, data, dense, flatten, jit, max_pool, serial, train
from jaxcnn.data import augment

CONFIG = {
    "runs": 1,
    "warm_up": True,  # or the first run's time has the compilation in it
    "small": False,
    "data": {"root": ""},
    "train": {"seed": 0, "epochs": 8, "batch_size": 2000, "label_smoothing": 0.2, "dtype": "bfloat16"},
    "widths": [64, 256, 256],
    "whitening": {"enabled": True, "images": 5000, "epochs": 3.0},  # the epochs in which its bias is trained
    "dirac": True,
    "muon": {"enabled": True, "learning_rate": 0.24, "momentum": 0.6},
    "sgd": {"bias": 0.053, "head": 0.67, "kernel": 0.02, "momentum": 0.85, "decay": 0.004},  # rates, by what is trained
    "flip": "alternating",  # or "random"
    "translate": 2,
    "tta": "flip_and_shift",
}
LIMITS = {"runs": (1, 10**6), "train.epochs": (1, 10**6), "train.batch_size": (1, 50001), "translate": (0, 32)}
SMALL = {"widths": [16, 32, 32], "train": {"epochs": 2, "batch_size": 250, "dtype": "float32"}}
SMALL_IMAGES = 4000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SPREAD = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # as PyTorch begins


def dirac(key, shape, dtype):
    """The first filters hand their channel on; the others are random."""
    *window, channels, features = shape
    same = min(channels, features)
    kernel = SPREAD(key, shape, dtype).at[..., :same].set(0)
    return kernel.at[window[0] // 2, window[1] // 2, jnp.arange(same), jnp.arange(same)].set(1)


def unit_deviation(key, shape, dtype):
    kernel = SPREAD(key, shape, dtype)
    return kernel / kernel.std()


def network(config):
    init = dirac if config["dirac"] else SPREAD
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
        whiten=conv(24, 2, padding="VALID", kernel_init=SPREAD),  # 31 x 31
        gelu=gelu,
        **{f"group{i}": group(width) for i, width in enumerate(config["widths"], 1)},  # 15, 7, 3
        pool=max_pool(3),
        flatten=flatten,
        head=dense(10, bias=False, kernel_init=unit_deviation),
        scale=lambda x: x / config["widths"][-1],
    )
    return serial(normalize=data.normalize(MEAN, STD), net=cast(net, config["train"]["dtype"]))


def whitening(images):
    """(N, H, W, 3) -> a kernel (2, 2, 3, 24): how 2 x 2 pixels vary, each direction to variance 1, and its negative."""
    patches = jnp.stack([images[:, i : i + 31, j : j + 31] for i in (0, 1) for j in (0, 1)], -2).reshape(-1, 12)
    patches = patches - patches.mean(0)
    variance, directions = jnp.linalg.eigh(patches.T @ patches / (len(patches) - 1))
    kernel = (directions / jnp.sqrt(variance + 5e-4)).reshape(2, 2, 3, 12)
    return jnp.concatenate([kernel, -kernel], -1)


def orthogonal(matrices):
    """(n, rows, columns) -> nearly U V^T of each matrix U S V^T, by three steps of Newton and Schulz (Jordan, 2024)."""
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
    """Steps along the orthogonal matrix next to the momentum; kernels (*window, C, features) have norm sqrt(features).

    Kernels of one shape are one batch of matrices.
    """

    def update(gradients, state, params):
        trace = jax.tree.map(lambda m, g: momentum * m + g, state.trace, gradients)
        ahead = jax.tree.map(lambda m, g: momentum * m + g, trace, gradients)  # Nesterov's
        leaves, tree = jax.tree.flatten(ahead)
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
    """Another rule for each kind of parameter, all falling to zero on a line."""
    own, size, whiten = config["sgd"], config["train"]["batch_size"], config["whitening"]

    def falling(rate, steps):
        return optax.linear_schedule(rate, 0, max(1, round(steps)))

    def sgd(rate, steps=steps):
        return optax.chain(
            optax.scale(size),  # the recipe's loss is the sum over a batch
            optax.add_decayed_weights(own["decay"] / rate),
            optax.sgd(falling(rate, steps), own["momentum"], nesterov=True),
        )

    kernels = muon(falling(config["muon"]["learning_rate"], steps), config["muon"]["momentum"])
    rules = {
        "fixed": optax.set_to_zero(),
        "kernel": kernels if config["muon"]["enabled"] else sgd(own["kernel"]),
        "bias": sgd(own["bias"]),
        "whitening": sgd(own["bias"], whiten["epochs"] * steps / config["train"]["epochs"]),
        "head": sgd(own["head"]),
    }

    def kind(path, leaf):
        names = [entry.key for entry in path]
        if "whiten" in names:
            return {"bias": "whitening", "kernel": "fixed" if whiten["enabled"] else "kernel"}[names[-1]]
        return "head" if "head" in names else names[-1]

    return optax.multi_transform(rules, jax.tree_util.tree_map_with_path(kind, params))


def whole_run(config, images, count_test):
    """(key, images, labels, test) -> test accuracy, one program."""
    model = network(config)
    size, epochs = config["train"]["batch_size"], config["train"]["epochs"]
    steps = len(images) // size
    loss_fn = cross_entropy(model, label_smoothing=config["train"]["label_smoothing"])
    flip = augment.alternating_flip() if config["flip"] == "alternating" else augment.flip()
    change = augment.compose(flip, augment.random_crop(config["translate"]))
    shape = jax.ShapeDtypeStruct((size, *images.shape[1:]), jnp.float32)
    optimizer = make_optimizer(config, epochs * steps, jax.eval_shape(model.init, jax.random.key(0), shape)[0])
    step = train.make_step(loss_fn, optimizer)
    views = train.with_tta(model, config["tta"])

    def floats(images):
        return images.astype(jnp.float32) / 255

    def run(key, images, labels, unseen, unseen_labels):
        state = train.TrainState.create(model, optimizer, key, shape)
        if config["whitening"]["enabled"]:
            first = (floats(images[: config["whitening"]["images"]]) - jnp.array(MEAN)) / jnp.array(STD)
            state.params["net"]["whiten"]["kernel"] = whitening(first)

        def epoch(state, number):
            key_order, key_change = jax.random.split(jax.random.fold_in(key, number))
            order = jax.random.permutation(key_order, len(images))[: steps * size].reshape(steps, size)

            def one(state, at):
                i, rows = at
                augmented = change(jax.random.fold_in(key_change, i), floats(images[rows]), augment.When(rows, number))
                return step(state, {"image": augmented, "label": labels[rows]})

            return lax.scan(one, state, (jnp.arange(steps), order))

        state, metrics = lax.scan(epoch, state, jnp.arange(epochs))

        def right(part):
            test_images, labels = part
            logits, _ = views.apply(state.params, state.state, floats(test_images), train=False)
            return (logits.argmax(-1) == labels).mean()

        parts = jax.tree.map(lambda a: a.reshape(-1, count_test, *a.shape[1:]), (unseen, unseen_labels))
        return lax.map(right, parts).mean(), metrics["loss"].mean(-1)

    return jit(run)


def prepared(config):
    """The config and images, labels, test images and test labels, all of them smaller if the config says so."""
    parts = (data.load("cifar10", split, root=config["data"]["root"] or None) for split in ("train", "test"))
    arrays = [array for part in parts for array in (part.images, part.labels)]
    if not config["small"]:
        return config, arrays
    smaller = config | SMALL | {"train": config["train"] | SMALL["train"]}
    return smaller, [array[:SMALL_IMAGES] for array in arrays]


def main(config):
    train.require(config, LIMITS)
    if config["small"]:
        require_default(config, CONFIG, ("widths", *(f"train.{key}" for key in SMALL["train"])), "with small=true")
    config, arrays = prepared(config)
    images, labels, *test = (jax.device_put(array) for array in arrays)
    run = whole_run(config, images, min(2000, len(test[0])))
    if config["warm_up"]:
        print("compiling, and a run on random labels to warm up ...", flush=True)
        shuffled = jnp.asarray(np.random.default_rng(0).permutation(labels))
        jax.block_until_ready(run(jax.random.key(0), images, shuffled, *test))
    accuracies, seconds = [], []
    for seed in range(config["train"]["seed"], config["train"]["seed"] + config["runs"]):
        began = time.perf_counter()
        accuracy, losses = jax.block_until_ready(run(jax.random.key(seed), images, labels, *test))
        seconds.append(time.perf_counter() - began)
        accuracies.append(float(accuracy))
        print(
            f"run {seed}: {accuracy:.2%} in {seconds[-1]:.2f} s; loss of each epoch {np.round(losses, 3)}", flush=True
        )
    if config["runs"] > 1:
        print(f"{statistics.mean(accuracies):.2%} +- {statistics.stdev(accuracies):.2%}", end=" in ")
        print(f"{statistics.mean(seconds):.3f} +- {statistics.stdev(seconds):.3f} s, {config['runs']} runs")
    return {"accuracies": accuracies, "seconds": seconds}


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
