"""HTML, SVG and PNG for a self-contained page: no external resources, all text escaped."""

import base64
import hashlib
import html
import math
import pathlib
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn._replace import replace

_VOID = ("img", "meta")
_LINES = ("tr", "li", "p", "figure", "section", "h1", "h2", "h3", "g")  # followed by a newline
_ISOLATES = dict.fromkeys(range(0x2066, 0x206A))  # removed from names, as they would end the isolation
VERMILLION = np.array([213, 94, 0]) / 255  # color of highlighted pixels


class Html(str):
    """HTML source. `tag` escapes every other string."""


def tag(name: str, /, *inside: Any, **attributes: Any) -> Html:
    """An element. In attribute names, a trailing `_` is dropped and other `_` become hyphens."""
    marks = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(v))}"' for key, v in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{marks}>")
    return Html(f"<{name}{marks}>{joined(inside)}</{name}>" + "\n" * (name in _LINES))


def joined(parts: Iterable[Any]) -> Html:
    return Html("".join(part if isinstance(part, Html) else html.escape(str(part)) for part in parts))


def document(title: str, *body: Html, style: str = "", script: str = "") -> str:
    """The page. Its content security policy allows only its style sheet, its script and embedded images.

    `style` is added to the style sheet of all pages. `script` runs after the page is read.
    """
    style = _STYLE + style
    allowed = [
        "default-src 'none'",
        "img-src data:",
        f"style-src '{_digest(style)}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script:
        allowed.append(f"script-src '{_digest(script)}'")
        body = (*body, tag("script", Html(script)))
    policy = "; ".join(allowed)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def sections_page(title: str, header: Html, sections: Mapping[str, Html], footer: str) -> str:
    """The page of sections by title, with links to them."""
    anchors = {name: name.lower().replace(" ", "-") for name in sections}
    links = (tag("li", tag("a", name, href=f"#{anchor}")) for name, anchor in anchors.items())
    parts = (
        tag("section", tag("h2", name, id=anchors[name]), inside, aria_labelledby=anchors[name])
        for name, inside in sections.items()
    )
    return document(
        title,
        header,
        tag("nav", tag("ul", *links, role="list"), aria_label="Sections"),
        tag("main", *parts),
        tag("footer", footer),
    )


def write_page(path: pathlib.Path, page: str) -> None:
    with replace(path) as file:
        # File names that are not UTF-8 contain surrogates, which cannot be encoded. They appear as \udcff.
        file.write(page.encode("utf-8", "backslashreplace"))


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def table(caption: str, columns: Sequence[Any], rows: Iterable[Sequence[Any]], *, class_: str = "") -> Html:
    """A table whose first column holds row headers. A wide table scrolls horizontally."""
    head = tag("tr", *(tag("td") if name == "" else tag("th", name, scope="col") for name in columns))
    body = (tag("tr", _row_header(first), *map(_cell, rest)) for first, *rest in rows)
    whole = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", *body), class_=class_)
    return tag("div", whole, class_="scrolling", role="region", aria_label=caption, tabindex=0)


def grid(caption: str, values: np.ndarray, rows: Sequence[int], columns: Sequence[int], digits: int) -> Html:
    """A table of numbers with row and column indices."""
    lines = ((i, *(number(value, digits) for value in line)) for i, line in zip(rows, values, strict=True))
    return table(caption, ["", *columns], lines, class_="grid")


def number(value: float, digits: int) -> str:
    """A number with the typographic minus sign and without negative zero."""
    return f"{value:z,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def isolated(name: Any) -> str:
    """A name that keeps its direction to itself: text from right to left would move the numbers beside it.

    The Unicode equivalent of `bdi`, which also works in descriptions of images.
    """
    text = str(name)
    return text if text.isascii() else f"\u2068{text.translate(_ISOLATES)}\u2069"


def percentage(value: float) -> str:
    if math.isnan(value):
        return "not finite"
    if value in (0, 1):
        return f"{value:.0%}"
    return f"{value:.1%}" if 5e-4 <= value < 0.9995 else "below 0.1%" if value < 0.5 else "above 99.9%"


def figure(image: Html, *caption: Any) -> Html:
    return tag("figure", image, tag("figcaption", *caption))


def image(pixels: np.ndarray, alt: str, **attributes: Any) -> Html:
    """An embedded PNG of pixels (H, W, 1 or 3) from 0 to 1; NaN is black."""
    data = base64.b64encode(_png(np.round(255 * np.nan_to_num(pixels).clip(0, 1)).astype(np.uint8))).decode()
    height, width, _ = pixels.shape
    return tag("img", src=f"data:image/png;base64,{data}", width=width, height=height, alt=alt, **attributes)


def tiles(*items: Html) -> Html:
    # VoiceOver does not announce a list without markers unless it has this role.
    return tag("ul", *(tag("li", item) for item in items), class_="tiles", role="list")


def _row_header(value: Any) -> Html:
    return value if isinstance(value, Html) and value.startswith("<th") else tag("th", value, scope="row")


def _cell(value: Any) -> Html:
    return value if isinstance(value, Html) and value.startswith("<td") else tag("td", value)


def _png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 pixels (H, W, 1 or 3). Each row starts with filter type 0 (none)."""
    height, width, channels = pixels.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0))).tobytes()
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# Blue and orange are from Okabe and Ito, "Color universal design", 2008, darkened on white for contrast.
_PAGE_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #5f6167; --rule: #dcdce0; --paper: #fff; --card: #f5f5f7;
  --training: #0072b2; --test: #b84a00; --hit: #0072b2; --miss: #d55e00; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a4a6ad; --rule: #3a3b40;
  --paper: #151517; --card: #1f2023; --training: #56b4e9; --test: #f0a04b; --hit: #3a9bd9; --miss: #f07d2b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.55 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; overflow-wrap: anywhere; }
h2 { margin: 3.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: 1.35rem; }
h3 { margin: 1.75rem 0 .25rem; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 1rem; max-width: 42rem; }
a { color: inherit; text-underline-offset: .2em; }
:focus-visible { outline: 2px solid var(--training); outline-offset: 2px; }
header p { margin: 0 0 .25rem; color: var(--soft); overflow-wrap: anywhere; }
.state { display: inline-block; margin: 1rem 0 0; padding: .4rem .8rem; border-left: 3px solid var(--test);
  background: var(--card); color: var(--ink); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1rem 1.5rem; margin: 1.5rem 0; }
dd { margin: 0; overflow-wrap: anywhere; }
.figures dd { font-size: 1.6rem; line-height: 1.2; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
nav a { display: inline-block; padding: .25rem 0; }
"""
# Tables, images and charts, on pages and in notebooks.
VIEW_STYLE = """
small, .soft, figcaption, caption, dt, footer { color: var(--soft); font-size: .875rem; }
nav ul, .tiles, .keys { list-style: none; margin: 0; padding: 0; }
.scrolling { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; padding: 0 0 .4rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: .3rem .75rem .3rem 0; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { font-weight: 600; }
th:first-child, .words td, .words th { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
.compared thead th { white-space: normal; overflow-wrap: break-word; min-width: 5rem; vertical-align: bottom; }
.tree tbody th { white-space: pre; font-weight: 400; }
.tree tbody tr:last-child > * { font-weight: 600; }
.grid th, .counts thead th { font-weight: 400; color: var(--soft); }
.grid th, .grid td { padding: .25rem .45rem; }
.sums { margin: .5rem 0 1rem; }
.counts th, .counts td { min-width: 2.3rem; padding: .35rem .4rem; border: 1px solid var(--paper); }
.counts tbody th { position: sticky; left: 0; background: var(--paper); }
.tall thead th:not(:first-child) { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; }
.counts td { --shade: var(--miss); --much: 0%; text-align: center;
  background: color-mix(in srgb, var(--shade) var(--much), var(--card)); }
.counts .right { --shade: var(--hit); font-weight: 700; }
.counts .zero { color: var(--soft); }
.counts .m1 { --much: 10%; } .counts .m2 { --much: 20%; } .counts .m3 { --much: 30%; }
.counts .m4 { --much: 40%; } .counts .m5 { --much: 50%; }
img { image-rendering: pixelated; display: block; }
.tiles { display: flex; flex-wrap: wrap; gap: .35rem; margin: .5rem 0 1rem; }
.tiles img { width: 3.6rem; height: auto; }
figure { margin: 0; }
figcaption strong { color: var(--ink); }
figcaption span { display: block; }
.tiles figure { margin: 0 .65rem .75rem 0; }
.large img { width: 7rem; display: inline-block; }
.large figure { width: min-content; min-width: 7rem; }
.large .curve, .large figure:has(.curve) { width: 12rem; }
.pair figure { width: 14.25rem; }
.wide .both { flex-wrap: wrap; }
.wide img, .wide .curve { width: 8.5rem; }
.full img { width: auto; max-width: 100%; }
.full > figure { margin: 1rem 0 2rem; }
.both { display: flex; gap: .25rem; }
.name { margin: .75rem 0 0; }
figcaption { line-height: 1.35; padding-top: .3rem; }
.frame { width: 14rem; height: auto; max-width: 100%; }
.side { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem 2rem; }
.chart { max-width: 34rem; }
.chart figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; }
.chart strong { font-size: 1rem; }
.keys { display: flex; gap: 1rem; }
.keys svg { width: 28px; height: 10px; margin-right: .4rem; }
.legend { flex-wrap: wrap; margin: 1rem 0; }
svg.swatch { width: 12px; height: 12px; margin-right: .4rem; outline: 1px solid var(--rule); }
.scatter { max-width: 24rem; }
.diagonal { stroke: var(--soft); stroke-dasharray: 3 3; }
.point { fill-opacity: .5; }
.bar { fill: var(--training); fill-opacity: .5; }
.gap { stroke: var(--test); stroke-width: 3; }
svg { width: 100%; height: auto; display: inline-block; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; }
svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; }
.rule { stroke: var(--rule); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.training, .line.c0 { stroke: var(--training); }
.line.test, .line.c1 { stroke: var(--test); stroke-dasharray: 6 3; }
.line.c2 { stroke: var(--ink); } .line.c3 { stroke: var(--soft); stroke-dasharray: 2 2; }
.dot.training { fill: var(--training); }
.dot.test { fill: var(--test); }
.at { outline: none; }
.at rect { fill: transparent; }
.at .tooltip { visibility: hidden; fill: var(--ink); }
.at:hover rect, .at:focus rect { fill: var(--ink); fill-opacity: .08; }
.at:focus-visible rect { stroke: var(--training); stroke-width: 2; }
.at:hover .tooltip, .at:focus .tooltip { visibility: visible; }
.chart svg:hover .at:not(:hover) .tooltip { visibility: hidden; }
"""
_STYLE = (
    _PAGE_STYLE
    + VIEW_STYLE
    + """
@media (max-width: 30rem) { table { font-size: .8rem; } th, td { padding-right: .5rem; } .tiles img { width: 3rem; }
  .large img { width: 7rem; } .wide img { width: 6.5rem; }
  .full img { width: auto; } .counts { font-size: .72rem; } .grid th, .grid td { padding: .25rem; }
  .counts th, .counts td { min-width: 1.5rem; padding: .3rem .1rem; } }
details { margin: 1rem 0; }
summary { cursor: pointer; padding: .25rem 0; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
@media print { .scrolling { overflow: visible; } section { break-inside: avoid; } }
"""
)
