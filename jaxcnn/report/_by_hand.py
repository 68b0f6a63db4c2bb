"""The report's section on one output of a convolution and the pool after it, as a calculation to check by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.report._page import VERMILLION, Html, figure, grid, image, joined, number, tag

_DIGITS = 3  # decimal places of the values
_FRAMED = 8  # enlargement of the framed image


def by_hand(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    worked = info["worked"]
    rows, columns, (i, j), channel = (worked[name] for name in ("rows", "columns", "position", "channel"))
    source = f"the output of {worked['before']}" if worked["before"] else "the image"
    patch, weights = (np.round(arrays[name].astype(float), _DIGITS) for name in ("patch", "weights"))
    products = np.round(patch * weights, _DIGITS)
    total, bias = products.sum(), round(worked["bias"], _DIGITS)
    parts = [
        tag(
            "p",
            "Each output of a convolution is a sum of products plus a bias. This example is the largest output of "
            f"{info['first']}: channel {channel}, row {i}, column {j}. A patch of {source} is multiplied element by "
            f"element with the weights of filter {channel}. All values are rounded to {_DIGITS} decimal places first, "
            "so you can check the calculation by hand.",
        )
    ]
    if worked["of_image"] and arrays["examples"].shape[1:3] == tuple(info["size"]):
        label = info["classes"][arrays["examples_label"][0]]
        alt = f"Image of class {label} with a frame around rows {_span(rows)}, columns {_span(columns)}"
        larger = framed(arrays["examples"][0] / 255, rows, columns)
        parts.append(figure(image(larger, alt, class_="frame"), "Position of the patch in the image"))
    for c in range(patch.shape[-1]):
        channel_text = f", channel {c}" if patch.shape[-1] > 1 else ""
        kernel_rows, kernel_columns = (range(n) for n in patch.shape[:2])
        grids = (
            grid(f"Patch{channel_text}", patch[..., c], rows, columns, _DIGITS),
            grid(f"Weights{channel_text}", weights[..., c], kernel_rows, kernel_columns, _DIGITS),
            grid(f"Products{channel_text}", products[..., c], kernel_rows, kernel_columns, _DIGITS),
        )
        parts.append(tag("div", *grids, class_="side"))
    parts.append(
        tag(
            "p",
            f"The sum of the {products.size} products is {number(total, _DIGITS)}. Adding the bias "
            f"{number(bias, _DIGITS)} gives {number(total + bias, _DIGITS)}. "
            f"Without this rounding, the network computes {number(worked['value'], _DIGITS)}.",
            class_="sums",
        )
    )
    if worked["steps"]:
        steps = "; ".join(f"{path} gives {number(value, _DIGITS)}" for path, value in worked["steps"])
        parts.append(tag("p", f"The next layers transform this value: {steps}."))
    if pool := worked["pool"]:
        (y, x), value = pool["position"], number(pool["value"], _DIGITS)
        reduction = {"largest": "maximum"}.get(pool["is"], pool["is"])
        parts += [
            tag("p", f"Then {pool['path']} computes the {reduction} of a window that contains this value:"),
            grid("Window", arrays["window"], pool["rows"], pool["columns"], _DIGITS),
            tag("p", f"The {reduction} is {value}. This is the output at row {y}, column {x}.", class_="sums"),
        ]
    return joined(parts)


def _span(indices: Sequence[int]) -> str:
    return f"{indices[0]} to {indices[-1]}"


def framed(pixels: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """The enlarged image with a frame around the given rows and columns."""
    large = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).repeat(_FRAMED, 0).repeat(_FRAMED, 1)
    outer, inner = (
        tuple(slice(_FRAMED * at[0] + line, _FRAMED * (at[-1] + 1) - line) for at in (rows, columns)) for line in (0, 2)
    )
    content = large[inner].copy()
    large[outer] = VERMILLION
    large[inner] = content
    return large
