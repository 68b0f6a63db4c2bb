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
    figure, axes = panels(2, 5, 6.4, 3.1)
    colors = (BLUE, VERMILLION, GREEN, ORANGE)
    as_fraction = lambda value: str(Fraction(float(value)))
    image(axes[0, 0], MAP, "feature map", limits=(-4, 9), cell_format=str)
    axes[1, 0].set_axis_off()
    axes[1, 0].text(0.5, 0.5, "gradient of\nthe input", ha="center", va="center", transform=axes[1, 0].transAxes)
    for (above, below), (name, result) in zip(axes.T[1:], results.items(), strict=True):
        image(above, result["output"], name, limits=(-4, 9), cell_format="{:g}".format)
        image(below, result["gradient"], cmap="cividis", limits=(0, 1), cell_format=as_fraction, size=7)
    for n, color in enumerate(colors):
        i, j = divmod(n, 2)
        frame(axes[0, 0], 2 * i, 2 * j, 2, 2, color)
        for ax in axes[0, 1:3]:
            frame(ax, i, j, 1, 1, color)
    return figure


def main(config):
    results = measure()
    for name, result in results.items():
        output = " ".join(f"{value:g}" for value in result["output"].ravel())
        nonzero = result["gradient"][result["gradient"] > 0]
        print(f"{name:14}: {output:8} gradient {nonzero[0]:g} at {nonzero.size} of {MAP.size} values")
    alt = (
        "Top: a 4 x 4 feature map with a frame around each 2 x 2 window. Max pooling outputs 7, 2, 3 and 8; average "
        "pooling 4, 1, 1 and 4. Global max pooling outputs 8, global average pooling 2.5. Bottom: the gradients. Max "
        "pooling has a single 1 per window. Average pooling has 1/4 everywhere, or 1/16 if it is global."
    )
    return ConceptFigure("pooling", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
