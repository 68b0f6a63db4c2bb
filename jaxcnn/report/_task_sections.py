"""The report's section on predictions, for each task other than the classification of images."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxcnn.report._drawing import curves, example, legend, overlay, scatter, swatch
from jaxcnn.report._page import Html, figure, image, joined, percentage, table, tag, tiles

Info = dict[str, Any]
Arrays = dict[str, np.ndarray]

_FIRST = 4  # of the shown examples, the first of the data; the others have the largest errors
_SCATTERS = 4  # maximum number of plots
_NAMES = 3  # maximum number of targets below an example


def task_sections(info: Info, arrays: Arrays) -> dict[str, Html]:
    """The section of the task, by title; none if the task is unknown."""
    if "task" not in info:
        return {}
    title, content = _TASKS[info["task"]]
    return {title: joined(content(info, arrays))}


def _segmentation(info: Info, arrays: Arrays) -> list[Html]:
    names, (hits, predicted, actual) = info["names"], arrays["counts"]
    union = predicted + actual - hits
    iou = hits / np.where(union > 0, union, 1)
    occurs = np.flatnonzero(union > 0)
    cell = lambda k: tag("th", swatch(k), " ", names[k], scope="row")
    rows: list[Sequence[Any]] = [(cell(k), f"{actual[k]:,}", f"{predicted[k]:,}", f"{iou[k]:.4f}") for k in occurs]
    mean = iou[occurs].mean() if occurs.size else np.nan
    rows.append(("mean or total", f"{actual.sum():,}", f"{predicted.sum():,}", _text(mean)))
    columns = ["class", "positions", "predicted positions", "IoU"]
    parts = [table("Intersection over union (IoU) of each class that occurs", columns, rows)]
    if "true" not in arrays:
        return parts
    visible = np.unique([arrays["true"], arrays["predicted"]])
    parts.append(legend(names, [int(k) for k in visible if k >= 0]))
    images = arrays["input"] / 255 if "input" in arrays else [None] * len(arrays["index"])

    def item(n):
        i, pixels, true, guess = arrays["index"][n], images[n], arrays["true"][n], arrays["predicted"][n]
        shown = [] if pixels is None else [image(pixels, f"Image {i}")]
        shown += [
            image(overlay(classes, pixels), f"{kind} classes of image {i}: {_fractions(classes, names)}")
            for kind, classes in (("True", true), ("Predicted", guess))
        ]
        right = 1 - arrays["error"][n]
        text = "no position counts" if np.isnan(right) else f"{right:.1%} correct"
        return figure(_row(shown), tag("strong", f"Image {i}"), f" {text}")

    order = "The image, its true classes and the predicted classes." if "input" in arrays else "True, then predicted."
    return parts + _groups(order, map(item, range(len(images))), "wide")


def _fractions(classes: np.ndarray, names: Sequence[str]) -> str:
    """The classes of a map with their fractions of its area, as text."""
    found, counts = np.unique(classes, return_counts=True)
    return ", ".join(
        f"{names[k] if k >= 0 else 'none'} {percentage(count / classes.size)}"
        for k, count in zip(found, counts, strict=True)
    )


def _reconstruction(info: Info, arrays: Arrays) -> list[Html]:
    squared, absolute = (_text(value) for value in arrays["mean"])
    text = f"The mean squared error is {squared}, the mean absolute error {absolute}."
    if "true" not in arrays:
        return [tag("p", text)]
    signals = "difference" not in arrays
    difference = arrays.get("difference", np.zeros(1))
    largest = float(np.max(difference, where=np.isfinite(difference), initial=0)) or 1.0

    def item(n):
        i = arrays["index"][n]
        source, true, guess = (arrays[name][n] for name in ("input", "true", "predicted"))
        if signals:
            pairs = zip(true.T, guess.T, strict=True)
            views = [
                curves(np.stack(pair), f"Target and output of example {i}, channel {c}") for c, pair in enumerate(pairs)
            ]
        else:
            views = [
                image(pixels / 255, f"{name} of image {i}")
                for name, pixels in (("Input", source), ("Target", true), ("Output", guess))
            ]
            error = difference[n]
            text = f"Error of image {i}, mean {_text(error.mean())}, maximum {_text(error.max())}"
            views.append(image(np.where(np.isfinite(error), error, largest)[..., None] / largest, text))
        return figure(_row(views), tag("strong", f"Example {i}"), f" squared error {_text(arrays['error'][n])}")

    order = (
        "The target as a solid line, the output as a dashed line."
        if signals
        else f"The input, the target, the output and the absolute error. White is an error of {_text(largest)}."
    )
    return [tag("p", text), *_groups(order, map(item, range(len(arrays["index"]))), "wide")]


def _regression(info: Info, arrays: Arrays) -> list[Html]:
    names, count = info["names"], int(arrays["count"])
    name = lambda k: "the target" if len(names) == 1 and names[k] == "0" else names[k]
    rows = [(name(k), *map(_text, column)) for k, column in enumerate(arrays["errors"].T)]
    columns = ["target", "mean absolute error", "root mean squared error", "R2"]
    parts = [table(f"Errors of each target over {count:,} examples", columns, rows)]
    plots = (
        scatter(name(k), arrays["points_true"][:, k], arrays["points_predicted"][:, k])
        for k in range(min(len(names), _SCATTERS))
    )
    drawn = f" {len(arrays['points_true']):,} of {count:,} examples are shown." * (len(arrays["points_true"]) < count)
    parts += [
        tag("p", f"Each point is an example; on the diagonal, the prediction is right.{drawn}"),
        tag("div", *plots, class_="charts"),
    ]
    if "images" not in arrays:
        return parts

    def item(n):
        i = arrays["index"][n]
        values = [
            f"{names[k]}: " * (len(names) > 1) + f"true {_text(t)}, predicted {_text(p)}"
            for k, (t, p) in enumerate(zip(arrays["true"][n], arrays["predicted"][n], strict=True))
        ]
        alt = f"Example {i}: {'; '.join(values)}"
        return figure(
            example(arrays["images"][n], alt), tag("strong", f"Example {i}"), *(tag("span", v) for v in values[:_NAMES])
        )

    parts += [
        tag("h3", "The worst predictions"),
        tag("p", "The examples with the largest squared errors, relative to the variance of each target."),
    ]
    return [*parts, tag("div", tiles(*map(item, range(len(arrays["index"])))), class_="large")]


def _labels(info: Info, arrays: Arrays) -> list[Html]:
    names = info["names"]
    rows = [
        (names[k], percentage(prevalence), *map(_text, rest))
        for k, (prevalence, *rest) in enumerate(arrays["quality"].T)
    ]
    columns = ["label", "prevalence", "precision", "recall", "average precision"]
    parts = [table("Quality of each label. A label with a probability above 50% is predicted", columns, rows)]
    if "images" not in arrays:
        return parts
    listed = lambda chosen: ", ".join(names[k] for k in np.flatnonzero(chosen)) or "none"

    def item(n):
        i, true, guess = arrays["index"][n], listed(arrays["true"][n]), listed(arrays["predicted"][n])
        view = example(arrays["images"][n], f"Example {i}, labels {true}, predicted {guess}")
        return figure(
            view, tag("strong", f"Example {i}"), tag("span", f"true: {true}"), tag("span", f"predicted: {guess}")
        )

    return parts + _groups(
        "Images with their true and predicted labels.", map(item, range(len(arrays["index"]))), "large"
    )


def signal_examples(info: Info, arrays: Arrays) -> Html:
    """The first signal of each class, with its prediction."""
    names = ("index", "label", "predicted", "probability")
    rows = zip(arrays["examples"], *(arrays[f"examples_{name}"] for name in names), strict=True)
    items = [
        figure(
            example(values, f"Example {i} of class {info['classes'][label]}"),
            tag("strong", info["classes"][label]),
            tag("span", f"predicted: {info['classes'][predicted]} {percentage(p)}"),
        )
        for values, i, label, predicted, p in rows
    ]
    text = "The first signal of each class, over time. Each channel is a line."
    return joined([tag("p", text), tag("div", tiles(*items), class_="large")])


def _groups(text: str, items: Iterable[Html], class_: str) -> list[Html]:
    """The first examples, then the worst, under their headings."""
    items = list(items)
    parts = [tag("h3", "The first examples"), tag("p", text), tag("div", tiles(*items[:_FIRST]), class_=class_)]
    if len(items) > _FIRST:
        parts += [tag("h3", "The examples with the largest errors"), tag("div", tiles(*items[_FIRST:]), class_=class_)]
    return parts


def _row(views: Sequence[Html]) -> Html:
    return tag("span", *views, class_="both")


def _text(value: Any) -> str:
    return f"{value:z.4g}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "not defined"


_TASKS = {
    "segmentation": ("Segmentation", _segmentation),
    "masks": ("Segmentation", _segmentation),
    "reconstruction": ("Reconstruction", _reconstruction),
    "regression": ("Regression", _regression),
    "labels": ("Labels", _labels),
}
