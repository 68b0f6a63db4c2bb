"""The report of a run, written while it trains."""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._layer import Layer
from jaxcnn.report._gather import gather
from jaxcnn.report._report import report
from jaxcnn.train.callbacks import FACTORIES


def write_report(model: Layer, data: Any) -> Callable[[Any], None]:
    """A callback for `train.fit`: the page of the run after each epoch, at the end with what the network does.

    Args:
        model: that is trained.
        data: to show it with, as `train.fit` takes them; with the names of its classes, if they have any.
    """

    def callback(event):
        if jax.process_index():
            return
        if event.kind == "epoch":
            report(event.run.folder, epochs=event.epochs)
        if event.kind == "end":
            params, state = jax.device_get(event.result)
            with event.run.busy("looking at the network"):
                gather(event.run.folder, model, params, state, data)
            report(event.run.folder)

    return callback


FACTORIES["report"] = write_report
