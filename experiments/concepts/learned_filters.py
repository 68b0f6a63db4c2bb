"""Filters start as random noise; training adds edges and strokes, in which neighboring weights are correlated.

    python -m experiments.concepts.learned_filters

The figure shows the first layer of LeNet-5 before and after a few epochs on digits, and the difference. Smoothness is
measured as the correlation of each weight with its right and lower neighbors, over all filters. It is near zero for
the initial noise and high for the weights added by training. Much of the noise remains in the trained filters. It does
no harm; only longer training or weight decay removes it.
"""

import functools

import numpy as np

from experiments.concepts._digits import batch_of_digits, trained
from experiments.concepts._figure import FIGURE_WIDTH, ConceptFigure, command, drawing, image, panels, signed
from jaxcnn import cross_entropy, explain, models, train

CONFIG = {"train": {"seed": 0, "epochs": 3}}


@functools.cache
def lenet(seed, epochs):
    """Return LeNet-5: the model, its params and state after training, and its initial params."""
    model = models.lenet5()
    return model, *trained(model, epochs=epochs, seed=seed)


def neighbor_correlation(filters):
    """Return the correlation of neighboring weights in filters (features, H, W)."""
    pairs = [(filters[:, :, 1:], filters[:, :, :-1]), (filters[:, 1:], filters[:, :-1])]
    first, second = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    return float(np.corrcoef(first, second)[0, 1])


def measure(seed, epochs):
    model, params, state, start = lenet(seed, epochs)
    test = batch_of_digits("test")
    filters, accuracy = {}, {}
    for name, weights in (("before", start), ("after", params)):
        filters[name] = np.asarray(explain.filters(weights, "conv1")[..., 0])
        accuracy[name] = train.evaluate(cross_entropy(model), weights, state, test)["accuracy"]
    filters["added"] = filters["after"] - filters["before"]
    return {
        "filters": filters,
        "accuracy": accuracy,
        "correlation": {name: neighbor_correlation(w) for name, w in filters.items()},
    }


@drawing
def draw(results):
    figure, axes = panels(3, 6, FIGURE_WIDTH, 2.2)
    for row, name in zip(axes, ("before", "added", "after"), strict=True):
        filters, accuracy = results["filters"][name], results["accuracy"].get(name)
        for ax, weights in zip(row, filters, strict=True):
            image(ax, weights, **signed(filters))
        heading = f"{name}\n{accuracy:.0%} correct" if accuracy else "added by\ntraining"
        label = f"{heading}\ncorrelation {results['correlation'][name]:.2f}".replace("-", "\N{MINUS SIGN}")
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def main(config):
    results = measure(**config["train"])
    for name, value in results["correlation"].items():
        size = np.sqrt((results["filters"][name] ** 2).mean())
        print(f"{name:6}: correlation of neighbors {value:5.2f}, root mean square {size:.2f}")
    for name, value in results["accuracy"].items():
        print(f"{name:6}: test accuracy {value:.1%}")
    alt = (
        "Three rows of six 5 x 5 filters; positive weights are orange, negative weights blue. Before training, the "
        "weights are random. The weights added by training form positive and negative regions with edges between "
        "them. After training, each filter is the sum of both."
    )
    return ConceptFigure("learned_filters", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
