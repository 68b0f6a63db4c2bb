"""The callbacks that save and restore checkpoints."""

import pathlib
from collections.abc import Callable

from jaxcnn.train import checkpoint
from jaxcnn.train._config import Config
from jaxcnn.train._devices import all_gather
from jaxcnn.train._event import Event
from jaxcnn.train._interrupt import Interrupted


class Checkpoints:
    """The checkpoints of a training run: the callbacks `resume` and `save`, and methods for other callbacks.

    Args:
        folder: the folder that contains all steps.
        keep: number of latest checkpoints to keep; 0: do not save.
        every: also save at each multiple of this number of steps; 0: only at the end of each epoch.
        config: saved with each checkpoint, for `check`.
        check: (step, about) -> None. It raises to reject a checkpoint; see `checkpoint.restore`.

    Raises:
        ImportError: without Orbax, unless `keep` is 0.
    """

    def __init__(
        self, folder: pathlib.Path, *, keep: int, every: int, config: Config, check: Callable[[int, Config], None]
    ):
        if keep:
            checkpoint.check_installed()
        self.folder, self.keep, self.every, self.config, self.check = folder, keep, every, config, check
        self.saved = -1  # the step of the last checkpoint
        self.at_start = False  # whether `save` saves the state before the first step, too

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
            or (event.kind == "steps" and self.every and event.step % self.every == 0)
            or (event.kind == "start" and self.at_start and event.step == 0)
            or (event.kind == "end" and event.step not in (0, self.saved))
        ):
            self.write(event)

    def write(self, event: Event) -> None:
        """Save a checkpoint now, unless `keep` is 0."""
        if not self.keep:
            return
        note = event.note | {"seconds": event.seconds, "records": event.run.records}
        with event.run.busy("saving a checkpoint"):
            checkpoint.save(
                self.folder,
                event.step,
                {"carry": event.carry, "best": event.best},
                config=self.config,
                metric=event.metric if event.kind == "epoch" else None,
                note=note,
                keep=self.keep,
            )
        self.saved = event.step

    def restore(self, event: Event) -> float:
        """Restore the event from the latest checkpoint. Returns the seconds of training up to it."""
        like = {"carry": event.carry, "best": event.best}
        event.step, tree, about = checkpoint.restore(self.folder, like, check=self.check, warn=event.run.say)
        event.carry, event.best = tree["carry"], tree["best"]
        note = dict(about["note"])
        event.run.forget_after(event.step, note.pop("records"))
        seconds = note.pop("seconds")
        event.note, self.saved = note, event.step
        return seconds


def signals(received_signal: Callable[[], int], checkpoints: Checkpoints) -> Callable[[Event], None]:
    """Save a checkpoint and end the program after a signal. `received_signal` returns its number, or 0.

    Raises:
        Interrupted: in all processes, if any of them received a signal.
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
