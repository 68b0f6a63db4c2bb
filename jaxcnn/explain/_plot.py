"""Figures of the results of `jaxcnn.explain`, drawn with matplotlib (the extra "plot").

Each function returns a `matplotlib.figure.Figure`, independent of pyplot. Save it with `figure.savefig("x.png")`.
Without matplotlib, it raises an ImportError with the install command.
The background is transparent; lines and text are legible on white and on black. The colors are safe for color-blind
readers: viridis, cividis and the palette of Okabe and Ito, "Color universal design", 2008.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcnn._arguments import check_integer
from jaxcnn._validate import first_true
from jaxcnn.explain._mistakes import Mistakes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from jaxcnn.explain._figure import (
    BLUE,
    COLUMN,
    INK,
    SIZE,
    VERMILLION,
    checked_images,
    checked_titles,
    color_bar,
    diverging,
    finite_range,
    fitted,
    mosaic,
    new_figure,
    number_tiles,
    overlaid,
    require_matplotlib,
    show,
    text_width,
)

_NAME = 1.5  # inches of a class name next to a matrix
_SMALLEST = 4  # size of the counts in a matrix, in points


def plot_filters(kernels: Any) -> "Figure":
    """Plot the filters (features, H, W, C) of a convolution, as returned by `filters`, or a single filter (H, W).

    The kernel of a layer has another order of dimensions, (H, W, C, features): use `filters(params, path)`.

    Filters with 1 or 3 channels have one tile each; 3 channels are shown as red, green and blue with zero as gray.
    Otherwise filters are columns and input channels are rows. The color scale is symmetric around zero.

    Raises:
        ValueError: if the kernels are not (features, H, W, C) or (H, W), or empty.

    Example:
        >>> figure = jaxcnn.explain.plot_filters(jnp.ones((6, 5, 5, 1)))
    """
    kernels = np.asarray(kernels, float)
    if kernels.ndim not in (2, 4) or not kernels.size:
        raise ValueError(f"plot_filters needs (features, H, W, C) or one filter (H, W), got shape {kernels.shape}")
    kernels = kernels[None, ..., None] if kernels.ndim == 2 else kernels
    features, height, width, channels = kernels.shape
    largest = max(map(abs, finite_range(kernels))) or 1.0
    if channels in (1, 3):
        columns = min(features, max(8, math.ceil(math.sqrt(features))))
        rows = math.ceil(features / columns)
        tiles = np.full((rows * columns, *kernels.shape[1:]), np.nan)
        tiles[:features] = kernels
        tiles = tiles.reshape(rows, columns, *kernels.shape[1:])
        row_numbers, row_label = columns * np.arange(rows), "first filter of the row" if rows > 1 else ""
    else:
        rows, columns = channels, features
        tiles = kernels.transpose(3, 0, 1, 2)[..., None]
        row_numbers, row_label = np.arange(rows), "input channel"
    tile = min(0.7, 12 / columns)
    figure, [[axes]] = new_figure(1, 1, tile * columns + 1.8, tile * rows + 1)
    image = mosaic(tiles)
    if channels == 3:
        opacity = ~np.isnan(image[..., :1])
        axes.imshow(np.concatenate([np.nan_to_num(0.5 + 0.5 * image / largest), opacity], axis=-1))
    else:
        drawn = axes.imshow(image, cmap=diverging(), vmin=-largest, vmax=largest)
        color_bar(figure, drawn, axes, "weight")
    plural = "filters" if features > 1 else "filter"
    axes.set(title=f"{features} {plural} of {height} x {width} x {channels}", xlabel="filter", ylabel=row_label)
    number_tiles(axes.xaxis, np.arange(columns), width, image.shape[1])
    number_tiles(axes.yaxis, row_numbers, height, image.shape[0])
    axes.spines[:].set_visible(False)
    return figure


def plot_feature_maps(maps: Mapping[str, Any], example: int = 0, *, channels: int = 16) -> "Figure":
    """Plot the activations for one example, as returned by `feature_maps`: one row per layer, one tile per channel.

    The colors of each row range from its smallest to its largest finite value. Activations (N, features) are a row of
    cells.

    Args:
        maps: activations (N, H, W, C) or (N, features) by path.
        example: index of the example in the batch.
        channels: maximum number of channels per layer, at least 1.

    Raises:
        TypeError: if `example` or `channels` is not an int.
        ValueError: if `maps` is empty, an activation has another shape, or an argument is out of range.

    Example:
        >>> figure = jaxcnn.explain.plot_feature_maps({"conv1": jnp.ones((1, 8, 8, 4))})
    """
    if not maps:
        raise ValueError("plot_feature_maps needs the activations of at least one layer, got none")
    example = check_integer("plot_feature_maps", "example", example, 0)
    channels = check_integer("plot_feature_maps", "channels", channels)
    for path, activation in maps.items():
        shape = np.shape(activation)
        if len(shape) not in (2, 4):
            raise ValueError(f"plot_feature_maps needs (N, H, W, C) or (N, features), {path!r} is {shape}")
        if example >= shape[0]:
            raise ValueError(f"plot_feature_maps: example must be from 0 to {shape[0] - 1}, got {example}")
    rows = {path: np.asarray(activation[example], float) for path, activation in maps.items()}
    channels = min(channels, max((row.shape[-1] for row in rows.values() if row.ndim == 3), default=1))
    heights = [0.65 if row.ndim == 3 else 0.3 for row in rows.values()]
    figure, axes = new_figure(len(rows), 1, 10, sum(heights) + 0.35 * len(rows), height_ratios=heights)
    for ax, (path, row) in zip(axes[:, 0], rows.items(), strict=True):
        low, high = finite_range(row)
        values = f"from {low:.3g} to {high:.3g}" if np.isfinite(row).any() else "not finite"
        ax.set_title(f"{path} {row.shape}, {values}", loc="left", color=INK, size=10)
        ax.set(xticks=[], yticks=[])
        if row.ndim == 1:
            ax.imshow(row[None], cmap="viridis", aspect="auto", vmin=low, vmax=high)
            continue
        tiles = np.full((1, channels, *row.shape[:2], 1), np.nan)  # the same number of tiles in all rows
        tiles[0, : row.shape[-1], ..., 0] = row[..., :channels].transpose(2, 0, 1)
        ax.imshow(mosaic(tiles), cmap="viridis", vmin=low, vmax=high)
        ax.spines[:].set_visible(False)
    return figure


def plot_images(x: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Plot images (N, H, W, C), up to eight per row.

    The values of each image are rescaled from black to white.

    Args:
        x: images with 1 or 3 channels.
        titles: one title per image; default: "example 0", ..

    Raises:
        ValueError: if the images have another shape, if N is 0, or if the number of titles is wrong.

    Example:
        >>> figure = jaxcnn.explain.plot_images(jnp.ones((2, 8, 8, 1)), ["one", "two"])
    """
    x = checked_images("plot_images", x)
    titles = checked_titles("plot_images", titles, len(x))
    columns = min(len(x), 8)
    rows = math.ceil(len(x) / columns)
    figure, axes = new_figure(rows, columns, COLUMN * columns + 0.2, 1.8 * rows + 0.2)
    for ax in axes.flat[len(x) :]:
        ax.set_axis_off()
    for ax, image, title in zip(axes.flat, x, titles, strict=False):
        show(ax, image)
        ax.set_title(fitted(title, COLUMN - 0.1), size=SIZE, parse_math=False)
    return figure


