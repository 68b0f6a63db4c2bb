"""Filters begin as noise; what training adds to them are edges and strokes: neighboring weights move together.

    python -m experiments.concepts.learned_filters

The first layer of LeNet-5 before and after some epochs on digits, and the difference. How alike neighbors are is
measured as the correlation of each weight with its right and its lower neighbor, over all filters: near zero for
noise, high for what training added. In the sum much of the noise is still there; it does no harm, and nothing but more
training or weight decay takes it away.
"""

import functools

import numpy as np

from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import Shown, command, drawing, image, panels, signed
from jaxcnn import cross_entropy, explain, models, train

CONFIG = {"train": {"seed": 0, "epochs": 3}}


@functools.cache
def lenet(seed, epochs):
    """LeNet-5: the model, its params and state after training, and the params before."""
    model = models.lenet5()
    return model, *trained(model, epochs=epochs, seed=seed)


def likeness(filters):
    """The correlation of neighboring weights in filters (features, H, W)."""
    pairs = [(filters[:, :, 1:], filters[:, :, :-1]), (filters[:, 1:], filters[:, :-1])]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    return float(np.corrcoef(one, other)[0, 1])


def measure(seed, epochs):
    model, params, state, start = lenet(seed, epochs)
    test = dict(zip(("image", "label"), digits("test"), strict=True))
    filters, accuracy = {}, {}
    for name, weights in (("before", start), ("after", params)):
        filters[name] = np.asarray(explain.filters(weights, "conv1")[..., 0])
        accuracy[name] = train.evaluate(cross_entropy(model), weights, state, test)["accuracy"]
    filters["added"] = filters["after"] - filters["before"]
    return {"filters": filters, "accuracy": accuracy, "likeness": {name: likeness(w) for name, w in filters.items()}}


@drawing
def draw(found):
    figure, axes = panels(3, 6, 6.4, 3.6)
    for row, name in zip(axes, ("before", "added", "after"), strict=True):
        filters, right = found["filters"][name], found["accuracy"].get(name)
        for ax, weights in zip(row, filters, strict=True):
            image(ax, weights, **signed(filters))
        row[0].set_ylabel(f"{name}\n{right:.0%} right" if right else "what training\nadded")
    return figure


def main(config):
    found = measure(**config["train"])
    for name, value in found["likeness"].items():
        size = np.sqrt((found["filters"][name] ** 2).mean())
        print(f"{name:6}: neighbors correlate {value:5.2f}, root mean square {size:.2f}")
    for name, value in found["accuracy"].items():
        print(f"{name:6}: test accuracy {value:.1%}")
    alt = (
        "Three rows of six filters of 5 x 5 weights, orange for positive and blue for negative. Before training they "
        "are speckled at random. What training added has bright and dark sides with edges between them. Afterwards "
        "both lie over each other."
    )
    return Shown("learned_filters", draw(found), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
