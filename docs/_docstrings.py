"""Docstrings of jaxcnn as reStructuredText.

They are plain text: `*`, `_` and `|` have no meaning outside of backquotes. A section such as `Args:` becomes a field,
its entries a list. A paragraph without a final period or colon is an equation, which keeps its lines. An indented block
is a table or code.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SECTION = re.compile(
    r"(Args|Params, State|Params|State|Returns|Raises|Attributes|Example|Source(?: of [^:]*)?):(?: (.*))?"
)
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)")
SHAPES = re.compile(r"((?:[^`:{]|\{[^}]*\})* (?:->|=) (?:[^`:{]|\{[^}]*\})*)(: .*)")  # at the start of a docstring


class Block(NamedTuple):
    """A paragraph, an indented block, an example, or a section with its title."""

    kind: str  # "text", "block", "example" or "section"
    lines: list[str]
    title: str = ""


def to_rst(doc: Sequence[str]) -> list[str]:
    """The lines of a docstring without indentation -> lines of reStructuredText."""
    blocks = list(split(list(doc)))
    if blocks and blocks[0].kind == "text" and (shapes := SHAPES.fullmatch(" ".join(blocks[0].lines))):
        first = [f"``{shapes[1]}``{escaped(shapes[2])}", ""]
        return [*first, *(line for block in blocks[1:] for line in rendered(block))]
    return [line for block in blocks for line in rendered(block)]


def split(lines: list[str]) -> Iterator[Block]:
    i = 0

    def take(accepts) -> list[str]:
        nonlocal i
        start = i
        while i < len(lines) and accepts(lines[i]):
            i += 1
        return lines[start:i]

    def is_indented(line):
        return not line or line.startswith(" ")

    def continues(line):
        """Whether a line belongs to the paragraph before it."""
        code = line.startswith(">>>") or (line.startswith(" ") and lines[i - 1].endswith(":"))
        return bool(line) and not code and not SECTION.fullmatch(line)

    while i < len(lines):
        if not lines[i]:
            i += 1
        elif section := SECTION.fullmatch(lines[i]):
            i += 1
            text = [section[2], *take(lambda line: not is_indented(line) and continues(line))] if section[2] else []
            body = textwrap.dedent("\n".join(take(is_indented))).splitlines()
            yield Block("section", [*text, "", *body] if text else body, section[1])
        elif lines[i].startswith(" "):
            yield Block("block", textwrap.dedent("\n".join(take(is_indented))).strip("\n").splitlines())
        elif lines[i].startswith(">>>"):
            yield Block("example", take(bool))
        else:
            i += 1
            yield Block("text", [lines[i - 1], *take(continues)])


def rendered(block: Block, equations: bool = True) -> list[str]:
    match block.kind:
        case "section" if block.title == "Example":
            first, *rest = split(block.lines)
            lead = first.lines if first.kind == "text" else []
            parts = rest if lead else [first, *rest]
            return [f"**Example**: {escaped(' '.join(lead))}" if lead else "**Example**", "", *body(parts)]
        case "section":
            entries = block.title in ("Args", "Raises", "Attributes") and listed(block.lines)
            content = entries or body(split(block.lines))
            return ["", f":{escaped(block.title)}:", *indented(content), ""]
        case "example":
            return code(block.lines, "pycon")
        case "block":
            return code(block.lines, "pycon" if block.lines[0].startswith(">>>") else "text")
    if sum(not line.startswith(" ") for line in block.lines) > 1 and (entries := listed(block.lines)):
        return entries
    if equations and block.lines[-1][-1] not in ".:?":
        return code(block.lines, "text")
    text = " ".join(line.strip() for line in block.lines)
    start = "\\ " if re.match(r"[^\w`]|\w{1,3}[.)]", text) else ""  # it is not an item of a list
    return [start + escaped(text), ""]


def body(blocks) -> list[str]:
    return [line for block in blocks for line in rendered(block, equations=False)]


def listed(lines: Sequence[str]) -> list[str]:
    """`name: text` entries, with indented further lines, as a list; empty if the lines are not of this form."""
    entries: list[tuple[str, list[str]]] = []
    for line in filter(None, lines):
        if entry := ENTRY.fullmatch(line):
            mark = "``" if entry[1][0].isupper() else "**"  # errors become links, arguments do not
            names = ", ".join(f"{mark}{name.replace('*', chr(92) + '*')}{mark}" for name in entry[1].split(", "))
            entries.append((names, [entry[2]]))
        elif entries and line.startswith(" "):
            entries[-1][1].append(line.strip())
        else:
            return []
    return [line for names, text in entries for line in (f"* {names}: {escaped(' '.join(text))}", "")]


def code(lines: Sequence[str], language: str) -> list[str]:
    return [f".. code-block:: {language}", "", *indented(lines), ""]


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


def escaped(text: str) -> str:
    """Text with `code` in double backquotes, and everything else without a meaning in reStructuredText."""
    parts = text.split("`")
    for i, part in enumerate(parts):
        if i % 2:
            glue = "\\ " if re.match(r"\w", parts[i + 1]) else ""
            parts[i] = f"``{part.strip()}``{glue}"
        else:
            parts[i] = re.sub(r"([\\*_|<>])", r"\\\1", part)
    return "".join(parts)
