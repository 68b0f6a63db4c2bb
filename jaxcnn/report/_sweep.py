"""The report's section on a sweep: the curves of all runs, and a table of their settings and last metrics."""

import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from jaxcnn.report._chart import curves_chart
from jaxcnn.report._drawing import css_color, swatch
from jaxcnn.report._page import Html, joined, table, tag
from jaxcnn.train._event import PART_NAMES, scalar_metrics
from jaxcnn.train._sweep_result import SweepResult, SweepRun

_COLORED = 7  # groups with a color of their own; the rest is gray


def logged_runs(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a log that `sweep` wrote, one per run."""
    return [record for record in records if {"settings", "history", "watch", "nonfinite_step"} <= record.keys()]


def logged_sweep(records: Sequence[dict[str, Any]]) -> SweepResult:
    """The runs that `sweep` logged, without parameters."""
    runs = [SweepRun(record["settings"], record["history"], {}, {}, record["nonfinite_step"]) for record in records]
    return SweepResult(runs, records[-1]["watch"], pathlib.Path())


def sweep_section(result: SweepResult) -> Html:
    """Charts of all runs, and a table with one row per combination of settings, best first."""
    runs = result.runs
    groups, rows = result.groups(), result.rows()
    part = "test" if any("test" in epoch for run in runs for epoch in run.history) else "train"
    names = scalar_metrics((epoch for run in runs for epoch in run.history), part)
    ranks = [rank for rank, (_, members) in enumerate(groups) for _ in members]
    histories = [run.history for _, members in groups for run in members]
    charts = []
    for name in names:
        values = [[epoch[part].get(name) for epoch in history] for history in histories]
        curves = [[math.nan if value is None else value for value in line] for line in values]
        colors = [_color(rank) for rank in ranks]
        label = f"{name} per epoch of {len(runs)} runs"
        charts.append(
            curves_chart(f"{PART_NAMES[part]} {name}", curves, colors, percent=name == "accuracy", label=label)
        )
    text = [f"{len(runs)} runs of {len(groups)} combinations of settings."]
    if nonfinite := sum(run.nonfinite_step is not None for run in runs):
        text.append(f"{nonfinite} of them ended early, because a value was not finite.")
    if any("epochs" in row for row in rows):
        text.append(
            f"Successive halving trained {result.work:.0%} of the epochs; a dot is the end of a run that was dropped."
        )
    text.append("Combinations with a color are the best.")
    return joined(
        [
            tag("p", " ".join(text)),
            tag("div", *charts, class_="charts"),
            table(
                "Metrics after the last epoch of each run, best first",
                ["", *rows[0]],
                [_row(rank, row.values()) for rank, row in enumerate(rows)],
            ),
        ]
    )


def _row(rank: int, cells: Iterable[str]) -> list[Any]:
    return [tag("th", swatch(rank + 1), rank + 1, scope="row") if rank < _COLORED else rank + 1, *cells]


def _color(rank: int) -> str:
    return css_color(rank + 1 if rank < _COLORED else 0)
