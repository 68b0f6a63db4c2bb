"""Pooling reduces a window to one value: the maximum shows whether a feature is present, the average how much of it.

    python -m experiments.concepts.pooling

Pooling over adjacent 2 x 2 windows keeps a quarter of the values. Global pooling keeps one value per channel. In the
backward pass, max pooling passes the whole gradient to the largest value of each window. Average pooling divides it
evenly.
"""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    GREEN,
    ORANGE,
    VERMILLION,
    ConceptFigure,
    command,
    drawing,
    frame,
    image,
    panels,
)
from jaxcnn import as_layer, avg_pool, global_avg_pool, global_max_pool, max_pool

MAP = np.array([[1, 3, 2, 0], [5, 7, 0, 2], [0, 1, 8, 4], [0, 3, 4, 0]])
POOLS = {
    "max": max_pool(2),
    "average": avg_pool(2),
    "global max": as_layer(global_max_pool),
    "global average": as_layer(global_avg_pool),
}


def measure():
    x = jnp.asarray(MAP, jnp.float32)[None, :, :, None]

    def output_sum(x, pool):
        y, _ = pool.apply({}, {}, x, train=False)
        return y.sum(), y

    results = {}
    for name, pool in POOLS.items():
        gradient, y = jax.grad(output_sum, has_aux=True)(x, pool)
        side = int(y.size**0.5)
        results[name] = {"output": np.reshape(y, (side, side)), "gradient": np.asarray(gradient[0, :, :, 0])}
    return results


@drawing
def draw(results):
    figure, axes = panels(4, 3, FIGURE_WIDTH, 6.3)
    as_fraction = lambda value: str(Fraction(float(value)))
    for row, (name, result) in zip(axes, results.items(), strict=True):
        image(row[0], MAP, limits=(-4, 9), cell_format=str)
        image(row[1], result["output"], limits=(-4, 9), cell_format="{:g}".format)
        image(row[2], result["gradient"], cmap="cividis", limits=(0, 1), cell_format=as_fraction)
        row[0].set_ylabel(name)
        side = len(result["output"])
        window = len(MAP) // side
        for color, (i, j) in zip((BLUE, VERMILLION, GREEN, ORANGE), np.ndindex(side, side), strict=False):
            frame(row[0], window * i, window * j, window, window, color)
            frame(row[1], i, j, 1, 1, color)
    for ax, title in zip(axes[0], ("feature map", "output", "gradient of\nthe sum of outputs"), strict=True):
        ax.set_title(title)
    return figure


def main(config):
    results = measure()
    for name, result in results.items():
        output = " ".join(f"{value:g}" for value in result["output"].ravel())
        nonzero = result["gradient"][result["gradient"] > 0]
        print(f"{name:14}: {output:8} gradient {nonzero[0]:g} at {nonzero.size} of {MAP.size} values")
    alt = (
        "A row for each pool: a 4 x 4 feature map with a frame around each window, the output and the gradient of the "
        "map. Max pooling of 2 x 2 outputs 7, 2, 3 and 8; average pooling 4, 1, 1 and 4. Global max pooling outputs 8, "
        "global average pooling 2.5. The gradient of max pooling has a single 1 per window. That of average pooling is "
        "1/4 everywhere, or 1/16 if it is global."
    )
    return ConceptFigure("pooling", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
