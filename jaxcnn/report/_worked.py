"""The values behind one output of a convolution and of the pool after it, for a worked example."""

from typing import Any

import numpy as np

from jaxcnn._layer import Params
from jaxcnn.explain._receptive_field import Field


def worked(
    x: np.ndarray, maps: dict[str, np.ndarray], fields: dict[str, tuple[Field, ...]], params: Params, path: str
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The largest output of the convolution `path`, the values in the layers after it, and the arrays involved.

    The receptive fields of the layer and of its input give the position of the window. The result is verified against
    the network's outputs. If it differs (a kernel that is normalized before use), the convolution or pool is None.

    Args:
        x: an image (H, W, C).
        maps: outputs (H, W, C) of the innermost layers for this image, by path, in the order in which they run.
        fields: receptive fields of these layers.
        params: parameters of the model.
        path: path of the convolution.
    """
    order = [*maps]
    at = order.index(path)
    layer_params = leaves(params, path)
    kernel = np.asarray(layer_params["kernel"], np.float32)
    source = order[at - 1] if at else None
    inputs, input_fields = (maps[source], fields[source]) if source else (x, (Field(1, 1, 0),) * 2)
    y = maps[path]
    if inputs.shape[2] != kernel.shape[2]:
        return None, {}
    rows, columns = _taps(input_fields, fields[path], inputs.shape, y.shape, kernel.shape)
    inside = _is_inside(rows, inputs.shape[0])[:, None] & _is_inside(columns, inputs.shape[1])
    if not inside.any():
        return None, {}
    i, j, channel = position = _argmax(np.where(inside[..., None], y, -np.inf))
    patch, weights = inputs[np.ix_(rows[i], columns[j])], kernel[..., channel]
    bias = float(layer_params["bias"][channel]) if "bias" in layer_params else 0.0
    terms = np.append(patch * weights, bias)
    if not _close(terms.sum(), y[position], np.abs(terms).sum()):
        return None, {}
    info = {
        "before": source,
        "position": [i, j],
        "channel": channel,
        "bias": bias,
        "value": float(y[position]),
        "rows": rows[i].tolist(),
        "columns": columns[j].tolist(),
        "of_image": inputs.shape[:2] == x.shape[:2],
        "steps": [],
        "pool": None,
    }
    arrays = {"patch": patch, "weights": weights}
    last = path
    for after in order[at + 1 :]:
        if "kernel" in leaves(params, after) or maps[after].shape[2] != y.shape[2]:
            break
        if maps[after].shape != y.shape:
            info["pool"], window = _pool(after, maps[last], maps[after], fields[last], fields[after], position)
            arrays |= window
            break
        if not np.isfinite(maps[after][position]):
            break
        info["steps"].append([after, float(maps[after][position])])
        last = after
    return info, arrays


def leaves(params: Params, path: str) -> dict[str, Any]:
    """The parameters of the layer at `path`; empty if it has none."""
    for name in path.split("/"):
        params = params.get(name, {})
    return params


def _pool(
    path: str,
    x: np.ndarray,
    y: np.ndarray,
    input_fields: tuple[Field, ...],
    output_fields: tuple[Field, ...],
    position: tuple[int, ...],
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The first window of a pool that contains this position, if the pool's output is its maximum or its mean."""
    rows, columns = _taps(input_fields, output_fields, x.shape, y.shape)
    windows = [
        np.flatnonzero(_is_inside(taps, n) & (taps == index).any(1))
        for taps, n, index in zip((rows, columns), x.shape, position, strict=False)
    ]
    if not all(map(len, windows)):
        return None, {}
    i, j = (int(indices[0]) for indices in windows)
    window = x[np.ix_(rows[i], columns[j], [position[2]])][..., 0]
    value = y[i, j, position[2]]
    for name, result in (("largest", window.max()), ("mean", window.mean())):
        if _close(result, value, np.abs(window).max()):
            info = {"path": path, "is": name, "position": [i, j], "value": float(value)}
            return info | {"rows": rows[i].tolist(), "columns": columns[j].tolist()}, {"window": window}
    return None, {}


def _taps(
    input_fields: tuple[Field, ...],
    output_fields: tuple[Field, ...],
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    kernel: tuple[int, ...] | None = None,
) -> list[np.ndarray]:
    """For each dimension, the input positions (outputs, window) of the windows of a layer, from receptive fields.

    Without a kernel shape, the dilation is 1. Positions that are not whole numbers are set outside the input.
    """
    positions = []
    for d, (inner, outer) in enumerate(zip(input_fields, output_fields, strict=True)):
        reach = (outer.size - inner.size) / (inner.stride or np.inf)
        size = kernel[d] if kernel else int(reach) + 1
        dilation = reach / (size - 1) if size > 1 else 1
        stride, start = outer.stride / (inner.stride or np.inf), (outer.start - inner.start) / (inner.stride or np.inf)
        taps = start + stride * np.arange(output_shape[d])[:, None] + dilation * np.arange(size)
        positions.append(taps.astype(int) if (taps % 1 == 0).all() else np.full(taps.shape, input_shape[d]))
    return positions


def _is_inside(taps: np.ndarray, length: int) -> np.ndarray:
    """Which windows lie completely inside an input of this length."""
    return np.all((taps >= 0) & (taps < length), axis=1)


def _argmax(y: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(y.argmax(), y.shape))


def _close(a: float, b: float, scale: float) -> bool:
    """Whether a and b agree within bfloat16 rounding; False if one is not finite."""
    return bool(abs(a - b) <= 0.01 * scale)
