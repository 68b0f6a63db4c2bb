"""Ensembles of 1 to 20 networks, and Monte Carlo dropout: how right, how calibrated, and do they notice other images?

    python -m experiments.ensembles                          20 LeNet-5 with dropout, trained on 2,000 digits. From
                                                             1 to 20 members: accuracy 94.9 to 95.4 %, negative
                                                             log-likelihood (NLL) 0.197 to 0.143, expected
                                                             calibration error (ECE) 2.5 to 0.8 %; AUROC of rotated
                                                             digits by their entropy 0.906 to 0.941
    python -m experiments.ensembles unknown=fashion_mnist    detects clothes instead of rotated digits

The networks are trained once, in one program. They differ in their initial values, order of the data and dropout.
Their mean probabilities are evaluated for disjoint ensembles of each size, with mean and standard deviation over
these ensembles. Monte Carlo dropout evaluates each network by itself, with 20 samples of its dropout.

An input is unknown if it is unlike the training data: here the test digits, rotated by 90 degrees. The entropy of the
mean probabilities and the mutual information, which measures how much the members disagree, should be larger for it.
The run's folder holds the figure `ensembles.svg` and the report. Needs pip install '.[plot]'.

Source: Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep
ensembles", 2017; Gal and Ghahramani, "Dropout as a Bayesian approximation", 2016.
"""

import jax
import numpy as np

from experiments.concepts._figure import BLUE, GRAY, GREEN, VERMILLION, ConceptFigure, drawing, load_matplotlib, mosaic
from jaxcnn import data, ensemble, jit, models, monte_carlo, report, stack_members, train, uncertainty

CONFIG = {
    "digits": 2000,
    "unknown": "rotated",  # or a data set of `data.load` with images of the same shape, such as "fashion_mnist"
    "members": [1, 2, 5, 10, 20],  # sizes of ensembles; the largest number of networks is trained
    "samples": 20,  # of Monte Carlo dropout
    "dropout": 0.3,
    "train": {
        "seed": 0,  # of the first network; the others have the following ones
        "epochs": 20,
        "batch_size": 64,
        "optimizer": {"name": "adam", "learning_rate": 2e-3},
        "checkpoint": {"keep": 0},
    },
    "runs": "runs",
}
LIMITS = {"digits": (10, 8001), "samples": (1, 10**4), "dropout": (0, 1)}
METRICS = ("accuracy", "NLL", "ECE", "AUROC of entropy", "AUROC of mutual information")
BATCH, BINS = 500, 10


def unknown_images(name, known):
    """Return the images uint8 (N, H, W, C) of another data set, or those known, rotated by 90 degrees."""
    images = np.rot90(known, axes=(1, 2)) if name == "rotated" else data.load(name, "test").images
    if images.shape[1:] != known.shape[1:]:
        raise train.ConfigError(f"unknown: {name} has images of {images.shape[1:]}, but digits have {known.shape[1:]}")
    return images


def predictor(model):
    """Return (params, images) -> the class probabilities (members, N, K), for a model with stacked logits."""
    of_batch = jit(lambda params, x: jax.nn.softmax(model.apply(params, {}, x / np.float32(255), train=False)[0]))
    return lambda params, images: np.concatenate(
        [of_batch(params, images[i : i + BATCH]) for i in range(0, len(images), BATCH)], axis=1
    )


def measures(probs, labels, unknown):
    """Return the METRICS of one ensemble, from probabilities (members, N, K) of known and (members, M, K) of unknown
    images. The mutual information of one member is 0, and its AUROC NaN.
    """
    mean = probs.mean(0)
    entropies, mutual_informations = (
        [np.asarray(score(part)) for part in (probs, unknown)]
        for score in (uncertainty.predictive_entropy, uncertainty.mutual_information)
    )
    values = (
        (mean.argmax(-1) == labels).mean(),
        -np.log(np.maximum(mean[np.arange(len(labels)), labels], np.finfo(mean.dtype).tiny)).mean(),
        uncertainty.expected_calibration_error(mean, labels, BINS),
        uncertainty.ood_auroc(*entropies),
        uncertainty.ood_auroc(*mutual_informations) if len(probs) > 1 else np.nan,
    )
    return dict(zip(METRICS, map(float, values), strict=True))


def summary(rows):
    """Return mean and sample standard deviation of each metric; the std of one row is NaN."""
    std = lambda values: float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    columns = {name: [row[name] for row in rows] for name in METRICS}
    return {name: {"mean": float(np.mean(values)), "std": std(values)} for name, values in columns.items()}


def disjoint(probs, size):
    """Return the probabilities of disjoint ensembles: [probs[:size], probs[size : 2 size], ..]."""
    return [probs[start : start + size] for start in range(0, len(probs) - size + 1, size)]


