"""One position of a convolution, and of the pool after it, as a calculation that a reader can do again."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.report._page import VERMILLION, Html, figure, grid, image, joined, number, tag

_DIGITS = 3  # of numbers to check by hand
_FRAMED = 8  # how many times larger an image is under the frame


def by_hand(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    worked = words["worked"]
    rows, columns, (i, j), channel = (worked[name] for name in ("rows", "columns", "position", "channel"))
    source = f"the output of {worked['before']}" if worked["before"] else "the image"
    patch, weights = (np.round(arrays[name].astype(float), _DIGITS) for name in ("patch", "weights"))
    products = np.round(patch * weights, _DIGITS)
    total, bias = products.sum(), round(worked["bias"], _DIGITS)
    parts = [
        tag(
            "p",
            f"An output of a convolution is a sum of products. This is channel {channel} of {words['first']} at row "
            f"{i}, column {j}, where it is largest: a patch of {source}, times the weights of filter {channel}, plus a "
            f"bias. Numbers are rounded to {_DIGITS} digits before they are used, so that it can be checked by hand.",
        )
    ]
    if worked["of_image"] and arrays["examples"].shape[1:3] == tuple(words["size"]):
        label = words["classes"][arrays["examples_label"][0]]
        alt = f"An image of the class {label}, a frame around rows {_span(rows)}, columns {_span(columns)}"
        larger = framed(arrays["examples"][0] / 255, rows, columns)
        parts.append(figure(image(larger, alt, class_="frame"), "Where the patch lies"))
    for c in range(patch.shape[-1]):
        which = f", channel {c}" if patch.shape[-1] > 1 else ""
        down, across = (range(n) for n in patch.shape[:2])
        three = (
            grid(f"Patch{which}", patch[..., c], rows, columns, _DIGITS),
            grid(f"Weights{which}", weights[..., c], down, across, _DIGITS),
            grid(f"Products{which}", products[..., c], down, across, _DIGITS),
        )
        parts.append(tag("div", *three, class_="side"))
    parts.append(
        tag(
            "p",
            f"The sum of the {products.size} products is {number(total, _DIGITS)}; with the bias "
            f"{number(bias, _DIGITS)} it is {number(total + bias, _DIGITS)}. "
            f"The network, which does not round, has {number(worked['value'], _DIGITS)}.",
            class_="sums",
        )
    )
    if worked["steps"]:
        after = "; ".join(f"after {path} it is {number(value, _DIGITS)}" for path, value in worked["steps"])
        parts.append(tag("p", f"What the next layers make of it: {after}."))
    if pool := worked["pool"]:
        (y, x), value = pool["position"], number(pool["value"], _DIGITS)
        parts += [
            tag("p", f"Then {pool['path']} takes the {pool['is']} of a window that has it in it:"),
            grid("Window", arrays["window"], pool["rows"], pool["columns"], _DIGITS),
            tag("p", f"The {pool['is']} is {value}: its output at row {y}, column {x}.", class_="sums"),
        ]
    return joined(parts)


def _span(places: Sequence[int]) -> str:
    return f"{places[0]} to {places[-1]}"


def framed(pixels: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """An image, larger, with a line around these rows and columns."""
    large = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).repeat(_FRAMED, 0).repeat(_FRAMED, 1)
    outer, inner = (
        tuple(slice(_FRAMED * at[0] + line, _FRAMED * (at[-1] + 1) - line) for at in (rows, columns)) for line in (0, 2)
    )
    kept = large[inner].copy()
    large[outer] = VERMILLION
    large[inner] = kept
    return large
