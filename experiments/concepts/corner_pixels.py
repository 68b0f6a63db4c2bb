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

from experiments.concepts._figure import ConceptFigure, command, drawing, image, panels
from jaxcnn import conv

PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": 2}


def window_counts(padding, side=6, size=3):
    """Return the number of windows that contain each pixel, (side, side)."""
    layer = conv(1, size, padding=padding, bias=False)
    params = {"kernel": jnp.ones((size, size, 1, 1))}
    output_sum = lambda x: layer.apply(params, {}, x, train=False)[0].sum()
    return np.asarray(jax.grad(output_sum)(jnp.zeros((1, side, side, 1)))[0, :, :, 0])


def measure():
    return {name: window_counts(padding) for name, padding in PADDINGS.items()}


@drawing
def draw(results):
    figure, axes = panels(1, 3, 6.4, 2.5)
    for ax, (name, count) in zip(axes[0], results.items(), strict=True):
        image(
            ax,
            count,
            f"{name}: corner {count[0, 0]:.0f}",
            cmap="cividis",
            limits=(0, 9),
            cell_format="{:.0f}".format,
            size=9,
        )
    return figure


def main(config):
    results = measure()
    for name, count in results.items():
        print(f"{name:5}: corner {count[0, 0]:.0f}, border {count[0, 3]:.0f}, middle {count[3, 3]:.0f}")
    alt = (
        "Three 6 x 6 grids show how many windows contain each pixel. Without padding: 1 at the corners, 9 in the "
        "middle. With SAME padding: 4 at the corners, 6 at the border. With full padding: 9 everywhere."
    )
    return ConceptFigure("corner_pixels", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
