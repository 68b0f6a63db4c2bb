"""A Sphinx extension that shows the notebooks, percent files in docs/notebooks, as pages with their code."""

import pathlib
import re

from myst_parser.parsers.sphinx_ import MystParser
from sphinx.project import Project


def setup(app) -> dict[str, bool]:
    app.add_source_suffix(".py", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("builder-inited", use_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Pages(Project):
    """The pages of the site. A link to a Python file elsewhere is a download, as without this extension."""

    def path2doc(self, filename) -> str | None:
        name = super().path2doc(filename)
        return None if name is None or pathlib.Path(name).is_absolute() else name


def use_pages(app) -> None:
    pages = Pages(app.srcdir, app.config.source_suffix)
    pages.restore(app.project)
    app.project = app.env.project = pages


class NotebookParser(MystParser):
    supported = ("notebook",)

    def parse(self, inputstring: str, document) -> None:
        super().parse(markdown(inputstring), document)


def cells(notebook: str) -> list[tuple[bool, str]]:
    """(whether it is Markdown, its text without comment signs) of each cell.

    Raises:
        ValueError: for text before the first cell, or a line of a Markdown cell that is not a comment.
    """
    before, *parts = re.split(r"^# %%(.*)\n", notebook, flags=re.MULTILINE)
    if before.strip():
        raise ValueError(f"a notebook must start with a cell (# %%), got {before[:40]!r}")
    pairs = (
        (mark.strip() == "[markdown]", text.strip("\n")) for mark, text in zip(parts[::2], parts[1::2], strict=True)
    )
    return [(is_markdown, uncommented(text) if is_markdown else text) for is_markdown, text in pairs]


def uncommented(text: str) -> str:
    lines = text.splitlines()
    if wrong := [line for line in lines if not line.startswith("#")]:
        raise ValueError(f"each line of a Markdown cell must start with #, got {wrong[0]!r}")
    return "\n".join(re.sub("^# ?", "", line) for line in lines)


def markdown(notebook: str) -> str:
    blocks = (text if is_markdown else f"```py\n{text}\n```" for is_markdown, text in cells(notebook))
    return "\n\n".join(blocks) + "\n"