def plot_saliency(x: Any, attributions: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Plot images (N, H, W, C) with an overlay of attributions from `saliency` and similar functions.

    Attributions are summed over channels and divided by the largest absolute value of each image. Positive values
    (evidence for the class) are vermillion, negative values (evidence against it) are blue.

    Args:
        x: images with 1 or 3 channels.
        attributions: attributions with the same shape as x.
        titles: one title per image; default: "example 0", ..

    Raises:
        ValueError: if a shape or the number of titles is wrong, or if N is 0.

    Example:
        >>> figure = jaxcnn.explain.plot_saliency(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 8, 8, 1)))
    """
    x, attributions = checked_images("plot_saliency", x), np.asarray(attributions, float)
    if attributions.shape != x.shape:
        raise ValueError(f"plot_saliency: attributions {attributions.shape} must have the same shape as x, {x.shape}")
    return overlaid(x, attributions.sum(-1), checked_titles("plot_saliency", titles, len(x)), signed=True)


def plot_grad_cam(x: Any, maps: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Plot images (N, H, W, C) with an overlay of maps (N, H', W') from `grad_cam`.

    Each map is resized to its image and divided by its largest value.

    Args:
        x: images with 1 or 3 channels.
        maps: one map per image, of any size.
        titles: one title per image; default: "example 0", ..

    Raises:
        ValueError: if a shape or the number of titles is wrong, or if N is 0.

    Example:
        >>> figure = jaxcnn.explain.plot_grad_cam(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 4, 4)))
    """
    x, maps = checked_images("plot_grad_cam", x), np.asarray(maps, float)
    if maps.ndim != 3 or len(maps) != len(x):
        raise ValueError(f"plot_grad_cam: maps must be (N, H, W) for x of shape {x.shape}, got shape {maps.shape}")
    maps = np.asarray(jax.image.resize(maps, x.shape[:-1], "linear"))
    return overlaid(x, maps, checked_titles("plot_grad_cam", titles, len(x)), signed=False)


