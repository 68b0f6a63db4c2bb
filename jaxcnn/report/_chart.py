"""Line charts over epochs as SVG."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.report._page import Html, tag

_WIDTH, _HEIGHT = 420, 250  # size of a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 408, 30, 214  # bounds of its plot area
_STOPS = 40  # maximum number of epochs with a tooltip


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` indices from 0 to count - 1, the first and the last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def chart(
    title: str, epochs: Sequence[int], series: Mapping[str, Sequence[float]], *, percent: bool, note: str = ""
) -> Html:
    """A line chart over epochs. Hovering over or focusing an epoch shows its values.

    Args:
        title: name of the metric.
        epochs: the epochs, in order.
        series: one value per epoch for each line, "training" or "test"; NaN if missing.
        percent: whether to show the values as percentages.
        note: explanation below the chart.
    """
    values = np.array([*series.values()], float)
    finite = values[np.isfinite(values)]
    ticks = axis_ticks(finite.min(), finite.max()) if finite.size else [0.0, 1.0]
    across = linear_scale(epochs[0] - 0.5, epochs[-1] + 0.5, _LEFT, _RIGHT)
    up = linear_scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    value_text = lambda value: "none" if math.isnan(value) else f"{value:.2%}" if percent else f"{value:.4g}"
    parts = _axes(epochs, ticks, across, up, percent)
    for name, line in series.items():
        parts.append(tag("path", d=path_data(line, lambda i: across(epochs[i]), up), class_=f"line {name}"))
    stops = evenly_spaced(len(epochs), _STOPS)
    width = (_RIGHT - _LEFT) / len(stops)
    for i in stops:
        x = across(epochs[i])
        text = f"epoch {epochs[i]}: " + ", ".join(f"{name} {value_text(line[i])}" for name, line in series.items())
        dots = (
            tag("circle", cx=x, cy=up(line[i]), r=3, class_=f"dot {name}")
            for name, line in series.items()
            if math.isfinite(line[i])
        )
        area = tag("rect", x=round(x - width / 2, 1), y=_TOP, width=round(width, 1), height=_BOTTOM - _TOP)
        tooltip = tag("text", text, x=_RIGHT, y=_TOP - 14, class_="end tooltip")
        parts.append(tag("g", area, *dots, tooltip, class_="at", tabindex=0, role="img", aria_label=text))
    keys = (
        tag(
            "li",
            tag("svg", tag("path", d="M0 5L28 5", class_=f"line {name}"), viewBox="0 0 28 10", aria_hidden="true"),
            name,
        )
        for name in series
    )
    return tag(
        "figure",
        tag("figcaption", tag("strong", title), tag("ul", *keys, class_="keys", role="list")),
        tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="group", aria_label=f"{title} per epoch"),
        tag("p", note, class_="soft") if note else "",
        class_="chart",
    )


def curves_chart(
    title: str, curves: Sequence[Sequence[float]], colors: Sequence[str], *, percent: bool, label: str
) -> Html:
    """A line chart over epochs with many curves. NaN is a gap; a dot marks a single value or a shorter curve's end.

    Args:
        title: name of the metric.
        curves: values per epoch, from epoch 1.
        colors: the color of each curve, as in SVG. The first curve is drawn last, on top.
        percent: whether to show the values as percentages.
        label: what the chart shows, for screen readers.
    """
    epochs = range(1, max(map(len, curves), default=1) + 1)
    finite = np.array([value for curve in curves for value in curve if math.isfinite(value)])
    ticks = axis_ticks(finite.min(), finite.max()) if finite.size else [0.0, 1.0]
    across = linear_scale(0.5, len(epochs) + 0.5, _LEFT, _RIGHT)
    up = linear_scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    parts = _axes(epochs, ticks, across, up, percent)
    for curve, color in reversed([*zip(curves, colors, strict=True)]):
        data = path_data(curve, lambda i: across(i + 1), up)
        parts.append(tag("path", d=data, fill="none", stroke=color, stroke_width=1.4, stroke_opacity=0.8))
        if curve and (len(curve) == 1 or len(curve) < len(epochs)) and math.isfinite(curve[-1]):
            parts.append(tag("circle", cx=across(len(curve)), cy=up(curve[-1]), r=2, fill=color))
    return tag(
        "figure",
        tag("figcaption", tag("strong", title)),
        tag("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label),
        class_="chart",
    )


def path_data(line: Iterable[float], across: Callable[[int], float], up: Callable[[float], float]) -> str:
    """The path of a line, with gaps at values that are not finite. `across` is the position of a value by its index."""
    steps, pen = [], "M"
    for i, value in enumerate(line):
        if math.isfinite(value):
            steps.append(f"{pen}{across(i)} {up(value)}")
        pen = "L" if math.isfinite(value) else "M"
    return "".join(steps)


def _axes(epochs: Sequence[int], ticks: Sequence[float], across: Any, up: Any, percent: bool) -> list[Html]:
    """The rules and labels of both axes."""
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9) - 2 * percent)
    parts = []
    for tick in ticks:
        label = f"{tick:.{digits}%}" if percent else f"{tick:.{digits}f}"
        parts.append(tag("line", x1=_LEFT, x2=_RIGHT, y1=up(tick), y2=up(tick), class_="rule"))
        parts.append(tag("text", label, x=_LEFT - 8, y=up(tick) + 4, class_="end"))
    for tick in axis_ticks(epochs[0], epochs[-1]):
        if tick == int(tick) and epochs[0] <= tick <= epochs[-1]:
            parts.append(tag("text", int(tick), x=across(tick), y=_BOTTOM + 18, class_="middle"))
    parts.append(tag("text", "epoch", x=_RIGHT, y=_BOTTOM + 34, class_="end"))
    return parts


def linear_scale(low: float, high: float, start: float, end: float) -> Any:
    return lambda value: round(float(start + (value - low) / (high - low) * (end - start)), 1)


def axis_ticks(low: float, high: float) -> list[float]:
    """Round numbers, at least two, that cover `low` to `high`."""
    low, high = float(low), float(high)
    rough = max(high - low or abs(high) or 1.0, 1e-12) / 4  # labels cannot show smaller steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [i * step for i in range(first, last + 1)]
