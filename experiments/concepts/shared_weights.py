"""A 5 x 5 x 3 filter has 75 weights on images of any size; 100 dense units on 100 x 100 x 3 have 3,000,000 weights.

    python -m experiments.concepts.shared_weights

A convolution is a dense layer with two restrictions. Its weight matrix, with one row per output and one column per
input, shows both. Sparse connections: each output depends only on the inputs under the kernel, so most entries are
zero. Shared weights: every row contains the same weights at shifted positions, so few distinct values fill the band.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.concepts._figure import (
    BLUE,
    FIGURE_WIDTH,
    VERMILLION,
    ConceptFigure,
    colors,
    command,
    drawing,
    image,
    mosaic,
)
from jaxcnn import conv, count_params, dense, flatten, serial

SIDE = 6  # side of the image for the drawn matrix
# The nine weights of a kernel: hue shows the row, lightness the column.
WEIGHT_COLORS = ["#9ecae9", "#3a9bd9", "#00518a", "#a6dbc4", "#2fb68c", "#006b4c", "#f7bd94", "#e97a2b", "#9c4300"]


def weights(model, shape, pattern=".*"):
    """Return the number of parameters of a model for images of this shape, without allocating them."""
    params, _ = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return count_params(params, pattern)


def matrix(kernel, side):
    """Return the matrix (outputs, inputs) of a convolution with kernel (k, k) on images of side x side."""
    layer = conv(1, kernel.shape, padding="VALID", bias=False)

    def flat(x):
        y, _ = layer.apply({"kernel": kernel[:, :, None, None]}, {}, x.reshape(1, side, side, 1), train=False)
        return y.ravel()

    return np.asarray(jax.jacobian(flat)(jnp.zeros(side * side)))


def measure():
    shape = (100, 100, 3)
    filter_weights = weights(conv(1, 5), shape, "kernel")
    return {
        "filter": filter_weights,
        "filter and bias": weights(conv(1, 5), shape),
        "100 filters": weights(conv(100, 5), shape, "kernel"),
        "100 dense units": weights(serial(flatten, dense(100)), shape, ".*/kernel"),
        "connections": filter_weights / math.prod(shape),
        "matrix": matrix(jnp.arange(1.0, 10.0).reshape(3, 3), SIDE),
    }


@drawing
def draw(results):
    figure, axes = mosaic("AB;CC", FIGURE_WIDTH, 4.2, height_ratios=[1, 1.6])
    rows, columns = results["matrix"].shape
    dense_matrix = np.random.default_rng(0).normal(size=(rows, columns))
    image(axes["A"], dense_matrix, f"dense:\n{dense_matrix.size} weights", cmap="cividis")
    title, cmap = f"convolution:\n9 weights, {zero_fraction(results):.0%} zeros", colors(["#eeeeee", *WEIGHT_COLORS])
    image(axes["B"], results["matrix"], title, cmap=cmap, limits=(-0.5, 9.5))
    for name in "AB":
        axes[name].set(xlabel=f"{columns} inputs", ylabel=f"{rows} outputs")
    bars = axes["C"]
    for i, name in enumerate(("filter", "100 filters", "100 dense units")):
        bars.barh(i, results[name] - 1, left=1, color=VERMILLION if "dense" in name else BLUE, height=0.4)
        bars.text(1.2, i + 0.25, f"{name}: {results[name]:,}", va="bottom")
    bars.set(xscale="log", xlim=(1, 1e7), ylim=(-0.3, 2.8), yticks=[], xticks=(1, 100, 10_000, 1_000_000))
    bars.minorticks_off()
    bars.xaxis.set_major_formatter("{x:,.0f}")
    bars.set_title("weights for an image of 100 x 100 x 3, logarithmic scale")
    return figure


def zero_fraction(results):
    return (results["matrix"] == 0).mean()


def main(config):
    results = measure()
    for name in ("filter", "filter and bias", "100 filters", "100 dense units"):
        print(f"{name:15} on 100 x 100 x 3: {results[name]:9,} {'parameters' if 'bias' in name else 'weights'}")
    print(f"each output of the filter depends on 75 of 30,000 inputs: {results['connections']:.2%} of all connections")
    shape = results["matrix"].shape
    print(f"3 x 3 on {SIDE} x {SIDE}: matrix {shape}, {zero_fraction(results):.0%} zeros, 9 distinct weights")
    alt = (
        "Top: two matrices of 16 outputs by 36 inputs. The dense matrix is filled with random values. The matrix of a "
        "3 x 3 convolution is zero except for a band; every row repeats the same nine weights. Bottom: bars on a "
        "logarithmic scale. 100 dense units have 3,000,000 weights, 100 filters 7,500, one filter 75."
    )
    return ConceptFigure("shared_weights", draw(results), alt)


if __name__ == "__main__":
    command(main, {}, __doc__)
