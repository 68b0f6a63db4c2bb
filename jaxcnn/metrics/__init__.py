"""Metrics: pairs of pure functions, one that adds up over batches, and one that makes a number of the sums."""

from jaxcnn.metrics._metric import Metric as Metric
from jaxcnn.metrics._metric import accuracy as accuracy

__all__ = ["Metric", "accuracy"]
