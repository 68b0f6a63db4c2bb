"""The report's section on figures: the SVG files that a program saved in the run folder."""

import base64
import html
import pathlib
import re

from jaxcnn.report._page import Html, figure, joined, tag

_TITLE = re.compile(r"<title\b[^>]*>(.*?)</title>", re.DOTALL)


def figure_section(run_folder: pathlib.Path) -> Html:
    """The SVG files in the folder by name, with their titles; empty if there is none.

    Each is the source of an `img`, where an SVG cannot run scripts or load other files.
    """
    items = []
    for path in sorted(run_folder.glob("*.svg")):
        if not path.is_file():  # reading a pipe would block
            continue
        content = path.read_bytes()
        title = _TITLE.search(content.decode("utf-8", "replace"))
        text = " ".join(html.unescape(title[1]).split()) if title else ""
        text = text or path.stem
        source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
        items.append(figure(tag("img", src=source, alt=text), text))
    return tag("div", *items, class_="full") if items else joined([])
