"""Convolutions, pools and interpolation."""

from typing import Any

import jax
import numpy as np

from jaxcnn._lowering._resample import Axis, Filter, weight_matrix
from jaxcnn._onnx._elementwise import Rule, cast, constant_of, emit
from jaxcnn._onnx._graph import Graph
from jaxcnn._onnx._shape import padded, tensor
from jaxcnn._onnx._value import Constant, Order, Tensor, Value, arranged, channels_first
from jaxcnn._window import Window


def jaxcnn_conv(graph: Graph, params: Any, result: Any, x: Value, w: Value) -> Value:
    rank = len(x.shape)
    spec = channels_first(rank), (rank - 1, rank - 2, *range(rank - 2))
    return _conv(graph, result, x, w, *spec, params["window"], params["groups"], spec[0])


def conv_general_dilated(graph: Graph, params: Any, result: Any, x: Value, w: Value) -> Value:
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        raise NotImplementedError("batch_group_count")
    window = Window(
        tuple(w.shape[dim] for dim in numbers.rhs_spec[2:]),
        tuple(params["window_strides"]),
        tuple(params["rhs_dilation"]),
        tuple(params["padding"]),
        tuple(params["lhs_dilation"]),
    )
    groups = params["feature_group_count"]
    return _conv(graph, result, x, w, numbers.lhs_spec, numbers.rhs_spec, window, groups, numbers.out_spec)


def _conv(
    graph: Graph,
    result: Any,
    x: Any,
    w: Value,
    x_layout: Order,
    w_layout: Order,
    window: Window,
    groups: int,
    y_layout: Order,
) -> Value:
    if set(window.input_dilation) != {1}:
        if set(window.stride) != {1} or not isinstance(w, Constant):
            raise NotImplementedError("a convolution with a stride and a dilated input")
        kernel = w.full().transpose(w_layout)  # (C_out, C_in / groups, *size)
        kernel = np.flip(kernel, tuple(range(2, kernel.ndim)))
        parts = kernel.reshape(groups, -1, *kernel.shape[1:]).swapaxes(1, 2)
        kernel = parts.reshape(-1, *parts.shape[2:])
        pads = [
            (span - 1 - low, span - 1 - high) for (low, high), span in zip(window.padding, window.span, strict=True)
        ]
        transposed = window._replace(stride=window.input_dilation, padding=tuple(pads))
        name = arranged(graph, x, x_layout)
        return _conv_transpose(graph, result, name, graph.constant(kernel), transposed, groups, y_layout)
    if any(min(ends) < 0 for ends in window.padding):
        cuts = {dim: (min(low, 0), min(high, 0)) for dim, (low, high) in zip(x_layout[2:], window.padding, strict=True)}
        shape = [size + sum(cuts.get(dim, (0, 0))) for dim, size in enumerate(x.shape)]
        like = np.broadcast_to(np.zeros((), x.dtype), (0,))
        x = padded(graph, x, cuts, constant_of(0, like), jax.ShapeDtypeStruct(tuple(shape), x.dtype))
        window = window._replace(padding=tuple((max(low, 0), max(high, 0)) for low, high in window.padding))
    attributes = _attributes(window) | {"group": groups, "dilations": [*window.dilation]}
    name = graph.add("Conv", arranged(graph, x, x_layout), arranged(graph, w, w_layout), **attributes)
    return tensor(name, y_layout, result)


def jaxcnn_conv_input_gradient(graph: Graph, params: Any, result: Any, y: Value, w: Value) -> Value:
    rank = len(y.shape)
    layout = channels_first(rank)
    kernel = arranged(graph, w, (rank - 1, rank - 2, *range(rank - 2)))
    name = arranged(graph, y, layout)
    return _conv_transpose(graph, result, name, kernel, params["window"], params["groups"], layout)


