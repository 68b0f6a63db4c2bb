"""How an operation is computed on a backend: equivalent formulations, and the rules that choose among them.

The only place that knows where XLA is slow. Every formulation computes the same function as plain `lax`, which
is what all backends get for which nothing better was measured. The choice is made when a program is lowered,
for each platform by itself, so one exported program holds the right one for cpu, cuda and tpu.
"""

from jaxcnn._lowering._channels import deviations as deviations
from jaxcnn._lowering._channels import spread as spread
from jaxcnn._lowering._channels import total as total
from jaxcnn._lowering._conv import convolve as convolve
from jaxcnn._lowering._conv import convolve_transposed as convolve_transposed
from jaxcnn._lowering._max_pool import Pool as Pool
from jaxcnn._lowering._max_pool import extreme as extreme
from jaxcnn._lowering._plain_conv import Geometry as Geometry
from jaxcnn._lowering._resample import resample as resample
from jaxcnn._lowering._settle import biased as biased
from jaxcnn._lowering._settle import settled as settled
from jaxcnn._lowering._sum_pool import window_sum as window_sum

__all__ = [
    "Geometry",
    "Pool",
    "biased",
    "convolve",
    "convolve_transposed",
    "deviations",
    "extreme",
    "resample",
    "settled",
    "spread",
    "total",
    "window_sum",
]
