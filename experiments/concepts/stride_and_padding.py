"""A window of k on n positions, p zeros at both ends, s from one to the next: floor((n + 2p - k) / s) + 1 outputs.

    python -m experiments.concepts.stride_and_padding

The last window must fit as a whole. So from n + 2p - k, the room that is left after the first window, every stride of s
makes one output more, and what remains of a stride is not seen: with n = 7, k = 3, s = 3 and no padding, the last
position. "SAME" is a padding that keeps n at stride 1, p = (k - 1) / 2 for odd k; "VALID" is none.
"""

import itertools

import jax
import jax.numpy as jnp

from experiments.concepts._figure import BLUE, GRAY, VERMILLION, Shown, command, drawing, panels
from jaxcnn import conv

POSITIONS, STRIDES, PADDINGS, SIZES = 7, (1, 2, 3), (0, 1, 2), (1, 2, 3, 5)


def formula(n, k, s, p):
    return (n + 2 * p - k) // s + 1


def outputs(n, k, s, p):
    """How many outputs jaxcnn's convolution has."""
    layer, x = conv(1, k, stride=s, padding=p), jax.ShapeDtypeStruct((1, n, 1), jnp.float32)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    y, _ = jax.eval_shape(lambda params, x: layer.apply(params, state, x, train=False), params, x)
    return y.shape[1]


def measure(n=POSITIONS):
    """The outputs for every combination of size, stride and padding."""
    return {(k, s, p): outputs(n, k, s, p) for k, s, p in itertools.product(SIZES, STRIDES, PADDINGS)}


@drawing
def draw(found):
    k = 3
    depth = [max(found[k, s, p] for p in PADDINGS) + 2.5 for s in STRIDES]
    figure, axes = panels(len(STRIDES), len(PADDINGS), 6.4, 4.6, height_ratios=depth)
    for (i, s), (j, p) in itertools.product(enumerate(STRIDES), enumerate(PADDINGS)):
        ax, out = axes[i, j], found[k, s, p]
        seen = s * (out - 1) + k
        for at in range(-p, POSITIONS + p):
            inside, unseen = 0 <= at < POSITIONS, at + p >= seen
            ax.bar(at, 1, 0.9, 0, color="none" if not inside else GRAY if unseen else BLUE, ec=GRAY, lw=0.8)
            ax.text(at, 0.5, "" if inside else "0", ha="center", va="center", size=8)
        for window in range(out):
            ax.bar(window * s - p + 1, 0.55, k - 0.2, -0.9 - 0.75 * window, color=VERMILLION)
        ax.set(
            xlim=(-2.6, 8.6),
            ylim=(1.2 - 0.75 * depth[i], 1.2),
            xticks=[],
            yticks=[],
            title=f"{POSITIONS} in, {out} out",
        )
        ax.spines[:].set_visible(False)
    for ax, s in zip(axes[:, 0], STRIDES, strict=True):
        ax.set_ylabel(f"stride {s}")
    for ax, p in zip(axes[-1], PADDINGS, strict=True):
        ax.set_xlabel(f"padding {p}")
    return figure


def main(config):
    found = measure()
    both = list(itertools.product(STRIDES, PADDINGS))
    print("stride   " + "".join(f"{s:3}" for s, _ in both))
    print("padding  " + "".join(f"{p:3}" for _, p in both))
    for k in SIZES:
        print(f"window {k} " + "".join(f"{found[k, s, p]:3}" for s, p in both) + f"   outputs of {POSITIONS} positions")
    alt = (
        "A grid of nine panels, strides 1, 2 and 3 down, paddings 0, 1 and 2 across. Each has a row of seven blue "
        "positions with hollow zeros at its ends, and below it the windows of three as orange bars, one for each "
        f"output. Outputs: {', '.join(str(found[3, s, p]) for s in STRIDES for p in PADDINGS)}."
    )
    return Shown("stride_and_padding", draw(found), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
