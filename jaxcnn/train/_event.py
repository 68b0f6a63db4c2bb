"""The event that the training loop passes to callbacks."""

import contextlib
import dataclasses
import math
import numbers
import time
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax

from jaxcnn._layer import Params, State
from jaxcnn.train._ema import params_to_evaluate
from jaxcnn.train._guard import leaf_name
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState

PART_NAMES = {"test": "test", "train": "training"}  # the data sets whose metrics a record has -> their names in texts


def scalar_metrics(history: Iterable[Mapping[str, Any]], part: str) -> list[str]:
    """The names of the metrics of a data set that are numbers, in the order of their first records."""
    values = (item for record in history for item in record.get(part, {}).items())
    return [*dict.fromkeys(name for name, value in values if not isinstance(value, list))]


class Carry(NamedTuple):
    """The values that pass from step to step and are saved in checkpoints."""

    train_state: TrainState
    metric_sums: dict[str, jax.Array]  # over the finite steps of the epoch so far
    nonfinite_leaf: jax.Array  # index of the non-finite leaf if the last step was undone, else -1
    skipped: jax.Array  # non-finite steps skipped since the start of training
    nonfinite_in_a_row: jax.Array  # non-finite steps since the last finite one


def format_metrics(metrics: Mapping[str, Any], *, precise: bool = False) -> str:
    """Metrics as text, the accuracy in percent. Values that are not finite are "n/a", arrays are left out."""
    digits = 2 if precise else 1

    def formatted(name, value):
        if value is None or not math.isfinite(value):
            return f"{name} n/a"
        return f"{name} {value:.{digits}%}" if name == "accuracy" else f"{name} {value:.{digits + 2}f}"

    return ", ".join(formatted(*item) for item in metrics.items() if isinstance(item[1], numbers.Real | None))


@dataclasses.dataclass
class Event:
    """The state of training at one point of the loop. One mutable object serves the whole loop.

    kind: "start", before the first step; "steps", after a compiled call of one or more steps; "epoch", instead of
        "steps" after the last step of an epoch; "nonfinite", after a non-finite step, which was undone; "end".
    carry: the train_state and counters, on the devices. To continue from another state, replace it and `step`. The next
        call donates its buffers: copy what you keep.
    step: steps done; steps: per epoch; epochs: of the whole training; batch_size: rows per batch.
    images_per_second: mean speed in this epoch so far, without the call that compiles; 0 before another call has ended.
    start_time: of training, by `time.monotonic`.
    metrics: mean metrics over the finite steps of the epoch so far; each is None if no step was finite.
    record: at "epoch", the entries to log: "epoch", "step" and "train" (the metrics), which must stay, and what
        callbacks add. `fit` adds "test", the metrics of eval_data, and, after the user's callbacks, "seconds" and
        "images_per_second".
    metric: at "epoch", the metric that selects the best epoch; larger is better. None if unknown.
    note: JSON values that callbacks keep across a resume; saved in every checkpoint.
    best: params and state of the best epoch so far, if a callback keeps them; saved in every checkpoint.
    restore_best: whether training returns `best` instead of the last params and state.
    stop: set it to True to end training after this event; an "end" event follows. It is not saved: a callback that must
        also stop a resumed training keeps this in `note` and sets `stop` at "start".
    run_or_none: the run, None if `loop` was called without one; callbacks use `run`.
    """

    kind: Literal["start", "steps", "epoch", "nonfinite", "end"]
    carry: Carry
    step: int
    steps: int
    epochs: int
    batch_size: int
    run_or_none: Run | None = None
    images_per_second: float = 0.0
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    metric: float | None = None
    note: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: tuple[Params, State] | tuple[()] = ()
    restore_best: bool = False
    stop: bool = False
    start_time: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def run(self) -> Run:
        """The run folder, log and progress output. Raises ValueError if `loop` was called without a run."""
        if self.run_or_none is None:
            raise ValueError("this callback needs a run; pass one to train.loop: run=train.Run(name, config)")
        return self.run_or_none

    def busy(self, activity: str) -> contextlib.AbstractContextManager[None]:
        """A context in which the run, if any, shows what is done."""
        return self.run_or_none.busy(activity) if self.run_or_none else contextlib.nullcontext()

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step // self.steps

    @property
    def train_state(self) -> TrainState:
        return self.carry.train_state

    @property
    def params(self) -> Params:
        """The parameters to evaluate: their EMA or schedule-free average if the optimizer keeps one."""
        return params_to_evaluate(self.train_state)

    @property
    def state(self) -> State:
        return self.train_state.state

    @property
    def result(self) -> tuple[Params, State]:
        """The params and state that training returns: of the best epoch with `restore_best`, else the current ones."""
        if self.restore_best and self.note["best_epoch"] and self.best:
            return self.best
        return self.params, self.state

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including the time before a resume."""
        return time.monotonic() - self.start_time


def nonfinite_message(event: Event) -> str:
    """The step and the path of the non-finite value, as a sentence."""
    name = leaf_name(event.train_state, {"loss": 0}, int(event.carry.nonfinite_leaf))
    return f"step {event.step:,}: {name} is not finite"
