"""The documentation site: docstrings become readable pages, all links work, and no page needs another host."""

import functools
import html.parser
import importlib.util
import logging
import pathlib
import re
import subprocess
import sys
import types
import urllib.parse

import pytest

from docs._docstrings import to_rst
from docs._public import MODULES, public_names
from tests.browser import SCHEMES, WIDTHS, chromium, opened

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ["index", "pair", "choosing", "training", "tasks", "pretrained", "many_networks", "inside", "speed"]
PAGES += [
    "notebooks/1_start",
    "notebooks/6_look_inside",
    "coming_from",
    "gallery",
    "records",
    "reference/index",
    "reference/layers",
    "reference/train",
]
MISSING = [name for name in ("sphinx", "furo", "myst_parser") if importlib.util.find_spec(name) is None]
needs_sphinx = pytest.mark.skipif(bool(MISSING), reason=f"needs pip install '.[docs]': no {', '.join(MISSING)}")


class Links(html.parser.HTMLParser):
    """What a page requests when it loads, where it links to, and its anchors."""

    def __init__(self, text):
        super().__init__()
        self.requests, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs["id"]} if "id" in attrs else set()
        if tag == "a":
            self.links.append(attrs.get("href") or "")
        elif tag == "link":
            self.requests.append(attrs["href"])
        else:
            self.requests += [attrs[name] for name in ("src", "srcset", "poster", "data") if attrs.get(name)]
        self.requests += re.findall(r"url\(([^)]*)\)", attrs.get("style") or "")


@functools.cache
def page(path):
    return Links(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@needs_sphinx
@pytest.mark.slow
def test_site_has_all_pages_and_names(site):
    assert all((site / f"{name}.html").is_file() for name in PAGES)
    anchors = set().union(*(page(path).anchors for path in (site / "reference").glob("*.html")))
    assert not set(public_names()) - anchors
    assert not {f"module-{name}" for name in MODULES} - anchors


@needs_sphinx
@pytest.mark.slow
def test_site_requests_nothing_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    requests = {request for path in pages for request in page(path).requests}
    assert any(request.endswith(".css") or ".css?" in request for request in requests)
    assert not [request for request in requests if re.match(r"(\w+:)?//", request)]
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(\s*[\"']?(https?:)?//", text), path


@needs_sphinx
@pytest.mark.slow
def test_links_inside_the_site_work(site):
    for path in sorted(site.rglob("*.html")):
        for link in page(path).links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc or not link:
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            assert target.exists(), (path.name, link)
            fragment = urllib.parse.unquote(url.fragment)
            if fragment and target.suffix == ".html":
                assert fragment in page(target).anchors, (path.name, link)


@needs_sphinx
@pytest.mark.slow
def test_llms_txt(site):
    lines = (site / "llms.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == ["# jaxcnn", "", "> Convolutional networks as pairs of pure functions on JAX."]
    entries = [re.fullmatch(r"- \[(.*?)\]\((.*?)\): (.+)", line) for line in lines if line.startswith("- ")]
    assert None not in entries
    assert all((site / entry[2].partition("#")[0]).is_file() for entry in entries)
    by_name = {entry[1]: entry for entry in entries}
    assert set(public_names()) <= by_name.keys()
    assert by_name["jaxcnn.max_pool"][2] == "reference/layers.html#jaxcnn.max_pool"
    assert by_name["jaxcnn.max_pool"][3] == "(N, *spatial, C) -> (N, *spatial', C): the largest value in each window."
    assert "depths=(2, 2, 2, 2)" in by_name["jaxcnn.models.resnet18"][3]
    assert "The pair" in by_name


@needs_sphinx
def test_a_public_name_without_an_entry_is_a_warning(caplog):
    from docs._reference import require_names

    objects = {name: None for name in [*public_names(), *MODULES] if name != "jaxcnn.conv"}
    env = types.SimpleNamespace(domains={"py": types.SimpleNamespace(objects=objects)})
    with caplog.at_level(logging.WARNING):
        require_names(None, env)
    assert [record.getMessage() for record in caplog.records] == [
        "jaxcnn.conv is public, but docs/reference has no entry for it"
    ]


def rst(*lines):
    return "\n".join(to_rst(lines)).strip()


def test_docstring_keeps_equations_and_escapes_prose():
    assert rst("(N, *spatial) -> the same: the sum.", "", "y = a * b", "  + c", "", "`y_` is a* and |b|.") == (
        "``(N, *spatial) -> the same``: the sum.\n"
        "\n"
        ".. code-block:: text\n"
        "\n"
        "    y = a * b\n"
        "      + c\n"
        "\n"
        "``y_`` is a\\* and \\|b\\|."
    )


def test_docstring_starts_with_shapes():
    assert rst("x -> {s: y}: all.") == "``x -> {s: y}``: all."
    assert rst("y = x + s * e,  e ~ N: noise.") == "``y = x + s * e,  e ~ N``: noise."
    assert rst("The `a -> b` of x: y.") == "The ``a -> b`` of x: y."


def test_docstring_sections():
    args = (
        "Args:",
        "    a, b: first",
        "        and second.",
        "    *rest: others.",
        "",
        "Raises:",
        "    ValueError: no.",
    )
    assert rst(*args) == (
        ":Args:\n    * **a**, **b**: first and second.\n\n    * **\\*rest**: others.\n\n\n\n"
        ":Raises:\n    * ``ValueError``: no."
    )
    assert rst("Params:", "    kernel (*size, C)", "State:", "    none.") == (
        ":Params:\n    kernel (\\*size, C)\n\n\n\n:State:\n    none."
    )
    assert rst('Source: He, "Residual", 2016;', "Xie, 2017.") == ':Source:\n    He, "Residual", 2016; Xie, 2017.'


def test_docstring_example():
    assert (
        rst("Example: an edge.", "    >>> 1", "    1")
        == "**Example**: an edge.\n\n.. code-block:: pycon\n\n    >>> 1\n    1"
    )
    code = ".. code-block:: pycon\n\n    >>> 1\n    1\n\nThen:\n\n.. code-block:: pycon\n\n    >>> 2"
    assert rst("Example:", "    >>> 1", "    1", "", "    Then:", "", "    >>> 2") == f"**Example**\n\n{code}"


def test_docstring_tables_and_fields():
    assert rst("Variants, for 1x1:", "    name  size", "    a        1") == (
        "Variants, for 1x1:\n\n.. code-block:: text\n\n    name  size\n    a        1"
    )
    assert rst("The result.", "", "runs: all", "    of them.", "best: one.") == (
        "The result.\n\n* **runs**: all of them.\n\n* **best**: one."
    )


@needs_sphinx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        *zip(WIDTHS, SCHEMES, strict=True),
        *(pytest.param(*pair, marks=pytest.mark.full) for pair in zip(WIDTHS, reversed(SCHEMES), strict=True)),
    ],
)
def test_pages_in_a_browser(site, width, scheme):
    """No errors, no requests to other hosts, no sideways scrolling, no serious finding of axe-core."""
    with chromium() as browser:
        for name in ("index", "training", "notebooks/1_start", "gallery", "speed", "reference/layers"):
            with opened(browser, site / f"{name}.html", width=width, scheme=scheme) as found:
                found.check(("data:", site.as_uri()))
                assert found.accessibility() == [], name
