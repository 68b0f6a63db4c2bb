"""Algorithms for convolutions, pools and sums, and the rules in `_rules.py` that select one per backend.

Every algorithm computes the same function as plain `lax`. Workarounds for slow code of XLA exist only here.
"""

from jaxcnn._lowering._channels import broadcast as broadcast
from jaxcnn._lowering._conv import convolve as convolve
from jaxcnn._lowering._conv import convolve_transposed as convolve_transposed
from jaxcnn._lowering._dense import matrix_product as matrix_product
from jaxcnn._lowering._materialize import stored as stored
from jaxcnn._lowering._materialize import stored_gradient as stored_gradient
from jaxcnn._lowering._normalize import add_bias as add_bias
from jaxcnn._lowering._normalize import batch_moments as batch_moments
from jaxcnn._lowering._normalize import normalize as normalize
from jaxcnn._lowering._pool import window_max as window_max
from jaxcnn._lowering._pool import window_min as window_min
from jaxcnn._lowering._pool import window_sum as window_sum
from jaxcnn._lowering._resample import Axis as Axis
from jaxcnn._lowering._resample import Filter as Filter
from jaxcnn._lowering._resample import cubic_far as cubic_far
from jaxcnn._lowering._resample import cubic_near as cubic_near
from jaxcnn._lowering._resample import resample as resample
from jaxcnn._lowering._rules import forced as forced
from jaxcnn._lowering._rules import selected as selected
from jaxcnn._lowering._rules import table as table
