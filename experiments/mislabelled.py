"""Five percent of the training labels are changed at random: the loss and the self-influence of examples find them.

    python -m experiments.mislabelled       fraction of the changed labels among the tenth of the digits with the
                                            largest loss or self-influence; a random choice would find a tenth

LeNet-5 is trained on digits, 5 % of them with a wrong label. The self-influence of an example is how much its loss
would grow if the model had been trained without it: large where the model had to memorize the label. It is computed
for the last layer on the features of the trained network, whose loss is convex. The run's folder holds the report and
mislabelled.svg: the digits with the largest self-influence, and how many wrong labels are found by inspecting more
digits. Needs pip install '.[train,plot]'.

Source: Koh and Liang, "Understanding black-box predictions via influence functions", 2017.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.concepts._figure import BLUE, GRAY, VERMILLION, ConceptFigure, drawing, image, load_matplotlib, mosaic
from jaxcnn import cross_entropy, curvature, data, dense, jit, models, report, serial, train, uncertainty

CONFIG = {
    "digits": 8000,
    "changed": 0.05,  # fraction of the labels
    "inspected": 0.1,  # fraction of the digits
    "damping": 1e-3,
    "train": {
        "seed": 0,
        "epochs": 6,
        "batch_size": 64,
        "optimizer": {"name": "adam", "learning_rate": 2e-3},
        "checkpoint": {"keep": 0},
    },
    "runs": "runs",
}
LIMITS = {"digits": (100, 8001), "changed": (0.001, 0.5), "inspected": (0.001, 1), "damping": (1e-12, math.inf)}
SHOWN = 40


def change_labels(labels, fraction, seed):
    """Return labels with a fraction of them replaced by one of the nine other classes, and which were replaced."""
    rng = np.random.default_rng(seed)
    changed = np.zeros(len(labels), bool)
    changed[rng.choice(len(labels), round(fraction * len(labels)), replace=False)] = True
    other = (labels + rng.integers(1, 10, len(labels))) % 10
    return np.where(changed, other, labels).astype(labels.dtype), changed


def losses_and_self_influence(head, features, labels, damping):
    """Return the loss and the self-influence of each example (N,), for the last layer's parameters."""
    loss_fn, flat, unravel = cross_entropy(dense(10)), *ravel_pytree(head)
    examples = {"image": features, "label": labels}
    one = curvature.example_loss(loss_fn, {})
    of_vector = lambda vector, example: one(unravel(vector), example)

    @jit
    def compute(flat):
        mean = curvature.mean_loss(loss_fn, {}, examples, batch_size=1000)
        product = functools.partial(curvature.hessian_vector_product, lambda vector: mean(unravel(vector)), flat)
        hessian = jax.lax.map(product, jnp.eye(flat.size), batch_size=50)  # 850 x 850: cheaper than products with it
        influence = curvature.self_influence(lambda v: hessian @ v, of_vector, flat, examples, damping=damping)
        return jax.vmap(of_vector, (None, 0))(flat, examples), influence

    return tuple(map(np.asarray, compute(flat)))


def found(scores, changed):
    """Return the fraction of changed labels among the n examples with the largest scores, for n = 1 to N."""
    order = np.argsort(-scores, kind="stable")
    return np.cumsum(changed[order]) / changed.sum()


@drawing
def draw(images, labels, changed, order, curves, inspected):
    columns = SHOWN // 4
    rows = [[f"digit {10 * row + column}" for column in range(columns)] for row in range(4)]
    layout = [[*row, "space", "curve", "curve", "curve", "curve", "curve"] for row in rows]
    figure, axes = mosaic(layout, 11, 3.6)
    axes["space"].set_axis_off()
    figure.suptitle("The digits with the largest self-influence: orange labels were changed", x=0.33, size=10)
    for i, example in enumerate(order[:SHOWN]):
        ax = axes[f"digit {i}"]
        image(ax, images[example, ..., 0])
        ax.set_title(str(labels[example]), size=11, pad=2, weight="bold" if changed[example] else "normal")
        if changed[example]:
            ax.title.set_color(VERMILLION)
    ax = axes["curve"]
    for (name, curve), color, width in zip(curves.items(), (VERMILLION, BLUE), (3.5, 1.5), strict=True):
        ax.plot(np.arange(1, len(curve) + 1) / len(curve), curve, color=color, linewidth=width, label=name)
    ax.plot([0, 1], [0, 1], "--", color=GRAY, label="random")
    ax.axvline(inspected, color=GRAY, linewidth=0.8)
    ax.set(xlabel="fraction of the digits inspected", ylabel="fraction of the changed labels found")
    ax.set(xlim=(0, min(1, 4 * inspected)), ylim=(0, 1.02))
    ax.legend(loc="lower right")
    return figure


def main(config):
    load_matplotlib()  # fail before training
    train.require(config, LIMITS)
    train.resolve(config["train"])
    for key in ("changed", "inspected"):
        if not round(config[key] * config["digits"]):
            raise train.ConfigError(
                f"{key}={config[key]} of {config['digits']} digits is none; choose a larger fraction"
            )
    digits, test_digits = (data.load("mnist_small", split) for split in ("train", "test"))
    images = digits.images[: config["digits"]]
    labels, changed = change_labels(digits.labels[: config["digits"]], config["changed"], config["train"]["seed"])
    lenet = models.lenet5(classes=None)
    run = train.Run("mislabelled", config, root=config["runs"])
    wrong = data.Dataset(images, labels, digits.classes)
    fitted = train.fit(
        serial(lenet=lenet, head=dense(10)), wrong, eval_data=test_digits, config=config["train"], run=run
    )
    features = jit(lambda x: lenet.apply(fitted.params["lenet"], {}, x / np.float32(255), train=False)[0])(images)
    loss, influence = losses_and_self_influence(fitted.params["head"], features, labels, config["damping"])

    scores = {"self-influence": influence, "loss": loss}
    curves = {name: found(values, changed) for name, values in scores.items()}
    at = max(1, round(config["inspected"] * len(labels))) - 1
    result = {"accuracy": fitted.history[-1]["test"]["accuracy"]}
    for name, curve in curves.items():
        auroc = float(uncertainty.ood_auroc(scores[name][~changed], scores[name][changed]))
        result[name] = {"found": float(curve[at]), "auroc": auroc}
    alt = (
        f"Forty digits with their labels in training, mostly wrong ones, and two curves. Among the "
        f"{config['inspected']:.0%} of the digits with the largest self-influence are "
        f"{result['self-influence']['found']:.0%} of the changed labels; with the largest loss, "
        f"{result['loss']['found']:.0%}."
    )
    order = np.argsort(-influence, kind="stable")
    figure = ConceptFigure("mislabelled", draw(images, labels, changed, order, curves, config["inspected"]), alt)
    path = figure.save(run.folder)
    for name in scores:
        run.say(
            f"{name:14} found {result[name]['found']:.1%} of {changed.sum()} changed labels among "
            f"{config['inspected']:.0%} of the digits; AUROC {result[name]['auroc']:.3f}"
        )
    run.log(f"see {path}", **result)
    print(report.report(run.folder))
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
