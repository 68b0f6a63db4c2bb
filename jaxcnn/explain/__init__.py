"""Inspect a network: its structure, its activations, its predictions and its mistakes."""

from jaxcnn.explain._activations import feature_maps as feature_maps
from jaxcnn.explain._activations import filters as filters
from jaxcnn.explain._feature_visualization import feature_visualization as feature_visualization
from jaxcnn.explain._mistakes import Mistakes as Mistakes
from jaxcnn.explain._mistakes import confusion_matrix as confusion_matrix
from jaxcnn.explain._mistakes import worst_mistakes as worst_mistakes
from jaxcnn.explain._plan import Plan as Plan
from jaxcnn.explain._plan import PlanRow as PlanRow
from jaxcnn.explain._plan import plan as plan
from jaxcnn.explain._plot import plot_confusion_matrix as plot_confusion_matrix
from jaxcnn.explain._plot import plot_curves as plot_curves
from jaxcnn.explain._plot import plot_feature_maps as plot_feature_maps
from jaxcnn.explain._plot import plot_filters as plot_filters
from jaxcnn.explain._plot import plot_grad_cam as plot_grad_cam
from jaxcnn.explain._plot import plot_images as plot_images
from jaxcnn.explain._plot import plot_mistakes as plot_mistakes
from jaxcnn.explain._plot import plot_saliency as plot_saliency
from jaxcnn.explain._plot_learning_rates import plot_learning_rates as plot_learning_rates
from jaxcnn.explain._receptive_field import ReceptiveFields as ReceptiveFields
from jaxcnn.explain._receptive_field import receptive_field as receptive_field
from jaxcnn.explain._saliency import grad_cam as grad_cam
from jaxcnn.explain._saliency import integrated_gradients as integrated_gradients
from jaxcnn.explain._saliency import saliency as saliency
from jaxcnn.explain._saliency import smooth_grad as smooth_grad
from jaxcnn.explain._summary import Summary as Summary
from jaxcnn.explain._summary import summary as summary

__all__ = [
    "Mistakes",
    "Plan",
    "PlanRow",
    "ReceptiveFields",
    "Summary",
    "confusion_matrix",
    "feature_maps",
    "feature_visualization",
    "filters",
    "grad_cam",
    "integrated_gradients",
    "plan",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_feature_maps",
    "plot_filters",
    "plot_grad_cam",
    "plot_images",
    "plot_learning_rates",
    "plot_mistakes",
    "plot_saliency",
    "receptive_field",
    "saliency",
    "smooth_grad",
    "summary",
    "worst_mistakes",
]
