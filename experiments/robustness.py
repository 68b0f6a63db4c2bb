"""Adversarial training on digits: accuracy under attacks, and under corruptions, which are not attacks.

    python -m experiments.robustness                     a few minutes on 2 cores
    python -m experiments.robustness attack.train_eps=0.1

LeNet-5 is trained on the digits, and a copy of it then on the adversarial examples that PGD finds at each step, within
`train_eps` of the digits. From random parameters, adversarial training fails for some seeds: the network gives the same
class for all digits. FGSM (one step) and PGD with increasing eps attack both networks, and both are tested on twelve
corruptions at five severities. The folder of the run holds the figures `attacks.svg`,
`corruptions.svg` and `corrupted_digits.svg`, the table `corruptions.csv`, and a report of the adversarial training.
Needs pip install '.[train,plot]'.

Test accuracy in %, mean and std over 3 seeds:

                                    standard       adversarial
    digits                         97.4 +- 0.3      96.0 +- 0.2
    FGSM, eps 0.2                  20.4 +- 1.6      83.5 +- 1.2
    PGD, eps 0.1                   37.1 +- 3.9      90.8 +- 0.2
    PGD, eps 0.2                    0.4 +- 0.1      77.3 +- 0.3
    PGD, eps 0.3                    0.0 +- 0.0      16.3 +- 1.5
    mean of all corruptions        96.0 +- 0.3      94.7 +- 0.1
    contrast, severity 5           93.3 +- 1.6      53.6 +- 0.4
    fog, severity 5                80.3 +- 6.7      88.0 +- 0.9
    impulse noise, severity 5      94.4 +- 0.9      96.3 +- 0.2

Adversarial training protects against attacks up to its eps, and not far beyond. It is no general robustness: accuracies
on clean digits and on the mean of the corruptions are lower. It helps against strong fog and impulse noise. It harms
most at low contrast: at severity 5, strokes differ from the background by 0.15, which is less than eps.

Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018; Hendrycks and Dietterich,
"Benchmarking neural network robustness to common corruptions and perturbations", 2019.
"""

import csv
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import (
    BLUE,
    GRAY,
    VERMILLION,
    ConceptFigure,
    drawing,
    image,
    load_matplotlib,
    mosaic,
    panels,
    signed,
)
from jaxcnn import adversarial, cross_entropy, data, jit, models, pgd, report, train
from jaxcnn.data.corruptions import CORRUPTIONS, corrupt

CONFIG = {
    "attack": {"train_eps": 0.2, "train_steps": 7, "eps": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3], "steps": 20},
    "train": {
        "seed": 0,
        "epochs": 12,
        "batch_size": 64,
        "optimizer": {"name": "adam", "learning_rate": 2e-3},
        "checkpoint": {"keep": 0},
    },
    "runs": "runs",
    "folder": "",
}
LIMITS = {"attack.train_eps": (1e-6, 1), "attack.train_steps": (1, 1000), "attack.steps": (1, 1000)}
COLORS = {"standard": VERMILLION, "adversarial": BLUE}
SEVERITIES = range(1, 6)
MODEL = models.lenet5()


def predict(params, images):
    return MODEL.apply(params, {}, images, train=False)[0].argmax(-1)


@functools.partial(jit, static_argnames="steps")
def attacked(params, batch, eps, key, steps):
    """The images that `pgd` changes to fool the network, and its predictions for them."""
    images = pgd(cross_entropy(MODEL), params, {}, batch, eps=eps, steps=steps, key=key)
    return images, predict(params, images)


@functools.partial(jit, static_argnames="name")
def corrupted(images, name, key):
    """(5, N, H, W, C): the images at all severities. They have the same random numbers, which are compiled once."""
    return jnp.stack([corrupt(images, name, severity, key) for severity in SEVERITIES])


