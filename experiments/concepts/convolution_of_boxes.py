"""Slide a box over a box: what they share grows and shrinks evenly, so the convolution of two boxes is a triangle.

    python -m experiments.concepts.convolution_of_boxes

At each position, `conv` multiplies the kernel with what lies under it and adds up. Only where the kernel lies on the
signal as a whole ("VALID"), m - k + 1 positions; or, with zeros around it, at as many positions as the signal has
("SAME"), or wherever the two touch ("full", k - 1 zeros at both ends), m + k - 1 positions.

Mathematics turns the kernel round before it slides, y[i] = sum_k x[i - k] w[k]. The layers of networks do not, they
compute the cross-correlation sum_k x[i + k] w[k]: the kernel is learned, and may as well be learned turned round. A box
is the same either way. A ramp shows the difference: where the signal is a single 1, convolution lays down a copy of the
kernel, cross-correlation a mirrored one.
"""

import numpy as np

from experiments.concepts._figure import BLUE, GRAY, VERMILLION, Shown, command, drawing, mosaic
from jaxcnn import conv

WIDTH = 5
PADDINGS = {"VALID": "VALID", "SAME": "SAME", "full": WIDTH - 1}


def slide(signal, kernel, padding):
    """jaxcnn's convolution of one signal (m,) with one kernel (k,)."""
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
        "lengths": {name: len(slide(signal, box, how)) for name, how in PADDINGS.items()},
        "impulse": impulse,
        "cross-correlation": slide(impulse, ramp, "SAME"),
        "convolution": slide(impulse, ramp[::-1], "SAME"),
    }


@drawing
def draw(found):
    figure, axes = mosaic("AAABBBCCCDDDEEE;TTTTTTTTTTTTTTT;XXXXXYYYYYZZZZZ", 6.4, 4.4, height_ratios=[0.7, 1.5, 1])
    shifts = [0, 2, 4, 6, 8]
    for letter, shift in zip("ABCDE", shifts, strict=True):
        ax = axes[letter]
        start = shift - (WIDTH - 1)
        first, last = max(start, 0), min(start + WIDTH, WIDTH)
        ax.bar(0, 1, WIDTH, align="edge", color=BLUE, alpha=0.35)
        ax.bar(first, 1, last - first, align="edge", color=BLUE)
        ax.bar(start, 1, WIDTH, align="edge", fill=False, ec=VERMILLION, lw=2)
        ax.set(xlim=(-5, 10), ylim=(0, 1.2), title=f"they share {last - first}", xticks=[], yticks=[])
        ax.spines["left"].set_visible(False)
    whole, triangle = axes["T"], found["triangle"]
    whole.plot(triangle, "o-", color=GRAY, mfc=BLUE, mec=BLUE)
    whole.plot(shifts, triangle[shifts], "o", color=VERMILLION, markersize=8)
    for i, value in enumerate(triangle):
        whole.annotate(f"{value:.0f}", (i, value), (0, 7), textcoords="offset points", ha="center")
    whole.set(title="box * box: what they share at each position", xlabel="position", ylim=(0, 6.3), xticks=range(9))
    made = {
        "X": ("impulse", "signal"),
        "Y": ("cross-correlation", "of signal and 1, 2, 3: mirrored"),
        "Z": ("convolution", "of signal and 1, 2, 3: a copy"),
    }
    for letter, (name, label) in made.items():
        ax = axes[letter]
        ax.bar(np.arange(7), found[name], color=GRAY if name == "impulse" else BLUE)
        ax.set(title=name, xlabel=label, ylim=(0, 3.9), xticks=[], yticks=[])
        for i in np.flatnonzero(found[name]):
            ax.text(i, found[name][i] + 0.15, f"{found[name][i]:.0f}", ha="center")
    return figure


def main(config):
    found = measure()
    print("box of 5 * box of 5:", *found["triangle"].astype(int))
    for name, length in found["lengths"].items():
        print(f"signal of 15, kernel of 5, {name:5}: {length} positions")
    for name in ("impulse", "cross-correlation", "convolution"):
        print(f"{name:17}:", *found[name].astype(int))
    alt = (
        "Five images of an outlined box sliding over a filled one; they share 1, 3, 5, 3, 1. Below, what they share "
        "at nine positions is a triangle with its peak of 5 in the middle. At the bottom, an impulse and the kernel "
        "1, 2, 3 make 3, 2, 1 by cross-correlation and 1, 2, 3 by convolution."
    )
    return Shown("convolution_of_boxes", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
