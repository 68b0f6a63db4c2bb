"""A run on one page: what was run, how it went, and what the network does."""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.data import DataError
from jaxcnn.explain._gather import gathered
from jaxcnn.explain._page import Html, chart, document, grid, joined, number, picture, share, table, tag, tiles
from jaxcnn.train import FIT
from jaxcnn.train._config import Config, entries

_EPOCHS = 200  # shown, at most
_CLASSES = 20  # in a confusion matrix, at most
_PAIRS = 20  # of classes that are confused, at most
_BLUE, _NEUTRAL, _VERMILLION = np.array([[0, 114, 178], [238, 238, 238], [213, 94, 0]]) / 255
_NOTES = {
    "penalty": "What the regularization of the weights, l1 and l2, adds to the training loss; it is not in the loss."
}
_DIGITS = 3  # of numbers to check by hand
_FRAMED = 8  # how many times larger a picture is under the frame


def report(run_folder: str | os.PathLike, *, epochs: int | None = None) -> pathlib.Path:
    """Write a page about a run, `report.html` in its folder, from what the folder holds; the path of the page.

    One file that needs no other and no network, without scripts. It shows the settings, the curves of all metrics and,
    after `gather`, what the network does. `train.fit` writes it after each epoch if its setting "report" is True.

    Args:
        run_folder: of a `train.Run`, with records like those of `train.fit`: "epoch", "train" and perhaps "test", which
            have metrics by name, and "seconds" since the start.
        epochs: of the whole training, while it goes on; the page says how far it is.

    Raises:
        DataError: for a folder without the records of a run, or files that are damaged.

    Example:
        >>> import tempfile
        >>> run = jaxcnn.train.Run("example", {"seed": 0}, folder=tempfile.mkdtemp())
        >>> run.log("epoch 1", epoch=1, train={"loss": 0.5}, test={"loss": 0.7})
        epoch 1
        >>> jaxcnn.explain.report(run.folder).name
        'report.html'
    """
    folder = pathlib.Path(run_folder)
    about, records, found = _about(folder / "config.json"), _records(folder / "metrics.jsonl"), gathered(folder)
    sections = {"Training": _training(records)}
    if found is None:
        when = "are gathered when training has ended" if epochs else "were not gathered; explain.gather does it"
        sections["The network"] = tag("p", f"Pictures of what the network does {when}.")
    else:
        try:
            sections |= _explained(*found)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = "explain.json and explain.npz are not as explain.gather writes them"
            raise DataError(f"{folder}: {what} ({error!r}); call it again") from error
    sections["Settings"] = _settings(about)
    links = (tag("li", tag("a", title, href=f"#{_anchor(title)}")) for title in sections)
    page = document(
        f"{about['experiment']}: training report",
        _header(folder, about, records, found and found[0], epochs),
        tag("nav", tag("ul", *links, role="list"), aria_label="Sections"),
        tag(
            "main",
            *(
                tag("section", tag("h2", title, id=_anchor(title)), inside, aria_labelledby=_anchor(title))
                for title, inside in sections.items()
            ),
        ),
        tag("footer", f"Made by jaxcnn.explain.report from {folder.absolute().name}."),
    )
    partial = folder / "report.html.part"
    # Names of files that are not UTF-8 have characters that cannot be written; they are shown as \udcff.
    partial.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
    return partial.replace(folder / "report.html")


def _explained(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Html]:
    """The sections on what the network does, by their titles."""
    sections = {}
    if "classes" in words:
        sections["What it gets wrong"] = _mistakes(words, arrays)
    if "examples" in arrays:
        sections["What it sees"] = _seen(words, arrays)
    if words["worked"]:
        sections["One convolution by hand"] = _by_hand(words, arrays)
    return sections | {"The network": _network(words)}


