"""A network learns few images by heart; L1, L2 and dropout narrow the gap of its losses on seen and new images.

    python -m experiments.concepts.overfitting

The same network on the same few digits, four times (a shorter `experiments.overfit_and_regularize`). Without a remedy
it is right on all it has seen, and its loss on new digits is many times larger: that is the gap. The accuracy on new
digits changes little: with a remedy the network is about as often wrong, but less sure of it, which the loss shows. L1,
lambda * sum |w|, pulls all weights towards zero with the same force, so those that are of little use get there: it
makes them sparse. L2, lambda * sum w^2, pulls large ones harder, so that all become smaller and few zero. Dropout
leaves their size alone, and lets no weight rely on another.
"""

import contextlib
import io
import tempfile

import jax
import numpy as np

from experiments import overfit_and_regularize
from experiments.concepts._digits import digits
from experiments.concepts._figure import BLUE, GRAY, VERMILLION, Shown, command, drawing, mosaic
from jaxcnn import cross_entropy, train

CONFIG = {"images": 200, "train": {"seed": 0, "epochs": 25}}
STRONGER = {"l1": 2e-3, "l2": 1e-2}  # than there, as training is shorter
NEAR_ZERO = 1e-3


def measure(images, own):
    """For each remedy: loss and accuracy on both sets of digits, and all weights of the network."""
    few = {name: values[:images] for name, values in zip(("image", "label"), digits("train"), strict=True)}
    unseen = dict(zip(("image", "label"), digits("test"), strict=True))
    settings = overfit_and_regularize.CONFIG | STRONGER
    common = settings["train"] | own
    found = {}
    for name, (model, differs) in overfit_and_regularize.remedies(settings).items():
        if name == "augmentation":
            continue
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            fitted = train.fit(model, few, config=common | differs, run=train.Run(name, {}, folder=folder))
        loss_fn = cross_entropy(model)
        weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(fitted.params)])
        seen, new = (train.evaluate(loss_fn, fitted.params, fitted.state, part) for part in (few, unseen))
        found[name] = {
            "train": seen,
            "test": new,
            "gap": new["loss"] - seen["loss"],
            "weights": weights,
            "near zero": float((np.abs(weights) < NEAR_ZERO).mean()),
            "size": float(np.sqrt((weights**2).mean())),
        }
    return found


@drawing
def draw(found):
    figure, axes = mosaic("ABCD;LLRR", 6.4, 4.6)
    bins = np.linspace(-0.3, 0.3, 121)
    for letter, (name, result) in zip("ABCD", found.items(), strict=True):
        ax = axes[letter]
        ax.hist(result["weights"], bins, histtype="stepfilled", color=BLUE)
        ax.set(yscale="log", ylim=(1, 2e4), xlabel="weight", xticks=(-0.2, 0, 0.2))
        ax.set_title(f"{name}\n{result['near zero']:.0%} near zero")
        ax.tick_params(labelleft=letter == "A")
    axes["A"].set_ylabel("number of weights")
    at = np.arange(len(found))
    for letter, metric in (("L", "loss"), ("R", "accuracy")):
        ax = axes[letter]
        for side, part, color in ((-0.2, "train", GRAY), (0.2, "test", VERMILLION)):
            values = [result[part][metric] for result in found.values()]
            bars = ax.bar(
                at + side, values, 0.38, color=color, label="digits it has seen" if side < 0 else "new digits"
            )
            ax.bar_label(bars, [f"{v:.0%}" if metric == "accuracy" else f"{v:.2f}" for v in values], size=7)
        ax.set(title=metric, xticks=at, xticklabels=found, yticks=[])
        ax.spines["left"].set_visible(False)
    axes["R"].set_ylim(0, 1.12)
    figure.legend(*axes["L"].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main(config):
    found = measure(config["images"], config["train"])
    print(f"{'':8}    loss seen   new   gap   accuracy seen    new   weights near zero   root mean square")
    for name, result in found.items():
        seen, new = result["train"], result["test"]
        print(
            f"{name:8}{seen['loss']:13.3f}{new['loss']:6.2f}{result['gap']:6.2f}{seen['accuracy']:16.1%}{new['accuracy']:7.1%}"
            f"{result['near zero']:20.1%}{result['size']:19.4f}"
        )
    nothing = found["nothing"]
    left = (f"{name} {result['gap'] / nothing['gap']:.0%}" for name, result in found.items() if name != "nothing")
    print(f"what is left of the gap: {', '.join(left)}")
    alt = (
        "Histograms of the weights of four networks. That of L1 has a tall spike at zero, "
        f"{found['L1']['near zero']:.0%} of its weights against {nothing['near zero']:.0%} without a remedy; that of "
        "L2 is narrower. Bars below: "
        f"the loss without a remedy is {nothing['train']['loss']:.2f} on digits it has seen and "
        f"{nothing['test']['loss']:.2f} on new ones, and each remedy lowers the latter."
    )
    return Shown("overfitting", draw(found), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
