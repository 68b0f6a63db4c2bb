"""All concepts, one after the other, and a page with what each shows.

    python -m experiments.concepts              two minutes on 2 cores
    python -m experiments.concepts out=folder   instead of a new folder in runs/

The page, index.html, needs no other file and no network.
"""

import base64
import contextlib
import inspect
import io
import re

from experiments.concepts import (
    convolution_of_boxes,
    corner_pixels,
    dropout_averages,
    edge_detection,
    feature_maps,
    learned_filters,
    overfitting,
    pooling,
    receptive_fields,
    shared_weights,
    sliding_kernel,
    stride_and_padding,
    translation,
)
from experiments.concepts._figure import load_matplotlib
from jaxcnn import train
from jaxcnn.report._page import document, tag

CONCEPTS = (
    convolution_of_boxes,
    sliding_kernel,
    edge_detection,
    shared_weights,
    stride_and_padding,
    corner_pixels,
    pooling,
    translation,
    receptive_fields,
    overfitting,
    dropout_averages,
    learned_filters,
    feature_maps,
)

CONFIG = {"out": ""}
WIDTH = 600  # of a figure on the page, in pixels


def main(config, concepts=CONCEPTS):
    load_matplotlib()  # before there is a folder
    run = train.Run("concepts", config, folder=config["out"])
    sections = {}
    for concept in concepts:
        name = concept.__name__.rpartition(".")[2]
        run.say(f"\n{name}")
        with contextlib.redirect_stdout(io.StringIO()) as said:
            shown = concept.main(getattr(concept, "CONFIG", {}))
        run.say(said.getvalue().rstrip())
        sections[name] = section(name, inspect.getdoc(concept), said.getvalue(), shown.save(run.folder), shown.alt)
    links = (tag("li", tag("a", title(name), href=f"#{name}")) for name in sections)
    page = document(
        "Convolutional networks, idea by idea",
        tag("header", tag("h1", "Convolutional networks, idea by idea")),
        tag("nav", tag("ul", *links, role="list"), aria_label="Sections"),
        tag("main", *sections.values()),
        tag("footer", "Made by python -m experiments.concepts."),
    )
    path = run.folder / "index.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    run.say(f"\nsee {path}")
    return path


def section(name, doc, numbers, figure, alt):
    """The sentence of a concept, what its file says about it, its command, its numbers and its figure."""
    sentence, command, *paragraphs = doc.split("\n\n")
    svg = figure.read_bytes()
    width, height = map(float, re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    image = tag("img", src=source, width=WIDTH, height=round(WIDTH * height / width), alt=alt)
    return tag(
        "section",
        tag("h2", title(name), id=name),
        tag("p", tag("strong", sentence)),
        *(tag("p", *with_code(paragraph)) for paragraph in paragraphs),
        tag("div", image, class_="scrolling", **region(f"Figure: {title(name)}")),
        tag(
            "div",
            tag("pre", f"$ {command.strip()}\n{numbers}"),
            class_="scrolling",
            **region(f"Numbers: {title(name)}"),
        ),
        aria_labelledby=name,
    )


def region(label):
    """What scrolls can be reached with the keyboard, and has a name."""
    return {"role": "region", "aria_label": label, "tabindex": 0}


def with_code(text):
    """The parts of a text, what stands between backquotes as code."""
    return [tag("code", part) if i % 2 else part for i, part in enumerate(text.split("`"))]


def title(name):
    return name.replace("_", " ").capitalize()


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