def _about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the JSON that a train.Run writes, found {error}") from error
    kinds = {"experiment": str, "config": dict, "versions": dict, "device": str}
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path}: expected experiment, config, versions and device, found {str(about)[:80]}")
    return about


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of epochs; a last line without an end may have been cut off."""
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the records of a run, a JSON object a line, found {error}") from error
    records = []
    for i, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            records.append(None)
        if not _is_record(records[-1]):
            raise DataError(f"{path}, line {i}: expected a JSON object as train.Run.log writes it, found {line[:80]!r}")
    return [record for record in records if "epoch" in record]


def _is_record(record: Any) -> bool:
    """Whether these are names and numbers, null where one was not finite."""
    if not isinstance(record, dict) or not isinstance(record.get("epoch", 0), int):
        return False
    metrics = (record.get(part, {}) for part in ("train", "test"))
    numbers = (value for part in metrics if isinstance(part, dict) for value in part.values())
    return all(isinstance(record.get(part, {}), dict) for part in ("train", "test")) and all(
        value is None or isinstance(value, int | float) for value in (*numbers, record.get("seconds"))
    )


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _header(
    folder: pathlib.Path,
    about: dict[str, Any],
    records: list[dict[str, Any]],
    words: dict[str, Any] | None,
    epochs: int | None,
) -> Html:
    last = records[-1] if records else {}
    name, part = ("test", "test") if "test" in last else ("training", "train")
    metrics = last.get(part, {})
    figures = {f"{name} {key}": _metric(key, metrics[key]) for key in ("accuracy", "loss") if key in metrics}
    figures["epochs"] = str(last.get("epoch", 0)) + (f" of {epochs}" if epochs else "")
    if last.get("seconds") is not None:
        figures["time"] = _time(last["seconds"])
    if words:
        figures["parameters"] = f"{words['params']:,}"
    terms = joined(tag("div", tag("dt", name), tag("dd", value)) for name, value in figures.items())
    state = ""
    if epochs and last.get("epoch", 0) < epochs:
        state = tag("p", "Training goes on. Load the page again to see how far it is.", class_="state")
    return tag(
        "header",
        tag("p", f"Training report, {folder.absolute().name}"),
        tag("h1", about["experiment"]),
        state,
        tag("dl", terms, class_="figures"),
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _metric(name: str, value: Any) -> str:
    """A value on record, where None is what was not finite; an empty one if there is none."""
    if not isinstance(value, int | float):
        return value if value == "" else "not finite"
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4g}"


def _training(records: list[dict[str, Any]]) -> Html:
    if not records:
        return tag("p", "There is no epoch on record yet.")
    parts = {"training": "train", "test": "test"}
    found = {name: None for record in records for part in parts.values() for name in record.get(part, {})}
    metrics = sorted(found, key=lambda name: name != "loss")
    places = np.unique(np.linspace(0, len(records) - 1, min(len(records), _EPOCHS)).round().astype(int))
    some = [records[i] for i in places]
    charts, columns = [], {"epoch": [record["epoch"] for record in some]}
    for metric in metrics:
        known = {}
        for name, part in parts.items():
            line = [record.get(part, {}).get(metric, "") for record in some]
            if any(value != "" for value in line):
                columns[f"{name} {metric}"] = [_metric(metric, value) for value in line]
                known[name] = [math.nan if value in ("", None) else value for value in line]
        note = _NOTES.get(metric, "")
        charts.append(chart(metric, columns["epoch"], known, percent=metric == "accuracy", note=note))
    if all(record.get("seconds") is not None for record in some):
        columns["seconds"] = [f"{record['seconds']:,.1f}" for record in some]
    skipped = "" if len(some) == len(records) else f" {len(some)} of {len(records)} epochs are shown."
    return joined(
        [
            tag("p", f"Point at an epoch, or go to it with the tab key, to see its values.{skipped}{_pace(records)}"),
            tag("div", *charts, class_="charts"),
            tag(
                "details",
                tag("summary", "The same as a table"),
                table("Metrics after each epoch", [*columns], zip(*columns.values(), strict=True)),
            ),
        ]
    )


def _pace(records: list[dict[str, Any]]) -> str:
    """How long epochs took; the first one longer, as it has the compilation in it."""
    times = [record["seconds"] for record in records if record.get("seconds") is not None]
    if len(times) < max(3, len(records)):
        return ""
    rest = float(np.median(np.diff(times)))
    return f" The first epoch, with the compilation, took {times[0]:.1f} s, the others {rest:.2f} s (median)."


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
    parts.append(tag("p", f"Of {total:,} pictures that were shown to it, {right:,} are right ({right / total:.2%})."))
    parts.append(_matrix(matrix, classes) if len(classes) <= _CLASSES else _pairs(matrix, classes))
    index = arrays["mistakes_index"]
    if not len(index) or "mistakes" not in arrays:
        return joined(parts)
    parts += [
        tag("h3", "The worst mistakes"),
        tag("p", "The pictures to whose class the network gives the smallest probability."),
    ]
    names = ("label", "predicted", "label_probability", "predicted_probability")
    rows = zip(index, arrays["mistakes"], *(arrays[f"mistakes_{name}"] for name in names), strict=True)
    parts.append(
        tag(
            "div",
            tiles(
                *(
                    _figure(
                        picture(
                            pixels / 255,
                            f"Picture {i}, of the class {classes[label]}, that is taken for {classes[predicted]}",
                        ),
                        tag("strong", f"{classes[label]}, taken for {classes[predicted]}"),
                        tag("span", f"{classes[label]}: {share(p)}"),
                        tag("span", f"{classes[predicted]}: {share(q)}"),
                    )
                    for i, pixels, label, predicted, p, q in rows
                )
            ),
            class_="large",
        )
    )
    return joined(parts)


def _matrix(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)

    def cell(i, j):
        level = int(np.ceil(5 * (shares[i, j] if i == j else shares[i, j] ** 0.5)))
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
    return table("The most frequent confusions", ["class", "taken for", "pictures", "of"], rows, class_="words")


def _figure(image: Html, *caption: Any) -> Html:
    return tag("figure", image, tag("figcaption", *caption))


def _seen(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    parts = []
    if words["first"]:
        parts += _filters(words["first"], arrays["filters"])
    if words["maps"]:
        parts += _maps(words, arrays) + _cam(words, arrays)
    return joined(parts) if parts else tag("p", "It has no layer whose outputs have positions in the picture.")


def _filters(path: str, filters: np.ndarray) -> list[Html]:
    _, height, width, channels = filters.shape
    if channels not in (1, 3):
        filters = filters.mean(-1, keepdims=True)
    most = float(np.abs(filters).max()) or 1.0
    relative = filters / most
    if channels == 3:
        colours, drawn = 0.5 + 0.5 * relative, "red, green and blue around grey"
    else:
        end = np.where(relative < 0, _BLUE, _VERMILLION)
        colours = _NEUTRAL + np.abs(relative) * (end - _NEUTRAL)
        drawn = "orange for positive weights, blue for negative ones" + ", averaged over channels" * (channels > 1)
    images = (
        picture(colours[i], f"Filter {i} of {path}, weights from {number(w.min(), 2)} to {number(w.max(), 2)}")
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
        tag(
            "p", "What each layer finds, a picture for each channel: black for the least, white for the largest value."
        ),
    ]
    for n in range(len(arrays["map_0"])):
        name = words["classes"][arrays["examples_label"][n]]
        known = tag("li", picture(arrays["examples"][n] / 255, f"The picture itself, of the class {name}"))
        parts.append(tag("h3", f"A picture of the class {name}"))
        parts.append(tag("ul", known, class_="tiles", role="list"))
        for i, (path, shape) in enumerate(words["maps"]):
            values = arrays[f"map_{i}"][n]
            low, high = float(values.min()), float(values.max())
            relative = (values - low) / ((high - low) or 1)
            parts.append(tag("p", f"{path}, {shape}, from {number(low, 2)} to {number(high, 2)}", class_="soft name"))
            parts.append(
                tiles(
                    *(
                        picture(
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
        grey = 0.35 + 0.4 * pixels.mean(-1, keepdims=True)
        over = grey + 0.85 * cam[..., None] * (_VERMILLION - grey)
        where = f"most {_where(cam)}" if cam.any() else "nothing in this layer"
        both = tag(
            "span",
            picture(pixels, f"Picture {index}, of the class {words['classes'][label]}"),
            picture(over, f"What speaks for {guess} in it: {where}"),
            class_="both",
        )
        said = [tag("span", f"but it is {name}")] if (name := words["classes"][label]) != guess else []
        said += [] if cam.any() else [tag("span", "nothing in this layer speaks for it")]
        items.append(_figure(both, tag("strong", guess), f" {share(probability)}", *said))
    return [
        tag("h3", f"Grad-CAM of {words['cam']}"),
        tag("p", "What speaks for the class that the network puts a picture into, in orange: where the layer sees it."),
        tag("div", tiles(*items), class_="large pair"),
    ]


def _where(values: np.ndarray) -> str:
    """Where the largest value is."""
    i, j = np.unravel_index(values.argmax(), values.shape)
    down = ("at the top", "in the middle", "at the bottom")[3 * i // values.shape[0]]
    return down + (" left", "", " right")[3 * j // values.shape[1]]


def _by_hand(words: dict[str, Any], arrays: dict[str, np.ndarray]) -> Html:
    worked = words["worked"]
    rows, columns, (i, j), channel = (worked[name] for name in ("rows", "columns", "position", "channel"))
    source = f"the output of {worked['before']}" if worked["before"] else "the picture"
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
    if worked["of_picture"] and arrays["examples"].shape[1:3] == tuple(words["size"]):
        label = words["classes"][arrays["examples_label"][0]]
        alt = f"A picture of the class {label}, a frame around rows {_span(rows)}, columns {_span(columns)}"
        framed = _framed(arrays["examples"][0] / 255, rows, columns)
        parts.append(_figure(picture(framed, alt, class_="frame"), "Where the patch lies"))
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


def _framed(pixels: np.ndarray, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """A picture, larger, with a line around these rows and columns."""
    large = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).repeat(_FRAMED, 0).repeat(_FRAMED, 1)
    outer, inner = (
        tuple(slice(_FRAMED * at[0] + line, _FRAMED * (at[-1] + 1) - line) for at in (rows, columns)) for line in (0, 2)
    )
    kept = large[inner].copy()
    large[outer] = _VERMILLION
    large[inner] = kept
    return large


def _network(words: dict[str, Any]) -> Html:
    shown = lambda n: f"{n:,}" if n else ""
    rows = [
        (layer["name"], layer["output"], layer["sees"], shown(layer["params"]), shown(layer["multiply_adds"]))
        for layer in (*words["layers"], {"name": "total", "output": "", "sees": ""} | words)
    ]
    columns = ["layer", "output", "sees", "parameters", "multiply-adds"]
    return table(
        "The layers, what their units see of the picture, and what one picture costs", columns, rows, class_="tree"
    )


def _settings(about: dict[str, Any]) -> Html:
    config = dict(entries(about["config"]))
    defaults = _defaults(about["config"])
    own = {path: value for path, value in config.items() if path not in defaults or value != defaults[path]}
    parts = []
    if not config:
        parts.append(tag("p", "The run has no settings on record."))
    elif defaults:
        changed = ((path, _setting(value), _setting(defaults.get(path, ""))) for path, value in own.items())
        caption = "Settings that are not the defaults of train.fit"
        parts.append(table(caption, ["setting", "value", "default"], changed, class_="words"))
        rest = ((path, _setting(value)) for path, value in config.items() if path not in own)
        as_they_are = table("Settings that are the defaults", ["setting", "value"], rest, class_="words")
        parts.append(tag("details", tag("summary", "All others"), as_they_are))
    else:
        rows = ((path, _setting(value)) for path, value in config.items())
        parts.append(table("All settings", ["setting", "value"], rows, class_="words"))
    made = {"device": about["device"]} | about["versions"]
    return joined([*parts, table("What it ran on", ["part", "version"], made.items(), class_="words")])


def _defaults(config: Config) -> Config:
    """The defaults of all settings of `train.fit` that are in the config, alone or with those of an experiment."""
    places = {"": config} | {f"{name}.": part for name, part in config.items() if isinstance(part, dict)}
    fits = [prefix for prefix, part in places.items() if FIT.keys() <= part.keys()]
    return {prefix + path: value for prefix in fits for path, value in entries(FIT)}


def _setting(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
