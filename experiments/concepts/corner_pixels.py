"""Without padding, a corner pixel is used once where one in the middle is used nine times, and the image shrinks.

    python -m experiments.concepts.corner_pixels

How often is a pixel used? If all weights are one, the outputs add up to the sum of all pixels, each times the number of
windows that it is in: that number is the derivative of the sum of outputs for the pixel. With zeros around the image
("SAME") its size stays and a corner is used four times; with two rows of zeros (p = k - 1, "full") all pixels are used
alike.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import Shown, command, drawing, image, panels
from jaxcnn import conv

PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": 2}


def uses(padding, side=6, size=3):
    """How many windows each pixel of an image is in, (side, side)."""
    layer = conv(1, size, padding=padding, bias=False)
    params = {"kernel": jnp.ones((size, size, 1, 1))}
    total = lambda x: layer.apply(params, {}, x, train=False)[0].sum()
    return np.asarray(jax.grad(total)(jnp.zeros((1, side, side, 1)))[0, :, :, 0])


def measure():
    return {name: uses(padding) for name, padding in PADDINGS.items()}


@drawing
def draw(found):
    figure, axes = panels(1, 3, 6.4, 2.5)
    for ax, (name, count) in zip(axes[0], found.items(), strict=True):
        image(
            ax,
            count,
            f"{name}: corner {count[0, 0]:.0f}",
            cmap="cividis",
            limits=(0, 9),
            numbers="{:.0f}".format,
            size=9,
        )
    return figure


def main(config):
    found = measure()
    for name, count in found.items():
        print(f"{name:5}: corner {count[0, 0]:.0f}, border {count[0, 3]:.0f}, middle {count[3, 3]:.0f}")
    alt = (
        "Three images of 6 x 6 with the number of times that each pixel is used. Without padding the corners have 1, "
        "the middle 9. With SAME the corners have 4 and the border 6. With full padding all have 9."
    )
    return Shown("corner_pixels", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
