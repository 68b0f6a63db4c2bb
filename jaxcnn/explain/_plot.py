"""Figures of what the other functions of `jaxcnn.explain` compute, drawn by matplotlib (the extra "plot").

Each is a `matplotlib.figure.Figure` by itself, without pyplot and its list of open figures: `figure.savefig("x.png")`.
Without matplotlib, a MissingExtraError says what to install.
All have no background, and lines and text that can be read on white as on black. Colors can be told apart by the
color-blind: viridis and cividis, and those of Okabe and Ito, "Color universal design", 2008.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcnn.explain._mistakes import Mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from jaxcnn.explain._figure import (
    BLUE,
    INK,
    VERMILLION,
    color_bar,
    diverging,
    mosaic,
    new_figure,
    number_tiles,
    overlaid,
    require_matplotlib,
    show,
)


def plot_filters(kernels: Any) -> "Figure":
    """The filters of a convolution (features, H, W, C), as `filters` gives them.

    A tile for each filter if they have 1 or 3 channels, where 3 are red, green and blue around gray; otherwise for each
    filter (across) and channel (down). Colors reach from minus to plus the largest weight.

    Raises:
        ValueError: for another shape.

    Example:
        >>> figure = jaxcnn.explain.plot_filters(jnp.ones((6, 5, 5, 1)))
    """
    kernels = np.asarray(kernels, float)
    if kernels.ndim != 4:
        raise ValueError(f"plot_filters needs (features, H, W, C), got shape {kernels.shape}")
    features, height, width, channels = kernels.shape
    most = np.abs(kernels).max() or 1.0
    if channels in (1, 3):
        columns = min(features, max(8, math.ceil(math.sqrt(features))))
        rows = math.ceil(features / columns)
        tiles = np.full((rows * columns, *kernels.shape[1:]), np.nan)
        tiles[:features] = kernels
        tiles = tiles.reshape(rows, columns, *kernels.shape[1:])
        row_numbers, row_label = columns * np.arange(rows), "first of the row" if rows > 1 else ""
    else:
        rows, columns = channels, features
        tiles = kernels.transpose(3, 0, 1, 2)[..., None]
        row_numbers, row_label = np.arange(rows), "input channel"
    tile = min(0.7, 12 / columns)
    figure, [[axes]] = new_figure(1, 1, tile * columns + 1.8, tile * rows + 1)
    image = mosaic(tiles)
    if channels == 3:
        there = ~np.isnan(image[..., :1])
        axes.imshow(np.concatenate([np.nan_to_num(0.5 + 0.5 * image / most), there], axis=-1))
    else:
        drawn = axes.imshow(image, cmap=diverging(), vmin=-most, vmax=most)
        color_bar(figure, drawn, axes, "weight")
    axes.set(title=f"{features} filters of {height} x {width} x {channels}", xlabel="filter", ylabel=row_label)
    number_tiles(axes.xaxis, np.arange(columns), width, image.shape[1])
    number_tiles(axes.yaxis, row_numbers, height, image.shape[0])
    axes.spines[:].set_visible(False)
    return figure


def plot_feature_maps(maps: Mapping[str, Any], example: int = 0, *, channels: int = 16) -> "Figure":
    """What the layers find in one image, as `feature_maps` gives it: a row for each, a tile for each channel.

    Colors reach from the least to the largest value in the row. Outputs (N, features) are one row of cells.

    Args:
        maps: activations (N, H, W, C) or (N, features) by path.
        example: which of the N.
        channels: tiles, at most, in each row.

    Raises:
        ValueError: for activations of other shapes, or none.

    Example:
        >>> figure = jaxcnn.explain.plot_feature_maps({"conv1": jnp.ones((1, 8, 8, 4))})
    """
    if not maps:
        raise ValueError("plot_feature_maps needs the activations of at least one layer, got none")
    rows = {path: np.asarray(activation[example], float) for path, activation in maps.items()}
    for path, row in rows.items():
        if row.ndim not in (1, 3):
            raise ValueError(f"plot_feature_maps needs (N, H, W, C) or (N, features), {path!r} is {maps[path].shape}")
    channels = min(channels, max((row.shape[-1] for row in rows.values() if row.ndim == 3), default=1))
    heights = [0.65 if row.ndim == 3 else 0.3 for row in rows.values()]
    figure, axes = new_figure(len(rows), 1, 10, sum(heights) + 0.35 * len(rows), height_ratios=heights)
    for ax, (path, row) in zip(axes[:, 0], rows.items(), strict=True):
        title = f"{path} {row.shape}, from {row.min():.3g} to {row.max():.3g}"
        ax.set_title(title, loc="left", color=INK, size=10)
        ax.set(xticks=[], yticks=[])
        if row.ndim == 1:
            ax.imshow(row[None], cmap="viridis", aspect="auto")
            continue
        tiles = np.full((1, channels, *row.shape[:2], 1), np.nan)  # of one size in all rows
        tiles[0, : row.shape[-1], ..., 0] = row[..., :channels].transpose(2, 0, 1)
        ax.imshow(mosaic(tiles), cmap="viridis", vmin=row.min(), vmax=row.max())
        ax.spines[:].set_visible(False)
    return figure


def plot_images(x: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Images (N, H, W, C), such as those of `feature_visualization` or of a dataset, up to eight in a row.

    The values of each are spread from black to white.

    Args:
        x: images with 1 or 3 channels.
        titles: a line for each; their numbers if there are none.

    Raises:
        ValueError: for other shapes, or no image.

    Example:
        >>> figure = jaxcnn.explain.plot_images(jnp.ones((2, 8, 8, 1)), ["one", "two"])
    """
    x = np.asarray(x)
    if x.ndim != 4 or not len(x):
        raise ValueError(f"plot_images needs (N, H, W, C), got shape {x.shape}")
    columns = min(len(x), 8)
    rows = math.ceil(len(x) / columns)
    figure, axes = new_figure(rows, columns, 1.5 * columns + 0.2, 1.8 * rows + 0.2)
    for ax in axes.flat[len(x) :]:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes.flat, x, strict=False)):
        show(ax, image)
        ax.set_title(str(i) if titles is None else titles[i])
    return figure


