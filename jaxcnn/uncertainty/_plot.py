"""The reliability diagram, drawn with matplotlib (the extra "plot") in the style of `explain.plot_*`."""

from typing import TYPE_CHECKING

import numpy as np

from jaxcnn.explain._figure import BLUE, INK, VERMILLION, new_figure
from jaxcnn.uncertainty._calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reliability_diagram(diagram: Reliability) -> "Figure":
    """Plot accuracy against confidence, from `reliability_diagram`, and the fraction of predictions in each bin.

    The gap is the difference between the accuracy of a bin and its mean confidence, which is on the diagonal. Bars
    below the diagonal mean overconfidence. Save the figure with `figure.savefig("x.svg")`.

    Args:
        diagram: confidence, accuracy and count (bins,).

    Raises:
        ValueError: if all bins are empty.

    Example:
        >>> diagram = jaxcnn.uncertainty.reliability_diagram(jnp.array([[0.8, 0.2], [0.4, 0.6]]), [0, 0])
        >>> figure = jaxcnn.uncertainty.plot_reliability_diagram(diagram)
    """
    confidence, accuracy, count = (np.asarray(array, float) for array in diagram)
    if not count.sum():
        raise ValueError("plot_reliability_diagram needs at least one prediction, but all bins are empty")
    bins, fraction = len(count), count / count.sum()
    left, filled = np.arange(bins) / bins, count > 0
    error = fraction @ np.abs(accuracy - confidence)
    figure, axes = new_figure(2, 1, 4.2, 5.4, height_ratios=[3, 1])
    top, bottom = axes[:, 0]
    top.plot([0, 1], [0, 1], "--", color=INK, label="calibrated")
    top.bar(left, accuracy, 1 / bins, align="edge", color=BLUE, alpha=0.6, edgecolor=BLUE, label="accuracy")
    gap = {"color": VERMILLION, "linewidth": 2.5, "label": "gap"}
    top.vlines(confidence[filled], accuracy[filled], confidence[filled], **gap)
    top.set(title=f"expected calibration error {error:.2%}", ylabel="accuracy", ylim=(0, 1.03))
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside lower center", ncols=3, labelcolor=INK, frameon=False, fontsize=8
    )
    bottom.bar(left, fraction, 1 / bins, align="edge", color=BLUE, alpha=0.6, edgecolor=BLUE)
    bottom.set(xlabel="confidence", ylabel="fraction of\npredictions")
    for ax in (top, bottom):
        ax.set_xlim(-0.02, 1.02)
        ax.grid(color=INK, alpha=0.25)
        ax.set_axisbelow(True)
    return figure
