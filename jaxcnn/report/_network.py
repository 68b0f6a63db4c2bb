"""What `gather` kept of a network, as sections of the page: mistakes, filters, feature maps, Grad-CAM and layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.report._by_hand import by_hand
from jaxcnn.report._page import VERMILLION, Html, figure, image, joined, number, percentage, table, tag, tiles

_CLASSES = 20  # in a confusion matrix, at most
_PAIRS = 20  # of classes that are confused, at most
_BLUE, _NEUTRAL = np.array([[0, 114, 178], [238, 238, 238]]) / 255


def network_sections(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Html]:
    """The sections on what the network does, by their titles."""
    sections = {}
    if "classes" in words:
        sections["What it gets wrong"] = _mistakes(words, arrays)
    if "examples" in arrays:
        sections["What it sees"] = _seen(words, arrays)
    if words["worked"]:
        sections["One convolution by hand"] = by_hand(words, arrays)
    return sections | {"The network": _network(words)}


def _mistakes(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    classes, left_out = words["classes"], words.get("left_out", 0)
    parts = []
    if left_out:
        labels = f"labels that are not from 0 to {len(classes) - 1}"
        parts.append(tag("p", f"{left_out:,} examples have {labels}, the model's outputs, and are left out here."))
    if "matrix" not in arrays:
        return joined(parts)
    matrix = arrays["matrix"]
    total, right = int(matrix.sum()), int(matrix.trace())
    parts.append(tag("p", f"Of {total:,} images that were shown to it, {right:,} are right ({right / total:.2%})."))
    parts.append(_matrix(matrix, classes) if len(classes) <= _CLASSES else _pairs(matrix, classes))
    index = arrays["mistakes_index"]
    if not len(index) or "mistakes" not in arrays:
        return joined(parts)
    parts += [
        tag("h3", "The worst mistakes"),
        tag("p", "The images to whose class the network gives the smallest probability."),
    ]
    names = ("label", "predicted", "label_probability", "predicted_probability")
    rows = zip(index, arrays["mistakes"], *(arrays[f"mistakes_{name}"] for name in names), strict=True)
    parts.append(
        tag(
            "div",
            tiles(
                *(
                    figure(
                        image(
                            pixels / 255,
                            f"Image {i}, of the class {classes[label]}, that is taken for {classes[predicted]}",
                        ),
                        tag("strong", f"{classes[label]}, taken for {classes[predicted]}"),
                        tag("span", f"{classes[label]}: {percentage(p)}"),
                        tag("span", f"{classes[predicted]}: {percentage(q)}"),
                    )
                    for i, pixels, label, predicted, p, q in rows
                )
            ),
            class_="large",
        )
    )
    return joined(parts)


def _matrix(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)

    def cell(i, j):
        level = int(np.ceil(5 * (fractions[i, j] if i == j else fractions[i, j] ** 0.5)))
        kinds = ["right"] * (i == j) + [f"m{level}" if level else "zero"]
        return tag("td", f"{matrix[i, j]:,}", class_=" ".join(kinds))

    rows = ((name, *(cell(i, j) for j in range(len(matrix)))) for i, name in enumerate(classes))
    tall = " tall" if max(map(len, classes)) > 4 else ""
    caption = "Confusion matrix: a row for each class, a column for what it is taken for; what is right is bold"
    return table(caption, ["class", *classes], rows, class_=f"counts{tall}")


def _pairs(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    """The confusions that are most frequent, where there are too many classes for a matrix."""
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [np.unravel_index(k, wrong.shape) for k in most if wrong.flat[k]]
    rows = ((classes[i], classes[j], f"{wrong[i, j]:,}", f"{matrix[i].sum():,}") for i, j in pairs)
    return table("The most frequent confusions", ["class", "taken for", "images", "of"], rows, class_="words")


def _seen(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    parts = []
    if words["first"]:
        parts += _filters(words["first"], arrays["filters"])
    if words["maps"]:
        parts += _maps(words, arrays) + _cam(words, arrays)
    return joined(parts) if parts else tag("p", "It has no layer whose outputs have positions in the image.")


def _filters(path: str, filters: np.ndarray) -> list[Html]:
    _, height, width, channels = filters.shape
    if channels not in (1, 3):
        filters = filters.mean(-1, keepdims=True)
    most = float(np.abs(filters).max()) or 1.0
    relative = filters / most
    if channels == 3:
        colors, drawn = 0.5 + 0.5 * relative, "red, green and blue around gray"
    else:
        end = np.where(relative < 0, _BLUE, VERMILLION)
        colors = _NEUTRAL + np.abs(relative) * (end - _NEUTRAL)
        drawn = "orange for positive weights, blue for negative ones" + ", averaged over channels" * (channels > 1)
    images = (
        image(colors[i], f"Filter {i} of {path}, weights from {number(w.min(), 2)} to {number(w.max(), 2)}")
        for i, w in enumerate(filters)
    )
    return [
        tag("h3", f"Filters of {path}"),
        tag("p", f"What the first convolution looks for, {height} x {width} pixels each: {drawn}."),
        tiles(*images),
    ]


def _maps(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[Html]:
    parts = [
        tag("h3", "Feature maps"),
        tag("p", "What each layer finds, an image for each channel: black for the least, white for the largest value."),
    ]
    for n in range(len(arrays["map_0"])):
        name = words["classes"][arrays["examples_label"][n]]
        known = tag("li", image(arrays["examples"][n] / 255, f"The image itself, of the class {name}"))
        parts.append(tag("h3", f"An image of the class {name}"))
        parts.append(tag("ul", known, class_="tiles", role="list"))
        for i, (path, shape) in enumerate(words["maps"]):
            values = arrays[f"map_{i}"][n]
            low, high = float(values.min()), float(values.max())
            relative = (values - low) / ((high - low) or 1)
            parts.append(tag("p", f"{path}, {shape}, from {number(low, 2)} to {number(high, 2)}", class_="soft name"))
            parts.append(
                tiles(
                    *(
                        image(
                            relative[..., c : c + 1],
                            f"{path}, channel {c}: from {number(values[..., c].min(), 2)} "
                            f"to {number(values[..., c].max(), 2)}, largest {_where(values[..., c])}",
                        )
                        for c in range(values.shape[-1])
                    )
                )
            )
    return parts


def _cam(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[Html]:
    names = ("index", "label", "predicted", "probability")
    items = []
    for pixels, cam, *rest in zip(
        arrays["examples"], arrays["cam"], *(arrays[f"examples_{name}"] for name in names), strict=True
    ):
        index, label, predicted, probability = rest
        pixels, cam, guess = pixels / 255, cam / (cam.max() or 1), words["classes"][predicted]
        gray = 0.35 + 0.4 * pixels.mean(-1, keepdims=True)
        over = gray + 0.85 * cam[..., None] * (VERMILLION - gray)
        where = f"most {_where(cam)}" if cam.any() else "nothing in this layer"
        both = tag(
            "span",
            image(pixels, f"Image {index}, of the class {words['classes'][label]}"),
            image(over, f"What speaks for {guess} in it: {where}"),
            class_="both",
        )
        said = [tag("span", f"but it is {name}")] if (name := words["classes"][label]) != guess else []
        said += [] if cam.any() else [tag("span", "nothing in this layer speaks for it")]
        items.append(figure(both, tag("strong", guess), f" {percentage(probability)}", *said))
    return [
        tag("h3", f"Grad-CAM of {words['cam']}"),
        tag("p", "What speaks for the class that the network puts an image into, in orange: where the layer sees it."),
        tag("div", tiles(*items), class_="large pair"),
    ]


def _where(values: np.ndarray) -> str:
    """Where the largest value is."""
    i, j = np.unravel_index(values.argmax(), values.shape)
    down = ("at the top", "in the middle", "at the bottom")[3 * i // values.shape[0]]
    return down + (" left", "", " right")[3 * j // values.shape[1]]


def _network(words: dict[str, Any]) -> Html:
    shown = lambda n: f"{n:,}" if n else ""
    rows = [
        (layer["name"], layer["output"], layer["sees"], shown(layer["params"]), shown(layer["multiply_adds"]))
        for layer in (*words["layers"], {"name": "total", "output": "", "sees": ""} | words)
    ]
    columns = ["layer", "output", "sees", "parameters", "multiply-adds"]
    return table(
        "The layers, what their units see of the image, and what one image costs", columns, rows, class_="tree"
    )
