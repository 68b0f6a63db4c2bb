"""Shifted and rotated copies of few digits lower the test loss almost as much as four times as many digits.

    python -m experiments.concepts.augmentation

A shifted or slightly rotated 4 is still a 4. Augmentation draws a new variant of each image in every epoch, so the
network never sees the same image twice and cannot memorize it. It learns what the variants have in common. The
augmentations must keep the label: rotated by 180 degrees, a 6 is a 9.

Three networks are trained for the same number of steps: on few digits, on augmented versions of them, and on four times
as many digits without augmentation. On few digits, the test loss rises again after its minimum. With augmentation it
continues to fall.
"""

import jax
import numpy as np

from experiments import overfit_and_regularize
from experiments.concepts._digits import batch_of_digits, fitted
from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GRAY,
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    image,
    mosaic,
)
from jaxcnn import data

CONFIG = {"images": 200, "train": {"seed": 0, "epochs": 60}}
DEGREES, PIXELS, MORE = 15, 2, 4
COPIES, ROWS = 6, 2  # on the sheet


def runs(images, train_config):
    """Return for each run: its number of images and its settings. All have the same number of steps."""
    settings = overfit_and_regularize.CONFIG["train"] | train_config
    augment = [["rotate", DEGREES], ["translate", PIXELS]]
    return {
        f"{images} digits": (images, settings),
        f"{images} digits, augmented": (images, settings | {"augment": augment}),
        f"{MORE * images} digits": (MORE * images, settings | {"epochs": -(-settings["epochs"] // MORE)}),
    }


def sheet():
    """Return some digits, (ROWS, 28, 28), and random variants of each, (ROWS, COPIES, 28, 28)."""
    change = data.augment.compose(data.augment.rotate(DEGREES), data.augment.translate(PIXELS))
    originals = batch_of_digits("train", ROWS)["image"]
    variants = change(jax.random.key(0), np.repeat(originals, COPIES, axis=0))
    return originals[..., 0], np.reshape(variants, (ROWS, COPIES, *originals.shape[1:3]))


def measure(images, train_config):
    """Return for each run: steps and test losses after each epoch, and the final metrics on its own and test digits."""
    test = batch_of_digits("test")
    results = {}
    for name, (count, settings) in runs(images, train_config).items():
        few = batch_of_digits("train", count)
        history = fitted(overfit_and_regularize.network(), few, settings, eval_data=test).history
        results[name] = {
            "steps": (np.arange(len(history)) + 1) * (count // settings["batch_size"]),
            "losses": [record["test"]["loss"] for record in history],
            "train": history[-1]["train"],
            "test": history[-1]["test"],
        }
    return results


@drawing
def draw(results):
    columns = range(COPIES + 1)
    layout = [[f"{row} {column}" for column in columns] for row in range(ROWS)] + [["losses"] * len(columns)]
    figure, axes = mosaic(layout, FIGURE_WIDTH, 4.6, height_ratios=[1] * ROWS + [4])
    originals, variants = sheet()
    for row in range(ROWS):
        for column, digit in enumerate((originals[row], *variants[row])):
            image(axes[f"{row} {column}"], digit, limits=(0, 1))
    axes["0 0"].set_title("original")
    axes[f"0 {1 + COPIES // 2}"].set_title(f"rotated by up to {DEGREES}°, shifted by up to {PIXELS} pixels")
    ax = axes["losses"]
    for (name, result), color, style in zip(results.items(), (VERMILLION, BLUE, GRAY), ("-", "-", "--"), strict=True):
        label = f"{name}: {result['losses'][-1]:.2f}, {result['test']['accuracy']:.1%} correct"
        ax.plot(result["steps"], result["losses"], style, color=color, label=label)
    ax.set(title="test loss", xlabel="training steps", ylim=(0, 1.6))
    ax.legend(loc="upper right")
    return figure


def main(config):
    results = measure(config["images"], config["train"])
    print(f"{'':24}train loss   test loss   smallest test loss   test accuracy")
    for name, result in results.items():
        print(
            f"{name:24}{result['train']['loss']:10.3f}{result['test']['loss']:12.3f}{min(result['losses']):21.3f}"
            f"{result['test']['accuracy']:16.1%}"
        )
    ends = [f"{name}: {result['test']['loss']:.2f}" for name, result in results.items()]
    alt = (
        f"Top: {ROWS} digits and {COPIES} shifted and rotated variants of each. Bottom: the test loss during training. "
        f"On few digits it falls and rises again; with augmentation it stays low. At the end: {'; '.join(ends)}."
    )
    return ConceptFigure("augmentation", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