@drawing
def draw(results, sampled, known, unknown, labels):
    """Metrics over the number of members; calibration and entropy of one network and of all."""
    panels = {"accuracy": "accuracy", "NLL": "negative log-likelihood", "ECE": "expected calibration error"}
    panels["AUROC"] = "detection of unknown images: AUROC"
    figure, axes = mosaic([[*panels], ["reliability 1", "reliability", "entropy 1", "entropy"]], 12, 6)
    sizes = [*results]
    for name, color in zip(METRICS, (BLUE, BLUE, BLUE, BLUE, GREEN), strict=True):
        panel, _, score = name.partition(" of ")
        mean, std = (np.array([results[size][name][part] for size in sizes]) for part in ("mean", "std"))
        ax, label = axes[panel], score or "ensemble"
        ax.errorbar(sizes, mean, np.nan_to_num(std), color=color, marker="o", capsize=3, label=label)
        value, std = sampled[name]["mean"], np.nan_to_num(sampled[name]["std"])
        note, shade = (f"{score}, MC dropout", color) if score else ("MC dropout", VERMILLION)
        ax.axhline(value, color=shade, linestyle="--", label=note)
        ax.axhspan(value - std, value + std, color=shade, alpha=0.12, linewidth=0)
    for name, title in panels.items():
        ax = axes[name]
        ax.set(title=title, xlabel="members", xscale="log")
        ax.set_xticks(sizes, sizes)
        ax.minorticks_off()
        if name in ("accuracy", "ECE"):
            ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    low, high = axes["AUROC"].get_ylim()
    axes["AUROC"].set_ylim(low - 0.7 * (high - low), high)  # room for the legend
    for name in panels:
        axes[name].legend(handlelength=1.1)
    for suffix, size in ((" 1", 1), ("", sizes[-1])):
        members = "one network" if size == 1 else f"ensemble of {size}"
        reliability(axes[f"reliability{suffix}"], known[:size].mean(0), labels, members)
        entropies(axes[f"entropy{suffix}"], known[:size], unknown[:size], members)
    return figure


def reliability(ax, probs, labels, members):
    confidence, accuracy, count = map(np.asarray, uncertainty.reliability_diagram(probs, labels, BINS))
    error = float(uncertainty.expected_calibration_error(probs, labels, BINS))
    filled = count > 0
    ax.bar((np.arange(BINS) + 0.5) / BINS, accuracy, 1 / BINS, color=BLUE, alpha=0.6, edgecolor=BLUE, label="accuracy")
    gap = {"color": VERMILLION, "linewidth": 2.5, "label": "gap to confidence"}
    ax.vlines(confidence[filled], accuracy[filled], confidence[filled], **gap)
    ax.plot([0, 1], [0, 1], "--", color=GRAY, label="calibrated")
    title = f"{members}: calibration error {100 * error:.1f} %"
    ax.set(title=title, xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="upper left")


def entropies(ax, known, unknown, members):
    bins = np.linspace(0, np.log(known.shape[-1]), 24)
    for probs, color, name in ((known, BLUE, "test digits"), (unknown, VERMILLION, "unknown images")):
        values = np.asarray(uncertainty.predictive_entropy(probs))
        ax.hist(values, bins, weights=np.full(len(values), 1 / len(values)), color=color, alpha=0.6, label=name)
    ax.set(title=f"{members}: entropy", xlabel="entropy in nats", ylabel="fraction of the images", ylim=(0, 1))
    ax.legend(loc="upper right")


def main(config):
    load_matplotlib()  # fail before training
    train.require(config, LIMITS)
    train.resolve(config["train"])
    sizes = config["members"]
    if not sizes or not all(type(size) is int and size > 0 for size in sizes) or sizes != sorted({*sizes}):
        raise train.ConfigError(f"members must be integers from 1 in ascending order, got {sizes}")
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    digits = digits._replace(images=digits.images[: config["digits"]], labels=digits.labels[: config["digits"]])
    images = test_digits.images, unknown_images(config["unknown"], test_digits.images)
    network = models.lenet5(dropout=config["dropout"])
    first, count = config["train"]["seed"], sizes[-1]
    run = train.Run("ensembles", config, root=config["runs"])
    seeds = {"seed": range(first, first + count)}
    swept = train.sweep(network, digits, over=seeds, eval_data=test_digits, config=config["train"], run=run)

    members = [(member.params, member.state) for member in swept.runs]
    predict = predictor(ensemble(network, count, combine=None))
    known, unknown = (predict(stack_members(members)[0], part) for part in images)
    results = {}
    for size in sizes:
        pairs = zip(disjoint(known, size), disjoint(unknown, size), strict=True)
        results[size] = summary([measures(a, test_digits.labels, b) for a, b in pairs])
    sample = predictor(monte_carlo(network, config["samples"], combine=None))
    with run.busy("Monte Carlo dropout"):
        rows = [measures(sample(p, images[0]), test_digits.labels, sample(p, images[1])) for p, _ in members]
    sampled = summary(rows)

    result = {f"ensemble of {size}": results[size] for size in sizes} | {"MC dropout": sampled}
    for name, metrics in result.items():
        run.say(f"{name:14} " + ", ".join(f"{metric} {value['mean']:.3f}" for metric, value in metrics.items()))
    first, last = results[sizes[0]], results[sizes[-1]]
    alt = (
        f"Metrics over the number of members, reliability diagrams and histograms of the entropy. Accuracy and "
        f"calibration error are {first['accuracy']['mean']:.1%} and {first['ECE']['mean']:.1%} with {sizes[0]} of the "
        f"networks, {last['accuracy']['mean']:.1%} and {last['ECE']['mean']:.1%} with {sizes[-1]}."
    )
    figure = draw(results, sampled, known, unknown, test_digits.labels)
    path = ConceptFigure("ensembles", figure, alt).save(run.folder)
    run.log(f"see {path}", **result)
    print(report.report(run.folder))
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