def _conv_transpose(graph: Graph, result: Any, x: str, w: str, window: Window, groups: int, layout: Order) -> Value:
    """window.padding is cut from the output, or added where negative. w is (C_in, C_out / groups, *size)."""
    # Outputs without any input are padded afterwards.
    pads = {dim: (max(-low, 0), max(-high, 0)) for dim, (low, high) in zip(layout[2:], window.padding, strict=True)}
    cuts = tuple((max(low, 0), max(high, 0)) for low, high in window.padding)
    attributes = _attributes(window._replace(padding=cuts)) | {"group": groups, "dilations": [*window.dilation]}
    if pads and any(map(any, pads.values())):
        shape = list(result.shape)
        for dim, (low, high) in pads.items():
            shape[dim] -= low + high
        inner = jax.ShapeDtypeStruct(tuple(shape), result.dtype)
        y = tensor(graph.add("ConvTranspose", x, w, **attributes), layout, inner)
        return padded(graph, y, pads, Constant(np.zeros((), result.dtype), ()), result)
    return tensor(graph.add("ConvTranspose", x, w, **attributes), layout, result)


def _with_pads(graph: Graph, x: Any, window: Window, layout: Order, value: float) -> tuple[Any, Window]:
    """The padded array and a window without padding, if a padding is negative or not smaller than the kernel.

    onnxruntime refuses such pools.
    """
    if all(min(ends) >= 0 and max(ends) < size for ends, size in zip(window.padding, window.size, strict=True)):
        return x, window
    pads = dict(zip(layout[2:], window.padding, strict=True))
    shape = tuple(size + sum(pads.get(dim, (0, 0))) for dim, size in enumerate(x.shape))
    like = jax.ShapeDtypeStruct(shape, x.dtype)
    x = padded(graph, x, pads, Constant(np.full((), value, x.dtype), ()), like)
    return x, window._replace(padding=((0, 0),) * len(window.padding))


def _attributes(window: Window) -> dict[str, Any]:
    pads = [low for low, _ in window.padding] + [high for _, high in window.padding]
    return {"kernel_shape": [*window.size], "strides": [*window.stride], "pads": pads}


