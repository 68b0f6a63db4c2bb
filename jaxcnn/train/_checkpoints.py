"""The callbacks that save and restore checkpoints."""

import contextlib
import os
import pathlib
from collections.abc import Callable

import jax

from jaxcnn.train import _checkpoint_folder, checkpoint
from jaxcnn.train._config import Config
from jaxcnn.train._devices import all_gather
from jaxcnn.train._event import Event
from jaxcnn.train._interrupt import Interrupted


class Checkpoints:
    """The checkpoints of a training run: the callbacks `resume` and `save`, and methods for other callbacks.

    Args:
        folder: the folder that contains all steps.
        keep: number of latest checkpoints to keep; 0: do not save. With `rolls_back`, one that only an interrupted
            training has does not count, and is kept until the next one is saved.
        every: also save at each multiple of this number of steps; 0: only at the end of each epoch.
        config: saved with each checkpoint, for `check`.
        check: (step, about) -> None. It raises to reject a checkpoint; see `checkpoint.restore`.

    Raises:
        ImportError: without Orbax, unless `keep` is 0.

    Example:
        >>> checkpoints = jaxcnn.train.callbacks.Checkpoints("runs/digits/checkpoints", keep=2)
        >>> first, last = checkpoints.resume, checkpoints.save  # the callbacks
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int,
        every: int = 0,
        config: Config | None = None,
        check: Callable[[int, Config], None] | None = None,
    ):
        if keep:
            checkpoint.check_installed()
        self.folder = pathlib.Path(folder).absolute()  # the program may change the working directory
        self.keep, self.every, self.config, self.check = keep, every, config or {}, check
        self.saved = -1  # the step of the last checkpoint
        self.rolls_back = False  # whether `save` saves the state before the first step, too, for `roll_back`

    def resume(self, event: Event) -> None:
        """At the start, restore the latest checkpoint if one exists."""
        if event.kind != "start":
            return
        if not checkpoint.first_process_result(lambda: checkpoint.recovered_steps(self.folder)):
            event.run.forget_after(-1)
            return
        event.start_time -= self.restore(event)

    def save(self, event: Event) -> None:
        """Save at the end of each epoch, at each multiple of `every` steps, and where a callback ends training."""
        if (
            event.kind == "epoch"
            or (event.kind == "steps" and self._scheduled(event, event.step))
            or (event.kind == "start" and self.rolls_back and event.step == 0)
            or (event.kind == "end" and event.step not in (0, self.saved))
        ):
            self.write(event)

    def _scheduled(self, event: Event, step: int) -> bool:
        """Whether a training that is never interrupted saves this step."""
        return step % event.steps == 0 or bool(self.every and step % self.every == 0)

    def write(self, event: Event) -> None:
        """Save a checkpoint now, unless `keep` is 0."""
        if not self.keep:
            return
        note = {"note": event.note, "seconds": event.seconds, "records": event.run.records}
        steps = {*checkpoint.steps(self.folder), event.step} if self.rolls_back else set()
        unscheduled = {step for step in steps if not self._scheduled(event, step)}
        with event.run.busy("saving a checkpoint"):
            checkpoint.save(
                self.folder,
                event.step,
                {"carry": event.carry, "best": event.best},
                config=self.config,
                metric=event.metric if event.kind == "epoch" else None,
                note=note,
                keep=self.keep + len(unscheduled),
            )
        if jax.process_index() == 0:
            for step in unscheduled - {event.step}:
                with contextlib.suppress(OSError):
                    _checkpoint_folder.remove(self.folder / str(step))
        self.saved = event.step

    def restore(self, event: Event, step: int | None = None) -> float:
        """Restore the event from the latest checkpoint, or that of a step. Returns the seconds of training up to it."""
        like = {"carry": event.carry, "best": event.best}
        restored = checkpoint.restore(self.folder, like, step=step, check=self.check, warn=event.run.say)
        note = restored.about["note"]
        if not isinstance(note, dict) or not {"note", "records", "seconds"} <= note.keys():
            path = self.folder / str(restored.step)
            raise checkpoint.CheckpointError(f"{path} was not saved by fit; remove it to resume from an earlier step")
        records, seconds = note.pop("records"), note.pop("seconds")
        event.step, self.saved = restored.step, restored.step
        event.carry, event.best = restored.tree["carry"], restored.tree["best"]
        event.note = note["note"]
        event.run.forget_after(event.step, records)
        return seconds

    def roll_back(self, event: Event) -> None:
        """Restore the event from the latest checkpoint that a training without interruptions would have."""

        def latest() -> int | None:
            steps = [step for step in checkpoint.steps(self.folder) if self._scheduled(event, step)]
            valid = (step for step in steps[::-1] if _checkpoint_folder.damage(self.folder / str(step), step) is None)
            return next(valid, None)

        self.restore(event, checkpoint.first_process_result(latest))


def signals(received_signal: Callable[[], int], checkpoints: Checkpoints) -> Callable[[Event], None]:
    """Save a checkpoint and end the program after a signal.

    Args:
        received_signal: () -> the number of the signal, or 0.
        checkpoints: those of the run.

    Raises:
        Interrupted: in all processes, if any of them received a signal.

    Example:
        >>> checkpoints = jaxcnn.train.callbacks.Checkpoints("runs/digits/checkpoints", keep=2)
        >>> callback = jaxcnn.train.callbacks.signals(lambda: 0, checkpoints)
    """

    def callback(event):
        signal = max(all_gather(received_signal()))
        if not signal:
            return
        if event.step != checkpoints.saved:
            checkpoints.write(event)
        saved = f"checkpoint saved in {checkpoints.folder}" if checkpoints.keep else "not saved: checkpoint.keep is 0"
        event.run.say(f"stopped by signal {signal} at step {event.step:,}; {saved}")
        raise Interrupted(128 + signal)

    return callback
