"""A callback that writes the report during training."""

from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._layer import Layer
from jaxcnn.report._gather import gather
from jaxcnn.report._report import report


def write_report(model: Layer, data: Any) -> Callable[[Any], None]:
    """A callback for `train.fit` that updates the report after each epoch, and at the end analyzes the network.

    Args:
        model: the model being trained.
        data: evaluation data in any form that `train.fit` accepts. The report uses its class names, if it has any.

    Raises:
        OSError: during training, if the report cannot be written; `train.callbacks.tolerant` turns it into a warning.

    Example: `train.fit(model, data, callbacks=[report.write_report(model, test_data)])`. The setting "report" of `fit`
    adds this callback.
    """

    def callback(event):
        if jax.process_index():
            return
        if event.kind == "epoch":
            report(event.run.folder, epochs=event.epochs)
        if event.kind == "end":
            params, state = jax.device_get(event.result)
            with event.run.busy("analyzing the network"):
                gather(event.run.folder, model, params, state, data)
            report(event.run.folder)

    return callback
