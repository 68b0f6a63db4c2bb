"""Label smoothing bounds the margin between the logits, so a network trained on few digits is less overconfident.

    python -m experiments.concepts.label_smoothing

The cross-entropy with a label of 1 has no minimum: it falls as long as the logit of the label grows. A network that
classifies all of its training digits correctly becomes ever more certain, and on test digits it is certain even where
it is wrong. With smoothing s and K classes, the label becomes 1 - s + s / K, and the other classes s / K. The loss is
then smallest where the logit of the label exceeds the others by log((1 - s + s / K) / (s / K)): for s = 0.1 and ten
classes by log 91 = 4.5.

A network is calibrated if, of its predictions with confidence 80 %, 80 % are correct. The calibration error is the mean
difference between confidence and accuracy. Smoothing hardly changes the accuracy, but lowers the calibration error and
the test loss.
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
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    mosaic,
)
from jaxcnn import uncertainty

CONFIG = {"images": 500, "smoothing": 0.1, "train": {"seed": 0, "epochs": 30}}
CLASSES, BINS = 10, 10


def best_margin(smoothing):
    """Return the logit of the label minus that of another class where the loss is smallest."""
    return math.log((1 - smoothing + smoothing / CLASSES) / (smoothing / CLASSES))


def margins(logits, labels):
    """Return the logit of the label minus the mean of the others, (N,)."""
    of_label = logits[np.arange(len(labels)), labels]
    return of_label - (logits.sum(-1) - of_label) / (CLASSES - 1)


def measure(images, smoothing, train_config):
    """Return for training without and with smoothing: margins on training digits, and calibration on test digits."""
    few, test = batch_of_digits("train", images), batch_of_digits("test")
    settings = overfit_and_regularize.CONFIG["train"] | train_config
    results = {}
    for name, value in (("labels 0 and 1", 0.0), (f"smoothing {smoothing:g}", smoothing)):
        model = overfit_and_regularize.network()
        result = fitted(model, few, settings | {"label_smoothing": value})
        predict = jax.jit(functools.partial(model.apply, result.params, result.state, train=False))
        on_train, on_test = (np.asarray(predict(part["image"])[0]) for part in (few, test))
        probs = np.asarray(jax.nn.softmax(on_test))
        results[name] = {
            "margins": margins(on_train, few["label"]),
            "probs": probs,
            "confidence": float(probs.max(-1).mean()),
            "accuracy": float((probs.argmax(-1) == test["label"]).mean()),
            "loss": float(-np.log(probs[np.arange(len(probs)), test["label"]]).mean()),
            "calibration error": float(uncertainty.expected_calibration_error(probs, test["label"], BINS)),
        }
    return results


@drawing
def draw(results, smoothing):
    figure, axes = mosaic("MM;AB", FIGURE_WIDTH, 4.8, height_ratios=[1, 1.3])
    labels = batch_of_digits("test")["label"]
    bins = np.linspace(0, 25, 76)
    for (name, result), letter, color in zip(results.items(), "AB", (VERMILLION, BLUE), strict=True):
        label = f"{name}: mean {result['margins'].mean():.1f}"
        axes["M"].hist(result["margins"], bins, histtype="stepfilled", alpha=0.6, color=color, label=label)
        confidence, accuracy, count = map(np.asarray, uncertainty.reliability_diagram(result["probs"], labels, BINS))
        ax = axes[letter]
        ax.bar((np.arange(BINS) + 0.5) / BINS, accuracy, 1 / BINS, color=color, alpha=0.6, edgecolor=color)
        filled = count > 0
        ax.plot(confidence[filled], accuracy[filled], "o", color=color)
        ax.plot([0, 1], [0, 1], "--", color=GRAY)
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), xlabel="confidence")
        error, right = result["calibration error"], result["accuracy"]
        ax.set_title(f"{name}\ncalibration error {error:.1%}\ntest accuracy {right:.1%}")
    best = best_margin(smoothing)
    axes["M"].axvline(best, color=GRAY, ls="--", label=f"log((1 \N{MINUS SIGN} s + s/K) / (s/K)) = {best:.1f}")
    axes["M"].set(title="logit of the label minus the others, training digits", yticks=[])
    axes["M"].spines["left"].set_visible(False)
    axes["M"].legend()
    axes["A"].set_ylabel("accuracy on test digits")
    return figure


def main(config):
    results = measure(config["images"], config["smoothing"], config["train"])
    print(f"best margin with smoothing {config['smoothing']:g}: {best_margin(config['smoothing']):.2f}")
    print(f"{'':16}margin   confidence   accuracy   calibration error   test loss")
    for name, result in results.items():
        print(
            f"{name:16}{result['margins'].mean():6.2f}{result['confidence']:13.1%}{result['accuracy']:11.1%}"
            f"{result['calibration error']:20.1%}{result['loss']:12.3f}"
        )
    plain, smooth = results.values()
    alt = (
        f"Top: histograms of the margins on training digits. With labels 0 and 1 their mean is "
        f"{plain['margins'].mean():.1f}; with smoothing they concentrate at {smooth['margins'].mean():.1f}. Bottom: "
        "accuracy on test digits against confidence. Without smoothing the network is overconfident, its calibration "
        f"error {plain['calibration error']:.1%}; with smoothing it is {smooth['calibration error']:.1%}."
    )
    return ConceptFigure("label_smoothing", draw(results, config["smoothing"]), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
