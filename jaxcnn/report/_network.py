"""The report's sections on the network: mistakes, calibration, filters, feature maps, Grad-CAM and layers."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.metrics._calibration import BinSums, calibration_error
from jaxcnn.report._by_hand import by_hand
from jaxcnn.report._drawing import example, reliability
from jaxcnn.report._page import VERMILLION, Html, figure, image, isolated, joined, number, percentage, table, tag, tiles
from jaxcnn.report._task_sections import signal_examples, task_sections

_CLASSES = 20  # maximum for a confusion matrix
_PAIRS = 20  # maximum number of confused class pairs
_BLUE, _NEUTRAL = np.array([[0, 114, 178], [238, 238, 238]]) / 255


def network_sections(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Html]:
    """The sections on the network, by title."""
    info = info | {entry: [isolated(name) for name in info[entry]] for entry in ("classes", "names") if entry in info}
    sections = task_sections(info, arrays)
    if "classes" in info:
        sections["Mistakes"] = _mistakes(info, arrays)
    if "calibration" in arrays:
        sections["Calibration"] = _calibration(*arrays["calibration"])
    if "examples" in arrays and arrays["examples"].ndim == 3:
        sections["Examples"] = signal_examples(info, arrays)
    elif "examples" in arrays:
        sections["Visualizations"] = _visualizations(info, arrays)
    if info["worked"]:
        sections["One convolution step by step"] = by_hand(info, arrays)
    return sections | {"The network": _network(info)}


def _mistakes(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    classes, left_out = info["classes"], info.get("left_out", 0)
    parts = []
    if left_out:
        valid = f"0 to {len(classes) - 1}, the range of the model's outputs"
        parts.append(tag("p", f"Examples excluded because their label is outside {valid}: {left_out:,}."))
    if "matrix" not in arrays:
        return joined(parts)
    matrix = arrays["matrix"]
    total, correct = int(matrix.sum()), int(matrix.trace())
    kind = "signals" if "mistakes" in arrays and arrays["mistakes"].ndim == 3 else "images"
    parts.append(tag("p", f"The network classified {correct:,} of {total:,} {kind} correctly ({correct / total:.2%})."))
    parts.append(_matrix(matrix, classes) if len(classes) <= _CLASSES else _pairs(matrix, classes))
    index = arrays["mistakes_index"]
    if not len(index) or "mistakes" not in arrays:
        return joined(parts)
    parts += [
        tag("h3", "The worst mistakes"),
        tag("p", f"The misclassified {kind} whose true class received the lowest probability."),
    ]
    names = ("label", "predicted", "label_probability", "predicted_probability")
    rows = zip(index, arrays["mistakes"], *(arrays[f"mistakes_{name}"] for name in names), strict=True)
    parts.append(
        tag(
            "div",
            tiles(
                *(
                    figure(
                        example(
                            pixels,
                            f"Image {i}, class {classes[label]}, misclassified as {classes[predicted]}",
                        ),
                        tag("strong", f"{classes[label]}, misclassified as {classes[predicted]}"),
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


def _calibration(count: np.ndarray, confidence: np.ndarray, hits: np.ndarray) -> Html:
    """From sums over bins of the confidence."""
    error = float(calibration_error(BinSums(*map(jnp.asarray, (count, confidence, hits)))))
    filled = np.maximum(count, 1)
    text = (
        "The confidence of a prediction is its probability. Among predictions with a confidence of 80%, 80% should be "
        f"correct. The mean absolute difference between confidence and accuracy over {len(count)} bins of the "
        f"confidence, weighted by the numbers of predictions, is the expected calibration error: {percentage(error)}. "
        "A bar below the diagonal means overconfidence; a line "
        "marks the gap to the mean confidence of the bin."
    )
    return joined([tag("p", text), reliability(confidence / filled, hits / filled, count)])


def _matrix(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)

    def cell(i, j):
        level = int(np.ceil(5 * (fractions[i, j] if i == j else fractions[i, j] ** 0.5)))
        kinds = ["right"] * (i == j) + [f"m{level}" if level else "zero"]
        return tag("td", f"{matrix[i, j]:,}", class_=" ".join(kinds))

    rows = ((name, *(cell(i, j) for j in range(len(matrix)))) for i, name in enumerate(classes))
    tall = " tall" if max(map(len, classes)) > 4 else ""
    caption = "Confusion matrix: rows are true classes, columns are predicted classes, correct predictions are bold"
    return table(caption, ["class", *classes], rows, class_=f"counts{tall}")


def _pairs(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    """The most frequent confusions, for more classes than a matrix can show."""
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [np.unravel_index(k, wrong.shape) for k in most if wrong.flat[k]]
    rows = ((classes[i], classes[j], f"{wrong[i, j]:,}", f"{matrix[i].sum():,}") for i, j in pairs)
    columns = ["true class", "predicted class", "images", "examples of true class"]
    return table("Most frequent confusions", columns, rows, class_="words")


def _visualizations(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    parts = []
    if info["first"]:
        parts += _filters(info["first"], arrays["filters"])
    if info["maps"]:
        parts += _maps(info, arrays) + _cam(info, arrays)
    return joined(parts) if parts else tag("p", "The network has no layer with spatial outputs to visualize.")


def _filters(path: str, filters: np.ndarray) -> list[Html]:
    _, height, width, channels = filters.shape
    if channels not in (1, 3):
        filters = filters.mean(-1, keepdims=True)
    largest = float(np.abs(filters).max()) or 1.0
    relative = filters / largest
    if channels == 3:
        colors = 0.5 + 0.5 * relative
        legend = "Red, green and blue are the weights of the three channels; gray is zero."
    else:
        end = np.where(relative < 0, _BLUE, VERMILLION)
        colors = _NEUTRAL + np.abs(relative) * (end - _NEUTRAL)
        mean = " The weights are averaged over the input channels." * (channels > 1)
        legend = f"Positive weights are orange, negative weights are blue.{mean}"
    images = (
        image(colors[i], f"Filter {i} of {path}, weights from {number(w.min(), 2)} to {number(w.max(), 2)}")
        for i, w in enumerate(filters)
    )
    return [
        tag("h3", f"Filters of {path}"),
        tag("p", f"The {height} x {width} filters of the first convolution. {legend}"),
        tiles(*images),
    ]


def _maps(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[Html]:
    parts = [
        tag("h3", "Feature maps"),
        tag("p", "One image per channel of each layer. Black is the layer's smallest value, white its largest."),
    ]
    for n in range(len(arrays["map_0"])):
        name = info["classes"][arrays["examples_label"][n]]
        input_image = tag("li", image(arrays["examples"][n] / 255, f"Input image of class {name}"))
        parts.append(tag("h3", f"Image of class {name}"))
        parts.append(tag("ul", input_image, class_="tiles", role="list"))
        for i, (path, shape) in enumerate(info["maps"]):
            values = arrays[f"map_{i}"][n]
            low, high = float(values.min()), float(values.max())
            relative = (values - low) / ((high - low) or 1)
            text = f"{path}: {shape}, values from {number(low, 2)} to {number(high, 2)}"
            parts.append(tag("p", text, class_="soft name"))
            parts.append(
                tiles(
                    *(
                        image(
                            relative[..., c : c + 1],
                            f"{path}, channel {c}: values from {number(values[..., c].min(), 2)} "
                            f"to {number(values[..., c].max(), 2)}, maximum {_where(values[..., c])}",
                        )
                        for c in range(values.shape[-1])
                    )
                )
            )
    return parts


def _cam(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[Html]:
    names = ("index", "label", "predicted", "probability")
    items = []
    for pixels, cam, *rest in zip(
        arrays["examples"], arrays["cam"], *(arrays[f"examples_{name}"] for name in names), strict=True
    ):
        index, label, predicted, probability = rest
        pixels, cam, guess = pixels / 255, cam / (cam.max() or 1), info["classes"][predicted]
        gray = 0.35 + 0.4 * pixels.mean(-1, keepdims=True)
        over = gray + 0.85 * cam[..., None] * (VERMILLION - gray)
        where = f"maximum {_where(cam)}" if cam.any() else "zero everywhere"
        pair = tag(
            "span",
            image(pixels, f"Image {index}, class {info['classes'][label]}"),
            image(over, f"Grad-CAM for class {guess}: {where}"),
            class_="both",
        )
        notes = [tag("span", f"true class: {name}")] if (name := info["classes"][label]) != guess else []
        notes += [] if cam.any() else [tag("span", "zero everywhere: no positive evidence in this layer")]
        items.append(figure(pair, tag("strong", f"predicted: {guess}"), f" {percentage(probability)}", *notes))
    return [
        tag("h3", f"Grad-CAM of {info['cam']}"),
        tag("p", "Orange marks the regions whose features in this layer increase the score of the predicted class."),
        tag("div", tiles(*items), class_="large pair"),
    ]


def _where(values: np.ndarray) -> str:
    """The location of the largest value, as text."""
    i, j = np.unravel_index(values.argmax(), values.shape)
    down = ("at the top", "in the middle", "at the bottom")[3 * i // values.shape[0]]
    return down + (" left", "", " right")[3 * j // values.shape[1]]


def _network(info: dict[str, Any]) -> Html:
    count_text = lambda n: f"{n:,}" if n else ""
    rows = [
        (layer["name"], layer["output"], layer["sees"], count_text(layer["params"]), count_text(layer["multiply_adds"]))
        for layer in (*info["layers"], {"name": "total", "output": "", "sees": ""} | info)
    ]
    columns = ["layer", "output", "receptive field", "parameters", "multiply-adds"]
    return table(
        "Layers: output shape, receptive field, parameters, and multiply-adds per example", columns, rows, class_="tree"
    )
