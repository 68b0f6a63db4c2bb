"""Shared drawing functions: figure style, images with cell values, frames and SVG files."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxcnn import train
from jaxcnn._extra import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design", 2008: distinguishable with color blindness, on white and on black.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
GRAY = "#8a8a8a"
INK = "#1c1c1e"  # text and axes; saved files switch to a light color on dark pages
_LIGHT_INK = "#ececf0"
FIGURE_WIDTH = 4.5  # inches: in the width of a phone, 360 pixels, text of 9 points has 9 pixels
_STYLE = {
    "font.size": 9,  # of all text
    "axes.titlesize": "medium",
    "font.sans-serif": ["DejaVu Sans"],  # one font only: every SVG text element lists all fallbacks
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jaxcnn",  # the same data gives the same file
} | {f"{part}color": INK for part in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.")}


class ConceptFigure(NamedTuple):
    """The figure of a concept, with its file name and alt text."""

    name: str
    figure: "Figure"
    alt: str  # text for screen readers

    def save(self, folder: str) -> pathlib.Path:
        """Write the figure to `folder/name.svg`. Its text is dark on light pages and light on dark pages."""
        path = pathlib.Path(folder, f"{self.name}.svg")
        path.parent.mkdir(parents=True, exist_ok=True)
        with load_matplotlib().rc_context(_STYLE):
            self.figure.savefig(path, metadata={"Title": self.alt, "Date": None})
        ink = f":root{{--ink:{INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{_LIGHT_INK}}}}}"
        svg = path.read_text(encoding="utf-8").replace(INK, "var(--ink)")
        style = '<style type="text/css">'
        path.write_text(svg.replace(style, style + ink, 1), encoding="utf-8", newline="\n")
        return path


def command(main: Callable[[Any], ConceptFigure], config: dict[str, Any], description: str) -> None:
    """Run one concept from the command line: print its results and save its figure in the folder `out`."""

    def run(config):
        load_matplotlib()  # fail before computing anything
        print(main(config).save(config["out"]))

    train.command(run, config | {"out": "runs/concepts"}, description)


def drawing(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """Return `draw` with the shared figure style applied."""

    @functools.wraps(draw)
    def styled(*args):
        with load_matplotlib().rc_context(_STYLE):
            return draw(*args)

    return styled


def panels(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple["Figure", np.ndarray]:
    """Return a figure of width x height inches and its axes (rows, columns)."""
    figure = load_matplotlib().figure.Figure((width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)


def mosaic(layout: Any, width: float, height: float, **grid: Any) -> tuple["Figure", dict[str, "Axes"]]:
    """Return a figure and its named axes, from a layout such as "AAB;CCC" or lists of names."""
    figure = load_matplotlib().figure.Figure((width, height), layout="constrained")
    return figure, figure.subplot_mosaic(layout, **grid)


def image(
    ax: "Axes",
    values: Any,
    title: str = "",
    *,
    cmap: Any = "gray",
    limits: tuple[float, float] | None = None,
    cell_format: Callable[[Any], str] | None = None,
) -> None:
    """Draw values (H, W) as cells. `cell_format`, e.g. "{:.2f}".format, formats the value written in each cell."""
    values = np.asarray(values)
    low, high = limits or (values.min(), values.max())
    drawn = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="none")
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if cell_format is None:
        return
    for (i, j), value in np.ndenumerate(values):
        text = cell_format(value).replace("-", "\N{MINUS SIGN}")
        dark = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5
        ax.text(j, i, text, ha="center", va="center", color="white" if dark else "black")


def frame(ax: "Axes", row: float, column: float, height: float, width: float, color: str = VERMILLION) -> None:
    """Draw a frame around height x width cells of an image, starting at (row, column)."""
    box = load_matplotlib().patches.Rectangle((column - 0.5, row - 0.5), width, height, fill=False, ec=color, lw=2)
    box.set_clip_on(False)
    ax.add_patch(box)


def signed(values: Any) -> dict[str, Any]:
    """Return `image` options for signed values: blue for negative, light for zero, vermillion for positive."""
    largest = float(np.abs(values).max()) or 1.0
    cmap = load_matplotlib().colors.LinearSegmentedColormap.from_list("signed", [BLUE, "#eeeeee", VERMILLION])
    return {"cmap": cmap, "limits": (-largest, largest)}


def colors(names: Sequence[str]) -> Any:
    """Return a colormap from 0, 1, .. to these colors."""
    return load_matplotlib().colors.ListedColormap(names)


def load_matplotlib() -> Any:
    """Import matplotlib, or raise an error that tells how to install it."""
    try:
        import matplotlib.colors
        import matplotlib.figure
        import matplotlib.patches
    except ImportError as error:
        raise MissingExtraError("figures need matplotlib", "plot") from error
    return matplotlib