def plot_saliency(x: Any, attributions: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Images (N, H, W, C) and, on them, attributions of the same shape: of `saliency` and its relatives.

    They are summed over channels, and each is divided by its largest absolute value. What speaks for the class is
    vermillion, what speaks against it is blue.

    Args:
        x: images with 1 or 3 channels.
        attributions: of the shape of x.
        titles: a line for each image.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> figure = jaxcnn.explain.plot_saliency(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 8, 8, 1)))
    """
    attributions = np.asarray(attributions, float)
    if attributions.shape != np.shape(x):
        raise ValueError(f"plot_saliency: attributions {attributions.shape} must have the shape of x, {np.shape(x)}")
    return overlaid(x, attributions.sum(-1), titles, signed=True)


def plot_grad_cam(x: Any, maps: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Images (N, H, W, C) and, on them, maps (N, H', W') of `grad_cam`, brought to their size.

    Each map is divided by its largest value.

    Args:
        x: images with 1 or 3 channels.
        maps: for each, of any size.
        titles: a line for each image.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> figure = jaxcnn.explain.plot_grad_cam(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 4, 4)))
    """
    maps = np.asarray(maps, float)
    if maps.ndim != 3 or len(maps) != len(x):
        raise ValueError(f"plot_grad_cam: maps must be (N, H, W) for x of shape {np.shape(x)}, got shape {maps.shape}")
    maps = np.asarray(jax.image.resize(maps, np.shape(x)[:-1], "linear"))
    return overlaid(x, maps, titles, signed=False)


