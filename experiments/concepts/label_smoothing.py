"""Label smoothing bounds the margin between logits: a little calibrates an overconfident network, too much does harm.

    python -m experiments.concepts.label_smoothing

The cross-entropy with a label of 1 has no minimum: it falls as long as the logit of the label grows. A network that
classifies all of its training digits correctly becomes ever more certain, and on test digits it is certain even where
it is wrong. With smoothing s and K classes, the label becomes 1 - s + s / K, and the other classes s / K. The loss is
then smallest where the logit of the label exceeds the others by log((1 - s + s / K) / (s / K)): for s = 0.1 and ten
classes by log 91 = 4.5.

A network is calibrated if, of its predictions with confidence 80 %, 80 % are correct. The calibration error is the mean
difference between confidence and accuracy. Without smoothing, the confidence is too high on test digits. With a little
smoothing it agrees with the accuracy. With more it is too low, although the accuracy is higher.
"""

import functools
import math

import jax
import numpy as np

from experiments import overfit_and_regularize
from experiments.concepts._digits import batch_of_digits, fitted
from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GRAY,
    GREEN,
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    mosaic,
)
from jaxcnn import uncertainty

CONFIG = {"images": 200, "smoothing": [0.0, 0.02, 0.1], "train": {"seed": 0, "epochs": 60}}
CLASSES, BINS = 10, 10


def best_margin(smoothing):
    """Return the logit of the label minus that of another class where the loss is smallest."""
    others = smoothing / CLASSES
    return math.log((1 - smoothing + others) / others) if smoothing else math.inf


def margins(logits, labels):
    """Return the logit of the label minus the mean of the others, (N,)."""
    of_label = logits[np.arange(len(labels)), labels]
    return of_label - (logits.sum(-1) - of_label) / (CLASSES - 1)


def measure(images, smoothing, train_config):
    """Return for each smoothing: the margins of the training digits, and the calibration on test digits."""
    few, test = batch_of_digits("train", images), batch_of_digits("test")
    settings = overfit_and_regularize.CONFIG["train"] | train_config
    model = overfit_and_regularize.network()
    results = {}
    for value in smoothing:
        result = fitted(model, few, settings | {"label_smoothing": value})
        predict = jax.jit(functools.partial(model.apply, result.params, result.state, train=False))
        on_train, on_test = (np.asarray(predict(part["image"])[0]) for part in (few, test))
        probs = np.asarray(jax.nn.softmax(on_test))
        results[value] = {
            "margins": margins(on_train, few["label"]),
            "probs": probs,
            "reliability": [*map(np.asarray, uncertainty.reliability_diagram(probs, test["label"], BINS))],
            "confidence": float(probs.max(-1).mean()),
            "accuracy": float((probs.argmax(-1) == test["label"]).mean()),
            "loss": float(-np.log(probs[np.arange(len(probs)), test["label"]]).mean()),
            "calibration error": float(uncertainty.expected_calibration_error(probs, test["label"], BINS)),
        }
    return results


@drawing
def draw(results):
    names = [f"reliability {smoothing}" for smoothing in results]
    figure, axes = mosaic([["margins"] * len(names), names], FIGURE_WIDTH, 4.2, height_ratios=[1, 1.1])
    top, bins = axes["margins"], np.linspace(0, 25, 101)
    for (smoothing, result), name, color in zip(results.items(), names, (VERMILLION, BLUE, GREEN), strict=True):
        mean, best = result["margins"].mean(), best_margin(smoothing)
        label = f"s = {smoothing:g}: mean {mean:.1f}"
        if smoothing:
            top.axvline(best, color=GRAY, ls="--", lw=0.8)
            label += f", best {best:.1f}"
        top.hist(result["margins"], bins, histtype="stepfilled", alpha=0.6, color=color, label=label)
        confidence, accuracy, count = result["reliability"]
        ax, filled = axes[name], count > 0
        ax.bar((np.arange(BINS) + 0.5) / BINS, accuracy, 1 / BINS, color=color, alpha=0.6, edgecolor=color)
        ax.plot(confidence[filled], accuracy[filled], "o", color=color, markersize=4)
        ax.plot([0, 1], [0, 1], "--", color=GRAY)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlabel="confidence", aspect="equal")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.tick_params(labelleft=name == names[0])
        ax.set_title(f"s = {smoothing:g}\nerror {result['calibration error']:.1%}")
    top.set(
        title="training digits", xlabel="logit of the label minus the others; dashed: best", yticks=[], ylim=(0, None)
    )
    top.spines["left"].set_visible(False)
    top.legend()
    axes[names[0]].set_ylabel("test accuracy")
    return figure


def main(config):
    results = measure(config["images"], config["smoothing"], config["train"])
    print("smoothing   best margin   margin   confidence   accuracy   calibration error   test loss")
    for smoothing, result in results.items():
        print(
            f"{smoothing:<9g}{best_margin(smoothing):14.2f}{result['margins'].mean():9.2f}{result['confidence']:13.1%}"
            f"{result['accuracy']:11.1%}{result['calibration error']:20.1%}{result['loss']:12.3f}"
        )
    errors = (f"{result['calibration error']:.1%} with smoothing {value:g}" for value, result in results.items())
    alt = (
        "Top: histograms of the margins of training digits. Without smoothing they are large and spread; with it they "
        "concentrate at the best margin, which is smaller for more smoothing. Bottom: accuracy on test digits against "
        "confidence. Without smoothing the accuracy is below the confidence, and with much smoothing it is above. "
        f"The calibration error is {', '.join(errors)}."
    )
    return ConceptFigure("label_smoothing", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
