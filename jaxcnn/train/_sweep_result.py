"""The result of `sweep`: the runs, a table of their settings and metrics, and the best network."""

import importlib
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxcnn._layer import Params, State
from jaxcnn.train._event import format_metrics
from jaxcnn.train.callbacks import metric_to_maximize

Combination = tuple[tuple[str, Any], ...]  # the settings without the seed, as items


class SweepRun(NamedTuple):
    """One run of a sweep.

    settings: its values of `over`.
    history: one record per epoch: "epoch", "train" and "test", like those of `fit`. With `halving`, a run that was
        dropped has fewer records than the setting "epochs".
    params, state: for inference, after the last epoch of `history`; NumPy arrays. With "ema", params are the EMA.
    nonfinite_step: the step whose loss, parameters or state were not finite, so that the run ended; None if it did not.
    """

    settings: dict[str, Any]
    history: list[dict[str, Any]]
    params: Params
    state: State
    nonfinite_step: int | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the last epoch: on the evaluation data, or without them on the training data."""
        last = self.history[-1] if self.history else {}
        return last.get("test", last.get("train", {}))

    def metric(self, watch: str) -> float | None:
        """The metric to maximize after the last epoch; None if it, or the run, is not finite."""
        if self.nonfinite_step is not None or not self.metrics:
            return None
        return metric_to_maximize(watch, self.metrics)


class SweepResult(NamedTuple):
    """The result of `sweep`.

    runs: in the order of the product of `over`, the last name fastest.
    watch: the setting "watch", which selects the best run.
    folder: the run folder.
    """

    runs: list[SweepRun]
    watch: str
    folder: pathlib.Path

    @property
    def best(self) -> SweepRun:
        """The run with the best metric after its last epoch. Seeds are not averaged.

        Only the runs with the most epochs count, as with `halving` others ended earlier.

        Raises:
            ValueError: if no run ended with a finite metric.
        """
        values = [run.metric(self.watch) for run in self.runs]
        finite = [(len(self.runs[i].history), value, -i) for i, value in enumerate(values) if value is not None]
        if not finite:
            raise ValueError("no run of the sweep has a finite metric; try smaller learning rates")
        return self.runs[-max(finite)[-1]]

    @property
    def work(self) -> float:
        """The number of trained epochs as a fraction of the number of runs times the epochs of the longest run.

        Below 1 if `halving` dropped runs, or runs ended because a value was not finite.
        """
        epochs = [len(run.history) for run in self.runs]
        return sum(epochs) / max(1, len(epochs) * max(epochs))

    def groups(self) -> list[tuple[dict[str, Any], list[SweepRun]]]:
        """The settings without the seed, and the runs that have them, best mean metric first.

        Combinations that were trained for more epochs precede others, and those with a non-finite run follow those
        without one.
        """
        return [(dict(settings), runs) for settings, runs in ranked(self.runs, self.watch)]

    def rows(self) -> list[dict[str, str]]:
        """The table by column: the settings, the mean and standard deviation of each metric over the seeds, the runs.

        One row per combination of settings, as in `groups`. A metric without a finite value is "-". With `halving`, the
        column "epochs" tells for how many epochs the combination was trained.
        """
        last = [run.metrics for run in self.runs]
        names = dict.fromkeys(name for row in last for name, value in row.items() if not isinstance(value, list))
        halved = len({len(run.history) for run in self.runs if run.nonfinite_step is None}) > 1
        rows = []
        for settings, runs in self.groups():
            finite = [run.metrics for run in runs if run.nonfinite_step is None]
            nonfinite = len(runs) - len(finite)
            values = {name: [row[name] for row in finite if row.get(name) is not None] for name in names}
            rows.append(
                {name: format_setting(value) for name, value in settings.items()}
                | {name: mean_and_std(name, numbers) for name, numbers in values.items()}
                | ({"epochs": str(_epochs(runs))} if halved else {})
                | {"runs": f"{len(runs)}, {nonfinite} not finite" if nonfinite else str(len(runs))}
            )
        return rows

    def table(self) -> str:
        """`rows` as text."""
        rows = self.rows()
        widths = [max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]]
        line = lambda cells: "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "\n".join([line(rows[0]), *(line(row.values()) for row in rows)])

    def __repr__(self) -> str:
        try:
            best = self.best
        except ValueError:
            return f"SweepResult({len(self.runs)} runs, none with a finite metric; results in {self.folder})"
        settings = ", ".join(f"{name}={format_setting(value)}" for name, value in best.settings.items())
        return f"SweepResult({len(self.runs)} runs; best {settings}: {format_metrics(best.metrics, precise=True)})"

    def _repr_html_(self) -> str:
        """HTML for notebooks: the curves of all runs, and the table."""
        # Not at the top: jaxcnn.report imports this package.
        return importlib.import_module("jaxcnn.report._notebook").sweep_html(self)


def combination(settings: dict[str, Any]) -> Combination:
    """The settings without the seed."""
    return tuple(item for item in settings.items() if item[0] != "seed")


def ranked(runs: Sequence[SweepRun], watch: str) -> list[tuple[Combination, list[SweepRun]]]:
    """The runs of each combination of settings, best first.

    Combinations without a finite run are last. The others are sorted by their epochs, then by whether all runs are
    finite, then by the mean of the metric.
    """
    groups: dict[Combination, list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(combination(run.settings), []).append(run)

    def order(item):
        values = [run.metric(watch) for run in item[1]]
        finite = [value for value in values if value is not None]
        mean = statistics.mean(finite) if finite else -math.inf
        return bool(finite), _epochs(item[1]), len(finite) == len(values), mean

    return sorted(groups.items(), key=order, reverse=True)


def _epochs(runs: Sequence[SweepRun]) -> int:
    return max(len(run.history) for run in runs)


def mean_and_std(name: str, values: list[float]) -> str:
    """The mean and sample standard deviation, an accuracy in percent; "-" without values."""
    if not values:
        return "-"
    scale, digits, unit = (100, 2, " %") if name == "accuracy" else (1, 4, "")
    std = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{std}{unit}"


def format_setting(value: float) -> str:
    """An integer, such as a seed, with all digits; another number with six."""
    return f"{value:g}" if isinstance(value, float) else str(value)
