"""Nine numbers find edges: [[1, 0, -1]] * 3 answers where an image turns from light to dark, and nowhere else.

    python -m experiments.concepts.edge_detection

On a plain area the left column of the kernel takes away what the right one adds: the answer is zero. At the edge it is
not. The kernel turned on its side finds horizontal edges. Sobel's kernels look at the middle row twice as hard, the
Laplacian finds edges of all directions, and the mean blurs. Kernels whose numbers sum to zero are blind to brightness;
those that sum to one keep it. All seven are one convolution with seven filters. A network is not given such kernels,
it learns them.
"""

import numpy as np

from experiments.concepts._digits import digits
from experiments.concepts._figure import GREEN, Shown, command, drawing, frame, image, mosaic, signed
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
    """What each kernel answers to an image (H, W): {name: (H - 2, W - 2)}."""
    kernel = np.stack([*KERNELS.values()], axis=-1)[:, :, None].astype(np.float32)  # (3, 3, 1, 7)
    layer = conv(len(KERNELS), 3, padding="VALID", bias=False)
    y, _ = layer.apply({"kernel": kernel}, {}, image[None, :, :, None].astype(np.float32), train=False)
    return dict(zip(KERNELS, np.moveaxis(y[0], -1, 0), strict=True))


def measure():
    images, labels = digits("test")
    digit = images[np.flatnonzero(labels == 4)[0], :, :, 0]
    return {"digit": digit, "of digit": responses(digit), "of half": responses(HALF)}


@drawing
def draw(found):
    layout = "LLLLKKKKOOOO;...aaabbbccc;xxxAAABBBCCC;dddeeefffggg;DDDEEEFFFGGG"
    figure, axes = mosaic(layout, 6.4, 7.9, height_ratios=[1.5, 0.65, 1.2, 0.65, 1.2])
    vertical, edge = KERNELS["vertical edges"], found["of half"]["vertical edges"]
    image(axes["L"], HALF, "light and dark", numbers=str, limits=(-4, 12))
    frame(axes["L"], 0, 1, 3, 3, GREEN)
    image(axes["K"], vertical, "kernel", numbers=str, **signed(vertical))
    image(axes["O"], edge, "output: the edge", numbers="{:.0f}".format, **signed(edge))
    frame(axes["O"], 0, 1, 1, 1, GREEN)
    image(axes["x"], found["digit"], "a digit")
    for letter, (name, kernel) in zip("abcdefg", KERNELS.items(), strict=True):
        above, below = axes[letter], axes[letter.upper()]
        answer = found["of digit"][name]
        if name == "blur":
            image(above, np.ones((3, 3)), f"{name}: a ninth of", numbers="{:.0f}".format, size=7, **signed(kernel))
        else:
            image(above, kernel, name, numbers=str, size=7, **signed(kernel))
        if name in ("blur", "sharpen"):
            image(below, answer.clip(0, 1))
        else:
            image(below, answer, **signed(answer))
    return figure


def main(config):
    found = measure()
    row = "".join(f"{value:3}" for value in HALF[0])
    print(f"{'':18}    sum   a row of {row}   share of outputs above 0.2 for the digit")
    for name, answer in found["of half"].items():
        row = "".join(f"{value:6.0f}" for value in answer[0])
        share = (np.abs(found["of digit"][name]) > 0.2).mean()
        print(f"{name:18}{np.sum(KERNELS[name]):7.0f}  {row}   {share:.0%}")
    alt = (
        "An image of 6 x 6, tens on the left and zeros on the right, and the kernel 1, 0, -1 give a stripe of 30 in "
        "the middle, zero at both sides. Below, seven kernels and what they make of a handwritten 4: vertical "
        "strokes, horizontal strokes, outlines, a blurred and a sharpened digit."
    )
    return Shown("edge_detection", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
