"""How certain predictions are: calibration, prediction sets, ensembles and detection of unknown inputs.

Functions of arrays, from class probabilities or logits. All but the plot work under `jax.jit` and `jax.vmap`.
"""

from jaxcnn.uncertainty._calibration import Reliability as Reliability
from jaxcnn.uncertainty._calibration import expected_calibration_error as expected_calibration_error
from jaxcnn.uncertainty._calibration import reliability_diagram as reliability_diagram
from jaxcnn.uncertainty._conformal import conformal_sets as conformal_sets
from jaxcnn.uncertainty._conformal import conformal_threshold as conformal_threshold
from jaxcnn.uncertainty._detection import ood_auroc as ood_auroc
from jaxcnn.uncertainty._ensemble import expected_entropy as expected_entropy
from jaxcnn.uncertainty._ensemble import mutual_information as mutual_information
from jaxcnn.uncertainty._ensemble import predictive_entropy as predictive_entropy
from jaxcnn.uncertainty._plot import plot_reliability_diagram as plot_reliability_diagram
from jaxcnn.uncertainty._temperature import temperature as temperature
from jaxcnn.uncertainty._temperature import with_temperature as with_temperature

__all__ = [
    "Reliability",
    "conformal_sets",
    "conformal_threshold",
    "expected_calibration_error",
    "expected_entropy",
    "mutual_information",
    "ood_auroc",
    "plot_reliability_diagram",
    "predictive_entropy",
    "reliability_diagram",
    "temperature",
    "with_temperature",
]