def plot_confusion_matrix(matrix: Any, classes: Sequence[str] | None = None) -> "Figure":
    """A matrix (classes, classes), as `confusion_matrix` gives it: a row for each class, a column for each prediction.

    Colors are fractions of the row, on a scale that spreads the small ones; up to 20 classes have counts in the cells.

    Args:
        matrix: counts.
        classes: their names, in order.

    Raises:
        ValueError: for another shape, or another number of names.

    Example:
        >>> figure = jaxcnn.explain.plot_confusion_matrix(jnp.eye(3, dtype=int), ["cat", "dog", "fish"])
    """
    matrix = np.asarray(matrix)
    n = len(matrix)
    if matrix.shape != (n, n):
        raise ValueError(f"plot_confusion_matrix needs (classes, classes), got shape {matrix.shape}")
    names = [str(name) for name in (range(n) if classes is None else classes)]
    if len(names) != n:
        raise ValueError(f"plot_confusion_matrix: there are {n} classes, but {len(names)} names")
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(0.5 * n, 3), 9)
    figure, [[axes]] = new_figure(1, 1, side + 1.5, side + 0.6)
    drawn = axes.imshow(fractions, cmap="cividis", norm=require_matplotlib().colors.PowerNorm(0.5, 0, 1))
    right = matrix.trace() / max(matrix.sum(), 1)
    axes.set(title=f"{right:.2%} of {matrix.sum():,} are right", xlabel="predicted class", ylabel="class")
    ticks = np.arange(0, n, math.ceil(n / 25))
    names = [names[i] for i in ticks]
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(ticks, names)
    if n <= 20:
        for (row, column), fraction in np.ndenumerate(fractions):
            text = f"{matrix[row, column]:,}" if matrix[row, column] else ""
            axes.text(column, row, text, ha="center", va="center", size=8, color="black" if fraction > 0.3 else "white")
    color_bar(figure, drawn, axes, "fraction of the class")
    return figure


def plot_mistakes(images: Any, mistakes: Mistakes, classes: Sequence[str] | None = None) -> "Figure":
    """Those of `images` that `worst_mistakes` names: their class, and the one that they were taken for.

    Args:
        images: those of all examples, (N, H, W, C) with 1 or 3 channels.
        mistakes: on these examples.
        classes: their names, in order.

    Raises:
        ValueError: for images of other shapes.

    Example:
        >>> mistakes = jaxcnn.explain.worst_mistakes(jnp.eye(3), [1, 1, 1], 10)
        >>> figure = jaxcnn.explain.plot_mistakes(jnp.ones((3, 8, 8, 1)), mistakes)
    """
    n = len(mistakes.index)
    columns = max(min(n, 5), 1)
    rows = max(math.ceil(n / columns), 1)
    figure, axes = new_figure(rows, columns, max(2 * columns, 4), 2.5 * rows + 0.4)
    figure.suptitle(f"{n} mistakes, with the model's probabilities" if n else "No mistakes", color=INK)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    for ax, index, *pair, p_label, p_predicted in zip(axes.flat, *map(np.asarray, mistakes), strict=False):
        label, predicted = (str(i) if classes is None else classes[i] for i in pair)
        show(ax, np.asarray(images)[index])
        ax.set_title(f"class {label}: {p_label:.1%}\ntaken for {predicted}: {p_predicted:.1%}", size=9)
        ax.set_xlabel(f"example {index}", size=9)
    return figure


def plot_curves(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss, accuracy and whatever else was recorded, by epoch: `FitResult.history`, or the lines of metrics.jsonl.

    Args:
        history: for each epoch a record with "epoch", "train" and perhaps "test", of metrics by name.

    Raises:
        ValueError: for no record.

    Example:
        >>> history = [{"epoch": i, "train": {"loss": 1 / i}, "test": {"loss": 2 / i}} for i in (1, 2, 3)]
        >>> figure = jaxcnn.explain.plot_curves(history)
    """
    metrics = sorted({name for record in history for name in record["train"]}, key=lambda name: (name != "loss", name))
    if not metrics:
        raise ValueError("plot_curves needs the records of at least one epoch, got none")
    figure, axes = new_figure(1, len(metrics), 4.5 * len(metrics), 3.2)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for part, color, line in (("train", BLUE, "o-"), ("test", VERMILLION, "s--")):
            known = [(record["epoch"], record[part][metric]) for record in history if metric in record.get(part, ())]
            if known:
                epochs, values = np.array(known, float).T  # None, which was not finite, as NaN
                ax.plot(epochs, values, line, color=color, label=part, markersize=4)
        ax.set(title=metric, xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color=INK, alpha=0.25)
        ax.legend(labelcolor=INK, frameon=False)
    return figure
