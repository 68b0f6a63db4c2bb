"""Convolution whose kernel elements move to positions given by a second input."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._array import at_least_float32, spatial_rank
from jaxcnn._conv import checked_groups, init_params, kernel_shape
from jaxcnn._grid_sample import floating_inputs
from jaxcnn._initial import truncated_normal, zeros
from jaxcnn._layer import Initializer, Layer, check_initializers, constructor, get_param, stateless
from jaxcnn._lowering import add_bias
from jaxcnn._sample import sample
from jaxcnn._window import Padding, Window, check_window_options, make_window


@constructor
def deform_conv(
    features: int,
    size: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Initializer = truncated_normal(2),
    bias_init: Initializer = zeros,
) -> Layer:
    """((N, *spatial, C), offset, mask) -> (N, *spatial', features): a deformable convolution.

    y[n, i, f] = bias[f] + sum_k sum_c mask[n, i, k] * x[n, stride * i + dilation * k - low + offset[n, i, k], c]
        * kernel[k, c, f],  with x interpolated linearly, 0 outside, and NaN where the offset is NaN

    The input is a pair (x, offset), or with a mask (version 2) a triple. For K kernel elements, the offset has shape
    (N, *spatial', G * K * rank) and the mask (N, *spatial', G * K); each of G groups of channels of x has its own. The
    order is that of torchvision's deform_conv2d: for each group, for each kernel element in row-major order, one offset
    in pixels per dimension, (y, x) for images.

    Args:
        features, size, stride, padding, dilation, groups, bias, kernel_init, bias_init: as in `conv`.

    Params:
        kernel (*size, C / groups, features); bias (features,).

    Raises:
        TypeError: if the input is not a tuple of two or three floating-point arrays, or an initializer not a function.
        ValueError: for offsets or a mask of another shape, or as in `conv`.

    Example: offsets and mask from convolutions of the same input; zero kernels start without deformation.
        >>> offset = jaxcnn.conv(2 * 9, kernel_init=jax.nn.initializers.zeros)
        >>> mask = jaxcnn.serial(jaxcnn.conv(9, kernel_init=jax.nn.initializers.zeros), jax.nn.sigmoid)
        >>> inputs = jaxcnn.parallel(lambda *inputs: inputs, x=jaxcnn.identity, offset=offset, mask=mask)
        >>> net = jaxcnn.serial(inputs, jaxcnn.deform_conv(16))
        >>> x = jnp.ones((1, 8, 8, 3))
        >>> net.apply(*net.init(jax.random.key(0), x), x, train=False)[0].shape
        (1, 8, 8, 16)

    Source: Dai et al., "Deformable convolutional networks", 2017; Zhu et al., "Deformable ConvNets v2: more deformable,
        better results", 2019.
    """
    name = "deform_conv"
    features, groups = checked_groups(name, features, groups)
    check_window_options(name, size=size, stride=stride, padding=padding, dilation=dilation)
    check_initializers(name, kernel_init=kernel_init, bias_init=bias_init)

    def init(key, inputs):
        x = inputs[0] if isinstance(inputs, tuple | list) and inputs else inputs
        return init_params(name, key, x, size, features, groups, kernel_init, bias_init if bias else None)

    def fn(params, inputs):
        x, offset, mask = _inputs(inputs)
        rank = spatial_rank(x, name)
        window = make_window(name, x.shape, size, stride, dilation, padding).check_fits(name, x.shape)
        kernel = get_param(name, params, "kernel", kernel_shape(name, x, size, features, groups), x)
        taps = _deformed_taps(x, offset, mask, window)  # (N, positions, K, C)
        n, positions, _, channels = taps.shape
        y = jnp.einsum(
            "npkgc,kcgf->npgf",
            taps.reshape(n, positions, window.taps, groups, channels // groups),
            kernel.astype(x.dtype).reshape(window.taps, channels // groups, groups, features // groups),
        ).reshape(n, *window.output(x.shape[1 : 1 + rank]), features)
        return add_bias(y, get_param(name, params, "bias", (features,), x)) if bias else y

    return stateless(init, fn)


def _inputs(inputs: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    if isinstance(inputs, tuple | list) and len(inputs) == 3:
        x, offset, mask = floating_inputs("deform_conv", inputs, "(x, offset, mask)")
        return x, offset, mask
    x, offset = floating_inputs("deform_conv", inputs, "(x, offset)")
    return x, offset, None


def _deformed_taps(x: jax.Array, offset: jax.Array, mask: jax.Array | None, window: Window) -> jax.Array:
    """(N, positions, K, C): the value of x at each kernel element, times its mask."""
    n, *spatial, channels = x.shape
    rank, count, output = len(spatial), window.taps, window.output(spatial)
    groups = offset.shape[-1] // (count * rank)
    if offset.shape != (n, *output, groups * count * rank) or not groups or channels % groups:
        raise ValueError(
            f"deform_conv: input {x.shape} needs an offset {(n, *output, count * rank)}, or a multiple of its channels "
            f"for groups that divide {channels} channels, got {offset.shape}"
        )
    if mask is not None and mask.shape != (n, *output, groups * count):
        raise ValueError(
            f"deform_conv: offset {offset.shape} needs a mask {(n, *output, groups * count)}, got {mask.shape}"
        )
    positions = math.prod(output)
    by_group = lambda v, last: jnp.moveaxis(v.reshape(n, positions, groups, *last), 2, 1)
    moved = at_least_float32(by_group(offset, (count, rank))).reshape(n * groups, positions, count, rank)
    undeformed = window.tap_positions(spatial)
    at = [
        (moved[..., dim] + jnp.asarray(undeformed[dim], moved.dtype)[None]).reshape(n * groups, positions * count)
        for dim in range(rank)
    ]
    split = jnp.moveaxis(x.reshape(n, *spatial, groups, channels // groups), -2, 1)
    taps = sample(split.reshape(n * groups, *spatial, channels // groups), at, "linear")
    if mask is not None:
        taps = taps * by_group(mask, (count,)).reshape(n * groups, positions * count, 1).astype(taps.dtype)
    taps = taps.reshape(n, groups, positions, count, channels // groups)
    return jnp.moveaxis(taps, 1, 3).reshape(n, positions, count, channels)
