"""A moment of training, as the loop and its callbacks see it."""

import dataclasses
import time
from typing import Any, Literal, NamedTuple

import jax

from jaxcnn._layer import Params, State
from jaxcnn.train._guard import leaf_name
from jaxcnn.train._optimizer import ema_params
from jaxcnn.train._run import Run
from jaxcnn.train._step import TrainState


class Carry(NamedTuple):
    """What goes from step to step, and into a checkpoint."""

    train_state: TrainState
    totals: dict[str, jax.Array]  # of the metrics, over the epoch so far
    bad: jax.Array  # the leaf that is not finite in the step that was undone, or -1
    skipped: jax.Array  # steps that were not finite, in all
    in_a_row: jax.Array  # of them, those since the last finite one


@dataclasses.dataclass
class Event:
    """A moment of training. One object serves the whole loop, which goes on from what it holds.

    kind: "start", before the first step; "steps", after a call of some steps; "epoch", after the last step of an epoch,
        in place of "steps"; "nonfinite", after a step that was not finite and was undone; "end".
    carry: the train_state and counters, on the devices. To go on from elsewhere, replace it, and `step`. The next call
        takes over its memory: copy what is to be kept.
    step: steps done; steps: in an epoch; epochs: of the whole training; batch_size: rows of a batch.
    metrics: means over the steps of the epoch so far; None for each if none was finite.
    record: at "epoch", what is to be logged: "epoch", "step", "train" (the metrics), and what callbacks add.
    metric: at "epoch", what decides which epoch is best, the larger the better; None if that is not known.
    note: what a callback wants to find again after a resume, as JSON; it is part of every checkpoint.
    best: params and state of the best epoch so far, if a callback keeps them; part of every checkpoint.
    restore_best: whether they are what training gives, if there are some.
    stop: set to True to end training after this event; "end" follows.
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
    began: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def run(self) -> Run:
        """The folder, the files and the progress lines of the training."""
        if self.run_or_none is None:
            raise ValueError("this callback needs a run; give train.loop one: run=train.Run(name, config)")
        return self.run_or_none

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps

    @property
    def train_state(self) -> TrainState:
        return self.carry.train_state

    @property
    def params(self) -> Params:
        """What to evaluate: the EMA of the parameters, if the optimizer keeps one."""
        ema = ema_params(self.train_state.opt_state)
        return self.train_state.params if ema is None else ema

    @property
    def state(self) -> State:
        return self.train_state.state

    @property
    def result(self) -> tuple[Params, State]:
        """What training gives: params and state of the last epoch, or of the best."""
        if self.restore_best and self.note["best_epoch"] and self.best:
            return self.best
        return self.params, self.state

    @property
    def seconds(self) -> float:
        """Since the start, with those of earlier parts of a resumed training."""
        return time.monotonic() - self.began


def nonfinite_leaf(event: Event) -> str:
    """Which leaf was not finite, in which step."""
    name = leaf_name(event.train_state, {"loss": 0}, int(event.carry.bad))
    return f"step {event.step:,}: {name} is not finite"
