"""A filter for color images has a plane of weights for each channel; the three sums are added to a single output.

    python -m experiments.concepts.color_channels

A 3 x 3 filter of an image with three channels has 3 x 3 x 3 = 27 weights. Each plane slides over its own channel. The
output has one channel, not three, for any number of input channels: y[i, j] = sum over u, v, c of x[i + u, j + v, c]
w[u, v, c], plus a bias. A layer of 16 filters has 16 output channels.

The planes decide which colors a filter compares. Between magenta and cyan, red falls by as much as green rises. A
filter with the same plane for each channel adds both changes to zero: it responds to brightness and does not see this
edge. A filter with opposite planes for red and green adds them up. Blue does not change, so its sum is always zero.
"""

import numpy as np

from experiments.concepts._figure import FIGURE_WIDTH, ConceptFigure, command, drawing, image, mosaic, signed
from experiments.concepts.shared_weights import weights
from jaxcnn import conv

CHANNELS = ("red", "green", "blue")
MAGENTA, CYAN = (1, 0, 1), (0, 1, 1)
IMAGE = np.array([[MAGENTA] * 3 + [CYAN] * 2] * 5)  # (5, 5, 3)
EDGE = np.array([[1, 0, -1]] * 3)
FILTERS = {
    "equal planes": np.stack([EDGE, EDGE, EDGE], axis=-1),  # (3, 3, 3)
    "red against green": np.stack([EDGE, -EDGE, EDGE], axis=-1),
}


def convolve(image, kernel):
    """Convolve an image (H, W, C) with a kernel (k, k, C) by `conv`. Return (H - k + 1, W - k + 1)."""
    layer = conv(1, kernel.shape[:2], padding="VALID", bias=False)
    params = {"kernel": kernel[..., None].astype(np.float32)}
    y, _ = layer.apply(params, {}, image[None].astype(np.float32), train=False)
    return np.asarray(y[0, ..., 0])


def measure():
    """Return for each filter: the sums of each channel by itself, (3, 3, 3), and the output for all channels."""
    results = {}
    for name, kernel in FILTERS.items():
        planes = [convolve(IMAGE[..., c : c + 1], kernel[..., c : c + 1]) for c in range(len(CHANNELS))]
        results[name] = {"sums": np.stack(planes, axis=-1), "output": convolve(IMAGE, kernel)}
    return results


@drawing
def draw(results):
    figure, axes = mosaic("RGBI;rgb.;uvwx;efh.;UVWX", FIGURE_WIDTH, 5.7, height_ratios=[1.2, 0.8, 1, 0.8, 1])
    axes["I"].imshow(IMAGE * 255, interpolation="none")
    axes["I"].set(title="image", xticks=[], yticks=[])
    axes["I"].spines[:].set_visible(False)
    for c, (name, letter) in enumerate(zip(CHANNELS, "RGB", strict=True)):
        image(axes[letter], IMAGE[..., c], name, limits=(-0.6, 1.2), cell_format=str)
    for (name, kernel), planes, sums in zip(FILTERS.items(), ("rgb", "efh"), ("uvwx", "UVWX"), strict=True):
        for c, letter in enumerate(planes):
            image(axes[letter], kernel[..., c], cell_format=str, **signed(EDGE))
        axes[planes[1]].set_title(f"filter: {name}")
        parts = [*np.moveaxis(results[name]["sums"], -1, 0), results[name]["output"]]
        for letter, values, symbol in zip(sums, parts, ("+", "+", "=", ""), strict=True):
            image(axes[letter], values, cell_format="{:.0f}".format, cmap=signed(6)["cmap"], limits=(-6, 6))
            axes[letter].text(1.12, 0.5, symbol, ha="center", va="center", size=12, transform=axes[letter].transAxes)
        axes[sums[1]].set_title("sums")
        axes[sums[-1]].set_title("output")
    return figure


def main(config):
    results = measure()
    print(f"a 3 x 3 filter of three channels has {weights(conv(1, 3), IMAGE.shape, 'kernel')} weights")
    print(f"{'filter':18}" + "".join(f"{name:>10}" for name in (*CHANNELS, "output")) + "   at the edge")
    for name, result in results.items():
        values = (*result["sums"][1, 1], result["output"][1, 1])
        print(f"{name:18}" + "".join(f"{value:10.0f}" for value in values))
    alt = (
        "Top: the red, green and blue channel of a 5 x 5 image, magenta on the left and cyan on the right. Below: two "
        "filters with a 3 x 3 plane for each channel, the sums of each channel, and the output. With three equal "
        "planes, the sums at the edge are 3, -3 and 0, and the output is 0. With opposite planes for red and green, "
        "they are 3, 3 and 0, and the output is 6."
    )
    return ConceptFigure("color_channels", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
