"""A Sphinx extension for the gallery: the directive `concept` shows the claim, figure and command of an experiment.

A figure that is not in the repository is drawn once, to the ignored folder `_figures`. This takes seconds: figures of
trained networks are in the repository.
"""

import contextlib
import html
import importlib.util
import inspect
import io
import pathlib
import re

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

HERE = pathlib.Path(__file__).parent
DRAWN = HERE / "_figures"
INK = re.compile(r":root\{--ink:(#\w+)\}@media\(prefers-color-scheme:dark\)\{:root\{--ink:(#\w+)\}\}")


def setup(app) -> dict[str, bool]:
    app.add_directive("concept", Concept)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Concept(SphinxDirective):
    """`{concept} NAME`: the claim of a concept or experiment, its figure for light and dark pages, its command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        (name,) = self.arguments
        is_concept = importlib.util.find_spec(f"experiments.concepts.{name}") is not None
        concept = importlib.import_module(f"experiments.{'concepts.' * is_concept}{name}")
        claim, command, *_ = inspect.getdoc(concept).split("\n\n")
        command = re.split(r" {3,}|\n", command.strip())[0]  # without results beside it, and further commands
        path = HERE.parent / "experiments" / "concepts" / "gallery" / f"{name}.svg"
        svg = (path if path.exists() else drawn(concept, name)).read_text(encoding="utf-8")
        title = re.search(r"<title>(.*?)</title>", svg, re.DOTALL)
        alt = html.unescape(title[1]) if title else claim
        figure = nodes.figure(classes=["concept"])
        for number, theme in enumerate(("light", "dark"), 1):
            copy = DRAWN / f"{name}-{theme}.svg"
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(INK.sub(rf":root{{--ink:\{number}}}", svg), encoding="utf-8")
            figure += nodes.image(uri=f"/{copy.relative_to(HERE)}", alt=alt, classes=[f"only-{theme}"])
        return [
            nodes.paragraph("", "", nodes.strong("", " ".join(claim.split()))),
            figure,
            nodes.literal_block(command, command, language="sh"),
        ]


def drawn(concept, name: str) -> pathlib.Path:
    """The path of the figure, which is drawn if it does not exist or the program has changed."""
    path = DRAWN / f"{name}.svg"
    if not path.exists() or path.stat().st_mtime < pathlib.Path(concept.__file__).stat().st_mtime:
        with contextlib.redirect_stdout(io.StringIO()):
            path = concept.main(getattr(concept, "CONFIG", {})).save(DRAWN)
    return path
