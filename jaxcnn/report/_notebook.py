"""HTML of results for notebooks: parts of the report with their style, in the colors of the notebook's theme."""

import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.data import Dataset
from jaxcnn.report._drawing import example, legend, overlay, reliability
from jaxcnn.report._examples import IMAGE, shrink, thumbnails
from jaxcnn.report._page import VIEW_STYLE, Html, figure, image, isolated, joined, table, tag, tiles
from jaxcnn.report._sweep import sweep_section
from jaxcnn.report._training import training
from jaxcnn.train import FitResult, SweepResult

_CLASSES, _PER_CLASS = 20, 8  # maximum numbers of classes, and of examples of each
_EXAMPLES = 24  # maximum number for other labels
_NUMBERS = 3  # maximum number of values in a caption


def _scoped(style: str) -> str:
    """The style sheet for elements inside the class "jaxcnn". The class is doubled to override the rules of Jupyter."""

    def selectors(match):
        return "\n" + ", ".join(f".jaxcnn.jaxcnn {selector.strip()}" for selector in match[1].split(",")) + " {"

    return re.sub(r"([^{}]+)\{", selectors, style).strip()


# Contrast of both line colors: at least 3.8 on white and on #111111.
_STYLE = f""".jaxcnn {{ --ink: currentColor; --soft: color-mix(in srgb, currentColor 75%, transparent);
  --rule: color-mix(in srgb, currentColor 25%, transparent); --card: color-mix(in srgb, currentColor 8%, transparent);
  --paper: transparent; --training: #0a7ac0; --test: #d55e00; --hit: #0a7ac0; --miss: #d55e00; max-width: 72rem; }}
{_scoped(VIEW_STYLE)}
.jaxcnn.jaxcnn table {{ margin: 0; }}"""


def fit_html(fitted: FitResult) -> str:
    """The outcome, and the curves of all metrics."""
    return _fragment(tag("p", repr(fitted)), training(fitted.history))


def sweep_html(result: SweepResult) -> str:
    """The best run, the curves of all runs, and the table of combinations."""
    return _fragment(tag("p", repr(result)), sweep_section(result))


def reliability_html(confidence: Any, accuracy: Any, count: Any) -> str:
    return _fragment(reliability(*map(np.asarray, (confidence, accuracy, count))))


def dataset_html(dataset: Dataset) -> str:
    """Sizes, and a contact sheet: the first examples of each class, or for other labels the first ones."""
    images, labels = np.asarray(dataset.images), np.asarray(dataset.labels)
    classes = [] if dataset.classes is None else [isolated(name) for name in dataset.classes]
    parts = [tag("p", repr(dataset))]
    if len(images) and images.ndim in (3, 4):  # signals and images; volumes are not drawn
        is_class = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
        sheet = _of_classes if is_class and (classes or len(np.unique(labels)) <= _CLASSES) else _first
        parts.append(sheet(images, labels, classes))
    return _fragment(*parts)


def _fragment(*parts: Html) -> str:
    return tag("div", tag("style", Html(_STYLE)), *parts, class_="jaxcnn")


def _of_classes(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Html:
    values, counts = np.unique(labels, return_counts=True)
    rows = []
    for value, count in zip(values[:_CLASSES], counts, strict=False):
        name = classes[value] if 0 <= value < len(classes) else str(value)
        index = np.flatnonzero(labels == value)[:_PER_CLASS]
        views = (example(pixels, f"Example {i}, class {name}") for i, pixels in _views(images, index))
        rows.append((name, f"{count:,}", tag("td", _sheet(images, views))))
    others = len(values) - len(rows)
    caption = "The first examples of each class" + (f"; {others} further classes are not shown" if others else "")
    return table(caption, ["class", "examples", ""], rows)


def _first(images: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Html:
    index = np.arange(min(len(images), _EXAMPLES))
    if images.ndim == 4 and labels.shape == images.shape[:3] and np.issubdtype(labels.dtype, np.integer):
        return _label_maps(images, labels, classes, index)
    views = []
    for i, pixels in _views(images, index):
        text = _label_text(labels[i], classes) if i < len(labels) else ""
        views.append(figure(example(pixels, f"Example {i}{text and f', {text}'}"), text))
    return _sheet(images, views)


def _label_maps(images: np.ndarray, labels: np.ndarray, classes: Sequence[str], index: np.ndarray) -> Html:
    """The images with the colors of their classes, and a legend."""
    maps = shrink(jnp.asarray(labels[index, ..., None], jnp.float32), IMAGE, "nearest")
    shown = np.asarray(maps)[..., 0].astype(int)
    names = classes or [str(k) for k in range(min(_CLASSES, max(int(shown.max()) + 1, 0)))]
    shown = np.where(shown < len(names), shown, -1)  # such as an ignored label
    views = (
        image(overlay(classes_of, pixels / 255), f"Image {i} with the colors of its classes")
        for classes_of, (i, pixels) in zip(shown, _views(images, index), strict=True)
    )
    return joined([legend(names, [int(k) for k in np.unique(shown) if k >= 0]), _sheet(images, views)])


def _views(images: np.ndarray, index: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(index, small version) of these examples."""
    small = thumbnails(Dataset(images[index], np.zeros(len(index))), range(len(index)))
    return [] if small is None else list(zip(index.tolist(), small, strict=True))


def _sheet(images: np.ndarray, views: Any) -> Html:
    return tag("div", tiles(*views), class_="large") if images.ndim == 3 else tiles(*views)  # signals are wider


def _label_text(label: Any, classes: Sequence[str]) -> str:
    values = np.ravel(label)
    if values.size == len(classes) > 1 and np.isin(values, (0, 1)).all():
        return ", ".join(name for name, value in zip(classes, values, strict=True) if value) or "none"
    return ", ".join(f"{float(value):.4g}" for value in values[:_NUMBERS]) + ", .." * (values.size > _NUMBERS)
