"""Each output of a convolution is the sum of a patch times the kernel: nine weights, reused at nine positions.

    python -m experiments.concepts.sliding_kernel

A 3 x 3 kernel fits at nine positions of a 5 x 5 image. Here the kernel is a cross. The top left of the image contains
the same cross: patch and kernel match, and the output is largest. A kernel detects the pattern that it contains.
"""

import numpy as np

from experiments.concepts._figure import FIGURE_WIDTH, ConceptFigure, command, drawing, frame, image, panels
from jaxcnn import conv

IMAGE = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, 1], [1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [0, 1, 0, 0, 1]])
KERNEL = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1]])


def patch_products(image, kernel):
    """Return the nine products at each kernel position, (rows, columns, 3, 3). `conv` computes their sums."""
    rows, columns = (n - k + 1 for n, k in zip(image.shape, kernel.shape, strict=True))
    return np.array([[image[i : i + 3, j : j + 3] * kernel for j in range(columns)] for i in range(rows)])


def convolve(image, kernel):
    """Return the output of `conv`, (rows, columns)."""
    layer = conv(1, 3, padding="VALID", bias=False)
    params = {"kernel": kernel[:, :, None, None].astype(np.float32)}
    y, _ = layer.apply(params, {}, image[None, :, :, None].astype(np.float32), train=False)
    return np.asarray(y[0, :, :, 0])


def measure():
    return {"products": patch_products(IMAGE, KERNEL), "output": convolve(IMAGE, KERNEL)}


@drawing
def draw(results):
    figure, axes = panels(3, 4, FIGURE_WIDTH, 4.7)
    for (i, j), value in np.ndenumerate(results["output"]):
        ax = axes[i, j]
        terms = [str(term) for term in results["products"][i, j].ravel()]
        products = f"{'+'.join(terms[:5])}\n+{'+'.join(terms[5:])} = {value:.0f}"
        image(ax, IMAGE, products, limits=(-0.6, 1.2), cell_format=str)
        frame(ax, i, j, 3, 3)
    image(axes[0, 3], KERNEL, "kernel", limits=(-0.6, 1.2), cell_format=str)
    image(axes[1, 3], results["output"], "output", cmap="cividis", cell_format="{:.0f}".format)
    axes[2, 3].set_axis_off()
    return figure


def main(config):
    results = measure()
    for (i, j), value in np.ndenumerate(results["output"]):
        print(f"row {i}, column {j}:", " + ".join(map(str, results["products"][i, j].ravel())), f"= {value:.0f}")
    alt = (
        "Nine copies of a 5 x 5 image of zeros and ones. A frame marks one 3 x 3 patch in each; the title shows the "
        "nine products and their sum. Right: the kernel, a cross of five ones, and the 3 x 3 output. The output is "
        "largest at the top left, where the image contains the same cross."
    )
    return ConceptFigure("sliding_kernel", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
