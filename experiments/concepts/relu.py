"""Without a nonlinearity, layers collapse to a single linear layer; with ReLU between them, they separate two rings.

    python -m experiments.concepts.relu

Three fully connected layers without a nonlinearity compute ((x A + a) B + b) C + c = x (A B C) + (a B C + b C + c): one
layer, whose boundary between two classes is a straight line. No line separates a ring from a ring around it. The same
holds for convolutions: two of 3 x 3 without a nonlinearity are one of 5 x 5.

ReLU, max(x, 0), is linear on each side of zero. A network with ReLU is linear in many pieces, and its boundary can
close. The layer with the product of its weights computes something else.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GRAY,
    VERMILLION,
    ConceptFigure,
    colors,
    command,
    drawing,
    panels,
)
from jaxcnn import cross_entropy, dense, identity, serial, train

POINTS, RADII, NOISE, EDGE = 60, (0.8, 2.0), 0.15, 2.6
STEPS, LEARNING_RATE = 300, 0.02


def network(activation):
    return serial(dense(16), activation, dense(16), activation, dense(2))


NETWORKS = {"without ReLU": network(identity), "with ReLU": network(jax.nn.relu)}


def rings(seed=0):
    """Return points (2 POINTS, 2) on two rings, and the number of their ring, 0 or 1."""
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], POINTS)
    angle = rng.uniform(0, 2 * np.pi, len(label))
    radius = np.array(RADII)[label] + rng.normal(0, NOISE, len(label))
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return points.astype(np.float32), label.astype(np.int32)


def trained(model, points, label):
    """Train a model on all points at once. Return its params."""
    optimizer = optax.adam(LEARNING_RATE)
    train_state = train.TrainState.create(model, optimizer, jax.random.key(0), points)
    step = train.make_step(cross_entropy(model), optimizer)
    for _ in range(STEPS):
        train_state, _ = step(train_state, {"image": points, "label": label})
    return train_state.params


def collapsed(params):
    """Return the params of one dense layer that equals the dense layers of a network without a nonlinearity."""
    kernel, bias = jnp.eye(2), jnp.zeros(2)
    for layer in params.values():
        kernel, bias = kernel @ layer["kernel"], bias @ layer["kernel"] + layer["bias"]
    return {"kernel": kernel, "bias": bias}


def measure():
    """Return for each network: its logits, those of the collapsed layer, the accuracy, and the classes of a grid."""
    points, label = rings()
    axis = np.linspace(-EDGE, EDGE, 80, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    results = {}
    for name, model in NETWORKS.items():
        params = trained(model, points, label)
        logits, _ = model.apply(params, {}, points, train=False)
        one_layer, _ = dense(2).apply(collapsed(params), {}, points, train=False)
        results[name] = {
            "logits": np.asarray(logits),
            "collapsed": np.asarray(one_layer),
            "difference": float(np.abs(logits - one_layer).max() / np.abs(logits).max()),
            "accuracy": float((logits.argmax(-1) == label).mean()),
            "classes": np.asarray(model.apply(params, {}, grid, train=False)[0].argmax(-1)),
        }
    return results


@drawing
def draw(results):
    figure, axes = panels(2, 2, FIGURE_WIDTH, 4.7)
    points, label = rings()
    for (above, below), (name, result) in zip(axes.T, results.items(), strict=True):
        side = (-EDGE, EDGE)
        background = {"extent": side * 2, "origin": "lower", "interpolation": "none"}
        above.imshow(result["classes"], colors(["#bcdcf0", "#f6cfae"]), **background)
        for ring, color in enumerate((BLUE, VERMILLION)):
            above.plot(*points[label == ring].T, "o", color=color, markersize=3)
        above.set(xticks=[], yticks=[], title=f"{name}:\n{result['accuracy']:.0%} correct")
        above.spines[:].set_visible(False)
        below.axline((0, 0), slope=1, color=GRAY, lw=0.8)
        below.plot(result["logits"][:, 0], result["collapsed"][:, 0], "o", color=BLUE, markersize=3)
        below.set(title=f"difference / largest logit: {result['difference']:.1g}", xlabel="logit of three layers")
    axes[1, 0].set_ylabel("logit of one layer")
    return figure


def main(config):
    results = measure()
    print(f"{'three layers':14}  accuracy   relative difference to one layer with the product of the weights")
    for name, result in results.items():
        print(f"{name:14}{result['accuracy']:10.1%}   {result['difference']:.1e}")
    linear, curved = results.values()
    alt = (
        "Top: points on two rings and the classes that two networks assign to the plane. Without ReLU, a straight line "
        f"divides it, and {linear['accuracy']:.0%} of the points are correct. With ReLU, a closed curve between the "
        f"rings divides it, and {curved['accuracy']:.0%} are correct. Bottom: the logits of three layers against those "
        "of one layer with the product of the weights. Without ReLU, they are equal; with ReLU, they are not."
    )
    return ConceptFigure("relu", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
