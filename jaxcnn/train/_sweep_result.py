"""The result of `sweep`: the runs, a table of their settings and metrics, and the best network."""

import math
import pathlib
import statistics
from typing import Any, NamedTuple

from jaxcnn._layer import Params, State
from jaxcnn.train._event import format_metrics
from jaxcnn.train.callbacks import metric_to_maximize


class SweepRun(NamedTuple):
    """One run of a sweep.

    settings: its values of `over`.
    history: one record per epoch: "epoch", "train" and "test", as those of `fit`.
    params, state: for inference, after the last epoch; NumPy arrays. With "ema", params are the EMA.
    stopped: the step whose loss, parameters or state were not finite, so that the run ended; None if it did not.
    """

    settings: dict[str, Any]
    history: list[dict[str, Any]]
    params: Params
    state: State
    stopped: int | None = None

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the last epoch: on the evaluation data, or without them on the training data."""
        last = self.history[-1] if self.history else {}
        return last.get("test", last.get("train", {}))


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
        """The run with the best metric after its last epoch; of seeds, the best single one.

        Raises:
            ValueError: if no run ended with a finite metric.
        """
        ranked = [(value, -i) for i, run in enumerate(self.runs) if (value := self._value(run)) is not None]
        if not ranked:
            raise ValueError("no run of the sweep has a finite metric; try smaller learning rates")
        return self.runs[-max(ranked)[1]]

    def groups(self) -> list[tuple[dict[str, Any], list[SweepRun]]]:
        """The settings without the seed, and the runs that have them, best mean metric first."""
        groups: dict[tuple, list[SweepRun]] = {}
        for run in self.runs:
            groups.setdefault(tuple(item for item in run.settings.items() if item[0] != "seed"), []).append(run)

        def mean(item):
            values = [self._value(run) for run in item[1]]
            finite = [value for value in values if value is not None]
            return len(finite) == len(values), statistics.mean(finite) if finite else 0.0

        return [(dict(key), runs) for key, runs in sorted(groups.items(), key=mean, reverse=True)]

    def rows(self) -> list[dict[str, str]]:
        """The table by column: the settings, the mean and standard deviation of each metric over the seeds, the runs.

        One row per combination of settings, as in `groups`. A metric without a finite value is "-".
        """
        last = [run.metrics for run in self.runs]
        names = dict.fromkeys(name for row in last for name, value in row.items() if not isinstance(value, list))
        rows = []
        for settings, runs in self.groups():
            ended = [run.metrics for run in runs if run.stopped is None]
            stopped = len(runs) - len(ended)
            values = {name: [row[name] for row in ended if row.get(name) is not None] for name in names}
            rows.append(
                {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
                | {name: mean_and_std(name, numbers) for name, numbers in values.items()}
                | {"runs": f"{len(runs)}, {stopped} not finite" if stopped else str(len(runs))}
            )
        return rows

    def table(self) -> str:
        """`rows` as text."""
        rows = self.rows()
        widths = [max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]]
        line = lambda cells: "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return "\n".join([line(rows[0]), *(line(row.values()) for row in rows)])

    def _value(self, run: SweepRun) -> float | None:
        if run.stopped is not None or not run.metrics:
            return None
        # a recorded None was not finite
        metrics = {name: math.nan if value is None else value for name, value in run.metrics.items()}
        return metric_to_maximize(self.watch, metrics)

    def __repr__(self) -> str:
        try:
            best = self.best
        except ValueError:
            return f"SweepResult({len(self.runs)} runs, none with a finite metric; results in {self.folder})"
        settings = ", ".join(f"{name}={value}" for name, value in best.settings.items())
        return f"SweepResult({len(self.runs)} runs; best {settings}: {format_metrics(best.metrics, precise=True)})"


def mean_and_std(name: str, values: list[float]) -> str:
    """The mean and sample standard deviation, an accuracy in percent; "-" without values."""
    if not values:
        return "-"
    scale, digits, unit = (100, 2, " %") if name == "accuracy" else (1, 4, "")
    std = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{std}{unit}"
