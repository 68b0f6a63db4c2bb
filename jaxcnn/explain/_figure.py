"""What the figures of `plot_*` have in common: axes on a clear background, colors, and images in a grid."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnn._extra import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7a7a7a"  # its contrast is 4.3 with white, 4.4 with #121212
BLUE, VERMILLION = "#0072b2", "#d55e00"
_NEUTRAL = "#eeeeee"


def require_matplotlib() -> Any:
    try:
        import matplotlib.colors
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("figures are drawn by matplotlib", "plot") from error
    return matplotlib


def new_figure(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple["Figure", np.ndarray]:
    """A figure of width x height inches with rows x columns of axes."""
    figure = require_matplotlib().figure.Figure((width, height), dpi=150, layout="constrained", facecolor="none")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_facecolor("none")
        ax.tick_params(colors=INK, labelsize=9)
        ax.spines[:].set_color(INK)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set(color=INK, size=10)
    return figure, axes


def diverging() -> Any:
    """Colors from -1 to 1, light at zero."""
    return require_matplotlib().colors.LinearSegmentedColormap.from_list("diverging", [BLUE, _NEUTRAL, VERMILLION])


def fading(signed: bool) -> Any:
    """Colors that are transparent at zero: from -1 to 1, or viridis from 0 to 1."""
    matplotlib = require_matplotlib()
    if signed:
        stops = [(0, BLUE), (0.5, f"{BLUE}00"), (0.5, f"{VERMILLION}00"), (1, VERMILLION)]
        return matplotlib.colors.LinearSegmentedColormap.from_list("fading", stops)
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 1, 256))
    colors[:, 3] = np.linspace(0, 1, 256)
    return matplotlib.colors.ListedColormap(colors)


def color_bar(figure: "Figure", drawn: Any, axes: Any, label: str) -> None:
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK, labelsize=9)
    bar.outline.set_color(INK)
    bar.ax.set_facecolor("0.55")  # as under an overlay, where colors are transparent


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """(rows, columns, H, W, C) -> one image, with NaN between the tiles."""
    rows, columns, height, width, channels = tiles.shape
    gap = max(1, width // 10)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=np.nan)
    return tiles.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]


def number_tiles(axis: Any, numbers: np.ndarray, size: int, length: int) -> None:
    """Numbers at the centers of the tiles of `size` in a mosaic of `length`; at most 32 of them."""
    centers = np.linspace((size - 1) / 2, length - (size + 1) / 2, len(numbers))
    some = slice(None, None, math.ceil(len(numbers) / 32))
    axis.set_ticks(centers[some], numbers[some])


def show(ax: "Axes", image: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    """An image (H, W, 1) or (H, W, 3), its values spread over those of a screen, or from `low` to `high` of them."""
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"an image to be drawn has 1 or 3 channels, (H, W, C), got shape {image.shape}")
    image = image.astype(float) - image.min()
    image = low + (high - low) * image / (image.max() or 1)
    ax.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))
    ax.set(xticks=[], yticks=[])


def overlaid(x: Any, values: np.ndarray, titles: Sequence[str] | None, *, signed: bool) -> "Figure":
    """A row of images, and below it the same in pale gray under the values (N, H, W), each by its largest."""
    x, n = np.asarray(x), len(x)
    figure, axes = new_figure(2, n, 1.5 * n + 1.2, 3.4)
    colors = fading(signed)
    for i, (above, below) in enumerate(axes.T):
        show(above, x[i])
        above.set_title(str(i) if titles is None else titles[i])
        show(below, x[i].mean(-1, keepdims=True), 0.35, 0.75)
        relative = values[i] / (np.abs(values[i]).max() or 1)
        drawn = below.imshow(relative, cmap=colors, vmin=-1 if signed else 0, vmax=1)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("attribution" if signed else "Grad-CAM")
    color_bar(figure, drawn, axes[1], "relative to largest")
    return figure
