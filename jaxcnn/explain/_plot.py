"""Figures of what the other functions of `jaxcnn.explain` compute, drawn by matplotlib (the extra "plot").

Each is a `matplotlib.figure.Figure` by itself, without pyplot and its list of open figures: `figure.savefig("x.png")`.
Without matplotlib, a MissingExtraError says what to install.
All have no background, and lines and text that can be read on white as on black. Colours can be told apart by the
colour-blind: viridis and cividis, and those of Okabe and Ito, "Color universal design", 2008.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcnn._extra import MissingExtraError
from jaxcnn.explain._mistakes import Mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#7a7a7a"  # its contrast is 4.3 with white, 4.4 with #121212
_BLUE, _NEUTRAL, _VERMILLION = "#0072b2", "#eeeeee", "#d55e00"


def plot_filters(kernels: Any) -> "Figure":
    """The filters of a convolution (features, H, W, C), as `filters` gives them.

    A tile for each filter if they have 1 or 3 channels, where 3 are red, green and blue around grey; otherwise for each
    filter (across) and channel (down). Colours reach from minus to plus the largest weight.

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
    figure, [[axes]] = _figure(1, 1, tile * columns + 1.8, tile * rows + 1)
    image = _mosaic(tiles)
    if channels == 3:
        there = ~np.isnan(image[..., :1])
        axes.imshow(np.concatenate([np.nan_to_num(0.5 + 0.5 * image / most), there], axis=-1))
    else:
        drawn = axes.imshow(image, cmap=_diverging(), vmin=-most, vmax=most)
        _colour_bar(figure, drawn, axes, "weight")
    axes.set(title=f"{features} filters of {height} x {width} x {channels}", xlabel="filter", ylabel=row_label)
    _number_tiles(axes.xaxis, np.arange(columns), width, image.shape[1])
    _number_tiles(axes.yaxis, row_numbers, height, image.shape[0])
    axes.spines[:].set_visible(False)
    return figure


def plot_feature_maps(maps: Mapping[str, Any], example: int = 0, *, channels: int = 16) -> "Figure":
    """What the layers find in one picture, as `feature_maps` gives it: a row for each, a tile for each channel.

    Colours reach from the least to the largest value in the row. Outputs (N, features) are one row of cells.

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
    figure, axes = _figure(len(rows), 1, 10, sum(heights) + 0.35 * len(rows), height_ratios=heights)
    for ax, (path, row) in zip(axes[:, 0], rows.items(), strict=True):
        title = f"{path} {row.shape}, from {row.min():.3g} to {row.max():.3g}"
        ax.set_title(title, loc="left", color=_INK, size=10)
        ax.set(xticks=[], yticks=[])
        if row.ndim == 1:
            ax.imshow(row[None], cmap="viridis", aspect="auto")
            continue
        tiles = np.full((1, channels, *row.shape[:2], 1), np.nan)  # of one size in all rows
        tiles[0, : row.shape[-1], ..., 0] = row[..., :channels].transpose(2, 0, 1)
        ax.imshow(_mosaic(tiles), cmap="viridis", vmin=row.min(), vmax=row.max())
        ax.spines[:].set_visible(False)
    return figure


def plot_pictures(x: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Pictures (N, H, W, C), such as those of `feature_visualization` or of a dataset, up to eight in a row.

    The values of each are spread from black to white.

    Args:
        x: pictures with 1 or 3 channels.
        titles: a line for each; their numbers if there are none.

    Raises:
        ValueError: for other shapes, or no picture.

    Example:
        >>> figure = jaxcnn.explain.plot_pictures(jnp.ones((2, 8, 8, 1)), ["one", "two"])
    """
    x = np.asarray(x)
    if x.ndim != 4 or not len(x):
        raise ValueError(f"plot_pictures needs (N, H, W, C), got shape {x.shape}")
    columns = min(len(x), 8)
    rows = math.ceil(len(x) / columns)
    figure, axes = _figure(rows, columns, 1.5 * columns + 0.2, 1.8 * rows + 0.2)
    for ax in axes.flat[len(x) :]:
        ax.set_axis_off()
    for i, (ax, picture) in enumerate(zip(axes.flat, x, strict=False)):
        _show(ax, picture)
        ax.set_title(str(i) if titles is None else titles[i])
    return figure


