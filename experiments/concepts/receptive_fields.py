"""Deeper layers see more of the image: a 3 x 3 window adds 2 pixels, and twice as many after each halving.

    python -m experiments.concepts.receptive_fields

The receptive field of a value in a feature map is the set of pixels that it depends on: those with a nonzero
derivative. After d layers of 3 x 3 it is 2 d + 1 pixels wide. With a stride of 2 in each layer, the width is
2^(d + 1) - 1. With a pooling layer of 2 after each, it is 3 * 2^d - 2. All weights are one here, so the derivative is
proportional to the number of paths from a pixel to the output: many for central pixels, few for the corners.
`explain.receptive_field` derives the same widths from the layers alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GREEN,
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    image,
    mosaic,
)
from jaxcnn import avg_pool, conv, explain, serial

SIDE, DEPTHS = 96, (1, 2, 3, 4)
ONES = jax.nn.initializers.ones
# Average pooling, because max pooling has a derivative at only one pixel per window. Both have the same field.
BLOCKS = {
    "3 x 3": serial(conv(1, kernel_init=ONES)),
    "3 x 3, stride 2": serial(conv(1, stride=2, kernel_init=ONES)),
    "3 x 3, pool 2": serial(conv(1, kernel_init=ONES), avg_pool(2)),
}


def center_gradient(model):
    """Return the derivative of the central output with respect to each pixel, (SIDE, SIDE)."""
    x = jnp.zeros((1, SIDE, SIDE, 1))
    params, state = model.init(jax.random.key(0), x)

    def center(x):
        y, _ = model.apply(params, state, x, train=False)
        return y[0, y.shape[1] // 2, y.shape[2] // 2, 0]

    return np.asarray(jax.grad(center)(x)[0, :, :, 0])


def measure():
    """Return for each block and depth: the derivative, the width of its support, and the width by `explain`."""
    results = {}
    for name, block in BLOCKS.items():
        for depth in DEPTHS:
            model = serial(*[block] * depth)
            derivative = center_gradient(model)
            analyzed = explain.receptive_field(model, jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32))
            results[name, depth] = {
                "derivative": derivative,
                "width": int(derivative.any(0).sum()),
                "explain": analyzed.layers[-1].fields[1].size,
            }
    return results


@drawing
def draw(results):
    figure, axes = mosaic("ZZZZ;ABCD;EFGH;IJKL", FIGURE_WIDTH, 5.8, height_ratios=[1.3, 1, 1, 1])
    for name, color, mark in zip(BLOCKS, (VERMILLION, BLUE, GREEN), "so^", strict=True):
        widths = [results[name, depth]["width"] for depth in DEPTHS]
        axes["Z"].plot(DEPTHS, widths, marker=mark, color=color, label=name)
    axes["Z"].set(xticks=DEPTHS, xlabel="depth", ylabel="pixels", ylim=(0, None), title="width of the receptive field")
    axes["Z"].legend()
    for letter, ((name, depth), result) in zip("ABCDEFGHIJKL", results.items(), strict=True):
        derivative = result["derivative"]
        rows, columns = (np.flatnonzero(derivative.any(axis)).mean().round().astype(int) for axis in (1, 0))
        half = max(result["width"] for result in results.values()) // 2 + 1
        part = derivative[rows - half : rows + half, columns - half : columns + half]
        image(axes[letter], np.sqrt(part / part.max()), f"{result['width']} pixels", cmap="cividis")
        if depth == 1:
            axes[letter].set_ylabel(name)
    for letter, depth in zip("IJKL", DEPTHS, strict=True):
        axes[letter].set_xlabel(f"depth {depth}")
    return figure


def main(config):
    results = measure()
    print(f"{'depth':17}" + "".join(f"{depth:5}" for depth in DEPTHS))
    for name in BLOCKS:
        print(f"{name:17}" + "".join(f"{results[name, depth]['width']:5}" for depth in DEPTHS))
    agree = all(result["width"] == result["explain"] for result in results.values())
    print(f"explain.receptive_field returns {'the same' if agree else 'different'} widths")
    alt = (
        "Top: the width of the receptive field against depth. With 3 x 3 windows it grows linearly to 9 pixels. It "
        "roughly doubles per layer with strides, to 31, and with pooling, to 46. Bottom: the receptive fields. They "
        "are squares that grow from left to right, bright at the center and dark at the corners."
    )
    return ConceptFigure("receptive_fields", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
