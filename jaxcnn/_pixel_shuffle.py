"""Layers that move channels to positions, and back."""

import jax.numpy as jnp

from jaxcnn._arguments import check_choice, check_integer
from jaxcnn._array import spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor

_ORDERS = ("CRD", "DCR")  # ONNX's names: column-row-depth, depth-column-row


@constructor
def pixel_shuffle(scale: int, *, order: str = "CRD") -> Layer:
    """(N, *spatial, C * scale^rank) -> (N, *(scale * spatial), C): moves channels to positions.

    y[n, scale * i + k, c] = x[n, i, c * scale^rank + k],  k: position in the block of scale^rank, in row-major order

    Args:
        scale: factor by which each spatial dimension grows.
        order: order of the channels of x. "CRD": channel c * scale^rank + k, as in PyTorch; "DCR": channel k * C' + c
            for C' output channels, as in TensorFlow's depth_to_space.

    Raises:
        ValueError: for a wrong rank, an unknown order, or channels not divisible by scale^rank.

    Example:
        >>> jaxcnn.pixel_shuffle(2).apply({}, {}, jnp.arange(4.0).reshape(1, 1, 1, 4), train=False)[0][0, :, :, 0]
        Array([[0., 1.],
               [2., 3.]], dtype=float32)

    Source: Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
    convolutional neural network", 2016.
    """
    scale = check_integer("pixel_shuffle", "scale", scale)
    check_choice("pixel_shuffle", "order", order, _ORDERS)

    def fn(x):
        rank = spatial_rank(x, "pixel_shuffle")
        n, *spatial, channels = x.shape
        if channels % scale**rank:
            raise ValueError(
                f"pixel_shuffle: the {channels} channels of input {x.shape} are not divisible by {scale**rank}"
            )
        features, block, crd = channels // scale**rank, (scale,) * rank, order == "CRD"
        x = jnp.asarray(x).reshape(n, *spatial, *((features, *block) if crd else (*block, features)))
        pairs = [axis for i in range(1, rank + 1) for axis in (i, i + rank + crd)]  # each dimension, then its block
        x = x.transpose(0, *pairs, rank + 1 if crd else 2 * rank + 1)
        return x.reshape(n, *(scale * m for m in spatial), features)

    return as_layer(fn)


@constructor
def pixel_unshuffle(scale: int, *, order: str = "CRD") -> Layer:
    """(N, *spatial, C) -> (N, *(spatial / scale), C * scale^rank): moves positions to channels.

    The inverse of `pixel_shuffle`: y[n, i, c * scale^rank + k] = x[n, scale * i + k, c].

    Args:
        scale: factor by which each spatial dimension shrinks.
        order: order of the channels of y, as in `pixel_shuffle`. "DCR" is TensorFlow's space_to_depth.

    Raises:
        ValueError: for a wrong rank, an unknown order, or a spatial dimension not divisible by scale.

    Example:
        >>> x = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> jaxcnn.pixel_unshuffle(2).apply({}, {}, x, train=False)[0].shape
        (1, 1, 1, 4)
    """
    scale = check_integer("pixel_unshuffle", "scale", scale)
    check_choice("pixel_unshuffle", "order", order, _ORDERS)

    def fn(x):
        rank = spatial_rank(x, "pixel_unshuffle")
        n, *spatial, channels = x.shape
        if any(m % scale for m in spatial):
            raise ValueError(f"pixel_unshuffle: the spatial dimensions of input {x.shape} are not divisible by {scale}")
        parts = [size for m in spatial for size in (m // scale, scale)]
        blocks, offsets = range(1, 2 * rank + 1, 2), range(2, 2 * rank + 1, 2)
        last = (2 * rank + 1, *offsets) if order == "CRD" else (*offsets, 2 * rank + 1)
        x = jnp.asarray(x).reshape(n, *parts, channels).transpose(0, *blocks, *last)
        return x.reshape(n, *(m // scale for m in spatial), channels * scale**rank)

    return as_layer(fn)
