"""Learning rate against weight decay: a network of two layers for each combination and seed, trained in one program.

    python -m experiments.sweep                          6 x 5 combinations, 5 seeds: 150 runs in less than 2 minutes
                                                         on 2 cores, from 84.0 % to 95.7 % of the test digits
    python -m experiments.sweep seeds=1 train.epochs=3

Writes the report and the landscape, `landscape.svg`, into the folder of the run. The landscape shows the mean test
accuracy over the seeds: small learning rates do not reach the minimum within the epochs, large ones jump over it, and
weight decay helps most at the learning rates in between.
"""

import jax
import numpy as np

from experiments.concepts._figure import ConceptFigure, drawing, load_matplotlib, panels
from jaxcnn import conv, data, dense, flatten, max_pool, report, serial, train

CONFIG = {
    "data": {"name": "mnist_small", "root": ""},
    "model": {"width": 8},
    "learning_rates": [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
    "weight_decays": [0.0, 0.001, 0.01, 0.1, 1.0],
    "seeds": 5,
    "chunk": 0,  # runs trained together; 0: chosen by memory and processor
    "train": train.FIT | {"epochs": 6, "batch_size": 64, "optimizer": {"name": "adamw", "learning_rate": 1e-3}},
    "runs": "runs",
    "folder": "",
}
LIMITS = {"model.width": (1, 10**4), "seeds": (1, 10**4), "chunk": (0, 10**6)}


def network(digits, width):
    return serial(
        normalize=data.normalize(digits),
        pool1=max_pool(2),  # 14 x 14
        conv=conv(width),
        relu=jax.nn.relu,
        pool2=max_pool(2),  # 7 x 7
        flatten=flatten,
        head=dense(10),
    )


def landscape(result, rates, decays):
    """The mean accuracy over seeds (rates, decays); NaN where a run is not finite."""
    grid = np.full((len(rates), len(decays)), np.nan)
    for settings, runs in result.groups():
        at = rates.index(settings["optimizer.learning_rate"]), decays.index(settings["weight_decay.rate"])
        if all(run.nonfinite_step is None for run in runs):
            grid[at] = np.mean([run.metrics["accuracy"] for run in runs])
    return grid


@drawing
def draw(grid, rates, decays):
    figure, axes = panels(1, 1, 5.4, 4.2)
    axis = axes[0, 0]
    shown = axis.imshow(grid, cmap="viridis", origin="lower", aspect="auto")
    for (i, j), value in np.ndenumerate(grid):
        bright = np.isfinite(value) and shown.norm(value) > 0.6
        text = f"{value:.1%}".replace("%", " %") if np.isfinite(value) else "diverged"
        axis.text(j, i, text, ha="center", va="center", color="#1c1c1e" if bright else "#ffffff", fontsize=8)
    axis.set_xticks(range(len(decays)), [f"{value:g}" for value in decays])
    axis.set_yticks(range(len(rates)), [f"{value:g}" for value in rates])
    axis.set_xlabel("weight decay")
    axis.set_ylabel("learning rate")
    axis.set_title("test accuracy, mean over seeds")
    return figure


def main(config):
    load_matplotlib()  # fail before training
    train.require(config, LIMITS)
    train.resolve(config["train"])
    root = config["data"]["root"] or None
    digits, test_digits = (data.load(config["data"]["name"], split, root=root) for split in ("train", "test"))
    rates, decays = config["learning_rates"], config["weight_decays"]
    over = {"optimizer.learning_rate": rates, "weight_decay.rate": decays, "seed": range(config["seeds"])}
    run = train.Run("sweep", config, root=config["runs"], folder=config["folder"])
    result = train.sweep(
        network(digits, **config["model"]),
        digits,
        over=over,
        eval_data=test_digits,
        config=config["train"],
        run=run,
        chunk=config["chunk"],
    )
    grid = landscape(result, rates, decays)
    counts = f"{len(rates)} learning rates and {len(decays)} weight decays"
    alt = f"Test accuracy for {counts}; the best is {np.nanmax(grid):.1%}"
    print(ConceptFigure("landscape", draw(grid, rates, decays), alt).save(run.folder))
    print(report.report(run.folder))
    best = result.best
    return {"best": best.metrics["accuracy"], "settings": best.settings, "mean of the best": float(np.nanmax(grid))}


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
