"""A network memorizes a small training set; L1, L2 and dropout narrow the gap between training loss and test loss.

    python -m experiments.concepts.overfitting

The same network is trained on the same few digits four times (a shorter `experiments.overfit_and_regularize`). Without
regularization it classifies the training digits correctly, but its test loss is many times its training loss. The
difference is the gap. Regularization hardly changes the test accuracy: the network makes about as many errors, but
with less confidence, which lowers the loss. L1, lambda * sum |w|, pulls all weights towards zero with the same force.
Weights of little use reach zero, and the network becomes sparse. L2, lambda * sum w^2, pulls large weights harder. All
weights become smaller, but few become zero. Dropout leaves the size of the weights unchanged and keeps units from
relying on each other.
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
    mosaic,
)
from jaxcnn import cross_entropy, train

CONFIG = {"images": 200, "train": {"seed": 0, "epochs": 25}}
PENALTIES = {"l1": 2e-3, "l2": 1e-2}  # stronger, because training is shorter
NEAR_ZERO = 1e-3


def measure(images, train_config):
    """Return for each kind of regularization: loss and accuracy on both sets of digits, and all weights."""
    few, test = batch_of_digits("train", images), batch_of_digits("test")
    settings = overfit_and_regularize.CONFIG | PENALTIES
    common = settings["train"] | train_config
    results = {}
    for name, (model, changes) in overfit_and_regularize.remedies(settings).items():
        if name == "augmentation":
            continue
        result = fitted(model, few, common | changes)
        loss_fn = cross_entropy(model)
        weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(result.params)])
        on_train, on_test = (train.evaluate(loss_fn, result.params, result.state, split) for split in (few, test))
        results[name] = {
            "train": on_train,
            "test": on_test,
            "gap": on_test["loss"] - on_train["loss"],
            "weights": weights,
            "near zero": float((np.abs(weights) < NEAR_ZERO).mean()),
            "size": float(np.sqrt((weights**2).mean())),
        }
    return results


@drawing
def draw(results):
    figure, axes = mosaic("AB;CD;LL;RR", FIGURE_WIDTH, 6.2, height_ratios=[1, 1, 1.3, 1.1])
    bins = np.linspace(-0.3, 0.3, 121)
    for letter, (name, result) in zip("ABCD", results.items(), strict=True):
        ax = axes[letter]
        ax.hist(result["weights"], bins, histtype="stepfilled", color=BLUE)
        ax.set(yscale="log", ylim=(1, 2e4), xticks=(-0.2, 0, 0.2), yticks=(1, 100, 10_000))
        ax.set_title(f"{name}: {result['near zero']:.0%} near zero")
        ax.minorticks_off()
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.tick_params(labelleft=letter in "AC", labelbottom=letter in "CD")
    for letter in "CD":
        axes[letter].set_xlabel("weight")
    for letter in "AC":
        axes[letter].set_ylabel("number")
    at = np.arange(len(results))
    gaps = [f"{name}\ngap {result['gap']:.2f}" for name, result in results.items()]
    for letter, metric, names in (("L", "loss", gaps), ("R", "accuracy", [*results])):
        ax = axes[letter]
        for side, split, label, color in (
            (-0.2, "train", "training digits", GRAY),
            (0.2, "test", "test digits", VERMILLION),
        ):
            values = [result[split][metric] for result in results.values()]
            bars = ax.bar(at + side, values, 0.38, color=color, label=label)
            ax.bar_label(bars, [f"{v:.0%}" if metric == "accuracy" else f"{v:.2f}" for v in values])
        ax.set(title=metric, xticks=at, xticklabels=names, yticks=[])
        ax.margins(y=0.2)
        ax.spines["left"].set_visible(False)
    figure.legend(*axes["L"].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def main(config):
    results = measure(config["images"], config["train"])
    print(f"{'':8}   train loss  test   gap  train accuracy   test   weights near zero   root mean square")
    for name, result in results.items():
        on_train, on_test = result["train"], result["test"]
        print(
            f"{name:8}{on_train['loss']:13.3f}{on_test['loss']:6.2f}{result['gap']:6.2f}"
            f"{on_train['accuracy']:16.1%}{on_test['accuracy']:7.1%}"
            f"{result['near zero']:20.1%}{result['size']:19.4f}"
        )
    nothing = results["nothing"]
    gaps = (f"{name} {result['gap'] / nothing['gap']:.0%}" for name, result in results.items() if name != "nothing")
    print(f"gap relative to the unregularized network: {', '.join(gaps)}")
    alt = (
        "Top: histograms of the weights of four networks. With L1, a tall spike at zero holds "
        f"{results['L1']['near zero']:.0%} of the weights, against {nothing['near zero']:.0%} without regularization. "
        "With L2 the histogram is narrower. Bottom: bars of loss and accuracy. Without regularization, the loss is "
        f"{nothing['train']['loss']:.2f} on training digits and {nothing['test']['loss']:.2f} on test digits. "
        "L1, L2 and dropout lower the test loss."
    )
    return ConceptFigure("overfitting", draw(results), alt)


if __name__ == "__main__":
    command(main, CONFIG, __doc__)
