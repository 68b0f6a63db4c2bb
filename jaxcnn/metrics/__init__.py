"""Metrics: pairs of pure functions. One returns sums of a batch, the other computes the metric from the total sums."""

from jaxcnn.metrics._metric import Metric as Metric
from jaxcnn.metrics._metric import accuracy as accuracy

__all__ = ["Metric", "accuracy"]
