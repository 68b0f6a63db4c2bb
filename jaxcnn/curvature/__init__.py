"""Second derivatives of a loss: products with the Hessian, its eigenvalues, and the influence of single examples.

All work on pure functions of a tree of parameters, such as `mean_loss(loss_fn, state, data)`, and on matrices given as
functions v -> A v, such as `functools.partial(hessian_vector_product, loss, params)`. No matrix is ever stored.
"""

from jaxcnn.curvature._influence import influence as influence
from jaxcnn.curvature._influence import self_influence as self_influence
from jaxcnn.curvature._lanczos import Eigenpairs as Eigenpairs
from jaxcnn.curvature._lanczos import top_eigenvalues as top_eigenvalues
from jaxcnn.curvature._loss import example_loss as example_loss
from jaxcnn.curvature._loss import mean_loss as mean_loss
from jaxcnn.curvature._product import gauss_newton_vector_product as gauss_newton_vector_product
from jaxcnn.curvature._product import hessian_vector_product as hessian_vector_product

__all__ = [
    "Eigenpairs",
    "example_loss",
    "gauss_newton_vector_product",
    "hessian_vector_product",
    "influence",
    "mean_loss",
    "self_influence",
    "top_eigenvalues",
]
