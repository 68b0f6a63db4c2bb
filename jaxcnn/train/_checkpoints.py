"""The callbacks that write and read checkpoints."""

import pathlib
from collections.abc import Callable

from jaxcnn.train import checkpoint
from jaxcnn.train._config import Config
from jaxcnn.train._devices import all_gather
from jaxcnn.train._event import Event
from jaxcnn.train._interrupt import Interrupted


class Checkpoints:
    """Checkpoints of a training: two callbacks, `resume` and `save`, and what others need of them.

    Args:
        folder: of all steps.
        keep: how many of the latest are kept; 0: nothing is saved.
        every: steps, beside the end of each epoch; 0: only there.
        config: what must be the same for a training to go on.
        check: (step, about) -> None, which raises to refuse a checkpoint, as for `checkpoint.restore`.
    """

    def __init__(
        self, folder: pathlib.Path, *, keep: int, every: int, config: Config, check: Callable[[int, Config], None]
    ):
        self.folder, self.keep, self.every, self.config, self.check = folder, keep, every, config, check
        self.saved = -1  # the step of the last checkpoint

    def resume(self, event: Event) -> None:
        """At the start, go on from the latest checkpoint, if there is one."""
        if event.kind != "start":
            return
        if not self.keep or not checkpoint.agreed(lambda: checkpoint.recovered(self.folder)):
            event.run.forget_after(-1)
            return
        event.began -= self.restore(event)

    def save(self, event: Event) -> None:
        """Save at the end of each epoch, and at each multiple of `every` steps."""
        if event.kind == "epoch" or (event.kind == "steps" and self.every and event.step % self.every == 0):
            self.write(event)

    def write(self, event: Event) -> None:
        if not self.keep:
            return
        note = event.note | {"seconds": event.seconds, "records": event.run.records}
        with event.run.busy("saving"):
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
        """Put the event where the latest checkpoint was; the seconds of training until then."""
        like = {"carry": event.carry, "best": event.best}
        event.step, tree, about = checkpoint.restore(self.folder, like, check=self.check, warn=event.run.say)
        event.carry, event.best = tree["carry"], tree["best"]
        note = dict(about["note"])
        event.run.forget_after(event.step, note.pop("records"))
        seconds = note.pop("seconds")
        event.note, self.saved = note, event.step
        return seconds


def signals(told: Callable[[], int], checkpoints: Checkpoints) -> Callable[[Event], None]:
    """Save and end the program when it was told to stop: `told` gives the number of the signal, or 0.

    Raises:
        Interrupted: then, in all processes.
    """

    def callback(event):
        signal = max(all_gather(told()))
        if not signal:
            return
        if event.step != checkpoints.saved:
            checkpoints.write(event)
        saved = f"saved in {checkpoints.folder}" if checkpoints.keep else "checkpoint.keep is 0, nothing is saved"
        event.run.say(f"told to stop by signal {signal} at step {event.step:,}; {saved}")
        raise Interrupted(128 + signal)

    return callback
