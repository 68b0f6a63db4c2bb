"""Sliding a box over a box gives a triangle: the overlap, and so the convolution, grows and shrinks linearly.

    python -m experiments.concepts.convolution_of_boxes

At each position, `conv` multiplies the kernel by the values under it and sums the products. With "VALID" padding the
kernel stays inside the signal: m - k + 1 positions. With "SAME", zeros around the signal keep the length m. With
full padding, `padding=k - 1`, the zeros at each end include every partial overlap: m + k - 1 positions.

Mathematical convolution flips the kernel before sliding it: y[i] = sum_k x[i - k] w[k]. Network layers skip the flip
and compute the cross-correlation y[i] = sum_k x[i + k] w[k]. The kernel is learned, so a network can learn the flipped
kernel. A box is symmetric, so both operations agree. A ramp kernel shows the difference: for a unit impulse,
convolution outputs a copy of the kernel, and cross-correlation outputs its mirror image.
"""

import numpy as np

from experiments.concepts._figure import BLUE, FIGURE_WIDTH, GRAY, VERMILLION, ConceptFigure, command, drawing, mosaic
from jaxcnn import conv

WIDTH = 5
PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": WIDTH - 1}


def slide(signal, kernel, padding):
    """Convolve a signal (m,) with a kernel (k,) by `conv`."""
    layer = conv(1, len(kernel), padding=padding, bias=False)
    params = {"kernel": np.reshape(kernel, (-1, 1, 1)).astype(np.float32)}
    y, _ = layer.apply(params, {}, np.reshape(signal, (1, -1, 1)).astype(np.float32), train=False)
    return np.ravel(y)


def measure():
    box = np.ones(WIDTH)
    signal = np.pad(box, WIDTH)
    impulse, ramp = np.eye(7)[3], np.array([1, 2, 3])
    return {
        "triangle": slide(box, box, padding=WIDTH - 1),
        "lengths": {name: len(slide(signal, box, padding)) for name, padding in PADDINGS.items()},
        "impulse": impulse,
        "cross-correlation": slide(impulse, ramp, "SAME"),
        "convolution": slide(impulse, ramp[::-1], "SAME"),
    }


@drawing
def draw(results):
    layout = "AAABBBCCCDDDEEE;TTTTTTTTTTTTTTT;XXXXXYYYYYZZZZZ"
    figure, axes = mosaic(layout, FIGURE_WIDTH, 4.6, height_ratios=[0.7, 1.5, 1])
    shifts = [0, 2, 4, 6, 8]
    for letter, shift in zip("ABCDE", shifts, strict=True):
        ax = axes[letter]
        start = shift - (WIDTH - 1)
        first, last = max(start, 0), min(start + WIDTH, WIDTH)
        ax.bar(0, 1, WIDTH, align="edge", color=BLUE, alpha=0.35)
        ax.bar(first, 1, last - first, align="edge", color=BLUE)
        ax.bar(start, 1, WIDTH, align="edge", fill=False, ec=VERMILLION, lw=2)
        ax.set(xlim=(-5, 10), ylim=(0, 1.2), title=f"overlap {last - first}", xticks=[], yticks=[])
        ax.spines["left"].set_visible(False)
    whole, triangle = axes["T"], results["triangle"]
    whole.plot(triangle, "o-", color=GRAY, mfc=BLUE, mec=BLUE)
    whole.plot(shifts, triangle[shifts], "o", color=VERMILLION, markersize=8)
    for i, value in enumerate(triangle):
        whole.annotate(f"{value:.0f}", (i, value), (0, 7), textcoords="offset points", ha="center")
    whole.set(title="box * box: overlap at each position", xlabel="position", ylim=(0, 6.3), xticks=range(9))
    panel_labels = {
        "X": ("impulse", "signal"),
        "Y": ("cross-correlation", "kernel 1, 2, 3:\nmirrored"),
        "Z": ("convolution", "kernel 1, 2, 3:\na copy"),
    }
    for letter, (name, label) in panel_labels.items():
        ax = axes[letter]
        ax.bar(np.arange(7), results[name], color=GRAY if name == "impulse" else BLUE)
        ax.set(title=name, xlabel=label, ylim=(0, 3.9), xticks=[], yticks=[])
        for i in np.flatnonzero(results[name]):
            ax.text(i, results[name][i] + 0.15, f"{results[name][i]:.0f}", ha="center")
    return figure


def main(config):
    results = measure()
    print("box of 5 * box of 5:", *results["triangle"].astype(int))
    for name, length in results["lengths"].items():
        print(f"signal of 15, kernel of 5, {name:5}: {length} positions")
    for name in ("impulse", "cross-correlation", "convolution"):
        print(f"{name:17}:", *results[name].astype(int))
    alt = (
        "Top: an outlined box slides over a filled box in five steps. The overlap is 1, 3, 5, 3, 1. Middle: the "
        "overlap at all nine positions is a triangle with a peak of 5 at the center. Bottom: an impulse and the "
        "kernel 1, 2, 3. Cross-correlation gives 3, 2, 1; convolution gives 1, 2, 3."
    )
    return ConceptFigure("convolution_of_boxes", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
