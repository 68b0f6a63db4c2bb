"""One position of a convolution, and of the pool after it, in numbers that can be checked by hand."""

from typing import Any

import numpy as np

from jaxcnn._layer import Params
from jaxcnn.explain._receptive_field import Field


def worked(
    x: np.ndarray, maps: dict[str, np.ndarray], fields: dict[str, tuple[Field, ...]], params: Params, path: str
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The convolution `path` at the position of its largest output, what follows, and the arrays that are in it.

    Where a window lies follows from what the layer and the one before see of the image. What is not found to be what
    the network computes, such as with a kernel that is normalized before its use, is left out: None, or no pool.

    Args:
        x: an image (H, W, C).
        maps: the outputs (H, W, C) for it of layers without layers in them, by path, as they run.
        fields: what they see.
        params: of the model.
        path: one of them.
    """
    order = [*maps]
    at = order.index(path)
    own = leaves(params, path)
    kernel = np.asarray(own["kernel"], np.float32)
    source = order[at - 1] if at else None
    before, seen = (maps[source], fields[source]) if source else (x, (Field(1, 1, 0),) * 2)
    y = maps[path]
    if before.shape[2] != kernel.shape[2]:
        return None, {}
    rows, columns = _taps(seen, fields[path], before.shape, y.shape, kernel.shape)
    inside = _whole(rows, before.shape[0])[:, None] & _whole(columns, before.shape[1])
    if not inside.any():
        return None, {}
    i, j, channel = place = _largest(np.where(inside[..., None], y, -np.inf))
    patch, weights = before[np.ix_(rows[i], columns[j])], kernel[..., channel]
    bias = float(own["bias"][channel]) if "bias" in own else 0.0
    terms = np.append(patch * weights, bias)
    if not _close(terms.sum(), y[place], np.abs(terms).sum()):
        return None, {}
    words = {
        "before": source,
        "position": [i, j],
        "channel": channel,
        "bias": bias,
        "value": float(y[place]),
        "rows": rows[i].tolist(),
        "columns": columns[j].tolist(),
        "of_image": before.shape[:2] == x.shape[:2],
        "steps": [],
        "pool": None,
    }
    arrays = {"patch": patch, "weights": weights}
    last = path
    for after in order[at + 1 :]:
        if "kernel" in leaves(params, after) or maps[after].shape[2] != y.shape[2]:
            break
        if maps[after].shape != y.shape:
            words["pool"], window = _pool(after, maps[last], maps[after], fields[last], fields[after], place)
            arrays |= window
            break
        if not np.isfinite(maps[after][place]):
            break
        words["steps"].append([after, float(maps[after][place])])
        last = after
    return words, arrays


def leaves(params: Params, path: str) -> dict[str, Any]:
    """The parameters of a layer, none if it has none."""
    for name in path.split("/"):
        params = params.get(name, {})
    return params


def _pool(
    path: str, x: np.ndarray, y: np.ndarray, seen: tuple[Field, ...], sees: tuple[Field, ...], place: tuple[int, ...]
) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """The first window of a pool that has this place in it, if its largest value or its mean is what comes out."""
    rows, columns = _taps(seen, sees, x.shape, y.shape)
    has = (_whole(taps, n) & (taps == at).any(1) for taps, n, at in zip((rows, columns), x.shape, place, strict=False))
    found = [np.flatnonzero(windows) for windows in has]
    if not all(map(len, found)):
        return None, {}
    i, j = (int(windows[0]) for windows in found)
    window = x[np.ix_(rows[i], columns[j], [place[2]])][..., 0]
    value = y[i, j, place[2]]
    for name, result in (("largest", window.max()), ("mean", window.mean())):
        if _close(result, value, np.abs(window).max()):
            words = {"path": path, "is": name, "position": [i, j], "value": float(value)}
            return words | {"rows": rows[i].tolist(), "columns": columns[j].tolist()}, {"window": window}
    return None, {}


def _taps(
    seen: tuple[Field, ...],
    sees: tuple[Field, ...],
    before: tuple[int, ...],
    after: tuple[int, ...],
    kernel: tuple[int, ...] | None = None,
) -> list[np.ndarray]:
    """For each dimension the positions (outputs, window) of an input that has fields `seen` in the windows of a layer.

    Without a kernel, windows have no holes. What is not a window of whole steps has no positions.
    """
    found = []
    for d, (inner, outer) in enumerate(zip(seen, sees, strict=True)):
        reach = (outer.size - inner.size) / (inner.stride or np.inf)
        size = kernel[d] if kernel else int(reach) + 1
        dilation = reach / (size - 1) if size > 1 else 1
        stride, start = outer.stride / (inner.stride or np.inf), (outer.start - inner.start) / (inner.stride or np.inf)
        taps = start + stride * np.arange(after[d])[:, None] + dilation * np.arange(size)
        found.append(taps.astype(int) if (taps % 1 == 0).all() else np.full(taps.shape, before[d]))
    return found


def _whole(taps: np.ndarray, length: int) -> np.ndarray:
    """Which windows lie inside of an input of this length."""
    return np.all((taps >= 0) & (taps < length), axis=1)


def _largest(y: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(y.argmax(), y.shape))


def _close(one: float, other: float, size: float) -> bool:
    """As close as the rounding of bfloat16 lets them be; not if they are not finite."""
    return bool(abs(one - other) <= 0.01 * size)
