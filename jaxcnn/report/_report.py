"""A run on one page: what was run, how it went, and what the network does."""

import os
import pathlib
from typing import Any

from jaxcnn._replace import replace
from jaxcnn.data import DataError
from jaxcnn.report._gather import gathered
from jaxcnn.report._network import network_sections
from jaxcnn.report._page import Html, document, joined, tag
from jaxcnn.report._settings import settings
from jaxcnn.report._training import duration, metric_text, training
from jaxcnn.train._log import read_log
from jaxcnn.train._steps import read_json


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
        >>> jaxcnn.report.report(run.folder).name
        'report.html'
    """
    folder = pathlib.Path(run_folder)
    about, records, found = _about(folder / "config.json"), _epochs(folder / "metrics.jsonl"), gathered(folder)
    sections = {"Training": training(records)}
    if found is None:
        when = "are gathered when training has ended" if epochs else "were not gathered; report.gather does it"
        sections["The network"] = tag("p", f"Images of what the network does {when}.")
    else:
        try:
            sections |= network_sections(*found)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            what = "explain.json and explain.npz are not as report.gather writes them"
            raise DataError(f"{folder}: {what} ({error!r}); call it again") from error
    sections["Settings"] = settings(about)
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
        tag("footer", f"Made by jaxcnn.report.report from {folder.absolute().name}."),
    )
    path = folder / "report.html"
    with replace(path) as file:
        # Names of files that are not UTF-8 have characters that cannot be written; they are shown as \udcff.
        file.write(page.encode("utf-8", "backslashreplace"))
    return path


def _about(path: pathlib.Path) -> dict[str, Any]:
    try:
        about = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the JSON that a train.Run writes, found {error}") from error
    kinds = {"experiment": str, "config": dict, "versions": dict, "device": str}
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in kinds.items()):
        raise DataError(f"{path}: expected experiment, config, versions and device, found {str(about)[:80]}")
    return about


def _epochs(path: pathlib.Path) -> list[dict[str, Any]]:
    """The records of epochs."""
    records, problem = read_log(path)
    if problem or not path.exists():
        raise DataError(f"{path}: expected the records of a run, {problem or 'but there is no such file'}")
    for i, record in enumerate(records, 1):
        if not _has_metrics(record):
            raise DataError(f"{path}, line {i}: expected a record as train.Run.log writes it, found {str(record)[:80]}")
    return [record for record in records if "epoch" in record]


def _has_metrics(record: dict[str, Any]) -> bool:
    """Whether epoch, metrics and seconds are numbers where they are given; null stands for one that was not finite."""
    parts = [record.get(part, {}) for part in ("train", "test")]
    if not isinstance(record.get("epoch", 0), int) or not all(isinstance(part, dict) for part in parts):
        return False
    numbers = [value for part in parts for value in part.values()]
    return all(value is None or isinstance(value, int | float) for value in (*numbers, record.get("seconds")))


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
    figures = {f"{name} {key}": metric_text(key, metrics[key]) for key in ("accuracy", "loss") if key in metrics}
    figures["epochs"] = str(last.get("epoch", 0)) + (f" of {epochs}" if epochs else "")
    if last.get("seconds") is not None:
        figures["time"] = duration(last["seconds"])
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
