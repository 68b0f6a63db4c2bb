"""LeNet-5 on handwritten digits.

    python -m experiments.mnist_lenet                    98.3 % on the digits in the package, 20 s on 2 cores
    python -m experiments.mnist_lenet data.name=mnist    99.3 % on all of MNIST, 2 minutes

All of MNIST is read from data.root. If that is empty, it is read from JAXCNN_DATA or ~/.cache/jaxcnn, or downloaded.
With train.report=true, the run's folder contains a page, report.html, that is updated after each epoch.
"""

import math
import time

import jax
import numpy as np
import optax

from jaxcnn import cross_entropy, data, l2, models, regularized, report, train

CONFIG = {
    "data": {"name": "mnist_small", "root": "", "shift": 2},  # maximum shift of a training image, in pixels
    "model": {"dropout": 0.25},
    "train": {
        "seed": 0,
        "epochs": 20,
        "batch_size": 64,
        "optimizer": {"learning_rate": 3e-3},  # initial value; cosine decay to zero
        "regularize": {"l2": 1e-5},  # times the sum of squares of all kernels
        "report": False,
    },
    "runs": "runs",
}
LIMITS = {
    "model.dropout": (0, 1),
    "data.shift": (0, 28),
    "train.seed": (0, 2**32),
    "train.epochs": (1, 10**6),
    "train.optimizer.learning_rate": (0, math.inf),
    "train.regularize.l2": (0, math.inf),
}


def batches(images, labels, batch_size, shift, rng):
    """Yield the shuffled, randomly shifted batches of one epoch. Drop a last partial batch."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    order = rng.permutation(len(images))
    for start in range(0, len(images) - batch_size + 1, batch_size):
        at = order[start : start + batch_size, None, None]
        down, right = rng.integers(0, 2 * shift + 1, (2, batch_size, 1, 1))
        image = padded[at, down + np.arange(height)[:, None], right + np.arange(width)]
        yield {"image": to_float(image), "label": labels[at.ravel()]}


def to_float(images):
    return images.astype(np.float32) / 255


def main(config):
    began = time.perf_counter()
    root = config["data"]["root"] or None
    digits, test_digits = (data.load(config["data"]["name"], split, root=root) for split in ("train", "test"))
    train.require(config, LIMITS | {"train.batch_size": (1, len(digits.images) + 1)})
    test = {"image": to_float(test_digits.images), "label": test_digits.labels}

    settings = config["train"]
    epochs, batch_size = settings["epochs"], settings["batch_size"]
    steps = len(digits.images) // batch_size
    model = models.lenet5(**config["model"])
    loss_fn = regularized(cross_entropy(model), l2(settings["regularize"]["l2"]))
    optimizer = optax.adam(optax.cosine_decay_schedule(settings["optimizer"]["learning_rate"], epochs * steps))
    run = train.Run("mnist_lenet", config, root=config["runs"])

    print(f"LeNet-5 on {len(digits.images):,} digits, {steps} steps per epoch; compiling ...", flush=True)
    state = train.TrainState.create(model, optimizer, jax.random.key(settings["seed"]), test["image"][:1])
    step = train.make_step(loss_fn, optimizer)
    rng = np.random.default_rng(settings["seed"])
    for epoch in range(1, epochs + 1):
        history = []
        for i, batch in enumerate(batches(*digits[:2], batch_size, config["data"]["shift"], rng), 1):
            state, metrics = step(state, batch)
            history.append(metrics)
            if epoch == i == 1:
                jax.block_until_ready(metrics)
                compiled = time.perf_counter() - began
            if i % 25 == 0:  # show an earlier step, to avoid waiting for the current one
                loss, accuracy = history[-10]["loss"], history[-10]["accuracy"]
                run.progress(f"epoch {epoch}, step {i}/{steps}: loss {loss:.3f}, accuracy {accuracy:.1%}")
        train_metrics = {name: float(np.mean([metrics[name] for metrics in history])) for name in metrics}
        result = train.evaluate(loss_fn, state.params, state.state, test)
        seconds = round(time.perf_counter() - began, 2)
        run.log(
            f"epoch {epoch:2}: loss {train_metrics['loss']:.3f}, accuracy {train_metrics['accuracy']:.1%}; "
            f"test loss {result['loss']:.4f}, accuracy {result['accuracy']:.2%}",
            epoch=epoch,
            train=train_metrics,
            test=result,
            seconds=seconds,
        )
        if settings["report"]:
            report.report(run.folder, epochs=epochs)
    if settings["report"]:
        report.gather(run.folder, model, state.params, state.state, test_digits)
        report.report(run.folder)
    print(
        f"test accuracy {result['accuracy']:.2%} after {seconds:.1f} s, "
        f"including {compiled:.1f} s until the end of the first step; see {run.folder}"
    )
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
