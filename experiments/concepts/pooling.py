"""A pool keeps one number of each window: max pooling that something is there, average pooling how much of it.

    python -m experiments.concepts.pooling

Windows of 2 x 2 side by side leave a quarter of the numbers; a global pool leaves one for each channel. On the way back
the largest value of a window gets its whole gradient, while an average divides it evenly.
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
    Shown,
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

    def total(x, pool):
        y, _ = pool.apply({}, {}, x, train=False)
        return y.sum(), y

    found = {}
    for name, pool in POOLS.items():
        gradient, y = jax.grad(total, has_aux=True)(x, pool)
        side = int(y.size**0.5)
        found[name] = {"output": np.reshape(y, (side, side)), "gradient": np.asarray(gradient[0, :, :, 0])}
    return found


@drawing
def draw(found):
    figure, axes = panels(2, 5, 6.4, 3.1)
    colors = (BLUE, VERMILLION, GREEN, ORANGE)
    as_fraction = lambda value: str(Fraction(float(value)))
    image(axes[0, 0], MAP, "feature map", limits=(-4, 9), numbers=str)
    axes[1, 0].set_axis_off()
    axes[1, 0].text(0.5, 0.5, "where the\ngradient goes", ha="center", va="center", transform=axes[1, 0].transAxes)
    for (above, below), (name, result) in zip(axes.T[1:], found.items(), strict=True):
        image(above, result["output"], name, limits=(-4, 9), numbers="{:g}".format)
        image(below, result["gradient"], cmap="cividis", limits=(0, 1), numbers=as_fraction, size=7)
    for n, color in enumerate(colors):
        i, j = divmod(n, 2)
        frame(axes[0, 0], 2 * i, 2 * j, 2, 2, color)
        for ax in axes[0, 1:3]:
            frame(ax, i, j, 1, 1, color)
    return figure


def main(config):
    found = measure()
    for name, result in found.items():
        output = " ".join(f"{value:g}" for value in result["output"].ravel())
        share = result["gradient"][result["gradient"] > 0]
        print(f"{name:14}: {output:8} gradient {share[0]:g} at {share.size} of {MAP.size} numbers")
    alt = (
        "A feature map of 4 x 4 with a frame around each window of 2 x 2. Max pooling keeps 7, 2, 3 and 8, average "
        "pooling 4, 1, 1 and 4; globally 8 and 2.5. Below, the gradients: a single 1 in each window for the maximum, a "
        "quarter, or a sixteenth, everywhere for the average."
    )
    return Shown("pooling", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
