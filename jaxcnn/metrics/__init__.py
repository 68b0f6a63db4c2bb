"""Metrics: pairs of pure functions. `update` gives sums that add up over batches, `compute` the value of the sums.

Larger is better for all but `mean_absolute_error` and `expected_calibration_error`: to select the best epoch by them,
`fit` needs a minus sign before the name under which they are in `metrics`, as in {"watch": "-error"}.
`confusion_matrix` is an array, which cannot be watched.

`update` raises a TypeError for an output that is not one array of real numbers, and a ValueError for labels or weights
whose shape does not fit it. Without "weight" in the batch, all weights are 1. The value is NaN if all weights are 0, if
one is negative, infinite or NaN, or if an example with another weight than 0 has a NaN output or an invalid label, such
as a class out of range.
"""

from jaxcnn.metrics._calibration import expected_calibration_error as expected_calibration_error
from jaxcnn.metrics._classification import accuracy as accuracy
from jaxcnn.metrics._classification import confusion_matrix as confusion_matrix
from jaxcnn.metrics._classification import dice as dice
from jaxcnn.metrics._classification import f1 as f1
from jaxcnn.metrics._classification import mean_iou as mean_iou
from jaxcnn.metrics._classification import pixel_accuracy as pixel_accuracy
from jaxcnn.metrics._classification import precision as precision
from jaxcnn.metrics._classification import recall as recall
from jaxcnn.metrics._classification import top_k as top_k
from jaxcnn.metrics._metric import Metric as Metric
from jaxcnn.metrics._ranking import auroc as auroc
from jaxcnn.metrics._ranking import average_precision as average_precision
from jaxcnn.metrics._regression import mean_absolute_error as mean_absolute_error
from jaxcnn.metrics._regression import r2 as r2
from jaxcnn.metrics._sums import add_sums as add_sums

__all__ = [
    "Metric",
    "accuracy",
    "add_sums",
    "auroc",
    "average_precision",
    "confusion_matrix",
    "dice",
    "expected_calibration_error",
    "f1",
    "mean_absolute_error",
    "mean_iou",
    "pixel_accuracy",
    "precision",
    "r2",
    "recall",
    "top_k",
]
