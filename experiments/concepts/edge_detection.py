"""A 3 x 3 kernel detects edges: [[1, 0, -1]] * 3 responds where brightness changes horizontally, and only there.

    python -m experiments.concepts.edge_detection

On a uniform area, the left and right columns of the kernel cancel, and the output is zero. At a vertical edge they do
not. The transposed kernel detects horizontal edges. Sobel kernels double the weight of the middle row or column. The
Laplacian detects edges in all directions, and the mean blurs. Kernels whose weights sum to zero do not respond to
constant brightness. Kernels whose weights sum to one preserve it. One convolution with seven filters computes all
seven outputs. A network learns its kernels from data instead.
"""

import numpy as np

from experiments.concepts._digits import digits
from experiments.concepts._figure import (
    FIGURE_WIDTH,
    GREEN,
    ConceptFigure,
    command,
    drawing,
    frame,
    image,
    mosaic,
    signed,
)
from jaxcnn import conv

KERNELS = {
    "vertical edges": [[1, 0, -1], [1, 0, -1], [1, 0, -1]],
    "horizontal edges": [[1, 1, 1], [0, 0, 0], [-1, -1, -1]],
    "Sobel, vertical": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    "Sobel, horizontal": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "Laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "blur": [[1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
}
HALF = np.repeat([[10, 10, 10, 0, 0, 0]], 6, axis=0)  # light on the left, dark on the right


def responses(image):
    """Convolve an image (H, W) with each kernel. Return {name: (H - 2, W - 2)}."""
    kernel = np.stack([*KERNELS.values()], axis=-1)[:, :, None].astype(np.float32)  # (3, 3, 1, 7)
    layer = conv(len(KERNELS), 3, padding="VALID", bias=False)
    y, _ = layer.apply({"kernel": kernel}, {}, image[None, :, :, None].astype(np.float32), train=False)
    return dict(zip(KERNELS, np.moveaxis(y[0], -1, 0), strict=True))


def measure():
    images, labels = digits("test")
    digit = images[np.flatnonzero(labels == 4)[0], :, :, 0]
    return {"digit": digit, "of digit": responses(digit), "of half": responses(HALF)}


@drawing
def draw(results):
    layout = "LLLLKKKKOOOO;...aaabbbccc;xxxAAABBBCCC;dddeeefffggg;DDDEEEFFFGGG"
    figure, axes = mosaic(layout, FIGURE_WIDTH, 6.4, height_ratios=[1.5, 0.8, 1.2, 0.8, 1.2])
    vertical, edge = KERNELS["vertical edges"], results["of half"]["vertical edges"]
    image(axes["L"], HALF, "image", cell_format=str, limits=(-4, 12))
    frame(axes["L"], 0, 1, 3, 3, GREEN)
    image(axes["K"], vertical, "kernel", cell_format=str, **signed(vertical))
    image(axes["O"], edge, "output: the edge", cell_format="{:.0f}".format, **signed(edge))
    frame(axes["O"], 0, 1, 1, 1, GREEN)
    image(axes["x"], results["digit"], "a digit")
    for letter, (name, kernel) in zip("abcdefg", KERNELS.items(), strict=True):
        above, below = axes[letter], axes[letter.upper()]
        response = results["of digit"][name]
        if name == "blur":
            image(above, np.ones((3, 3)), "blur: 1/9 of", cell_format="{:.0f}".format, **signed(kernel))
        else:
            image(above, kernel, name.replace(" ", "\n"), cell_format=str, **signed(kernel))
        if name in ("blur", "sharpen"):
            image(below, response.clip(0, 1))
        else:
            image(below, response, **signed(response))
    return figure


def main(config):
    results = measure()
    row = "".join(f"{value:3}" for value in HALF[0])
    print(f"{'':18}    sum   a row of {row}   fraction of outputs above 0.2 for the digit")
    for name, response in results["of half"].items():
        row = "".join(f"{value:6.0f}" for value in response[0])
        fraction = (np.abs(results["of digit"][name]) > 0.2).mean()
        print(f"{name:18}{np.sum(KERNELS[name]):7.0f}  {row}   {fraction:.0%}")
    alt = (
        "Top: a 6 x 6 image with tens on the left and zeros on the right. The kernel 1, 0, -1 outputs a stripe of 30 "
        "in the middle and zeros on both sides. Below: seven kernels and their outputs for a handwritten 4. They "
        "show vertical strokes, horizontal strokes, outlines, a blurred digit and a sharpened digit."
    )
    return ConceptFigure("edge_detection", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
