"""One network on few images, trained five times: it overfits without regularization, and less with it.

    python -m experiments.overfit_and_regularize             a minute on 2 cores

Without regularization, the training loss goes to zero while the test loss rises again after its minimum: overfitting.
L1 and L2 penalties (loss + lambda * sum |w|, loss + lambda * sum w^2), dropout and augmentation each lower the test
loss. Prints the training and test losses side by side and writes all of them to `curves.csv` in the run's folder.
"""

import csv
import math

import jax
import numpy as np

from jaxcnn import conv, data, dense, dropout, flatten, identity, max_pool, serial, train

CONFIG = {
    "images": 500,
    "train": {
        "seed": 0,
        "epochs": 60,
        "batch_size": 50,
        "optimizer": {"name": "adam", "learning_rate": 2e-3},
        "checkpoint": {"keep": 0},
    },
    "l1": 5e-4,
    "l2": 5e-3,
    "dropout_rate": 0.5,
    "shift": 2,
    "runs": "runs",
}
LIMITS = {
    "images": (50, 8001),
    "l1": (0, math.inf),
    "l2": (0, math.inf),
    "dropout_rate": (0, 1),
    "shift": (0, 28),
}


def network(drop=identity):
    return serial(
        conv(16, 5), jax.nn.relu, max_pool(2), conv(32, 5), jax.nn.relu, max_pool(2), flatten, drop, dense(10)
    )


def remedies(config):
    """Return for each kind of regularization: the model and its changes to the config of `fit`."""
    return {
        "nothing": (network(), {}),
        "L1": (network(), {"regularize": {"l1": config["l1"]}}),
        "L2": (network(), {"regularize": {"l2": config["l2"]}}),
        "dropout": (network(dropout(config["dropout_rate"])), {}),
        "augmentation": (network(), {"augment": [["translate", config["shift"]]]}),
    }


def main(config):
    train.require(config, LIMITS)
    train.resolve(config["train"])
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    few = data.Dataset(digits.images[: config["images"]], digits.labels[: config["images"]], digits.classes)
    run = train.Run("overfit_and_regularize", config, root=config["runs"])
    curves, weights = {}, {}
    for name, (model, changes) in remedies(config).items():
        part = train.Run(name, config, folder=run.folder / name)
        run.say(f"\n{name}")
        fitted = train.fit(model, few, eval_data=test_digits, config=config["train"] | changes, run=part)
        curves[name] = fitted.history
        weights[name] = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(fitted.params)])
    print_losses(curves)
    with (run.folder / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *(f"{name} {kind}" for name in curves for kind in ("train", "test"))])
        for rows in zip(*curves.values(), strict=True):
            writer.writerow([rows[0]["epoch"], *(row[kind]["loss"] for row in rows for kind in ("train", "test"))])
    result = {}
    print(f"\n{'':14}{'train':>9}{'test':>9}{'gap':>8}{'test loss':>11}{'|w| < 0.001':>13}")
    for name, history in curves.items():
        last, near_zero = history[-1], float((np.abs(weights[name]) < 1e-3).mean())
        train_accuracy, test_accuracy = last["train"]["accuracy"], last["test"]["accuracy"]
        test_loss = last["test"]["loss"]
        result[name] = {"train": train_accuracy, "test": test_accuracy, "test_loss": test_loss, "near_zero": near_zero}
        gap = train_accuracy - test_accuracy
        print(f"{name:14}{train_accuracy:9.1%}{test_accuracy:9.1%}{gap:8.1%}{test_loss:11.3f}{near_zero:13.1%}")
    run.log(f"see {run.folder}/curves.csv", **result)
    return result


def print_losses(curves):
    """Print the training and test losses of ten epochs."""
    epochs = len(next(iter(curves.values())))
    print("\nloss, training / test\nepoch " + "".join(f"{name:>18}" for name in curves))
    for i in sorted({round(i) for i in np.linspace(0, epochs - 1, 10)}):
        rows = (history[i] for history in curves.values())
        cells = (f"{row['train']['loss']:.3f} / {row['test']['loss']:.3f}" for row in rows)
        print(f"{i + 1:5} " + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
