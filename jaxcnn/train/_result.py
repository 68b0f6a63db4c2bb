"""What training gives."""

import pathlib
from typing import Any, NamedTuple

from jaxcnn._layer import Params, State
from jaxcnn._path import count_params
from jaxcnn.train._event import Event
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState


class Best(NamedTuple):
    """The epoch with the best result: params and state after it, the metrics of its evaluation, and its number."""

    params: Params
    state: State
    metrics: dict[str, Any]
    epoch: int


class FitResult(NamedTuple):
    """What training gives.

    train_state: after the last step; params, state: what to use, of the last epoch, or of the best one where `patience`
    or `restore_best` is set (params are the EMA, if the config says so); history: the records of all epochs; folder: of
    the run; epoch: that of params and state; best: of the metric "watch" of eval_data, None without such data.
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
        """A line with the accuracy of params, in evaluation if there was one, the time, and where all the rest is."""
        record = _record(self.history, self.epoch)
        kind = "test" if "test" in record else "train"
        name = "accuracy" if "accuracy" in record.get(kind, {}) else "loss"
        value = record.get(kind, {}).get(name)
        shown = "" if value is None else f"{value:.2%} " if name == "accuracy" else f"{value:.4f} "
        result = shown and f"{'test' if kind == 'test' else 'training'} {name} {shown}"
        after = f"after {self.history[-1]['seconds']:.0f} s; " if self.history else ""
        return f"{result}{after}see {self.folder}"

    def __repr__(self) -> str:
        return f"FitResult({count_params(self.params):,} parameters of epoch {self.epoch}: {self.outcome})"


def result(event: Event, run: Run) -> FitResult:
    """Of a training whose last event this is."""
    best, epoch = None, event.note.get("best_epoch", 0)
    if epoch and event.best:
        best = Best(*event.best, _record(run.records, epoch).get("test", {}), epoch)
    epoch = epoch if event.restore_best and best else event.epoch
    return FitResult(event.train_state, *event.result, run.records, run.folder, epoch, best)


def _record(history: list[dict[str, Any]], epoch: int) -> dict[str, Any]:
    return next((record for record in history if record.get("epoch") == epoch), {})
