"""Every output of a convolution is a patch of the image times the kernel, added up: nine weights, used nine times.

    python -m experiments.concepts.sliding_kernel

A kernel of 3 x 3 has nine places on an image of 5 x 5. Here it is a cross, and so is the pattern at the top left of
the image: where patch and kernel agree, the sum is largest. A kernel is a pattern that is looked for.
"""

import numpy as np

from experiments.concepts._figure import Shown, command, drawing, frame, image, panels
from jaxcnn import conv

IMAGE = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [0, 1, 0, 0, 1]])
KERNEL = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def steps(image, kernel):
    """The nine products at each place of the kernel, (rows, columns, 3, 3): what `conv` adds up, written as loops."""
    rows, columns = (n - k + 1 for n, k in zip(image.shape, kernel.shape, strict=True))
    return np.array([[image[i : i + 3, j : j + 3] * kernel for j in range(columns)] for i in range(rows)])


def convolve(image, kernel):
    """The same by jaxcnn, added up: (rows, columns)."""
    layer = conv(1, 3, padding="VALID", bias=False)
    params = {"kernel": kernel[:, :, None, None].astype(np.float32)}
    y, _ = layer.apply(params, {}, image[None, :, :, None].astype(np.float32), train=False)
    return np.asarray(y[0, :, :, 0])


def measure():
    return {"products": steps(IMAGE, KERNEL), "output": convolve(IMAGE, KERNEL)}


@drawing
def draw(found):
    figure, axes = panels(3, 4, 6.4, 5.2)
    for (i, j), value in np.ndenumerate(found["output"]):
        ax = axes[i, j]
        terms = "+".join(str(term) for term in found["products"][i, j].ravel())
        image(ax, IMAGE, f"{terms} = {value:.0f}", limits=(-0.6, 1.2), numbers=str)
        ax.title.set_size(7.5)
        frame(ax, i, j, 3, 3)
    image(axes[0, 3], KERNEL, "kernel", limits=(-0.6, 1.2), numbers=str)
    image(axes[1, 3], found["output"], "output", cmap="cividis", numbers="{:.0f}".format)
    axes[2, 3].set_axis_off()
    return figure


def main(config):
    found = measure()
    for (i, j), value in np.ndenumerate(found["output"]):
        print(f"row {i}, column {j}:", " + ".join(map(str, found["products"][i, j].ravel())), f"= {value:.0f}")
    alt = (
        "Nine copies of an image of 5 x 5 zeros and ones, a frame of 3 x 3 around another place in each, with the "
        "nine products and their sum. Beside them the kernel, a cross of five ones, and the output of 3 x 3, largest "
        "at the top left, where the image has the same cross."
    )
    return Shown("sliding_kernel", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