def jaxcnn_pool(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return _extreme(graph, result, x, params["window"], channels_first(len(x.shape)), params["kind"] == "max pool")


def jaxcnn_window_sum(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    return _sum(graph, result, x, params["window"], channels_first(len(x.shape)))


def _extreme(graph: Graph, result: Any, x: Any, window: Window, layout: Order, largest: bool) -> Value:
    if x.dtype.kind in "biu":
        if x.dtype.itemsize > 4:
            raise NotImplementedError(f"a pool of {x.dtype}; convert it to int32")
        wide = lambda spec: jax.ShapeDtypeStruct(spec.shape, np.float64)  # holds these integers exactly
        limits = (0, 1) if x.dtype == np.bool_ else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
        x, window = _with_pads(graph, cast(graph, {}, wide(x), x), window, layout, limits[not largest])
        return cast(graph, {}, result, _extreme(graph, wide(result), x, window, layout, largest))
    x, window = _with_pads(graph, x, window, layout, -np.inf if largest else np.inf)
    attributes = _attributes(window) | {"dilations": [*window.dilation]}
    name = arranged(graph, x, layout)
    minus = graph.constant(np.array(-1, x.dtype))
    name = name if largest else graph.add("Mul", name, minus)
    name = graph.add("MaxPool", name, **attributes)
    return tensor(name if largest else graph.add("Mul", name, minus), layout, result)


def _sum(graph: Graph, result: Any, x: Tensor, window: Window, layout: Order) -> Tensor:
    if x.dtype.kind in "biu":
        raise NotImplementedError(f"a sum of {x.dtype} over windows; convert it to float32")
    if set(window.dilation) != {1}:
        channels = x.shape[layout[1]]
        ones = graph.constant(np.ones((channels, 1, *window.size), x.dtype))
        attributes = _attributes(window) | {"dilations": [*window.dilation], "group": channels}
        name = arranged(graph, x, layout)
        return tensor(graph.add("Conv", name, ones, **attributes), layout, result)
    x, window = _with_pads(graph, x, window, layout, 0)
    name = graph.add("AveragePool", arranged(graph, x, layout), **_attributes(window), count_include_pad=1)
    return emit(graph, "Mul", result, tensor(name, layout, result), constant_of(window.taps, result))


def reduce_window(graph: Graph, params: Any, result: Any, x: Tensor, *, kind: str) -> Value:
    if set(params["base_dilation"]) != {1}:
        raise NotImplementedError("a window over a dilated input")
    rank, columns = len(x.shape), ("window_dimensions", "window_strides", "window_dilation", "padding")
    fields = [*zip(*(params[column] for column in columns), strict=True)]
    slid = [dim for dim, field in enumerate(fields) if field != (1, 1, 1, (0, 0))]
    if len(slid) > 3 or rank - len(slid) < 2:
        slid = [*range(1, rank)][-3:] if set(slid) <= {*range(rank)[-3:]} else slid
    others = [dim for dim in range(rank) if dim not in slid]
    while len(others) > 2 and len(slid) < 3:  # pools have two other dimensions
        slid.insert(0, others.pop())
    if len(others) != 2:
        raise NotImplementedError(f"a window of {params['window_dimensions']}")
    layout = (*others, *slid)
    size, stride, dilation, padding = zip(*(fields[dim] for dim in slid), strict=True)
    window = Window(size, stride, dilation, padding, (1,) * len(slid))
    if kind == "sum":
        return _sum(graph, result, x, window, layout)
    return _extreme(graph, result, x, window, layout, kind == "max")


def jaxcnn_resampled(graph: Graph, params: Any, result: Any, x: Tensor) -> Value:
    axis: Axis = params["axis"]
    taps: Filter = params["taps"]
    dim = params["dim"]
    layout = channels_first(len(x.shape))
    name = arranged(graph, x, layout)
    antialias = taps.antialias and axis.size < axis.spatial
    # onnxruntime has a cubic Resize only for images, and to a smaller size only with antialiasing.
    is_cubic = taps.method == "cubic" and len(x.shape) == 4 and (antialias or axis.size >= axis.spatial)
    has_operator = taps.method == "linear" or is_cubic
    if params["transposed"] or axis.scale is not None or not has_operator:
        matrix = weight_matrix(axis, taps).astype(x.dtype)
        matrix = matrix.T if params["transposed"] else matrix
        letters = "abcde"[: len(x.shape)]
        at = letters[layout.index(dim)]
        name = graph.add(
            "Einsum", name, graph.constant(matrix), equation=f"{letters},{at}z->{letters.replace(at, 'z')}"
        )
        return tensor(name, layout, result)
    attributes: dict[str, Any] = {"mode": taps.method, "coordinate_transformation_mode": taps.coordinates}
    if taps.method == "cubic":
        attributes["cubic_coeff_a"] = taps.a
    if taps.method == "cubic" or antialias:
        attributes["exclude_outside"] = int(taps.exclude_outside)
    if antialias:
        attributes["antialias"] = 1
    scales = np.ones(len(layout), np.float32)
    scales[layout.index(dim)] = _scale(axis)
    # One operator for this dimension and others before it that are resized in the same way.
    before = graph.producer(name, "Resize")
    if before and before.attributes == attributes and graph.constants[before.inputs[2]][layout.index(dim)] == 1:
        scales *= graph.constants[before.inputs[2]]
        name = before.inputs[0]
    return tensor(graph.add("Resize", name, "", graph.constant(scales), **attributes), layout, result)


def _scale(axis: Axis) -> np.float32:
    """size / spatial, rounded such that floor(scale * spatial) is the size, in float32 and in float64."""
    scale = np.float32(axis.size / axis.spatial)
    while int(float(scale) * axis.spatial) < axis.size:
        scale = np.nextafter(scale, np.float32(np.inf))
    return scale


RULES: dict[str, Rule] = {
    "conv_general_dilated": conv_general_dilated,
    "jaxcnn_conv": jaxcnn_conv,
    "jaxcnn_conv_input_gradient": jaxcnn_conv_input_gradient,
    "jaxcnn_pool": jaxcnn_pool,
    "jaxcnn_resampled": jaxcnn_resampled,
    "jaxcnn_window_sum": jaxcnn_window_sum,
    "reduce_window_max": lambda *args: reduce_window(*args, kind="max"),
    "reduce_window_min": lambda *args: reduce_window(*args, kind="min"),
    "reduce_window_sum": lambda *args: reduce_window(*args, kind="sum"),
}
