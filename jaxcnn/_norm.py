"""Normalization layers: y = (x - mean) / sqrt(var + eps) * scale + bias.

They differ in the dimensions over which they compute mean and variance. Statistics are computed in at least float32
and after subtracting a value close to the mean, because E[x^2] - E[x]^2 is inaccurate when the mean is much larger than
the standard deviation.

A sum of squares above the largest float32, 3e38, overflows. Dividing by the largest magnitude first would prevent it,
but take another pass over x.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._arguments import check_integer, check_number, check_train, short_repr
from jaxcnn._array import as_floating, at_least_float32, spatial_rank
from jaxcnn._initial import filled
from jaxcnn._layer import Layer, Params, constructor, get_param, stateless
from jaxcnn._lowering import batch_moments, broadcast, normalize
from jaxcnn._numeric import center_and_variance, inverse_std


@constructor
def batch_norm(*, decay: float = 0.9, eps: float = 1e-5, center: bool = True, scale: bool = True) -> Layer:
    """(N, *spatial, C) -> the same: normalizes each channel over the batch and all positions.

    y = (x - mean) / sqrt(var + eps) * scale + bias,  mean, var over (N, *spatial)

    Training uses the statistics of the batch and updates the running statistics:
    running = decay * running + (1 - decay) * batch. Evaluation uses the running statistics. An empty batch leaves them
    unchanged.

    Args:
        decay: weight of the old running statistics; PyTorch's momentum is 1 - decay.
        eps: added to the variance, in units of x^2. With 0, values whose squares underflow count as 0.
        center: whether to learn a bias.
        scale: whether to learn a scale.

    Params:
        scale (C,), ones; bias (C,), zeros.
    State:
        mean (C,), zeros; var (C,), ones: float32. var is biased (divided by n); in PyTorch it is divided by n - 1.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for input with fewer than two dimensions, a wrong number of channels, a decay outside [0, 1], or a
            negative eps.

    Example:
        >>> layer = jaxcnn.batch_norm(decay=0.9)
        >>> x = jnp.array([[1.0], [3.0]])
        >>> params, state = layer.init(jax.random.key(0), x)
        >>> y, state = layer.apply(params, state, x, train=True)
        >>> [round(float(v), 3) for v in (*y.ravel(), state["mean"][0], state["var"][0])]
        [-1.0, 1.0, 0.2, 1.0]

    Source: Ioffe and Szegedy, "Batch normalization", 2015.
    """
    decay = check_number("batch_norm", "decay, the weight of the old running statistics,", decay, 0, 1, closed=True)
    eps = check_number("batch_norm", "eps", eps)

    def init(key, x):
        shape = _channels(x, "batch_norm")
        state = {"mean": filled(shape, 0), "var": filled(shape, 1)}
        return affine_init(shape, center, scale), state

    def apply(params, state, x, *, train, key=None):
        x = as_floating(x, "batch_norm")
        shape = _channels(x, "batch_norm")
        old = {name: get_param("batch_norm", state, name, shape, x) for name in ("mean", "var")}
        wide = at_least_float32(x)
        if check_train(train) and 0 not in x.shape:  # an empty batch has no statistics
            # mean, var = wide.mean(axes), wide.var(axes), over all axes but the last. The mean is a sum of two values,
            # which keeps more digits.
            mean, var = batch_moments(wide)
            batch = {"mean": mean[0] + mean[1], "var": var}
            old_weight = jnp.asarray(decay, jnp.float32)  # a traced number may have another dtype
            state = {stat: old_weight * old[stat] + (1 - old_weight) * batch[stat].astype(jnp.float32) for stat in old}
        else:
            mean, var = (old["mean"].astype(wide.dtype), None), old["var"].astype(wide.dtype)  # one value only
        weight = get_param("batch_norm", params, "scale", shape, x).astype(wide.dtype) if scale else None
        bias = get_param("batch_norm", params, "bias", shape, x).astype(wide.dtype) if center else None
        # (wide - mean) / sqrt(var + eps) * weight + bias, in one pass over the feature map.
        return normalize(wide, mean, var, eps, weight, bias).astype(x.dtype), state

    return Layer(init, apply)


@constructor
def layer_norm(*, axis: int | Sequence[int] = -1, eps: float = 1e-5, center: bool = True, scale: bool = True) -> Layer:
    """(N, ..., C) -> the same: normalizes each position (axis=-1) or each example (axis=1).

    y = (x - mean) / sqrt(var + eps) * scale + bias,  mean, var over the dimensions `axis` to -1

    Args:
        axis: first dimension to normalize over, or a sequence of exactly the axes to normalize over, such as (1, 2).
            Cannot include the batch dimension 0.
        eps: added to the variance, in units of x^2. With 0, values whose squares underflow count as 0.
        center: whether to learn a bias.
        scale: whether to learn a scale.

    Params:
        scale, ones; bias, zeros: (C,) for axis=-1, in general the sizes of the normalized dimensions, in order.

    Raises:
        TypeError: for input that is not floating-point, or an axis that is not an int.
        ValueError: for an axis that the input does not have, or a negative eps.

    Example:
        >>> x = jnp.array([[0.0, 2.0], [5.0, 7.0]])
        >>> layer = jaxcnn.layer_norm(eps=0.0)
        >>> layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0]
        Array([[-1.,  1.],
               [-1.,  1.]], dtype=float32)

    Source: Ba, Kiros and Hinton, "Layer normalization", 2016.
    """
    eps = check_number("layer_norm", "eps", eps)
    _check_axis("layer_norm", axis)

    def init(key, x):
        axes = _axes(as_floating(x, "layer_norm"), axis, "layer_norm")
        return affine_init(_sizes(x, axes), center, scale)

    def fn(params, x):
        x = as_floating(x, "layer_norm")
        axes = _axes(x, axis, "layer_norm")
        centered, var = center_and_variance(x, axes)
        return _normalize("layer_norm", x, centered, var, eps, params, axes, center, scale)

    return stateless(init, fn)


@constructor
def group_norm(groups: int, *, eps: float = 1e-5, center: bool = True, scale: bool = True) -> Layer:
    """(N, *spatial, C) -> the same: normalizes groups of channels of each example over all positions.

    y = (x - mean) / sqrt(var + eps) * scale + bias,  mean, var over (*spatial, C / groups)

    Args:
        groups: number of groups; each has C / groups consecutive channels.
        eps: added to the variance, in units of x^2. With 0, values whose squares underflow count as 0.
        center: whether to learn a bias.
        scale: whether to learn a scale.

    Params:
        scale (C,), ones; bias (C,), zeros.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for channels not divisible by groups, or a negative eps.

    Example:
        >>> x = jnp.array([[1.0, 3.0, 10.0, 30.0]])
        >>> layer = jaxcnn.group_norm(2, eps=0.0)
        >>> layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0]
        Array([[-1.,  1., -1.,  1.]], dtype=float32)

    Source: Wu and He, "Group normalization", 2018.
    """
    groups = check_integer("group_norm", "groups", groups)
    return _grouped("group_norm", groups, eps, center, scale)


@constructor
def instance_norm(*, eps: float = 1e-5, center: bool = True, scale: bool = True) -> Layer:
    """(N, *spatial, C) -> the same: normalizes each channel of each example over all positions.

    y = (x - mean) / sqrt(var + eps) * scale + bias,  mean, var over (*spatial,)

    Args:
        eps: added to the variance, in units of x^2. With 0, values whose squares underflow count as 0.
        center: whether to learn a bias.
        scale: whether to learn a scale.

    Params:
        scale (C,), ones; bias (C,), zeros.

    Raises:
        TypeError: for input that is not floating-point.
        ValueError: for input without spatial dimensions, or a negative eps.

    Example:
        >>> x = jnp.array([1.0, 3.0]).reshape(1, 2, 1)
        >>> layer = jaxcnn.instance_norm(eps=0.0)
        >>> layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0].ravel()
        Array([-1.,  1.], dtype=float32)

    Source: Ulyanov, Vedaldi and Lempitsky, "Instance normalization: the missing ingredient for fast stylization", 2016.
    """
    return _grouped("instance_norm", None, eps, center, scale)


@constructor
def rms_norm(*, axis: int | Sequence[int] = -1, eps: float = 1e-5, scale: bool = True) -> Layer:
    """(N, ..., C) -> the same: `layer_norm` without subtracting the mean.

    y = x / sqrt(mean(x^2) + eps) * scale,  the mean over the dimensions `axis` to -1

    Args:
        axis: as in `layer_norm`.
        eps: added to the mean square, in units of x^2. With 0, values whose squares underflow count as 0.
        scale: whether to learn a scale.

    Params:
        scale, ones: as in `layer_norm`.

    Raises:
        TypeError: for input that is not floating-point, or an axis that is not an int.
        ValueError: for an axis that the input does not have, or a negative eps.

    Example:
        >>> x = jnp.array([[3.0, 3.0]])
        >>> layer = jaxcnn.rms_norm(eps=0.0)
        >>> layer.apply(*layer.init(jax.random.key(0), x), x, train=False)[0]
        Array([[1., 1.]], dtype=float32)

    Source: Zhang and Sennrich, "Root mean square layer normalization", 2019.
    """
    eps = check_number("rms_norm", "eps", eps)
    _check_axis("rms_norm", axis)

    def init(key, x):
        axes = _axes(as_floating(x, "rms_norm"), axis, "rms_norm")
        return affine_init(_sizes(x, axes), False, scale)

    def fn(params, x):
        x = as_floating(x, "rms_norm")
        axes = _axes(x, axis, "rms_norm")
        wide = at_least_float32(x)
        square = jnp.square(wide).mean(axes, keepdims=True)
        return _normalize("rms_norm", x, wide, square, eps, params, axes, False, scale)

    return stateless(init, fn)


def _grouped(name, groups: int | None, eps, center, scale) -> Layer:
    """A layer that normalizes groups of channels of each example; with groups=None, each channel."""
    eps = check_number(name, "eps", eps)

    def channels_of(x):
        if groups is None:
            spatial_rank(x, name)  # a channel without positions has a single value, which would become 0
        shape = _channels(x, name)
        if groups and shape[0] % groups:
            raise ValueError(f"{name}: the {shape[0]} channels of input {x.shape} are not divisible by groups={groups}")
        return shape

    def init(key, x):
        return affine_init(channels_of(as_floating(x, name)), center, scale)

    def fn(params, x):
        x = as_floating(x, name)
        (channels,) = channels_of(x)
        size = channels // groups if groups else 1
        split = x.reshape(*x.shape[:-1], channels // size, size)
        centered, var = center_and_variance(split, (*range(1, x.ndim - 1), x.ndim))
        var = jnp.broadcast_to(var, (*var.shape[:-1], size)).reshape(*var.shape[:-2], channels)  # for each channel
        return _normalize(name, x, centered.reshape(x.shape), var, eps, params, (x.ndim - 1,), center, scale)

    return stateless(init, fn)


def _normalize(name, x, centered, var, eps, params: Params, axes, center: bool, scale: bool) -> jax.Array:
    """centered / sqrt(var + eps) * scale + bias, rounded once, at the end, to x's dtype."""

    def param(leaf):
        value = get_param(name, params, leaf, _sizes(x, axes), x).astype(centered.dtype)
        if axes == (x.ndim - 1,):
            return broadcast(value, centered)  # its gradient is the fast sum over channels
        return lax.expand_dims(value, [d for d in range(x.ndim) if d not in axes])

    factor = inverse_std(var, eps)
    y = centered * (factor * param("scale") if scale else factor)
    return (y + param("bias") if center else y).astype(x.dtype)


