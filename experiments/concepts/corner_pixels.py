"""Without padding, a corner pixel contributes to one output, a central pixel to nine, and the image shrinks.

    python -m experiments.concepts.corner_pixels

How many windows contain a given pixel? With all weights set to one, the sum of the outputs is a weighted sum of the
pixels. The weight of a pixel is the number of windows that contain it. It equals the derivative of the sum with respect
to the pixel. "SAME" padding keeps the image size, and a corner pixel is used four times. With two rows of zeros on each
side (p = k - 1, "full"), all pixels are used equally often.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import FIGURE_WIDTH, ConceptFigure, command, drawing, image, panels
from jaxcnn import conv

PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": 2}


def window_counts(padding, side=6, size=3):
    """Return the number of windows that contain each pixel, (side, side), and the side of the output."""
    layer = conv(1, size, padding=padding, bias=False)
    params = {"kernel": jnp.ones((size, size, 1, 1))}

    def output_sum(x):
        y, _ = layer.apply(params, {}, x, train=False)
        return y.sum(), y.shape[1]

    gradient, output_side = jax.grad(output_sum, has_aux=True)(jnp.zeros((1, side, side, 1)))
    return np.asarray(gradient[0, :, :, 0]), output_side


def measure():
    return {name: window_counts(padding) for name, padding in PADDINGS.items()}


@drawing
def draw(results):
    figure, axes = panels(1, 3, FIGURE_WIDTH, 2.3)
    for ax, (name, (count, side)) in zip(axes[0], results.items(), strict=True):
        title = f"{name}: {side} x {side} outputs\ncorner {count[0, 0]:.0f}, center {count[3, 3]:.0f}"
        image(ax, count, title, cmap="cividis", limits=(0, 9), cell_format="{:.0f}".format)
    return figure


def main(config):
    results = measure()
    for name, (count, side) in results.items():
        windows = f"corner {count[0, 0]:.0f}, border {count[0, 3]:.0f}, middle {count[3, 3]:.0f}"
        print(f"{name:5}: {windows}; 6 x 6 pixels, {side} x {side} outputs")
    alt = (
        "Three 6 x 6 grids show how many windows contain each pixel. Without padding: 1 at the corners, 9 in the "
        "middle, and 4 x 4 outputs. With SAME padding: 4 at the corners, 6 at the border, 6 x 6 outputs. With full "
        "padding: 9 everywhere, 8 x 8 outputs."
    )
    return ConceptFigure("corner_pixels", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