def plot_saliency(x: Any, attributions: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Pictures (N, H, W, C) and, on them, attributions of the same shape: of `saliency` and its relatives.

    They are summed over channels, and each is divided by its largest absolute value. What speaks for the class is
    vermillion, what speaks against it is blue.

    Args:
        x: pictures with 1 or 3 channels.
        attributions: of the shape of x.
        titles: a line for each picture.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> figure = jaxcnn.explain.plot_saliency(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 8, 8, 1)))
    """
    attributions = np.asarray(attributions, float)
    if attributions.shape != np.shape(x):
        raise ValueError(f"plot_saliency: attributions {attributions.shape} must have the shape of x, {np.shape(x)}")
    return _overlaid(x, attributions.sum(-1), titles, signed=True)


def plot_grad_cam(x: Any, maps: Any, titles: Sequence[str] | None = None) -> "Figure":
    """Pictures (N, H, W, C) and, on them, maps (N, H', W') of `grad_cam`, brought to their size.

    Each map is divided by its largest value.

    Args:
        x: pictures with 1 or 3 channels.
        maps: for each, of any size.
        titles: a line for each picture.

    Raises:
        ValueError: for other shapes.

    Example:
        >>> figure = jaxcnn.explain.plot_grad_cam(jnp.ones((2, 8, 8, 1)), jnp.ones((2, 4, 4)))
    """
    maps = np.asarray(maps, float)
    if maps.ndim != 3 or len(maps) != len(x):
        raise ValueError(f"plot_grad_cam: maps must be (N, H, W) for x of shape {np.shape(x)}, got shape {maps.shape}")
    maps = np.asarray(jax.image.resize(maps, np.shape(x)[:-1], "linear"))
    return _overlaid(x, maps, titles, signed=False)


def plot_confusion_matrix(matrix: Any, classes: Sequence[str] | None = None) -> "Figure":
    """A matrix (classes, classes), as `confusion_matrix` gives it: a row for each class, a column for each prediction.

    Colours are shares of the row, on a scale that spreads the small ones; up to 20 classes have counts in the cells.

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
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(0.5 * n, 3), 9)
    figure, [[axes]] = _figure(1, 1, side + 1.5, side + 0.6)
    drawn = axes.imshow(shares, cmap="cividis", norm=_matplotlib().colors.PowerNorm(0.5, 0, 1))
    right = matrix.trace() / max(matrix.sum(), 1)
    axes.set(title=f"{right:.2%} of {matrix.sum():,} are right", xlabel="predicted class", ylabel="class")
    ticks = np.arange(0, n, math.ceil(n / 25))
    names = [names[i] for i in ticks]
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(ticks, names)
    if n <= 20:
        for (row, column), share in np.ndenumerate(shares):
            text = f"{matrix[row, column]:,}" if matrix[row, column] else ""
            axes.text(column, row, text, ha="center", va="center", size=8, color="black" if share > 0.3 else "white")
    _colour_bar(figure, drawn, axes, "share of the class")
    return figure


def plot_mistakes(images: Any, mistakes: Mistakes, classes: Sequence[str] | None = None) -> "Figure":
    """The pictures among `images` of which `worst_mistakes` tells: their class, and the one that they were taken for.

    Args:
        images: those of all examples, (N, H, W, C) with 1 or 3 channels.
        mistakes: on these examples.
        classes: their names, in order.

    Raises:
        ValueError: for pictures of other shapes.

    Example:
        >>> mistakes = jaxcnn.explain.worst_mistakes(jnp.eye(3), [1, 1, 1], 10)
        >>> figure = jaxcnn.explain.plot_mistakes(jnp.ones((3, 8, 8, 1)), mistakes)
    """
    n = len(mistakes.index)
    columns = max(min(n, 5), 1)
    rows = max(math.ceil(n / columns), 1)
    figure, axes = _figure(rows, columns, max(2 * columns, 4), 2.5 * rows + 0.4)
    figure.suptitle(f"{n} mistakes, with the model's probabilities" if n else "No mistakes", color=_INK)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    for ax, index, *pair, p_label, p_predicted in zip(axes.flat, *map(np.asarray, mistakes), strict=False):
        label, predicted = (str(i) if classes is None else classes[i] for i in pair)
        _show(ax, np.asarray(images)[index])
        ax.set_title(f"class {label}: {p_label:.1%}\ntaken for {predicted}: {p_predicted:.1%}", size=9)
        ax.set_xlabel(f"example {index}", size=9)
    return figure


