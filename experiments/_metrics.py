"""Metrics of predictions that no network made, for the baselines of experiments."""

from collections.abc import Mapping

import numpy as np

from jaxcnn.metrics import Metric


def metric_values(metrics: Mapping[str, Metric], output: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """The value of each metric for outputs and labels of the same N examples, all with weight 1."""
    batch = {"label": label, "weight": np.ones(len(label), np.float32)}
    return {name: float(metric.compute(metric.update(output, batch))) for name, metric in metrics.items()}