def affine_init(shape: tuple[int, ...], center: bool, scale: bool, start: float = 1.0) -> Params:
    params = {"scale": filled(shape, start)} if scale else {}
    return params | ({"bias": filled(shape, 0)} if center else {})


def _channels(x, name: str) -> tuple[int]:
    if len(x.shape) < 2:
        raise ValueError(f"{name} needs (N, *spatial, C), got shape {x.shape}")
    return x.shape[-1:]


def _check_axis(name: str, axis: Any) -> None:
    given = axis if isinstance(axis, Sequence) else (axis,)
    if any(isinstance(d, bool) or not isinstance(d, numbers.Integral) for d in given):
        raise TypeError(f"{name}: axis must be an int or a sequence of ints, got {short_repr(axis)}")


def _axes(x, axis: int | Sequence[int], name: str) -> tuple[int, ...]:
    """The dimensions to normalize over, from the option `axis`, in increasing order."""
    rank = len(x.shape)
    given = axis if isinstance(axis, Sequence) else (axis,)
    if not given or any(d not in range(-rank, rank) or d % rank == 0 for d in given):
        raise ValueError(f"{name}: axis={axis} is the batch dimension or does not exist in input {x.shape}")
    axes = sorted({d % rank for d in given})
    if len(axes) < len(given):
        raise ValueError(f"{name}: axis={axis} names a dimension of input {x.shape} twice")
    return tuple(axes) if isinstance(axis, Sequence) else tuple(range(axes[0], rank))


def _sizes(x, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x.shape[d] for d in axes)
