"""Batch norm gives each unit mean 0 and std 1 over the batch, whatever the scale of the input of its layer.

    python -m experiments.concepts.batch_norm

y = (x - mean) / sqrt(var + eps), with mean and variance of each unit, or of each channel of a convolution, over the
batch; then a learned scale and bias. If the digits have values from 0 to 255 instead of 0 to 1, the mean and the std of
a linear layer are 255 times as large, and the output stays the same, up to the small eps = 1e-5.

In training, the output for a digit depends on the other digits in its batch. That is useful noise in training, but not
wanted in use. So evaluation takes running averages: after each batch, running = 0.9 running + 0.1 batch. They start at
mean 0 and variance 1, and approach the statistics of the data within a few dozen batches.
"""

import jax
import numpy as np

from experiments.concepts._digits import digits
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
from jaxcnn import batch_norm, dense, flatten, serial

UNITS, BATCH, BATCHES, DECAY = 3, 64, 60, 0.9
LAYER, NORM = serial(flatten, dense(UNITS)), batch_norm(decay=DECAY)


def measure():
    """Return activations before and after batch norm, and its output and statistics over many batches."""
    images, _ = digits("train")
    params, state = LAYER.init(jax.random.key(4), images[:1])
    linear = jax.jit(lambda x: LAYER.apply(params, state, x, train=False)[0])
    before = linear(images)
    norm_params, statistics = NORM.init(jax.random.key(0), before[:1])
    apply = lambda x, statistics, train: NORM.apply(norm_params, statistics, x, train=train)
    normalize = jax.jit(apply, static_argnums=2)
    after, _ = normalize(before, statistics, True)
    scaled, _ = normalize(linear(255 * images), statistics, True)

    rng = np.random.default_rng(0)
    training, running = [], []
    for _ in range(BATCHES):
        # The first digit is in each batch.
        batch = before[np.append(0, rng.choice(np.arange(1, len(images)), BATCH - 1, replace=False))]
        y, statistics = normalize(batch, statistics, True)
        training.append(y[0])
        running.append(statistics)
    evaluated, _ = normalize(before[:1], statistics, False)
    return {
        "before": np.asarray(before),
        "after": np.asarray(after),
        "change": float(np.abs(scaled - after).max()),
        "training": np.array(training),
        "evaluation": np.asarray(evaluated[0]),
        "running mean": np.array([statistics["mean"] for statistics in running]),
        "running std": np.sqrt([statistics["var"] for statistics in running]),
    }


def listed(values):
    return ", ".join(f"{value:z.1f}" for value in values).replace("-", "\N{MINUS SIGN}")


@drawing
def draw(results):
    figure, axes = mosaic("AB;TT;MS", FIGURE_WIDTH, 5.8, height_ratios=[1.2, 1, 1])
    shades, before, after = (BLUE, VERMILLION, GREEN), results["before"], results["after"]
    bins = np.linspace(-3, 3, 61)
    for letter, name, values in (("A", "before", before), ("B", "after", after)):
        ax = axes[letter]
        for unit, color in enumerate(shades):
            ax.hist(values[:, unit], bins, histtype="step", color=color, lw=1.5)
        title = f"{name}\nmeans {listed(values.mean(0))}\nstds {listed(values.std(0))}"
        ax.set(title=title, yticks=[], xticks=(-2, 0, 2))
        ax.spines["left"].set_visible(False)
    axes["A"].set_xlabel("activations of three units")
    axes["B"].set_xlabel(f"activations; for pixels x 255,\nthey differ by {results['change']:.0e}")
    steps, first = np.arange(1, BATCHES + 1), results["training"][:, 0]
    axes["T"].plot(steps, first, "o", color=BLUE, markersize=3, label=f"training: std {first.std():.2f}")
    value = results["evaluation"][0]
    axes["T"].axhline(value, color=VERMILLION, label=f"evaluation: {value:.2f}".replace("-", "\N{MINUS SIGN}"))
    axes["T"].set(title=f"output for one digit in {BATCHES} batches of {BATCH}", xlabel="batch")
    low, high = first.min(), first.max()
    axes["T"].set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low))  # room for the legend
    axes["T"].legend(ncols=2, loc="upper right")
    for letter, name, exact in (("M", "mean", before.mean(0)), ("S", "std", before.std(0))):
        ax, values = axes[letter], results[f"running {name}"]
        for unit, color in enumerate(shades):
            ax.plot(steps, values[:, unit], color=color, label=f"unit {unit + 1}")
            ax.axhline(exact[unit], color=GRAY, ls=":", lw=0.8)
        error = np.abs(values[-1] - exact).max()
        ax.set(title=f"running {name}\nerror at the end {error:.2f}", xlabel="batch")
    axes["S"].legend()
    return figure


def main(config):
    results = measure()
    print(f"{'unit':40}" + "".join(f"{unit:9}" for unit in range(UNITS)))
    rows = {
        "mean before": results["before"].mean(0),
        "std before": results["before"].std(0),
        "mean after": results["after"].mean(0),
        "std after": results["after"].std(0),
        f"running mean after {BATCHES} batches": results["running mean"][-1],
        f"running std after {BATCHES} batches": results["running std"][-1],
        "one digit in training: mean": results["training"].mean(0),
        "one digit in training: std": results["training"].std(0),
        "one digit in evaluation": results["evaluation"],
    }
    for name, values in rows.items():
        print(f"{name:40}" + "".join(f"{value:z9.4f}" for value in values))
    print(f"pixels from 0 to 255 instead of 0 to 1: the outputs change by at most {results['change']:.1e}")
    alt = (
        "Top: histograms of three units before and after batch norm. Before, they have different means and widths; "
        "after, mean 0 and standard deviation 1. Middle: the output for one digit in many batches. In training it "
        f"varies with a standard deviation of {results['training'][:, 0].std():.2f}; in evaluation it is constant. "
        "Bottom: the running means and standard deviations approach those of the data within about 40 batches."
    )
    return ConceptFigure("batch_norm", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
