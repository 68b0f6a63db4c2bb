"""A window of k on n positions, with padding p at both ends and stride s, gives floor((n + 2p - k) / s) + 1 outputs.

    python -m experiments.concepts.stride_and_padding

The last window must fit completely. The first window leaves n + 2p - k positions, and every s of them add one output.
Positions that remain at the end are not used: with n = 7, k = 3, s = 3 and no padding, this is the last position.
"SAME" padding keeps the length n at stride 1: p = (k - 1) / 2 for odd k. "VALID" means no padding.
"""

import itertools

import jax
import jax.numpy as jnp

from experiments.concepts._figure import BLUE, FIGURE_WIDTH, GRAY, VERMILLION, ConceptFigure, command, drawing, panels
from jaxcnn import conv

POSITIONS, STRIDES, PADDINGS, SIZES = 7, (1, 2, 3), (0, 1, 2), (1, 2, 3, 5)


def formula(n, k, s, p):
    return (n + 2 * p - k) // s + 1


def output_size(n, k, s, p):
    """Return the number of outputs of `conv`."""
    layer, x = conv(1, k, stride=s, padding=p), jax.ShapeDtypeStruct((1, n, 1), jnp.float32)
    params, state = jax.eval_shape(layer.init, jax.random.key(0), x)
    y, _ = jax.eval_shape(lambda params, x: layer.apply(params, state, x, train=False), params, x)
    return y.shape[1]


def measure(n=POSITIONS):
    """Return the number of outputs for every combination of size, stride and padding."""
    return {(k, s, p): output_size(n, k, s, p) for k, s, p in itertools.product(SIZES, STRIDES, PADDINGS)}


@drawing
def draw(results):
    k = 3
    depth = [max(results[k, s, p] for p in PADDINGS) + 2.5 for s in STRIDES]
    figure, axes = panels(len(STRIDES), len(PADDINGS), FIGURE_WIDTH, 4.8, height_ratios=depth)
    for (i, s), (j, p) in itertools.product(enumerate(STRIDES), enumerate(PADDINGS)):
        ax, out = axes[i, j], results[k, s, p]
        covered = s * (out - 1) + k
        steps = f"\N{LEFT FLOOR}{POSITIONS + 2 * p - k} / {s}\N{RIGHT FLOOR}"
        for at in range(-p, POSITIONS + p):
            inside, unused = 0 <= at < POSITIONS, at + p >= covered
            ax.bar(at, 1, 0.9, 0, color="none" if not inside else GRAY if unused else BLUE, ec=GRAY, lw=0.8)
            ax.text(at, 0.5, "" if inside else "0", ha="center", va="center")
        for window in range(out):
            ax.bar(window * s - p + 1, 0.55, k - 0.2, -0.9 - 0.75 * window, color=VERMILLION)
        ax.set(
            xlim=(-2.6, 8.6),
            ylim=(1.2 - 0.75 * depth[i], 1.2),
            xticks=[],
            yticks=[],
            title=f"{POSITIONS} in, window {k}: {out} out\n{steps} + 1 = {formula(POSITIONS, k, s, p)}",
        )
        ax.spines[:].set_visible(False)
    for ax, s in zip(axes[:, 0], STRIDES, strict=True):
        ax.set_ylabel(f"stride {s}")
    for ax, p in zip(axes[-1], PADDINGS, strict=True):
        ax.set_xlabel(f"padding {p}" + ("" if p else "; gray: not used"))
    return figure


def main(config):
    results = measure()
    combinations = list(itertools.product(STRIDES, PADDINGS))
    print("stride   " + "".join(f"{s:3}" for s, _ in combinations))
    print("padding  " + "".join(f"{p:3}" for _, p in combinations))
    for k in SIZES:
        print(
            f"window {k} "
            + "".join(f"{results[k, s, p]:3}" for s, p in combinations)
            + f"   outputs of {POSITIONS} positions"
        )
    alt = (
        "A grid of nine panels: strides 1, 2 and 3 down, paddings 0, 1 and 2 across. Each panel has a row of seven "
        "positions, with hollow zeros for padding. Below it, one orange bar per output shows a window of three "
        f"positions. Outputs: {', '.join(str(results[3, s, p]) for s in STRIDES for p in PADDINGS)}."
    )
    return ConceptFigure("stride_and_padding", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
