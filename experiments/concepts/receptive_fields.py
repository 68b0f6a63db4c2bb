"""Every layer sees more of the image: 2 pixels more with windows of 3 x 3, and twice as many after every halving.

    python -m experiments.concepts.receptive_fields

Which pixels does one number in the middle of a feature map depend on? Those for which its derivative is not zero: its
receptive field. After d layers of 3 x 3 it is 2 d + 1 pixels wide, with a stride of 2 in each 2^(d + 1) - 1, and with a
pool of 2 after each 3 * 2^d - 2. All weights are one here, so the derivative is the number of ways from a pixel to the
output: many for those in the middle, one for the corners. The same sizes follow from the layers alone, by
`explain.receptive_field`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import BLUE, GREEN, VERMILLION, Shown, command, drawing, image, mosaic
from jaxcnn import avg_pool, conv, explain, serial

SIDE, DEPTHS = 96, (1, 2, 3, 4)
ONES = jax.nn.initializers.ones
# The mean, as the derivative of a maximum is that of one pixel of its window only. Both see the same.
BLOCKS = {
    "3 x 3": serial(conv(1, kernel_init=ONES)),
    "3 x 3, stride 2": serial(conv(1, stride=2, kernel_init=ONES)),
    "3 x 3, pool 2": serial(conv(1, kernel_init=ONES), avg_pool(2)),
}


def ways(model):
    """The derivative of the output in the middle for each pixel, (SIDE, SIDE)."""
    x = jnp.zeros((1, SIDE, SIDE, 1))
    params, state = model.init(jax.random.key(0), x)

    def middle(x):
        y, _ = model.apply(params, state, x, train=False)
        return y[0, y.shape[1] // 2, y.shape[2] // 2, 0]

    return np.asarray(jax.grad(middle)(x)[0, :, :, 0])


def measure():
    """For each kind of block and each depth: the derivative, the width of its support, and what `explain` says."""
    found = {}
    for name, block in BLOCKS.items():
        for depth in DEPTHS:
            model = serial(*[block] * depth)
            derivative = ways(model)
            known = explain.receptive_field(model, jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.float32))
            found[name, depth] = {
                "derivative": derivative,
                "width": int(derivative.any(0).sum()),
                "explain": known.layers[-1].fields[1].size,
            }
    return found


@drawing
def draw(found):
    figure, axes = mosaic("ZZZZ;ABCD;EFGH;IJKL", 6.4, 7.4, height_ratios=[1.3, 1, 1, 1])
    for name, color, mark in zip(BLOCKS, (VERMILLION, BLUE, GREEN), "so^", strict=True):
        widths = [found[name, depth]["width"] for depth in DEPTHS]
        axes["Z"].plot(DEPTHS, widths, marker=mark, color=color, label=name)
    axes["Z"].set(xticks=DEPTHS, xlabel="depth", ylabel="pixels", ylim=(0, None), title="width of the receptive field")
    axes["Z"].legend()
    for letter, ((name, depth), result) in zip("ABCDEFGHIJKL", found.items(), strict=True):
        derivative = result["derivative"]
        rows, columns = (np.flatnonzero(derivative.any(axis)).mean().round().astype(int) for axis in (1, 0))
        half = max(one["width"] for one in found.values()) // 2 + 1
        part = derivative[rows - half : rows + half, columns - half : columns + half]
        image(axes[letter], np.sqrt(part / part.max()), f"{result['width']} pixels", cmap="cividis")
        if depth == 1:
            axes[letter].set_ylabel(name)
    for letter, depth in zip("IJKL", DEPTHS, strict=True):
        axes[letter].set_xlabel(f"depth {depth}")
    return figure


def main(config):
    found = measure()
    print(f"{'depth':17}" + "".join(f"{depth:5}" for depth in DEPTHS))
    for name in BLOCKS:
        print(f"{name:17}" + "".join(f"{found[name, depth]['width']:5}" for depth in DEPTHS))
    agree = all(result["width"] == result["explain"] for result in found.values())
    print(f"explain.receptive_field says {'the same' if agree else 'something else'}")
    alt = (
        "A plot of the width of the receptive field over depth: a straight line to 9 pixels for 3 x 3 windows, curves "
        "that double to 31 with strides and 46 with pools. Below, the fields themselves, squares that grow from left "
        "to right, bright in their middle and dark at their corners."
    )
    return Shown("receptive_fields", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
