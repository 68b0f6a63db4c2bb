"""Dropout trains many networks at once, and evaluation with all units is their average: exactly so for a linear layer.

    python -m experiments.concepts.dropout_averages

Eight inputs can be kept or dropped in 2^8 = 256 ways: 256 thinned networks that share their weights. With a rate of a
half all are equally likely, and each kept input counts twice. The mean of their outputs is the output with nothing
dropped, if the layer is linear. After a softmax it is not the mean but the geometric mean, brought back to sum to one.
Through further layers with ReLUs neither is exact; but for a trained network, the mean over many masks and evaluation,
at the cost of one, put the same digits right.

Source: Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", 2012.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import BLUE, GRAY, VERMILLION, Shown, command, drawing, panels
from jaxcnn import dense, dropout, flatten, serial

CONFIG = {"train": {"seed": 0, "epochs": 1}}
INPUTS, CLASSES, RATE = 8, 4, 0.5
COUNTS = [4**k for k in range(6)]  # masks that are drawn
LINEAR = serial(drop=dropout(RATE), head=dense(CLASSES))
DEEP = serial(flatten, dense(64), jax.nn.relu, dropout(RATE), dense(64), jax.nn.relu, dropout(RATE), dense(10))


def every_network(params, x):
    """The logits of all 256 thinned networks, (256, CLASSES): x * keep / (1 - rate) for each choice of keep."""
    keep = np.array(list(itertools.product((0, 1), repeat=INPUTS)))
    return keep * x / (1 - RATE) @ params["head"]["kernel"] + params["head"]["bias"]


def means(model, params, x):
    """The mean logits over 1, 4, 16, .. networks that jaxcnn's dropout draws, and those of evaluation."""
    drawn = jax.jit(lambda key: model.apply(params, {}, x, train=True, key=key)[0])
    logits = np.stack([drawn(key) for key in jax.random.split(jax.random.key(2), COUNTS[-1])])
    return [logits[:count].mean(0) for count in COUNTS], model.apply(params, {}, x, train=False)[0]


def difference(mean, evaluation):
    return float(np.linalg.norm(mean - evaluation) / np.linalg.norm(evaluation))


def linear_layer():
    """What all thinned networks of one linear layer say together, and what evaluation says."""
    x = jax.random.normal(jax.random.key(0), (1, INPUTS))
    params, _ = LINEAR.init(jax.random.key(1), x)
    drawn, evaluation = means(LINEAR, params, x)
    logits = every_network(params, x)
    thinned = jax.nn.softmax(logits)
    geometric = jnp.exp(jnp.log(thinned).mean(0))
    return {
        "mean logits": logits.mean(0),
        "logits": evaluation[0],
        "thinned": thinned,
        "mean": thinned.mean(0),
        "geometric mean": geometric / geometric.sum(),
        "evaluation": jax.nn.softmax(evaluation[0]),
        "difference": [difference(mean, evaluation) for mean in drawn],
    }


def deep_network(seed, epochs):
    """The same for a trained network with ReLUs: differences, and accuracies for as many masks and for evaluation."""
    params, _, _ = trained(DEEP, epochs=epochs, seed=seed)
    images, labels = (values[:500] for values in digits("test"))
    drawn, evaluation = means(DEEP, params, images)
    right = lambda logits: float((logits.argmax(-1) == labels).mean())
    return {
        "difference": [difference(mean, evaluation) for mean in drawn],
        "accuracy": [right(mean) for mean in drawn],
        "evaluation": right(evaluation),
    }


def measure(seed, epochs):
    return linear_layer(), deep_network(seed, epochs)


@drawing
def draw(linear, deep):
    figure, [[left, right]] = panels(1, 2, 6.4, 3.2)
    for found, name, color, mark in ((linear, "one linear layer", BLUE, "o"), (deep, "two ReLUs", VERMILLION, "^")):
        left.plot(COUNTS, found["difference"], marker=mark, color=color, label=name)
    left.plot(COUNTS, linear["difference"][0] / np.sqrt(COUNTS), ":", color=GRAY, label="1 / sqrt(masks)")
    left.set(xscale="log", yscale="log", xlabel="masks that are averaged", title="mean logits against evaluation")
    left.set_ylabel("relative difference")
    left.legend(loc="lower left")
    at = np.arange(CLASSES)
    right.plot(at, linear["thinned"][::8].T, "_", color=GRAY, alpha=0.5, markersize=12)
    for name, side, color in (("evaluation", -0.25, BLUE), ("geometric mean", 0, VERMILLION), ("mean", 0.25, GRAY)):
        right.bar(at + side, linear[name], 0.23, color=color, label=name)
    right.set(xticks=at, xlabel="class", ylabel="probability", title="256 thinned networks, and evaluation")
    right.legend()
    return figure


def main(config):
    linear, deep = measure(**config["train"])
    print("one linear layer, all 256 networks")
    for name in ("mean logits", "logits", "mean", "geometric mean", "evaluation"):
        print(f"{name:20}" + "".join(f"{value:9.5f}" for value in linear[name]))
    print(f"\n{'masks':20}" + "".join(f"{count:9}" for count in COUNTS))
    print(f"{'linear, difference':20}" + "".join(f"{value:9.2%}" for value in linear["difference"]))
    print(f"{'ReLUs, difference':20}" + "".join(f"{value:9.2%}" for value in deep["difference"]))
    print(f"{'ReLUs, accuracy':20}" + "".join(f"{value:9.1%}" for value in deep["accuracy"]))
    print(f"{'evaluation':20}{deep['evaluation']:9.1%}")
    alt = (
        "Left: the difference between the mean over drawn masks and evaluation falls as one over the root of their "
        "number for a linear layer, and levels off for a network with ReLUs. Right: for four classes, the geometric "
        "mean of all thinned networks' probabilities is that of evaluation, while their mean is flatter."
    )
    return Shown("dropout_averages", draw(linear, deep), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
