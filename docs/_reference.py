"""A Sphinx extension for the reference: docstrings, links from `code` to public names, and llms.txt.

The build fails if a public name has no entry in the reference.
"""

import collections
import functools
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import jaxcnn
from docs._docstrings import to_rst
from docs._public import MODULES, public_names

LOGGER = logging.getLogger(__name__)
NAMES = public_names()
CALL = re.compile(r"([A-Za-z_][\w.]*)(\(.*\))?", re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", replace_docstring)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_field)
    app.add_transform(LinkNames)
    app.connect("env-check-consistency", require_names)
    app.connect("build-finished", write_llms_txt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def replace_docstring(app, what: str, name: str, thing: Any, options, lines: list[str]) -> None:
    lines[:] = [VARIANTS[name], ""] if name in VARIANTS else to_rst(lines)


def shorten_signature(app, what: str, name: str, thing: Any, options, signature: str | None, returns: str | None):
    """No arguments for what a user does not construct: errors and protocols."""
    protocol = inspect.isclass(thing) and getattr(thing, "_is_protocol", False)
    return ("", None) if signature and (what == "exception" or protocol) else None


def skip_field(app, what: str, name: str, thing: Any, skip: bool, options) -> bool | None:
    """Skips the fields of a NamedTuple: the docstring of the class explains them."""
    return True if isinstance(thing, collections._tuplegetter) else None


def variants() -> dict[str, str]:
    """full name -> the description of a model that is another model with settings of its own.

    It also shortens the signatures of these models to (classes, **settings).
    """
    described = {}
    for name, build in jaxcnn.models.MODELS.items():
        family = inspect.unwrap(build)
        if family.__name__ == name:
            continue
        default = {key: value.default for key, value in inspect.signature(family).parameters.items()}
        signature = inspect.signature(build)
        own = {key: value.default for key, value in signature.parameters.items()}
        settings = ", ".join(f"{key}={text(value)}" for key, value in own.items() if value != default[key])
        shape = ", ".join(map(str, ("N", *build.input_shape)))
        kept = [signature.parameters["classes"], inspect.Parameter("settings", inspect.Parameter.VAR_KEYWORD)]
        build.__signature__ = signature.replace(parameters=kept)
        described[f"jaxcnn.models.{name}"] = f"``{family.__name__}({settings})``, for images ``({shape})``."
    return described


def text(value: Any) -> str:
    """A value as in the code that sets it."""
    if isinstance(value, functools.partial):
        return f"partial({value.func.__name__}, {', '.join(f'{key}={text(v)}' for key, v in value.keywords.items())})"
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)


VARIANTS = variants()


class LinkNames(SphinxTransform):
    """Links `code` to the public name that it is, or calls: `conv`, `train.fit`, or `fit` in the reference of train."""

    default_priority = 700

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            if isinstance(node.parent, nodes.reference | nodes.title | addnodes.pending_xref):
                continue
            module, own = context(node)
            if (name := full_name(node.astext(), module)) and name != own:
                link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=name, refexplicit=True)
                link["refdoc"] = self.env.docname
                link["refwarn"] = True
                node.replace_self(link)
                link += node


def context(node: nodes.Node) -> tuple[str, str]:
    """The module and the full name of the entry that contains the node; empty outside of entries."""
    while (node := node.parent) is not None:
        if isinstance(node, addnodes.desc):
            signature = node[0]
            module, name = signature.get("module") or "", signature.get("fullname") or ""
            return module, f"{module}.{name}"
    return "", ""


def full_name(code: str, module: str = "") -> str | None:
    """The public name that code is, or calls; None for anything else."""
    if not (call := CALL.fullmatch(code)):
        return None
    known = {*NAMES, *MODULES} if "." in call[1] else NAMES  # `data` and `train` are usually not the modules
    return next((name for name in (f"{module}.{call[1]}", f"jaxcnn.{call[1]}", call[1]) if name in known), None)


def require_names(app: Sphinx, env) -> None:
    known = env.domains["py"].objects
    for name in [*NAMES, *MODULES]:
        if name not in known:
            LOGGER.warning("%s is public, but docs/reference has no entry for it", name)


def write_llms_txt(app: Sphinx, error: Exception | None) -> None:
    """Writes llms.txt: the pages with a line for each, and the public names with the first line of their docstrings."""
    if error or app.builder.format != "html":
        return
    pages, names = [], []
    for page in sorted(app.env.found_docs, key=reading_order(app)):
        document = app.env.get_doctree(page)
        url = app.builder.get_target_uri(page)
        summary = next((sentence(p) for p in document.findall(nodes.paragraph)), "")
        pages.append(f"- [{app.env.titles[page].astext()}]({url}): {summary}")
        names += [f"- [{name}]({url}#{name}): {line}" for name, line in entries(document)]
    lines = ["# jaxcnn", "", f"> {jaxcnn.__doc__}", "", "## Pages", "", *pages, "", "## Public names", "", *names, ""]
    pathlib.Path(app.outdir, "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def reading_order(app: Sphinx):
    order = [app.config.root_doc]
    for page in order:
        order += [child for child in app.env.toctree_includes.get(page, []) if child not in order]
    return order.index


def entries(document: nodes.document) -> Iterator[tuple[str, str]]:
    """(full name, first sentence) of each public name in the order of the page."""
    for entry in document.findall(addnodes.desc):
        for identifier in entry[0]["ids"]:
            if identifier in NAMES:
                yield identifier, next((sentence(p) for p in entry[-1].findall(nodes.paragraph)), "")


def sentence(paragraph: nodes.paragraph) -> str:
    """The first sentence of a paragraph."""
    return re.split(r"(?<=[^.][.?])\s", " ".join(paragraph.astext().split()), maxsplit=1)[0]
