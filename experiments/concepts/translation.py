"""Pooling makes a network robust to translation: the more it pools, the less the features change when a digit moves.

    python -m experiments.concepts.translation

A convolution alone shifts its output along with the image. Three networks are trained on centered digits and tested on
other digits, shifted by up to four pixels. The first two have the same output shapes and number of weights: one has
convolutions of stride 2, the other keeps the maximum of each 2 x 2 window. The third keeps the maximum of each whole
feature map and hardly depends on the position of the digit. Its features change least for shifts of two and four
pixels, which are multiples of the stride of its 2 x 2 pooling.
"""

import jax
import numpy as np

from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import BLUE, FIGURE_WIDTH, GREEN, VERMILLION, ConceptFigure, command, drawing, panels
from jaxcnn import capture, conv, dense, flatten, global_max_pool, max_pool, serial

CONFIG = {"train": {"seed": 0, "epochs": 2}}
DISTANCES = range(5)  # in pixels; digits have an empty margin of four pixels
DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))
NETWORKS = {
    "stride 2": serial(
        conv(8, 5, stride=2), jax.nn.relu, conv(16, 5, stride=2), jax.nn.relu, features=flatten, head=dense(10)
    ),
    "max pooling": serial(
        conv(8, 5), jax.nn.relu, max_pool(2), conv(16, 5), jax.nn.relu, max_pool(2), features=flatten, head=dense(10)
    ),
    "global max pooling": serial(
        conv(8, 5), jax.nn.relu, max_pool(2), conv(32, 5), jax.nn.relu, features=global_max_pool, head=dense(10)
    ),
}


def shifted(images, down, right):
    """Return the images shifted down and right, filled with zeros."""
    most = max(DISTANCES)
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    height, width = images.shape[1:3]
    return padded[:, most - down :, most - right :][:, :height, :width]


def tolerance(model, params, state, images, labels):
    """Return for each distance the relative change of the features and the accuracy."""
    probe = jax.jit(lambda x: capture(model, "features").apply(params, state, x, train=False)[0])
    _, original = probe(images)
    changes, accuracies = [], []
    for distance in DISTANCES:
        results = [probe(shifted(images, distance * down, distance * right)) for down, right in DIRECTIONS]
        sizes = [np.linalg.norm(captured["features"] - original["features"]) for _, captured in results]
        changes.append(float(np.mean(sizes) / np.linalg.norm(original["features"])))
        accuracies.append(float(np.mean([logits.argmax(-1) == labels for logits, _ in results])))
    return {"change": changes, "accuracy": accuracies}


def measure(seed, epochs):
    images, labels = (values[:1000] for values in digits("test"))
    results = {}
    for name, model in NETWORKS.items():
        params, state, _ = trained(model, epochs=epochs, seed=seed)
        results[name] = tolerance(model, params, state, images, labels)
    return results


@drawing
def draw(results):
    figure, [axes] = panels(1, 2, FIGURE_WIDTH, 3.1)
    for ax, metric in zip(axes, ("change", "accuracy"), strict=True):
        for (name, line), color, mark in zip(results.items(), (VERMILLION, BLUE, GREEN), "so^", strict=True):
            ax.plot(DISTANCES, line[metric], marker=mark, color=color, label=name)
            ax.annotate(
                f"{line[metric][-1]:.0%}", (DISTANCES[-1], line[metric][-1]), (6, -3), textcoords="offset points"
            )
        ax.set(xlabel="shift in pixels", xticks=DISTANCES, xlim=(-0.3, DISTANCES[-1] + 1.2), ylim=(0, None))
        ax.yaxis.set_major_formatter("{x:.0%}")
    axes[0].set_title("relative change of the features")
    axes[1].set_title("test accuracy")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, handlelength=1.5, columnspacing=1)
    return figure


def main(config):
    results = measure(**config["train"])
    print(f"{'shift in pixels':34}" + "".join(f"{distance:8}" for distance in DISTANCES))
    for metric in ("change", "accuracy"):
        for name, line in results.items():
            print(f"{name:20} {metric:13}" + "".join(f"{value:8.1%}" for value in line[metric]))
    ends = [f"{name} {line['accuracy'][-1]:.0%}" for name, line in results.items()]
    alt = (
        "Two plots against the shift of the digits in pixels. The features of the network without pooling change most, "
        "those after max pooling less, those after global max pooling least. Accuracy drops in the same order. At "
        f"four pixels: {', '.join(ends)}."
    )
    return ConceptFigure("translation", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
