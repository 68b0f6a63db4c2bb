"""Response normalization: channels compete, with their neighbors or with all others."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn._arguments import check_choice, check_integer, check_number
from jaxcnn._array import as_floating, at_least_float32, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor, get_param, stateless
from jaxcnn._lowering import broadcast
from jaxcnn._norm import affine_init
from jaxcnn._number import is_zero
from jaxcnn._numeric import divide_or_keep, norm, scale_to_unit_max


@constructor
def local_response_norm(
    size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, padding: str = "SAME_LOWER"
) -> Layer:
    """(N, ..., C) -> the same: divides each value by a function of the neighboring channels.

    y[c] = x[c] / (k + alpha / size * sum_j x[j]^2)^beta,  j from c - size // 2 to c + (size - 1) // 2

    For padding="SAME", j is from c - (size - 1) // 2 to c + size // 2. Only an even size makes a difference. The
    sum of the squares must be below the largest float32, 3e38.

    Args:
        size: number of channels in the sum.
        alpha, beta, k: as in the equation. In Krizhevsky et al., alpha is not divided by size: pass size * alpha. With
            k = 0, values whose squares underflow count as 0.
        padding: for an even size, whether the additional neighbor is before c ("SAME_LOWER", as in PyTorch) or after it
            ("SAME", as in ONNX).

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for another padding, or an option below 0.

    Example:
        >>> layer = jaxcnn.local_response_norm(3, alpha=3.0, beta=1.0)
        >>> layer.apply({}, {}, jnp.array([[1.0, 1.0, 1.0]]), train=False)[0]
        Array([[0.33333334, 0.25      , 0.33333334]], dtype=float32)

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012.
    """
    size = check_integer("local_response_norm", "size", size)
    check_choice("local_response_norm", "padding", padding, ("SAME_LOWER", "SAME"))
    alpha, beta, k = (
        check_number("local_response_norm", name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))
    )
    low, high = size // 2, (size - 1) // 2
    if padding == "SAME":
        low, high = high, low

    def fn(x):
        x = as_floating(x, "local_response_norm")
        if not x.ndim:
            raise ValueError("local_response_norm needs input (N, ..., C), got a scalar")
        wide = at_least_float32(x)
        unpadded = ((0, 0),) * (x.ndim - 1)
        total = lax.reduce_window(
            jnp.square(wide),
            np.zeros((), wide.dtype),
            lax.add,
            window_dimensions=(1,) * (x.ndim - 1) + (size,),
            window_strides=(1,) * x.ndim,
            padding=(*unpadded, (low, high)),
        )
        base = k + alpha / size * total
        if not is_zero(k):
            return (wide / base**beta).astype(x.dtype)
        zero = base < jnp.finfo(base.dtype).tiny  # a single where() would give the gradient 0 * inf
        return jnp.where(zero, 0, wide / jnp.where(zero, 1, base) ** beta).astype(x.dtype)

    return as_layer(fn)


@constructor
def global_response_norm(*, eps: float = 1e-6) -> Layer:
    """(N, *spatial, C) -> the same: scales channels by their norm relative to the mean norm.

    y = x + scale * x * g / (mean_c(g) + eps) + bias,  g[n, c] = sqrt(sum_i x[n, i, c]^2)

    Args:
        eps: added to the mean norm, in units of x. With 0, norms below 1e-30 count as 0.

    Params:
        scale (C,), zeros; bias (C,), zeros: the layer starts as the identity.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for input without spatial dimensions, or a negative eps.

    Example:
        >>> x = jnp.ones((1, 4, 2))
        >>> layer = jaxcnn.global_response_norm()
        >>> bool((layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0] == x).all())
        True

    Source: Woo et al., "ConvNeXt V2: co-designing and scaling ConvNets with masked autoencoders", 2023.
    """
    name = "global_response_norm"
    eps = check_number(name, "eps", eps)

    def init(key, x):
        spatial_rank(as_floating(x, name), name)
        return affine_init(x.shape[-1:], center=True, scale=True, start=0.0)

    def fn(params, x):
        x = as_floating(x, name)
        rank = spatial_rank(x, name)
        wide = at_least_float32(x)
        norms = norm(wide, tuple(range(1, rank + 1)))
        if is_zero(eps):
            norms = scale_to_unit_max(norms, (-1,))  # of norms near 1e-20, the gradient of the quotient would overflow
            relative = divide_or_keep(norms, norms.mean(-1, keepdims=True))
        else:
            relative = norms / (norms.mean(-1, keepdims=True) + eps)
        scale, bias = (
            broadcast(get_param(name, params, part, x.shape[-1:], x).astype(wide.dtype), wide)
            for part in ("scale", "bias")
        )
        return (wide + scale * wide * relative + bias).astype(x.dtype)

    return stateless(init, fn)