def plot_curves(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Loss, accuracy and whatever else was recorded, epoch by epoch: `Fitted.history`, or the lines of metrics.jsonl.

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
    figure, axes = _figure(1, len(metrics), 4.5 * len(metrics), 3.2)
    for ax, metric in zip(axes[0], metrics, strict=True):
        for part, colour, line in (("train", _BLUE, "o-"), ("test", _VERMILLION, "s--")):
            known = [(record["epoch"], record[part][metric]) for record in history if metric in record.get(part, ())]
            if known:
                epochs, values = np.array(known, float).T  # None, which was not finite, as NaN
                ax.plot(epochs, values, line, color=colour, label=part, markersize=4)
        ax.set(title=metric, xlabel="epoch", ylabel=metric)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color=_INK, alpha=0.25)
        ax.legend(labelcolor=_INK, frameon=False)
    return figure


def _matplotlib() -> Any:
    try:
        import matplotlib.colors
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("figures are drawn by matplotlib", "plot") from error
    return matplotlib


def _figure(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple["Figure", np.ndarray]:
    """A figure of width x height inches with rows x columns of axes."""
    figure = _matplotlib().figure.Figure((width, height), dpi=150, layout="constrained", facecolor="none")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_facecolor("none")
        ax.tick_params(colors=_INK, labelsize=9)
        ax.spines[:].set_color(_INK)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set(color=_INK, size=10)
    return figure, axes


def _diverging() -> Any:
    """Colours from -1 to 1, light at zero."""
    return _matplotlib().colors.LinearSegmentedColormap.from_list("diverging", [_BLUE, _NEUTRAL, _VERMILLION])


def _fading(signed: bool) -> Any:
    """Colours that are transparent at zero: from -1 to 1, or viridis from 0 to 1."""
    matplotlib = _matplotlib()
    if signed:
        stops = [(0, _BLUE), (0.5, f"{_BLUE}00"), (0.5, f"{_VERMILLION}00"), (1, _VERMILLION)]
        return matplotlib.colors.LinearSegmentedColormap.from_list("fading", stops)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, 1, 256)
    return matplotlib.colors.ListedColormap(colours)


def _colour_bar(figure: "Figure", drawn: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label(label, color=_INK)
    bar.ax.tick_params(colors=_INK, labelsize=9)
    bar.outline.set_color(_INK)
    bar.ax.set_facecolor("0.55")  # as under an overlay, where colours are transparent


def _mosaic(tiles: np.ndarray) -> np.ndarray:
    """(rows, columns, H, W, C) -> one picture, with NaN between the tiles."""
    rows, columns, height, width, channels = tiles.shape
    gap = max(1, width // 10)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=np.nan)
    return tiles.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]


def _number_tiles(axis: Any, numbers: np.ndarray, size: int, length: int) -> None:
    """Numbers at the centres of the tiles of `size` in a mosaic of `length`; at most 32 of them."""
    centres = np.linspace((size - 1) / 2, length - (size + 1) / 2, len(numbers))
    some = slice(None, None, math.ceil(len(numbers) / 32))
    axis.set_ticks(centres[some], numbers[some])


def _show(ax: "Axes", picture: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    """A picture (H, W, 1) or (H, W, 3), its values spread over those of a screen, or from `low` to `high` of them."""
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise ValueError(f"a picture to be drawn has 1 or 3 channels, (H, W, C), got shape {picture.shape}")
    picture = picture.astype(float) - picture.min()
    picture = low + (high - low) * picture / (picture.max() or 1)
    ax.imshow(np.broadcast_to(picture, (*picture.shape[:2], 3)))
    ax.set(xticks=[], yticks=[])


def _overlaid(x: Any, values: np.ndarray, titles: Sequence[str] | None, *, signed: bool) -> "Figure":
    """A row of pictures, and below it the same in pale grey under the values (N, H, W), each by its largest."""
    x, n = np.asarray(x), len(x)
    figure, axes = _figure(2, n, 1.5 * n + 1.2, 3.4)
    colours = _fading(signed)
    for i, (above, below) in enumerate(axes.T):
        _show(above, x[i])
        above.set_title(str(i) if titles is None else titles[i])
        _show(below, x[i].mean(-1, keepdims=True), 0.35, 0.75)
        relative = values[i] / (np.abs(values[i]).max() or 1)
        drawn = below.imshow(relative, cmap=colours, vmin=-1 if signed else 0, vmax=1)
    axes[0, 0].set_ylabel("picture")
    axes[1, 0].set_ylabel("attribution" if signed else "Grad-CAM")
    _colour_bar(figure, drawn, axes[1], "relative to largest")
    return figure
