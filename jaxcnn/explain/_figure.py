"""Shared parts of the `plot_*` figures: axes on a transparent background, color maps and image grids."""

import functools
import io
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnn._extra import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7a7a7a"  # contrast 4.3 on white, 4.4 on #121212
BLUE, VERMILLION = "#0072b2", "#d55e00"
_NEUTRAL = "#eeeeee"
COLUMN = 1.5  # inches per image
SIZE = 10  # of titles, in points
_SHORTEST, _LONGEST = 6, 150  # characters of a shortened text
_NOTEBOOK_DPI = 90  # pixels per inch of a figure in a notebook; the image has 150, for screens with a high resolution


def require_matplotlib() -> Any:
    try:
        import matplotlib.colors
        import matplotlib.figure
        import matplotlib.font_manager
        import matplotlib.textpath
    except ImportError as error:
        raise MissingExtraError("plotting requires matplotlib", "plot") from error
    return matplotlib


def new_figure(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple["Figure", np.ndarray]:
    """A figure of width x height inches and its axes (rows, columns)."""
    figure = _notebook_figure(require_matplotlib().figure.Figure)(
        (width, height), dpi=150, layout="constrained", facecolor="none"
    )
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)
    for ax in axes.flat:
        ax.set_facecolor("none")
        ax.tick_params(colors=INK, labelsize=9)
        ax.spines[:].set_color(INK)
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            text.set(color=INK, size=SIZE)
    return figure, axes


@functools.cache
def _notebook_figure(base: Any) -> Any:
    """The class of figures that notebooks show as an image. They show those of matplotlib only with its pyplot."""

    class NotebookFigure(base):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue(), {"width": round(_NOTEBOOK_DPI * self.get_figwidth())}

    return NotebookFigure


def diverging() -> Any:
    """A color map from -1 to 1 that is light at zero."""
    return require_matplotlib().colors.LinearSegmentedColormap.from_list("diverging", [BLUE, _NEUTRAL, VERMILLION])


def fading(signed: bool) -> Any:
    """A color map that is transparent at zero: from -1 to 1 if signed, otherwise viridis from 0 to 1."""
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
    bar.ax.set_facecolor("0.55")  # the gray of the images under a transparent overlay


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles (rows, columns, H, W, C) as one image with NaN between them."""
    rows, columns, height, width, channels = tiles.shape
    gap = max(1, width // 10)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=np.nan)
    return tiles.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), channels)[:-gap, :-gap]


def number_tiles(axis: Any, numbers: np.ndarray, size: int, length: int) -> None:
    """Set at most 32 tick labels at the centers of the tiles in a mosaic."""
    centers = np.linspace((size - 1) / 2, length - (size + 1) / 2, len(numbers))
    step = slice(None, None, math.ceil(len(numbers) / 32))
    axis.set_ticks(centers[step], numbers[step])


def finite_range(x: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest finite value; (0, 0) if there is none."""
    finite = x[np.isfinite(x)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def checked_images(name: str, x: Any) -> np.ndarray:
    """The images (N, H, W, C), N at least 1; otherwise raises ValueError."""
    x = np.asarray(x)
    if x.ndim != 4 or not len(x):
        raise ValueError(f"{name} needs (N, H, W, C), got shape {x.shape}")
    return x


def checked_titles(name: str, titles: Sequence[str] | None, n: int) -> list[str]:
    """The titles of n images, by default "example 0", ..; raises ValueError for another number."""
    titles = [f"example {i}" for i in range(n)] if titles is None else [str(title) for title in titles]
    if len(titles) != n:
        raise ValueError(f"{name}: titles must be one text per image, {n}, got {len(titles)}")
    return titles


def shortened(text: str, most: int) -> str:
    """At most this many characters, without those in the middle: names often differ only at their ends."""
    if len(text) <= most:
        return text
    kept = most - 2
    return f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"


def fitted(text: str, inches: float, template: str = "{}", size: float = SIZE) -> str:
    """The template with the text, which is shortened until the line is at most this wide."""
    lines = (template.format(shortened(text, most)) for most in range(min(len(text), _LONGEST), _SHORTEST, -1))
    shortest = template.format(shortened(text, _SHORTEST))
    return next((line for line in lines if text_width(line, size) <= inches), shortest)


def text_width(text: str, size: float) -> float:
    """The width in inches of the longest line of a text of this size in points."""
    matplotlib = require_matplotlib()
    font = matplotlib.font_manager.FontProperties(size=size)
    measure = matplotlib.textpath.text_to_path.get_text_width_height_descent
    with warnings.catch_warnings(action="ignore"):  # drawing warns of missing glyphs again
        return max(measure(line, font, ismath=False)[0] for line in text.split("\n")) / 72


def show(ax: "Axes", image: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    """Draw an image (H, W, 1) or (H, W, 3) with its values rescaled to the range from `low` to `high`."""
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"an image must be (H, W, C) with 1 or 3 channels, got shape {image.shape}")
    smallest, largest = finite_range(image)
    relative = (np.clip(image.astype(float), smallest, largest) - smallest) / (largest - smallest or 1)
    image = low + (high - low) * relative
    opacity = np.isfinite(image).all(-1, keepdims=True)  # NaN is transparent
    ax.imshow(np.concatenate([np.broadcast_to(np.nan_to_num(image), (*image.shape[:2], 3)), opacity], -1))
    ax.set(xticks=[], yticks=[])


def overlaid(x: np.ndarray, values: np.ndarray, titles: Sequence[str], *, signed: bool) -> "Figure":
    """A row of images and a row with their values (N, H, W), relative to the largest, over the gray images."""
    n = len(x)
    figure, axes = new_figure(2, n, COLUMN * n + 1.2, 3.4)
    colors = fading(signed)
    for i, (top, bottom) in enumerate(axes.T):
        show(top, x[i])
        top.set_title(fitted(titles[i], COLUMN - 0.1), size=SIZE, parse_math=False)
        show(bottom, x[i].mean(-1, keepdims=True), 0.35, 0.75)
        relative = values[i] / (max(map(abs, finite_range(values[i]))) or 1)
        drawn = bottom.imshow(relative, cmap=colors, vmin=-1 if signed else 0, vmax=1)
        if not np.isfinite(relative).any():
            bottom.set_xlabel("not finite")
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("attribution" if signed else "Grad-CAM")
    color_bar(figure, drawn, axes[1], "relative to maximum")
    return figure