def attack_accuracies(networks, batch, eps_values, steps, key):
    """Return {(network, attack): accuracies (eps,)}, and {network: (images, predictions) of PGD for each eps}."""
    accuracies, examples = {}, {}
    for network, params in networks.items():
        for attack, options in (("FGSM", {"key": None, "steps": 1}), ("PGD", {"key": key, "steps": steps})):
            found = [attacked(params, batch, eps, **options) for eps in eps_values]
            accuracies[network, attack] = np.array([(labels == batch["label"]).mean() for _, labels in found])
        examples[network] = found
    return accuracies, examples


def corruption_accuracies(networks, batch, key):
    """Return {network: accuracies (corruptions, severities)}, and {corruption: the first image at all severities}."""
    correct = jit(lambda params, images: (predict(params, images) == batch["label"]).mean())
    accuracies, examples = {network: [] for network in networks}, {}
    for name in CORRUPTIONS:
        images = corrupted(batch["image"], name, key)
        examples[name] = np.asarray(images[:, 0])
        for network, params in networks.items():
            accuracies[network].append([float(correct(params, part)) for part in images])
    return {network: np.array(rows) for network, rows in accuracies.items()}, examples


@drawing
def draw_attacks(eps_values, accuracies, examples, labels, train_eps):
    """Accuracy against eps, and one digit that both networks recognize, as PGD changes it."""
    shown = np.linspace(0, len(eps_values) - 1, min(5, len(eps_values))).round().astype(int)
    rows = [[f"{network} {i}" for i in shown] for network in examples]
    figure, axes = mosaic([["curves"] * 4 + row for row in rows], 10.5, 3.6)
    ax = axes["curves"]
    for (network, attack), values in accuracies.items():
        style = "-" if attack == "PGD" else "--"
        ax.plot(eps_values, values, style, marker="o", ms=3, color=COLORS[network], label=f"{network}, {attack}")
    ax.axvline(train_eps, color=GRAY, linewidth=0.8)
    ax.text(train_eps, 1.02, "eps of the training", color=GRAY, ha="center", va="bottom", size=8)
    ax.set(xlabel="eps: largest change of a pixel", ylabel="test accuracy", ylim=(0, 1))
    ax.legend(loc="lower left", title="trained, attacked by")
    recognized = np.logical_and.reduce([predictions[0][1] == labels for predictions in examples.values()])
    at = int(np.argmax(recognized))
    for network, found in examples.items():
        for i in shown:
            images, predictions = found[i]
            ax = axes[f"{network} {i}"]
            image(ax, images[at, ..., 0], limits=(0, 1))
            wrong = predictions[at] != labels[at]
            ax.set_title(f"{predictions[at]}", size=12, color=COLORS[network], weight="normal" if wrong else "bold")
            if network == "adversarial":  # the lower row
                ax.set_xlabel(f"eps {eps_values[i]:g}")
        axes[f"{network} {shown[0]}"].set_ylabel(network, color=COLORS[network], size=10)
    figure.suptitle(f"Predictions for a {labels[at]}, changed by PGD", x=0.73, size=10)
    return figure


@drawing
def draw_corruptions(accuracies):
    """Heat maps of both networks, and of their difference in percentage points."""
    figure, axes = panels(1, 3, 10.5, 4.6)
    viridis = load_matplotlib().colormaps["viridis"]
    low = min(values.min() for values in accuracies.values())
    for ax, (network, values) in zip(axes[0], accuracies.items(), strict=False):
        image(ax, values, f"{network} training: accuracy in %", cmap=viridis, limits=(low, 1), cell_format=_percent)
    difference = 100 * (accuracies["adversarial"] - accuracies["standard"])
    title = "adversarial minus standard, in points"
    colors = signed(np.clip(difference, -10, 10))  # the color of small differences would be invisible
    image(axes[0, 2], difference, title, cell_format="{:+.1f}".format, **colors)
    for ax in axes[0]:
        ax.images[0].set_interpolation("nearest")  # some viewers blur the cells of a small image
        ax.set_aspect("auto")
        ax.set_xticks(range(len(SEVERITIES)), SEVERITIES)
        ax.set_xlabel("severity")
        ax.set_yticks([])
    axes[0, 0].set_yticks(range(len(CORRUPTIONS)), [_title(name) for name in CORRUPTIONS])
    return figure


