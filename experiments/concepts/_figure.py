"""What all concepts share: how a figure looks, how an image with numbers is drawn, and how it is saved."""

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

# Okabe and Ito, "Color universal design", 2008: they can be told apart by the color-blind, on white and on black.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
GRAY = "#8a8a8a"
INK = "#1c1c1e"  # of text and axes; in a file it is light where the page is dark
_LIGHT_INK = "#ececf0"
_STYLE = {
    "font.size": 9,
    "font.sans-serif": ["DejaVu Sans"],  # alone, as every text in a file names all that could stand in
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jaxcnn",  # the same numbers give the same file
} | {f"{part}color": INK for part in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.")}


class Shown(NamedTuple):
    """What is to be seen of a concept."""

    name: str
    figure: "Figure"
    alt: str  # what the figure shows, for those who do not see it

    def save(self, folder: str) -> pathlib.Path:
        """Write the figure as `folder/name.svg`; its text is dark on light pages and light on dark ones."""
        path = pathlib.Path(folder, f"{self.name}.svg")
        path.parent.mkdir(parents=True, exist_ok=True)
        with load_matplotlib().rc_context(_STYLE):
            self.figure.savefig(path, metadata={"Title": self.alt, "Date": None})
        ink = f":root{{--ink:{INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{_LIGHT_INK}}}}}"
        svg = path.read_text(encoding="utf-8").replace(INK, "var(--ink)")
        style = '<style type="text/css">'
        path.write_text(svg.replace(style, style + ink, 1), encoding="utf-8", newline="\n")
        return path


def command(main: Callable[[Any], Shown], config: dict[str, Any], description: str) -> None:
    """One concept by itself: it prints its numbers, and its figure is saved in the folder `out`."""

    def checked(config):
        load_matplotlib()  # before anything is computed
        print(main(config).save(config["out"]))

    train.command(checked, config | {"out": "runs/concepts"}, description)


def drawing(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    """`draw`, in the style of all figures here."""

    @functools.wraps(draw)
    def styled(*args):
        with load_matplotlib().rc_context(_STYLE):
            return draw(*args)

    return styled


def panels(rows: int, columns: int, width: float, height: float, **grid: Any) -> tuple["Figure", np.ndarray]:
    """A figure of width x height inches, and its axes (rows, columns)."""
    figure = load_matplotlib().figure.Figure((width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid)


def mosaic(layout: Any, width: float, height: float, **grid: Any) -> tuple["Figure", dict[str, "Axes"]]:
    """The same for axes of several cells, which have names: "AAB;CCC", or lists of names."""
    figure = load_matplotlib().figure.Figure((width, height), layout="constrained")
    return figure, figure.subplot_mosaic(layout, **grid)


def image(
    ax: "Axes",
    values: Any,
    title: str = "",
    *,
    cmap: Any = "gray",
    limits: tuple[float, float] | None = None,
    numbers: Callable[[Any], str] | None = None,
    size: float = 8,
) -> None:
    """Values (H, W) as cells, with the number in each if `numbers`, such as "{:.2f}".format, says how to write it."""
    values = np.asarray(values)
    low, high = limits or (values.min(), values.max())
    drawn = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, interpolation="none")
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if numbers is None:
        return
    for (i, j), value in np.ndenumerate(values):
        text = numbers(value).replace("-", "\N{MINUS SIGN}")
        dark = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5
        ax.text(j, i, text, ha="center", va="center", size=size, color="white" if dark else "black")


def frame(ax: "Axes", row: float, column: float, height: float, width: float, color: str = VERMILLION) -> None:
    """A line around cells of an image, from (row, column) on."""
    box = load_matplotlib().patches.Rectangle((column - 0.5, row - 0.5), width, height, fill=False, ec=color, lw=2)
    box.set_clip_on(False)
    ax.add_patch(box)


def signed(values: Any) -> dict[str, Any]:
    """Options of `image` for values around zero: blue below, vermillion above, light at zero."""
    most = float(np.abs(values).max()) or 1.0
    cmap = load_matplotlib().colors.LinearSegmentedColormap.from_list("signed", [BLUE, "#eeeeee", VERMILLION])
    return {"cmap": cmap, "limits": (-most, most)}


def colors(names: Sequence[str]) -> Any:
    """A map from 0, 1, .. to these colors."""
    return load_matplotlib().colors.ListedColormap(names)


def load_matplotlib() -> Any:
    """The package, with the parts that figures need, or an error that says how to install it."""
    try:
        import matplotlib.colors
        import matplotlib.figure
        import matplotlib.patches
    except ImportError as error:
        raise MissingExtraError("figures are drawn by matplotlib", "plot") from error
    return matplotlib
