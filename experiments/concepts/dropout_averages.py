"""Dropout trains an ensemble of networks; without dropout, a linear layer gives exactly the mean of their logits.

    python -m experiments.concepts.dropout_averages

Eight inputs can be kept or dropped in 2^8 = 256 ways. This gives 256 thinned networks with shared weights. With a
dropout rate of 0.5 all of them are equally likely, and kept inputs are scaled by 2. For a linear layer, the mean of
their outputs equals the output without dropout. After a softmax, the output without dropout equals their normalized
geometric mean, not their arithmetic mean. For deeper networks with ReLUs, neither is exact. In a trained network,
however, one evaluation pass is about as accurate as the mean over many masks.

Source: Hinton et al., "Improving neural networks by preventing co-adaptation of feature detectors", 2012.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import BLUE, FIGURE_WIDTH, GRAY, VERMILLION, ConceptFigure, command, drawing, panels
from jaxcnn import dense, dropout, flatten, serial

CONFIG = {"train": {"seed": 0, "epochs": 1}}
INPUTS, CLASSES, RATE = 8, 4, 0.5
COUNTS = [4**k for k in range(6)]  # numbers of sampled masks
LINEAR = serial(drop=dropout(RATE), head=dense(CLASSES))
DEEP = serial(flatten, dense(64), jax.nn.relu, dropout(RATE), dense(64), jax.nn.relu, dropout(RATE), dense(10))


def all_logits(params, x):
    """Return the logits of all 256 thinned networks, (256, CLASSES). Each multiplies x by keep / (1 - rate)."""
    keep = np.array(list(itertools.product((0, 1), repeat=INPUTS)))
    return keep * x / (1 - RATE) @ params["head"]["kernel"] + params["head"]["bias"]


def sampled_means(model, params, x):
    """Return the mean logits over 1, 4, 16, .. networks sampled by `dropout`, and the evaluation logits."""
    sample = jax.jit(lambda key: model.apply(params, {}, x, train=True, key=key)[0])
    logits = np.stack([sample(key) for key in jax.random.split(jax.random.key(2), COUNTS[-1])])
    return [logits[:count].mean(0) for count in COUNTS], model.apply(params, {}, x, train=False)[0]


def relative_difference(mean, evaluation):
    return float(np.linalg.norm(mean - evaluation) / np.linalg.norm(evaluation))


def linear_layer():
    """Compare the average over all thinned networks with evaluation, for one linear layer."""
    x = jax.random.normal(jax.random.key(0), (1, INPUTS))
    params, _ = LINEAR.init(jax.random.key(1), x)
    sampled, evaluation = sampled_means(LINEAR, params, x)
    logits = all_logits(params, x)
    thinned = jax.nn.softmax(logits)
    geometric = jnp.exp(jnp.log(thinned).mean(0))
    return {
        "mean logits": logits.mean(0),
        "logits": evaluation[0],
        "thinned": thinned,
        "mean": thinned.mean(0),
        "geometric mean": geometric / geometric.sum(),
        "evaluation": jax.nn.softmax(evaluation[0]),
        "difference": [relative_difference(mean, evaluation) for mean in sampled],
    }


def deep_network(seed, epochs):
    """Compare differences and accuracies of the sampled means with evaluation, for a trained network with ReLUs."""
    params, _, _ = trained(DEEP, epochs=epochs, seed=seed)
    images, labels = (values[:500] for values in digits("test"))
    sampled, evaluation = sampled_means(DEEP, params, images)
    accuracy = lambda logits: float((logits.argmax(-1) == labels).mean())
    return {
        "difference": [relative_difference(mean, evaluation) for mean in sampled],
        "accuracy": [accuracy(mean) for mean in sampled],
        "evaluation": accuracy(evaluation),
    }


def measure(seed, epochs):
    return linear_layer(), deep_network(seed, epochs)


@drawing
def draw(linear, deep):
    figure, [[top], [bottom]] = panels(2, 1, FIGURE_WIDTH, 5.4)
    for results, name, color, mark in ((linear, "one linear layer", BLUE, "o"), (deep, "two ReLUs", VERMILLION, "^")):
        top.plot(COUNTS, results["difference"], marker=mark, color=color, label=name)
    top.plot(COUNTS, linear["difference"][0] / np.sqrt(COUNTS), ":", color=GRAY, label="1 / sqrt(masks)")
    top.set(xscale="log", yscale="log", xlabel="number of masks", ylabel="relative difference")
    top.set_xticks(COUNTS, COUNTS)
    top.yaxis.set_major_formatter("{x:g}")
    top.minorticks_off()
    top.set_title(
        "mean logits of sampled masks vs. evaluation\ntwo ReLUs: "
        f"{COUNTS[-1]} masks {deep['accuracy'][-1]:.1%}, evaluation {deep['evaluation']:.1%} correct"
    )
    top.legend(loc="lower left")
    at = np.arange(CLASSES)
    ticks = bottom.plot(at, linear["thinned"][::8].T, "_", color=GRAY, alpha=0.5, markersize=12)
    ticks[0].set_label("networks")
    for name, side, color in (("evaluation", -0.25, BLUE), ("geometric mean", 0, VERMILLION), ("mean", 0.25, GRAY)):
        bottom.bar(at + side, linear[name], 0.23, color=color, label=name)
    errors = {name: np.abs(linear[name] - linear["evaluation"]).max() for name in ("geometric mean", "mean")}
    bottom.set(xticks=at, xlabel="class", ylabel="probability", ylim=(0, 1))
    bottom.set_title(
        "all 256 networks of one linear layer vs. evaluation:\n"
        f"geometric mean differs by {errors['geometric mean']:.0e}, mean by {errors['mean']:.2f}"
    )
    bottom.legend(loc="upper center", ncols=4, handlelength=1.2, columnspacing=0.8)
    return figure


def main(config):
    linear, deep = measure(**config["train"])
    print("one linear layer, all 256 thinned networks")
    for name in ("mean logits", "logits", "mean", "geometric mean", "evaluation"):
        print(f"{name:20}" + "".join(f"{value:9.5f}" for value in linear[name]))
    print(f"\n{'masks':20}" + "".join(f"{count:9}" for count in COUNTS))
    print(f"{'linear, difference':20}" + "".join(f"{value:9.2%}" for value in linear["difference"]))
    print(f"{'ReLUs, difference':20}" + "".join(f"{value:9.2%}" for value in deep["difference"]))
    print(f"{'ReLUs, accuracy':20}" + "".join(f"{value:9.1%}" for value in deep["accuracy"]))
    print(f"{'evaluation':20}{deep['evaluation']:9.1%}")
    alt = (
        "Left: the difference between the mean over sampled masks and evaluation. For a linear layer it falls with one "
        "over the square root of the number of masks. For a network with ReLUs it levels off. Right: probabilities of "
        "four classes. The geometric mean over all thinned networks equals evaluation; the arithmetic mean is flatter."
    )
    return ConceptFigure("dropout_averages", draw(linear, deep), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