def plot_confusion_matrix(matrix: Any, classes: Sequence[str] | None = None) -> "Figure":
    """Plot a matrix (classes, classes) from `confusion_matrix`: rows are true classes, columns are predicted classes.

    Colors show the fraction of the row on a square-root scale. With up to 20 classes, the cells also contain counts, as
    long as these fit.

    Args:
        matrix: number of examples for each pair of true and predicted class.
        classes: class names, in order.

    Raises:
        ValueError: if the matrix is not square, a count is negative or not finite, or the number of names is wrong.

    Example:
        >>> figure = jaxcnn.explain.plot_confusion_matrix(jnp.eye(3, dtype=int), ["cat", "dog", "fish"])
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"plot_confusion_matrix needs (classes, classes), got shape {matrix.shape}")
    if (bad := ~(np.isfinite(matrix) & (matrix >= 0))).any():
        index, at = first_true(bad)
        raise ValueError(f"plot_confusion_matrix: matrix[{at}] is {matrix[index]}; counts must be finite and >= 0")
    n = len(matrix)
    names = [str(name) for name in (range(n) if classes is None else classes)]
    if len(names) != n:
        raise ValueError(f"plot_confusion_matrix: expected names for {n} classes, got {len(names)} names")
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    ticks = np.arange(0, n, math.ceil(n / 25))
    names = [fitted(names[i], _NAME, size=9) for i in ticks]
    side, margin = min(max(0.5 * n, 3), 9), max(text_width(name, 9) for name in names)
    figure, [[axes]] = new_figure(1, 1, side + 1.4 + margin, side + 0.5 + margin)
    drawn = axes.imshow(fractions, cmap="cividis", norm=require_matplotlib().colors.PowerNorm(0.5, 0, 1))
    accuracy = matrix.trace() / max(matrix.sum(), 1)
    axes.set(
        title=f"accuracy {accuracy:.2%} on {matrix.sum():,} examples", xlabel="predicted class", ylabel="true class"
    )
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0, parse_math=False)
    axes.set_yticks(ticks, names, parse_math=False)
    color_bar(figure, drawn, axes, "fraction of true class")
    if n <= 20:
        with warnings.catch_warnings(action="ignore"):  # drawing warns of missing glyphs again
            figure.draw_without_rendering()  # sets the size of the cells
        cell = axes.get_window_extent().width / figure.dpi / n
        texts = [f"{count:,}" if count else "" for count in matrix.flat]
        size = 8 * min(1.0, 0.85 * cell / (max(text_width(text, 8) for text in texts) or cell))
        for text, ((row, column), fraction) in zip(texts, np.ndenumerate(fractions), strict=True):
            color = "black" if fraction > 0.3 else "white"
            if size >= _SMALLEST:
                axes.text(column, row, text, ha="center", va="center", size=size, color=color)
    return figure


def plot_mistakes(images: Any, mistakes: Mistakes, classes: Sequence[str] | None = None) -> "Figure":
    """Plot the misclassified images from `worst_mistakes` with their true and predicted classes.

    Args:
        images: images of all examples, (N, H, W, C) with 1 or 3 channels.
        mistakes: result of `worst_mistakes` on these examples.
        classes: class names, in order.

    Raises:
        ValueError: if the images have another shape, or if there are fewer images or names than the mistakes refer to.

    Example:
        >>> mistakes = jaxcnn.explain.worst_mistakes(jnp.eye(3), [1, 1, 1], 10)
        >>> figure = jaxcnn.explain.plot_mistakes(jnp.ones((3, 8, 8, 1)), mistakes)
    """
    images, n = np.asarray(images), len(mistakes.index)
    if images.ndim != 4:
        raise ValueError(f"plot_mistakes needs images (N, H, W, C), got shape {images.shape}")
    _check_indices("images", len(images), mistakes.index)
    if classes is not None:
        _check_indices("classes", len(classes), np.concatenate([mistakes.label, mistakes.predicted]))
    columns = max(min(n, 5), 1)
    rows = max(math.ceil(n / columns), 1)
    figure, axes = new_figure(rows, columns, max(2 * columns, 4), 2.5 * rows + 0.4)
    width = figure.get_figwidth() / columns - 0.1
    figure.suptitle(f"{n} mistakes with predicted probabilities" if n else "No mistakes", color=INK)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    for ax, index, *pair, p_label, p_predicted in zip(axes.flat, *map(np.asarray, mistakes), strict=False):
        show(ax, images[index])
        lines = (
            fitted(str(i if classes is None else classes[i]), width, f"{kind}: {{}}, {_percentage(p)}", size=9)
            for kind, i, p in zip(("true", "predicted"), pair, (p_label, p_predicted), strict=True)
        )
        ax.set_title("\n".join(lines), size=9, parse_math=False)
        ax.set_xlabel(f"example {index}", size=9)
    return figure


def _check_indices(argument: str, n: int, index: Any) -> None:
    """Raise ValueError if the mistakes have an index that is not among n images or names."""
    largest = np.max(index, initial=-1)
    if largest >= n:
        raise ValueError(f"plot_mistakes: the mistakes refer to {argument}[{largest}], but there are {n} {argument}")


def _percentage(p: float) -> str:
    return f"{p:.1%}" if np.isfinite(p) else "not finite"


def plot_curves(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Plot the recorded metrics that are numbers by epoch, from `FitResult.history` or the lines of metrics.jsonl.

    Args:
        history: one record per epoch with "epoch", "train" and optionally "test", which hold metrics by name.

    Raises:
        ValueError: if there is no record.

    Example:
        >>> history = [{"epoch": i, "train": {"loss": 1 / i}, "test": {"loss": 2 / i}} for i in (1, 2, 3)]
        >>> figure = jaxcnn.explain.plot_curves(history)
    """
    history = [record for record in history if "epoch" in record]  # the log may have lines of the user's own
    parts = [record.get(part, {}) for record in history for part in ("train", "test")]
    names = {name for part in parts for name, value in part.items() if not isinstance(value, list)}
    metrics = sorted(names, key=lambda name: (name != "loss", name))
    if not metrics:
        raise ValueError("plot_curves needs the records of at least one epoch, got none")
    figure, axes = new_figure(1, len(metrics), 4.5 * len(metrics), 3.2)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for part, color, line in (("train", BLUE, "o-"), ("test", VERMILLION, "s--")):
            points = [(record["epoch"], record[part][metric]) for record in history if metric in record.get(part, ())]
            if points:
                epochs, values = np.array(points, float).T  # None (not finite) becomes NaN
                ax.plot(epochs, values, line, color=color, label=part, markersize=4)
        ax.set(title=metric, xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color=INK, alpha=0.25)
        ax.legend(labelcolor=INK, frameon=False)
    return figure
