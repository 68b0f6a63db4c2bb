"""Gradient descent learns an edge detector from examples; it diverges above 2 / the largest eigenvalue of the Hessian.

    python -m experiments.concepts.gradient_descent

Images of digits and the outputs of an unknown filter are given. A 3 x 3 filter starts with random weights. Each step
moves them against the gradient of the mean squared error, w - rate * gradient, and the filter becomes the unknown one,
1, 0, -1 in each row, which detects vertical edges.

The loss is quadratic in the weights. Along each eigenvector of its Hessian, a step multiplies the error of the weights
by 1 - rate * eigenvalue. If the rate exceeds 2 / eigenvalue, this factor is below -1, and the error grows. So the
largest eigenvalue limits the learning rate. The smallest ones determine how many steps are needed: along their
eigenvectors the factor is close to 1. In deep networks the Hessian changes during training, but the limit remains a
useful estimate.
"""

import functools

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
    image,
    mosaic,
    signed,
)
from experiments.concepts.edge_detection import KERNELS
from jaxcnn import conv, curvature, mean_squared_error

TARGET = np.array(KERNELS["vertical edges"], np.float32)
MODEL = conv(1, 3, padding="VALID", bias=False)
IMAGES = 20
FACTORS = (0.5, 0.95, 1.05)  # learning rates, relative to the limit
STEPS, DRAWN = 500, 60
SHOWN = (0, 10, STEPS)  # numbers of steps after which the filter is drawn


def as_params(kernel):
    return {"kernel": np.asarray(kernel, np.float32)[:, :, None, None]}


def apply(params, images):
    return MODEL.apply(params, {}, images, train=False)[0]


def descend(loss, params, rate, steps):
    """Return the params and the loss before each step of gradient descent, and after the last."""
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    path, losses = [], []
    for _ in range(steps + 1):
        value, gradient = value_and_grad(params)
        path.append(params)
        losses.append(float(value))
        params = jax.tree.map(lambda w, g: w - rate * g, params, gradient)
    return path, losses


def measure():
    """Return the limit of the learning rate, the losses for each factor, and the filters of the best one."""
    images = digits("test")[0][:IMAGES]
    batch = {"image": images, "label": np.asarray(apply(as_params(TARGET), images))}
    loss = curvature.mean_loss(mean_squared_error(MODEL), {}, batch)
    start, _ = MODEL.init(jax.random.key(0), images)
    product = functools.partial(curvature.hessian_vector_product, loss, start)
    largest = float(curvature.top_eigenvalues(product, start, steps=TARGET.size).values[0])
    runs = {factor: descend(loss, start, factor * 2 / largest, STEPS) for factor in FACTORS}
    path = [params["kernel"][:, :, 0, 0] for params in runs[FACTORS[1]][0]]
    return {
        "limit": 2 / largest,
        "losses": {factor: losses for factor, (_, losses) in runs.items()},
        "filters": {step: np.asarray(path[step]) for step in SHOWN},
        "digit": images[0, :, :, 0],
        "outputs": {step: np.asarray(apply(as_params(path[step]), images[:1])[0, :, :, 0]) for step in (0, STEPS)},
    }


def weight_error(kernel):
    return np.abs(kernel - TARGET).max()


@drawing
def draw(results):
    figure, axes = mosaic("ABC;LLL;XYZ", FIGURE_WIDTH, 6, height_ratios=[1, 1.3, 1.1])
    for letter, (step, kernel) in zip("ABC", results["filters"].items(), strict=True):
        title = f"{step} steps:\nlargest error {weight_error(kernel):.1g}" if step else "start"
        image(axes[letter], kernel, title, cell_format="{:z.1f}".format, **signed(TARGET))
    ax = axes["L"]
    for (factor, losses), color, style in zip(
        results["losses"].items(), (BLUE, GREEN, VERMILLION), ("-", "--", "-"), strict=True
    ):
        rate = factor * results["limit"]
        ax.plot(losses[: DRAWN + 1], style, color=color, label=f"{rate:.2f} = {factor} x limit")
    ax.axhline(results["losses"][FACTORS[0]][0], color=GRAY, lw=0.8, label="loss at the start")
    ax.set(yscale="log", ylim=(1e-6, 1e3), xlabel="step", ylabel="loss", yticks=(1e-3, 1e-1, 10, 1000))
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_title(f"limit of the learning rate: 2 / {2 / results['limit']:.3f} = {results['limit']:.2f}")
    ax.legend(loc="lower left", ncols=2)
    largest = np.abs(results["outputs"][STEPS]).max()
    image(axes["X"], results["digit"], "a digit")
    for letter, step in (("Y", 0), ("Z", STEPS)):
        clipped = results["outputs"][step].clip(-largest, largest)
        image(axes[letter], clipped, f"output: {step} steps" if step else "output: start", **signed(largest))
    return figure


def main(config):
    results = measure()
    print(f"largest eigenvalue of the Hessian {2 / results['limit']:.4f}: the learning rate must be below", end=" ")
    print(f"{results['limit']:.4f}")
    shown = (0, 10, 50, 100, STEPS)
    print(f"{'learning rate':24}" + "".join(f"{f'step {step}':>12}" for step in shown) + "   loss")
    for factor, losses in results["losses"].items():
        rate = f"{factor * results['limit']:.3f} = {factor} x limit"
        print(f"{rate:24}" + "".join(f"{losses[step]:12.2g}" for step in shown))
    error = weight_error(results["filters"][STEPS])
    print(f"largest error of a weight after {STEPS} steps: {error:.1g}")
    alt = (
        f"Top: a 3 x 3 filter at the start, after {SHOWN[1]} and {STEPS} steps. It becomes 1, 0, -1 up to "
        f"{error:.1g}. Middle: the loss for three learning rates. At half of the limit "
        f"{results['limit']:.2f} and just below, it falls; above, it grows without bound. Bottom: a digit and the "
        "output of the filter before and after training, which shows vertical edges."
    )
    return ConceptFigure("gradient_descent", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
