"""Pooling makes a network tolerate translation: the more a digit is pooled, the less its features change when it moves.

    python -m experiments.concepts.translation

A convolution alone moves its answer along with the image. Three networks are trained on digits in the middle, and
tested on other digits that are moved by up to four pixels. The first two have the same layers, shapes and number of
weights: one takes every second output of its convolutions, the other the largest of each four. The third takes the
largest of each whole map, and hardly cares where the digit is: least of all if it moves by two or four pixels, which
the windows of two before it do not notice.
"""

import jax
import numpy as np

from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import BLUE, GREEN, VERMILLION, Shown, command, drawing, panels
from jaxcnn import capture, conv, dense, flatten, global_max_pool, max_pool, serial

CONFIG = {"train": {"seed": 0, "epochs": 2}}
DISTANCES = range(5)  # pixels; digits have four empty ones around them
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
NETWORKS = {
    "every second output": serial(
        conv(8, 5, stride=2), jax.nn.relu, conv(16, 5, stride=2), jax.nn.relu, features=flatten, head=dense(10)
    ),
    "max pooling": serial(
        conv(8, 5), jax.nn.relu, max_pool(2), conv(16, 5), jax.nn.relu, max_pool(2), features=flatten, head=dense(10)
    ),
    "global max pooling": serial(
        conv(8, 5), jax.nn.relu, max_pool(2), conv(32, 5), jax.nn.relu, features=global_max_pool, head=dense(10)
    ),
}


def moved(images, down, right):
    """Images whose content is moved; what comes in is zero."""
    most = max(DISTANCES)
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    height, width = images.shape[1:3]
    return padded[:, most - down :, most - right :][:, :height, :width]


def tolerance(model, params, state, images, labels):
    """For each distance: how much the features change, relative to their size, and the accuracy."""
    probe = jax.jit(lambda x: capture(model, "features").apply(params, state, x, train=False)[0])
    _, still = probe(images)
    changes, accuracies = [], []
    for distance in DISTANCES:
        results = [probe(moved(images, distance * down, distance * right)) for down, right in DIRECTIONS]
        sizes = [np.linalg.norm(seen["features"] - still["features"]) for _, seen in results]
        changes.append(float(np.mean(sizes) / np.linalg.norm(still["features"])))
        accuracies.append(float(np.mean([logits.argmax(-1) == labels for logits, _ in results])))
    return {"change": changes, "accuracy": accuracies}


def measure(seed, epochs):
    images, labels = (values[:1000] for values in digits("test"))
    found = {}
    for name, model in NETWORKS.items():
        params, state, _ = trained(model, epochs=epochs, seed=seed)
        found[name] = tolerance(model, params, state, images, labels)
    return found


@drawing
def draw(found):
    figure, [axes] = panels(1, 2, 6.4, 3)
    for ax, what in zip(axes, ("change", "accuracy"), strict=True):
        for (name, line), color, mark in zip(found.items(), (VERMILLION, BLUE, GREEN), "so^", strict=True):
            ax.plot(DISTANCES, line[what], marker=mark, color=color, label=name)
        ax.set(xlabel="pixels that the digit is moved by", xticks=DISTANCES, ylim=(0, None))
    axes[0].set_title("change of the features, relative to their size")
    axes[1].set_title("test accuracy")
    axes[1].yaxis.set_major_formatter("{x:.0%}")
    axes[1].legend(loc="lower left")
    return figure


def main(config):
    found = measure(**config["train"])
    print(f"{'moved by':34}" + "".join(f"{distance:8}" for distance in DISTANCES))
    for what in ("change", "accuracy"):
        for name, line in found.items():
            print(f"{name:20} {what:13}" + "".join(f"{value:8.1%}" for value in line[what]))
    ends = [f"{name} {line['accuracy'][-1]:.0%}" for name, line in found.items()]
    alt = (
        "Two plots over the pixels that digits are moved by. The features of a network without pooling change most, "
        "those after max pooling less, those after global max pooling least. Accuracy falls in the same order; with "
        f"four pixels: {', '.join(ends)}."
    )
    return Shown("translation", draw(found), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
