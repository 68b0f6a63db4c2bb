"""Drawings of the report: scatter plots and curves as SVG, class colors over images, and examples of any kind."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.report._chart import axis_ticks, linear_scale, path_data
from jaxcnn.report._page import Html, image, number, tag

# Gray for class 0, usually the background, then the colors of Okabe and Ito, "Color universal design", 2008.
_COLORS = ("8c8c8c", "e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7")
_SIDE, _MARGIN = 300, 48  # size of a scatter plot
_WIDTH, _HEIGHT = 240, 90  # size of curves
_LINES = 4  # kinds of lines in the style sheet


def class_color(k: int) -> tuple[int, int, int]:
    """The color of class k: red, green and blue from 0 to 255."""
    if k < len(_COLORS):
        red, green, blue = bytes.fromhex(_COLORS[k])
    else:
        # Pale colors, which differ from the first eight and for up to 21 classes from each other.
        red, green, blue = (round(255 * x) for x in colorsys.hsv_to_rgb((k * 0.618 + 0.7) % 1, 0.6, 1))
    return red, green, blue


def css_color(k: int) -> str:
    """The color of class k in CSS, such as "#0072b2"."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(k))


def swatch(k: int) -> Html:
    """A square in the color of class k."""
    fill = css_color(k)
    return tag(
        "svg", tag("rect", width=10, height=10, fill=fill), viewBox="0 0 10 10", class_="swatch", aria_hidden="true"
    )


def legend(names: Sequence[str] | Mapping[int, str], classes: Sequence[int]) -> Html:
    """The names of these classes with their colors."""
    return tag("ul", *(tag("li", swatch(k), names[k]) for k in classes), class_="keys legend", role="list")


def overlay(classes: np.ndarray, pixels: np.ndarray | None) -> np.ndarray:
    """Class colors of a map (H, W) over an image (H, W, 1 or 3) from 0 to 1. A class of -1 has no color."""
    base = np.ones((*classes.shape, 3)) if pixels is None else np.broadcast_to(pixels, (*classes.shape, 3))
    palette = np.array([class_color(k) for k in range(max(int(classes.max()), 0) + 1)]) / 255
    weight = 1.0 if pixels is None else 0.6
    return np.where((classes >= 0)[..., None], (1 - weight) * base + weight * palette[classes], base)


def example(values: np.ndarray, alt: str) -> Html:
    """An example from `thumbnails`: uint8 pixels (H, W, channels) as an image, a signal (T, C) as curves."""
    return image(values / 255, alt) if values.ndim == 3 else curves(values.T, alt)


def curves(lines: np.ndarray, alt: str) -> Html:
    """Lines (count, T) over a common axis from the smallest to the largest value. Non-finite values are gaps."""
    finite = lines[np.isfinite(lines)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    values = f"from {number(low, 3)} to {number(high, 3)}" if finite.size else "not finite"
    if high <= low:
        low, high = low - 0.5, low + 0.5
    across, up = linear_scale(0, max(lines.shape[1] - 1, 1), 2, _WIDTH - 2), linear_scale(low, high, _HEIGHT - 3, 3)
    paths = []
    for k, line in enumerate(lines):
        paths.append(tag("path", d=path_data(line, across, up), class_=f"line c{k % _LINES}"))
    text = f"{alt}, {lines.shape[1]} points {values}"
    return tag("svg", *paths, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=text, class_="curve")


def scatter(title: str, true: np.ndarray, predicted: np.ndarray) -> Html:
    """Predicted against true values, with equal axes and the diagonal. Values that are not finite are left out."""
    finite = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[finite].astype(float), predicted[finite].astype(float)
    both = np.concatenate([true, predicted])
    ticks = axis_ticks(both.min(), both.max()) if both.size else [0.0, 1.0]
    across, up = _square_scales(ticks)
    points = zip(true, predicted, strict=True)
    dots = [tag("circle", cx=across(x), cy=up(y), r=2.5, class_="dot training point") for x, y in points]
    label = f"Predicted against true values of {title}: {len(true)} points between {ticks[0]:.6g} and {ticks[-1]:.6g}"
    return _square(title, " predicted (up), true (right)", dots, ticks, "true value", label)


def reliability(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray) -> Html:
    """Bars of the accuracy in equal bins of the confidence, and the gap to the mean confidence (bins,).

    Empty bins, and bins whose confidence is not finite, are not drawn.
    """
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    across, up = _square_scales(ticks)
    bins, parts, texts = len(count), [], []
    for i in np.flatnonzero((count > 0) & np.isfinite(confidence)):
        left, right, top = across(i / bins), across((i + 1) / bins), up(accuracy[i])
        height, x = round(up(0) - top, 1), across(confidence[i])
        parts.append(tag("rect", x=left, y=top, width=round(right - left - 1, 1), height=height, class_="bar"))
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=up(confidence[i]), class_="gap"))
        texts.append(f"confidence {confidence[i]:.0%}, accuracy {accuracy[i]:.0%} of {int(count[i]):,}")
    return _square("Accuracy", " (up) against confidence (right)", parts, ticks, "confidence", "; ".join(texts))


def _square_scales(ticks: Sequence[float]) -> tuple[Any, Any]:
    """The positions of values on the equal axes of a square."""
    ends = ticks[0], ticks[-1]
    return linear_scale(*ends, _MARGIN, _SIDE - 8), linear_scale(*ends, _SIDE - _MARGIN, 8)


def _square(title: str, axes: str, marks: Sequence[Html], ticks: Sequence[float], below: str, label: str) -> Html:
    """A figure of marks on equal axes with the diagonal. `below` names the horizontal axis."""
    across, up = _square_scales(ticks)
    low, high = ticks[0], ticks[-1]
    parts = []
    for tick in ticks:
        parts.append(tag("line", x1=across(low), x2=across(high), y1=up(tick), y2=up(tick), class_="rule"))
        parts.append(tag("text", f"{tick:.6g}", x=_MARGIN - 6, y=up(tick) + 4, class_="end"))
        parts.append(tag("text", f"{tick:.6g}", x=across(tick), y=_SIDE - _MARGIN + 18, class_="middle"))
    diagonal = tag("line", x1=across(low), x2=across(high), y1=up(low), y2=up(high), class_="diagonal")
    name = tag("text", below, x=_SIDE - 8, y=_SIDE - 8, class_="end")
    svg = tag("svg", *parts, diagonal, *marks, name, viewBox=f"0 0 {_SIDE} {_SIDE}", role="img", aria_label=label)
    return tag("figure", tag("figcaption", tag("strong", title), axes), svg, class_="scatter")
