"""The figure of a learning rate range test."""

from typing import TYPE_CHECKING, Any

from jaxcnn.explain._figure import BLUE, INK, VERMILLION, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_learning_rates(found: Any) -> "Figure":
    """Plot the loss over the learning rate, from `train.find_learning_rate`, with its suggestion.

    Args:
        found: a `train.LearningRates`.

    Example:
        >>> model = jaxcnn.serial(jaxcnn.flatten, jaxcnn.dense(2))
        >>> data = jax.random.normal(jax.random.key(0), (128, 3, 3, 1)), jnp.arange(128) % 2
        >>> found = jaxcnn.train.find_learning_rate(model, data, steps=20)
        >>> figure = jaxcnn.explain.plot_learning_rates(found)
    """
    count = len(found.smoothed)
    figure, [[axes]] = new_figure(1, 1, 5.0, 3.2)
    axes.plot(found.rates[:count], found.losses[:count], color=INK, alpha=0.35, linewidth=1, label="loss of a step")
    axes.plot(found.rates[:count], found.smoothed, color=BLUE, linewidth=2, label="moving average")
    axes.axvline(found.suggestion, color=VERMILLION, linestyle="--", label=f"suggestion {found.suggestion:.2g}")
    limits = 0.9 * found.smoothed.min(), 1.4 * found.smoothed[0]  # the rest of a diverging loss would hide its fall
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", ylim=limits)
    axes.grid(color=INK, alpha=0.25)
    axes.legend(labelcolor=INK, frameon=False, fontsize=8)
    return figure