def _percent(value):
    return f"{100 * value:.1f}"


def _title(name):
    return name.replace("_", " ").replace("jpeg", "JPEG")


@drawing
def draw_digits(examples):
    figure, axes = panels(len(SEVERITIES), len(examples), 10.5, 4.7)
    for column, (name, images) in zip(axes.T, examples.items(), strict=True):
        for ax, digit in zip(column, images, strict=True):
            image(ax, digit[..., 0], limits=(0, 1))
        column[0].set_title(_title(name).replace(" ", "\n", 1), size=8)
    for ax, severity in zip(axes[:, 0], SEVERITIES, strict=True):
        ax.set_ylabel(f"severity {severity}", size=8)
    return figure


def main(config):
    load_matplotlib()  # fail before training
    train.require(config, LIMITS)
    train.resolve(config["train"])
    attack = config["attack"]
    if not attack["eps"] or not all(type(eps) in (int, float) and 0 <= eps <= 1 for eps in attack["eps"]):
        raise train.ConfigError(f"attack.eps must be a list of numbers from 0 to 1, got {attack['eps']}")
    eps_values = sorted(attack["eps"])
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    run = train.Run("robustness", config, root=config["runs"], folder=config["folder"])
    losses = {
        "standard": cross_entropy,
        "adversarial": lambda model: adversarial(cross_entropy(model), attack["train_eps"], attack["train_steps"]),
    }
    networks, start = {}, None
    for name, loss in losses.items():
        run.say(f"\n{name} training")
        part = run if name == "adversarial" else train.Run(name, config, folder=run.folder / name)
        options = {"loss": loss, "config": config["train"], "start": start}
        networks[name] = train.fit(MODEL, digits, eval_data=test_digits, run=part, **options).params
        start = networks[name], {}

    batch = {"image": test_digits.images / np.float32(255), "label": test_digits.labels}
    key = jax.random.key(config["train"]["seed"])
    attacks, attacked_digits = attack_accuracies(networks, batch, eps_values, attack["steps"], key)
    corruptions, corrupted_digits = corruption_accuracies(networks, batch, key)
    result = {}
    for name in networks:
        result[name] = {
            f"{kind} {eps:g}": float(value)
            for kind in ("FGSM", "PGD")
            for eps, value in zip(eps_values, attacks[name, kind], strict=True)
        }
        result[name] |= dict(zip(CORRUPTIONS, corruptions[name].mean(1).tolist(), strict=True))
        result[name]["mean of corruptions"] = float(corruptions[name].mean())
    print(f"\n{'':20}" + "".join(f"{name:>14}" for name in networks))
    for label in result["standard"]:
        print(f"{label:20}" + "".join(f"{result[name][label]:14.1%}" for name in networks))

    with (run.folder / "corruptions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["corruption", "severity", *networks])
        for i, name in enumerate(CORRUPTIONS):
            for j, severity in enumerate(SEVERITIES):
                writer.writerow([name, severity, *(values[i, j] for values in corruptions.values())])
    last = "; ".join(f"{name} {attacks[name, 'PGD'][-1]:.0%}" for name in networks)
    means = "; ".join(f"{name} {result[name]['mean of corruptions']:.1%}" for name in networks)
    figures = [
        ConceptFigure(
            "attacks",
            draw_attacks(eps_values, attacks, attacked_digits, test_digits.labels, attack["train_eps"]),
            f"Test accuracy of two networks against eps, for FGSM and PGD. PGD with eps {eps_values[-1]:g}: {last}",
        ),
        ConceptFigure(
            "corruptions",
            draw_corruptions(corruptions),
            f"Heat maps of the accuracy for twelve corruptions at five severities, and the difference. Mean: {means}",
        ),
        ConceptFigure(
            "corrupted_digits", draw_digits(corrupted_digits), "A digit under twelve corruptions at five severities"
        ),
    ]
    for figure in figures:
        print(figure.save(run.folder))
    run.log(f"see {run.folder}", **result)
    report.gather(run.folder, MODEL, networks["adversarial"], {}, test_digits)
    print(report.report(run.folder))
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
