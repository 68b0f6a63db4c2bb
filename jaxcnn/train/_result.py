"""The result of `fit`."""

import importlib
import pathlib
from typing import Any, NamedTuple

from jaxcnn._layer import Params, State
from jaxcnn._path import count_params
from jaxcnn.train._event import PART_NAMES, Event, format_metrics
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState


class Best(NamedTuple):
    """The best epoch: params and state after it, its evaluation metrics, and its number."""

    params: Params
    state: State
    metrics: dict[str, Any]
    epoch: int

    def __repr__(self) -> str:
        return f"Best({count_params(self.params):,} parameters, epoch {self.epoch}: {format_metrics(self.metrics)})"


class FitResult(NamedTuple):
    """The result of `fit`.

    train_state: the state after the last step.
    params, state: for inference, from the last epoch, or from the best one with `patience` or `restore_best`. With
        "ema", params are the EMA.
    history: one record per epoch, `Event.record` as JSON.
    folder: the run folder.
    epoch: the epoch of params and state.
    best: the best epoch by the metric "watch"; None without eval_data.
    """

    train_state: TrainState
    params: Params
    state: State
    history: list[dict[str, Any]]
    folder: pathlib.Path
    epoch: int
    best: Best | None

    @property
    def outcome(self) -> str:
        """One line: the metrics of `params` on the evaluation data, or on the training data if there is none.

        The loss is shown only if there is no other metric.
        """
        record = _record(self.history, self.epoch)
        kind = "test" if "test" in record else "train"
        numbers = {name: value for name, value in record.get(kind, {}).items() if isinstance(value, int | float)}
        metrics = {name: value for name, value in numbers.items() if name != "loss"} or numbers
        result = f"{PART_NAMES[kind]} {format_metrics(metrics, precise=True)} " if metrics else ""
        after = f"after {self.history[-1]['seconds']:.0f} s; " if self.history else ""
        return f"{result}{after}results in {self.folder}"

    def __repr__(self) -> str:
        return f"FitResult({count_params(self.params):,} parameters, epoch {self.epoch}: {self.outcome})"

    def _repr_html_(self) -> str:
        """HTML for notebooks: the curves of all metrics."""
        # Not at the top: jaxcnn.report imports this package.
        return importlib.import_module("jaxcnn.report._notebook").fit_html(self)


def result(event: Event, run: Run) -> FitResult:
    """The result of the training that ended with this event."""
    best, epoch = None, event.note.get("best_epoch", 0)
    # The records of the training loop: callbacks may log others, also with an "epoch".
    history = [record for record in run.records if {"epoch", "step", "train"} <= record.keys()]
    if epoch and event.best:
        best = Best(*event.best, _record(history, epoch).get("test", {}), epoch)
    epoch = epoch if event.restore_best and best else event.epoch
    return FitResult(event.train_state, *event.result, history, run.folder, epoch, best)


def _record(history: list[dict[str, Any]], epoch: int) -> dict[str, Any]:
    return next((record for record in history if record.get("epoch") == epoch), {})
