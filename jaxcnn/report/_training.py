"""The report's section on training: curves and a table of all metrics over epochs."""

import math
from typing import Any

import numpy as np

from jaxcnn.report._chart import chart, evenly_spaced
from jaxcnn.report._page import Html, joined, table, tag
from jaxcnn.train._event import PART_NAMES, scalar_metrics

_EPOCHS = 200  # maximum number shown
_ENTRIES = 20  # maximum length of a row or column of a metric that is an array
_MEANING = (
    "Training values are means over the steps of an epoch, with dropout and augmentation, so they may be worse than "
    "test values."
)
_NOTES = {"penalty": "The l1 and l2 penalties on the weights. Training minimizes the sum of loss and penalty."}


def training(records: list[dict[str, Any]]) -> Html:
    if not records:
        return tag("p", "No epoch has been recorded yet.")
    arrays = {
        f"{name} {metric}": np.array(value, float)
        for part, name in PART_NAMES.items()
        for metric, value in records[-1].get(part, {}).items()
        if isinstance(value, list)
    }
    names = dict.fromkeys(name for part in ("train", "test") for name in scalar_metrics(records, part))
    metrics = sorted(names, key=lambda name: name != "loss")
    sampled = [records[i] for i in evenly_spaced(len(records), _EPOCHS)]
    charts, columns = [], {"epoch": [record["epoch"] for record in sampled]}
    for metric in metrics:
        series = {}
        for part, name in reversed(PART_NAMES.items()):
            line = [record.get(part, {}).get(metric, "") for record in sampled]
            if any(value != "" for value in line):
                columns[f"{name} {metric}"] = [metric_text(metric, value) for value in line]
                series[name] = [math.nan if value in ("", None) else value for value in line]
        note = _NOTES.get(metric, "")
        charts.append(chart(metric, columns["epoch"], series, percent=metric == "accuracy", note=note))
    if all(record.get("seconds") is not None for record in sampled):
        columns["seconds"] = [f"{record['seconds']:,.1f}" for record in sampled]
    skipped = "" if len(sampled) == len(records) else f" {len(sampled)} of {len(records)} epochs are shown."
    return joined(
        [
            tag("p", f"Hover over an epoch, or focus it with the Tab key, to see its values.{skipped}{_pace(records)}"),
            tag("p", _MEANING),
            tag("div", *charts, class_="charts"),
            tag(
                "details",
                tag("summary", "Show as a table"),
                table("Metrics after each epoch", [*columns], zip(*columns.values(), strict=True)),
            ),
            *(_array(f"{name}, after epoch {records[-1]['epoch']}", values) for name, values in arrays.items()),
        ]
    )


def _array(caption: str, values: np.ndarray) -> Html:
    """The table of a metric that is a vector or matrix; a larger array is only named."""
    if values.ndim > 2 or max(values.shape) > _ENTRIES:
        return tag("p", f"{caption}: an array of shape {values.shape}, see metrics.jsonl.")
    rows = np.atleast_2d(values)
    text = lambda value: "not finite" if math.isnan(value) else f"{value:.4g}"
    return table(caption, ["", *range(rows.shape[1])], ((i, *map(text, row)) for i, row in enumerate(rows)))


def _pace(records: list[dict[str, Any]]) -> str:
    """The time per epoch. The first epoch is separate because it includes compilation."""
    times = [record["seconds"] for record in records if record.get("seconds") is not None]
    if len(times) < max(3, len(records)):
        return ""
    rest = float(np.median(np.diff(times)))
    return f" The first epoch took {times[0]:.1f} s including compilation. Later epochs took {rest:.2f} s (median)."


def metric_text(name: str, value: Any) -> str:
    """The text of a recorded value. None stands for a value that was not finite, "" for a missing value."""
    if not isinstance(value, int | float):
        return value if value == "" else "not finite"
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
