"""How training went: curves, and a table, of all metrics over epochs."""

import math
from typing import Any

import numpy as np

from jaxcnn.report._page import Html, chart, joined, table, tag

_EPOCHS = 200  # shown, at most
_NOTES = {
    "penalty": "What the regularization of the weights, l1 and l2, adds to the training loss; it is not in the loss."
}


def training(records: list[dict[str, Any]]) -> Html:
    if not records:
        return tag("p", "There is no epoch on record yet.")
    parts = {"training": "train", "test": "test"}
    found = {name: None for record in records for part in parts.values() for name in record.get(part, {})}
    metrics = sorted(found, key=lambda name: name != "loss")
    places = np.unique(np.linspace(0, len(records) - 1, min(len(records), _EPOCHS)).round().astype(int))
    some = [records[i] for i in places]
    charts, columns = [], {"epoch": [record["epoch"] for record in some]}
    for metric in metrics:
        known = {}
        for name, part in parts.items():
            line = [record.get(part, {}).get(metric, "") for record in some]
            if any(value != "" for value in line):
                columns[f"{name} {metric}"] = [metric_text(metric, value) for value in line]
                known[name] = [math.nan if value in ("", None) else value for value in line]
        note = _NOTES.get(metric, "")
        charts.append(chart(metric, columns["epoch"], known, percent=metric == "accuracy", note=note))
    if all(record.get("seconds") is not None for record in some):
        columns["seconds"] = [f"{record['seconds']:,.1f}" for record in some]
    skipped = "" if len(some) == len(records) else f" {len(some)} of {len(records)} epochs are shown."
    return joined(
        [
            tag("p", f"Point at an epoch, or go to it with the tab key, to see its values.{skipped}{_pace(records)}"),
            tag("div", *charts, class_="charts"),
            tag(
                "details",
                tag("summary", "The same as a table"),
                table("Metrics after each epoch", [*columns], zip(*columns.values(), strict=True)),
            ),
        ]
    )


def _pace(records: list[dict[str, Any]]) -> str:
    """How long epochs took; the first one longer, as it has the compilation in it."""
    times = [record["seconds"] for record in records if record.get("seconds") is not None]
    if len(times) < max(3, len(records)):
        return ""
    rest = float(np.median(np.diff(times)))
    return f" The first epoch, with the compilation, took {times[0]:.1f} s, the others {rest:.2f} s (median)."


def metric_text(name: str, value: Any) -> str:
    """A value on record, where None is what was not finite; an empty one if there is none."""
    if not isinstance(value, int | float):
        return value if value == "" else "not finite"
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4g}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
