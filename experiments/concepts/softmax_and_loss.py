"""Softmax turns logits into probabilities; the gradient of the loss by the logits is p - 1 for the label, p elsewhere.

    python -m experiments.concepts.softmax_and_loss

The last layer is fully connected: each logit is a weighted sum of all features, z = x W + b. Softmax divides the powers
e^z by their sum, so the probabilities are positive and add up to one. Adding a number to all logits changes nothing.
The cross-entropy is -log p of the label: zero if the network is certain and right, and without limit if it is certain
and wrong.

Its gradient with respect to the logits is p - onehot, where onehot is 1 for the label and 0 for all other classes. A
step of gradient descent raises the logit of the label and lowers all others. The closer p is to the label, the smaller
the step. The gradient with respect to the weights is the product of each feature with p - onehot.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GRAY,
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    image,
    mosaic,
    signed,
)
from jaxcnn import as_layer, cross_entropy, dense, identity

CLASSES, LABEL = ("cat", "dog", "ship"), 1
FEATURES = np.array([[2.0, 1.0, 0.0, 1.0]])
WEIGHTS = np.array([[1.0, 0.5, -1.0], [0.0, 1.0, 0.0], [0.5, 0.0, 2.0], [0.0, -1.0, 1.0]])
RATE = 1.0  # of one step of gradient descent on the logits


def gradient(model, params, inputs):
    """Return the cross-entropy for the label, and its gradients with respect to the params and inputs of a model."""
    loss_fn = cross_entropy(model)

    def loss(params, inputs):
        return loss_fn(params, {}, {"image": inputs, "label": jnp.array([LABEL])}, train=True)[0]

    return jax.value_and_grad(loss, argnums=(0, 1))(params, jnp.asarray(inputs, jnp.float32))


def measure():
    head = dense(len(CLASSES), bias=False)
    params = {"kernel": jnp.asarray(WEIGHTS, jnp.float32)}
    logits, _ = head.apply(params, {}, jnp.asarray(FEATURES, jnp.float32), train=False)
    loss, (_, by_logits) = gradient(as_layer(identity), {}, logits)
    _, (by_weights, _) = gradient(head, params, FEATURES)
    return {
        "logits": np.asarray(logits[0]),
        "probabilities": np.asarray(jax.nn.softmax(logits[0])),
        "of shifted logits": np.asarray(jax.nn.softmax(logits[0] + 10)),
        "loss": float(loss),
        "gradient": np.asarray(by_logits[0]),
        "gradient of weights": np.asarray(by_weights["kernel"]),
        "after a step": np.asarray(jax.nn.softmax(logits[0] - RATE * by_logits[0])),
    }


def differences(results):
    """Return the largest differences of the gradients by logits and weights from p - onehot and features x that."""
    powers = np.exp(results["logits"], dtype=np.float64)
    expected = powers / powers.sum() - np.eye(len(CLASSES))[LABEL]
    by_logits, by_weights = results["gradient"], results["gradient of weights"]
    return np.abs(by_logits - expected).max(), np.abs(by_weights - FEATURES.T * expected).max()


@drawing
def draw(results):
    figure, axes = mosaic("XWWZZ;PPPPP;GGGGG", FIGURE_WIDTH, 5.2, height_ratios=[1.1, 1, 1])
    image(axes["X"], FEATURES.T, "features", cmap="cividis", cell_format="{:g}".format)
    image(axes["W"], WEIGHTS, "weights", cell_format="{:g}".format, **signed(WEIGHTS))
    image(axes["Z"], results["logits"][None], "logits", cell_format="{:.0f}".format, **signed(results["logits"]))
    for letter in "WZ":
        axes[letter].set_xticks(range(len(CLASSES)), CLASSES)
        axes[letter].tick_params(length=0)
    at, label = np.arange(len(CLASSES)), CLASSES[LABEL]
    p, after = results["probabilities"], results["after a step"]
    for values, side, color, name in ((p, -0.2, BLUE, "softmax"), (after, 0.2, GRAY, "after a step")):
        bars = axes["P"].bar(at + side, values, 0.38, color=color, label=name)
        axes["P"].bar_label(bars, [f"{value:.2f}" for value in values])
    loss = f"\N{MINUS SIGN}log {p[LABEL]:.2f} = {results['loss']:.2f}"
    axes["P"].set_title(f"probabilities; label {label}: loss = {loss}")
    axes["P"].legend()
    colors = [BLUE if value < 0 else VERMILLION for value in results["gradient"]]
    values = [f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") for value in results["gradient"]]
    axes["G"].bar_label(axes["G"].bar(at, results["gradient"], 0.38, color=colors), values, padding=2)
    axes["G"].axhline(0, color=GRAY, lw=0.8)
    error, _ = differences(results)
    axes["G"].set_title(f"gradient by the logits: p \N{MINUS SIGN} onehot; difference from autodiff {error:.0e}")
    for letter in "PG":
        axes[letter].set_xticks(at, CLASSES)
        axes[letter].set_yticks([])
        axes[letter].margins(y=0.45)
        axes[letter].spines["left"].set_visible(False)
    return figure


def main(config):
    results = measure()
    print(f"{'':30}" + "".join(f"{name:>9}" for name in CLASSES))
    for name in ("logits", "probabilities", "of shifted logits", "gradient", "after a step"):
        heading = {"of shifted logits": "probabilities of logits + 10", "after a step": "probabilities after a step"}
        print(f"{heading.get(name, name):30}" + "".join(f"{value:9.4f}" for value in results[name]))
    print(f"loss for the label {CLASSES[LABEL]}: {results['loss']:.4f}")
    by_logits, by_weights = differences(results)
    print(f"the gradient by the logits differs from p - onehot by {by_logits:.0e}")
    print(f"the gradient by the weights differs from features x (p - onehot) by {by_weights:.0e}")
    alt = (
        "Top: four features, their weights for three classes, and the logits cat 2, dog 1, ship -1. Middle: bars of "
        f"the probabilities, {', '.join(f'{value:.2f}' for value in results['probabilities'])}; the loss for the label "
        f"dog is {results['loss']:.2f}. After a gradient step, dog has {results['after a step'][LABEL]:.2f}. Bottom: "
        "bars of the gradient. It is positive for cat and ship and negative for dog."
    )
    return ConceptFigure("softmax_and_loss", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
