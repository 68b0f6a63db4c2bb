"""Layers that resize by interpolation."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn._arguments import check_choice, check_number, check_positive
from jaxcnn._array import as_floating, spatial_rank
from jaxcnn._layer import Layer, as_layer, constructor
from jaxcnn._lowering import Axis, Filter, resample
from jaxcnn._window import check_window_options, per_dimension

_METHODS = ("nearest", "linear", "cubic", "lanczos3", "lanczos5")
_COORDINATES = ("half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "pytorch_half_pixel")
_ROUNDING: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@constructor
def upsample(scale: int | Sequence[int], method: str = "nearest", *, coordinates: str = "half_pixel") -> Layer:
    """(N, *spatial, C) -> (N, *(scale * spatial), C): enlarges by an integer factor.

    Args:
        scale: one int for all spatial dimensions or one per dimension. For other factors, use `resize(scale=..)`.
        method: "nearest" (repeats values), or interpolation: "linear", "cubic", "lanczos3", "lanczos5".
        coordinates: as in `resize`; "align_corners" is PyTorch's align_corners=True.

    Raises:
        ValueError: for a wrong rank, an unknown method or unknown coordinates.

    Example:
        >>> jaxcnn.upsample(2).apply({}, {}, jnp.array([1.0, 2.0]).reshape(1, 2, 1), train=False)[0].ravel()
        Array([1., 1., 2., 2.], dtype=float32)
    """
    check_window_options("upsample", scale=scale)
    check_choice("upsample", "method", method, _METHODS)
    check_choice("upsample", "coordinates", coordinates, _COORDINATES)

    def fn(x):
        factors = per_dimension("upsample", "scale", scale, spatial_rank(x, "upsample"))
        if method == "nearest" and coordinates == "half_pixel":
            for axis, factor in enumerate(factors, 1):
                x = jnp.repeat(x, factor, axis)
            return x
        axes = [Axis(n, n * factor) for n, factor in zip(x.shape[1:-1], factors, strict=True)]
        if method == "nearest":
            return _nearest(x, axes, coordinates, "round_prefer_ceil")
        return resample(as_floating(x, "upsample"), axes, Filter(method, coordinates))

    return as_layer(fn)


@constructor
def resize(
    size: int | Sequence[int] | None = None,
    method: str = "linear",
    *,
    scale: float | Sequence[float] | None = None,
    coordinates: str = "half_pixel",
    antialias: bool = True,
    rounding: str = "round_prefer_ceil",
    a: float = -0.5,
    exclude_outside: bool = True,
) -> Layer:
    """(N, *spatial, C) -> (N, *size, C): resamples by interpolation.

    y[n, i, c] = sum_j w(|j - at(i)|) x[n, j, c] / sum_j w(|j - at(i)|),  w: triangle for "linear"

    at(i) = (i + 1/2) / scale - 1/2,  scale = size / spatial

    The defaults are those of jax.image.resize, and of PyTorch's and TensorFlow's with antialias=True. Others:

        PyTorch "bilinear"                      antialias=False
        PyTorch "bilinear", align_corners=True  antialias=False, coordinates="align_corners"
        PyTorch "bicubic"                       method="cubic", antialias=False, a=-0.75, exclude_outside=False
        PyTorch "nearest"                       method="nearest", coordinates="asymmetric", rounding="floor"
        PyTorch "nearest-exact"                 method="nearest"
        PyTorch "area"                          `adaptive_avg_pool`
        TensorFlow "bicubic"                    method="cubic", antialias=False

    Args:
        size: output size, one int for all spatial dimensions or one per dimension; None: floor(scale * spatial).
        method: "nearest", "linear" (bilinear for images), "cubic", "lanczos3" or "lanczos5".
        scale: output size / input size, one number or one per dimension; None: size / spatial.
        coordinates: "half_pixel": at(i) as above. "align_corners": at(i) = i * (spatial - 1) / (scale * spatial - 1).
            "asymmetric": at(i) = i / scale. "pytorch_half_pixel": "half_pixel", but at(0) = 0 for size 1.
            "half_pixel_symmetric": "half_pixel", but centered if `size` rounds scale * spatial.
        antialias: whether to widen the filter by 1 / scale when shrinking. The default of PyTorch and TensorFlow is
            False. "nearest" ignores it.
        rounding: of at(i) for "nearest": "floor", "ceil", or to the nearest with ties up ("round_prefer_ceil") or down
            ("round_prefer_floor").
        a: parameter of the "cubic" filter (Keys), which others call cubic_coeff_a.
        exclude_outside: whether taps outside the input do not count; otherwise they read the nearest input.

    Raises:
        TypeError: for input that is not floating-point, unless the method is "nearest".
        ValueError: for a wrong rank, neither size nor scale, a size that is not scale * spatial, rounded up or down, an
            empty output, or an unknown method, coordinates or rounding.

    Example:
        >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
        >>> jaxcnn.resize(4).apply({}, {}, x, train=False)[0].ravel()
        Array([0., 1., 3., 4.], dtype=float32)
        >>> jaxcnn.resize(5, coordinates="align_corners").apply({}, {}, x, train=False)[0].ravel()
        Array([0., 1., 2., 3., 4.], dtype=float32)

    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981. The names of coordinates and
        roundings are those of ONNX's operator Resize.
    """
    if size is None and scale is None:
        raise ValueError("resize needs a size or a scale")
    if size is not None:
        check_window_options("resize", size=size)
    if scale is not None:
        checked = functools.partial(check_positive, "resize", "scale", static=True)
        scale = tuple(map(checked, scale)) if isinstance(scale, Sequence) else checked(scale)
    check_choice("resize", "method", method, _METHODS)
    check_choice("resize", "coordinates", coordinates, _COORDINATES)
    check_choice("resize", "rounding", rounding, _ROUNDING)
    a = check_number("resize", "a", a, -np.inf, static=True)

    def fn(x):
        spatial_rank(x, "resize")
        x = jnp.asarray(x) if method == "nearest" else as_floating(x, "resize")
        axes = _axes(x, size, scale)
        if method == "nearest":
            return _nearest(x, axes, coordinates, rounding)
        return resample(x, axes, Filter(method, coordinates, antialias, a, exclude_outside))

    return as_layer(fn)


def _axes(x: jax.Array, size: int | Sequence[int] | None, scale: float | Sequence[float] | None) -> list[Axis]:
    spatial = x.shape[1:-1]
    scales = tuple(scale) if isinstance(scale, Sequence) else (scale,) * len(spatial)
    if len(scales) != len(spatial):
        raise ValueError(f"resize: scale={scale!r} has {len(scales)} entries for {len(spatial)} spatial dimensions")
    if size is None:
        sizes = tuple(int(n * (factor or 0)) for n, factor in zip(spatial, scales, strict=True))
    else:
        sizes = per_dimension("resize", "size", size, len(spatial))
        if any(factor and abs(n * factor - out) >= 1 for n, factor, out in zip(spatial, scales, sizes, strict=True)):
            raise ValueError(f"resize: size={size!r} is not that of scale={scale!r} for input {x.shape}")
    if 0 in sizes:
        raise ValueError(f"resize: scale={scale} leaves an empty output of spatial size {sizes} for input {x.shape}")
    return [Axis(*options) for options in zip(spatial, sizes, scales, strict=True)]


def _nearest(x: jax.Array, axes: Sequence[Axis], coordinates: str, rounding: str) -> jax.Array:
    for dim, axis in enumerate(axes, 1):
        index = np.clip(_ROUNDING[rounding](axis.positions(coordinates)), 0, axis.spatial - 1)
        x = jnp.take(x, index.astype(np.int32), dim, mode="clip")
    return x
