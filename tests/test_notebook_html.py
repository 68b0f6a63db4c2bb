"""HTML of results in notebooks: well-formed, escaped, self-contained, and in the colors of the notebook's theme."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import data, explain, train, uncertainty
from jaxcnn.report import _notebook
from jaxcnn.report._drawing import class_color
from jaxcnn.train._sweep_result import SweepRun
from tests.test_report import Page, shown

RNG = np.random.default_rng(0)
NASTY = "<script>alert(1)<b>"
SPEC = jax.ShapeDtypeStruct((1, 12, 12, 1), jnp.float32)
NET = cnn.serial(**{NASTY: cnn.conv(2)}, pool=cnn.max_pool(2), flat=cnn.flatten, head=cnn.dense(3))


def epochs(*losses, **more):
    return [
        {"epoch": i, "seconds": float(i), "train": {"loss": loss} | more, "test": {"loss": 2 * loss} | more}
        for i, loss in enumerate(losses, 1)
    ]


def fitted(history=None):
    history = epochs(3.0, 2.0, **{NASTY: 0.5, "accuracy": 0.25}) if history is None else history
    return train.FitResult(None, {}, {}, history, pathlib.Path(f"runs/{NASTY}"), len(history), None)


def swept():
    runs = [
        SweepRun({NASTY: rate, "seed": seed}, epochs(3.0, 1 / rate + seed), {}, {})
        for rate in (1, 2)
        for seed in (0, 1)
    ]
    return train.SweepResult(runs, "", pathlib.Path("runs"))


def dataset(shape, labels, classes=()):
    return data.Dataset(RNG.random((len(labels), *shape), np.float32), np.asarray(labels), classes)


RESULTS = {
    "summary": lambda: explain.summary(NET, SPEC),
    "receptive_field": lambda: explain.receptive_field(NET, SPEC),
    "plan": lambda: explain.plan(NET, SPEC),
    "fit": fitted,
    "fit without epochs": lambda: fitted([]),
    "sweep": swept,
    "classes": lambda: dataset((6, 6, 1), [0, 1, 1, 2], ("a", NASTY, "c")),
    "signals": lambda: dataset((9, 2), [0, 1, 1], ("a", NASTY)),
    "label maps": lambda: dataset((6, 6, 3), RNG.integers(0, 2, (3, 6, 6)), ("a", NASTY)),
    "reliability": lambda: uncertainty.reliability_diagram(np.eye(3)[[0, 1, 1]], [0, 1, 2]),
}


class Fragment(Page):
    """The HTML of a result; it is checked as a page is."""

    def __init__(self, result, folder):
        path = folder / "fragment.html"
        path.write_text(result._repr_html_(), encoding="utf-8")
        super().__init__(path)


@pytest.mark.parametrize("name", RESULTS)
def test_html_of_results(name, tmp_path):
    result = RESULTS[name]()
    fragment = Fragment(result, tmp_path)
    assert "<script" not in fragment.source
    if NASTY in repr(result):
        assert "&lt;script&gt;alert(1)" in fragment.source
    assert not re.search(r"https?:|url\(|@import|javascript:|position: fixed", fragment.source)
    assert not {tag for tag, _ in fragment.tags} & {"link", "iframe", "object", "base", "form", "html", "body"}
    for _, attributes in fragment.tags:
        assert not {mark for mark in attributes if mark.startswith("on") or mark in ("id", "srcset", "href")}
        assert attributes.get("src", "data:").startswith("data:")
    assert all(image["alt"] for image in fragment.found("img"))


@pytest.mark.parametrize("name", RESULTS)
def test_text_has_the_color_of_the_theme(name, tmp_path):
    """No color of text or background is fixed, and no rule applies outside of the fragment."""
    source = Fragment(RESULTS[name](), tmp_path).source
    style = "".join(re.findall(r"<style>(.*?)</style>", source, re.DOTALL))
    for colors in re.findall(r"(?<![\w-])(?:color|background|fill): ([^;}]*)", style + source):
        assert re.fullmatch(r"(var\(.*\)|transparent|none|inherit|color-mix\(.*\))\s*", colors), colors
    variables = dict(re.findall(r"--(ink|soft|rule|paper|card): ([^;}]*)", style))
    assert all("currentColor" in value or value == "transparent" for value in variables.values())
    for rule in re.findall(r"([^{}]+)\{", style):
        assert all(selector.strip().startswith(".jaxcnn") for selector in rule.split(","))


def test_curves_of_fit(tmp_path):
    fragment = Fragment(fitted(), tmp_path)
    assert repr(fitted()) in fragment.text
    labels = [group["aria-label"] for group in fragment.found("g")]
    assert labels[:2] == ["epoch 1: training 3, test 6", "epoch 2: training 2, test 4"]
    assert len(labels) == 2 * 3  # epochs of loss, accuracy and one more
    assert [row[-1] for row in fragment.tables["Metrics after each epoch"]] == ["seconds", "1.0", "2.0"]


def test_matrices_of_fit(tmp_path):
    history = epochs(1.0, confusion=[[5, 1], [0, 7]])
    fragment = Fragment(fitted(history), tmp_path)
    np.testing.assert_array_equal(fragment.numbers("test confusion, after epoch 1"), [[5, 1], [0, 7]])


def test_table_of_a_sweep(tmp_path):
    fragment = Fragment(swept(), tmp_path)
    header, *rows = fragment.tables["Metrics after the last epoch of each run, best first"]
    assert header[1:] == [NASTY, "loss", "runs"]
    assert [row[1] for row in rows] == ["2", "1"]
    assert sum(mark.get("stroke", "").startswith("#") for mark in fragment.found("path")) == 4


def test_contact_sheet_of_classes(tmp_path):
    labels = np.repeat(np.arange(30), 10)
    fragment = Fragment(dataset((6, 6, 1), labels, tuple(f"name {k}" for k in range(29))), tmp_path)
    (caption,) = fragment.tables
    assert caption == "The first examples of each class; 10 further classes are not shown"
    _, *rows = fragment.tables[caption]
    assert [row[:2] for row in rows] == [[f"name {k}", "10"] for k in range(20)]
    told = [image["alt"] for image in fragment.found("img")]
    assert told == [f"Example {10 * k + i}, class name {k}" for k in range(20) for i in range(8)]


def test_images_of_the_contact_sheet_are_those_of_the_data(tmp_path):
    digits = data.load("mnist_small", "test")
    fragment = Fragment(digits, tmp_path)
    first = int(np.flatnonzero(digits.labels == 3)[0])
    (drawn,) = shown(fragment, f"Example {first}, class 3")
    np.testing.assert_array_equal(drawn, digits.images[first, ..., 0])
    assert len(fragment.found("img")) == 80
    assert len(fragment.source) < 300_000


@pytest.mark.parametrize(
    ("shape", "labels", "classes", "expected"),
    [
        ((4, 4, 1), [0.5, 1.25], (), ["Example 0, 0.5", "Example 1, 1.25"]),
        ((4, 4, 1), [[1, 0, 1], [0, 0, 0]], ("a", "b", "c"), ["Example 0, a, c", "Example 1, none"]),
        ((4, 4, 1), [[1.0, 2, 3, 4]], (), ["Example 0, 1, 2, 3, .."]),
        ((4, 4, 1), np.zeros((1, 0)), (), ["Example 0"]),
        ((4, 4, 3), np.arange(21), (), [f"Example {i}, {i}" for i in range(21)]),
        ((4, 4, 5), [-1, 2], (), ["Example 0, class -1", "Example 1, class 2"]),
        ((2, 4, 4, 1), [0, 1], (), []),
        ((3,), [0, 1], (), []),
    ],
)
def test_contact_sheet_of_other_labels(tmp_path, shape, labels, classes, expected):
    fragment = Fragment(dataset(shape, labels, classes), tmp_path)
    assert [image["alt"] for image in fragment.found("img")] == expected
    assert "Dataset(images=" in fragment.text


def test_empty_data(tmp_path):
    assert Fragment(dataset((4, 4, 1), np.zeros(0, int)), tmp_path).found("img") == []


def test_colors_of_label_maps(tmp_path):
    labels = np.zeros((1, 4, 4), np.int32)
    labels[0, 1], labels[0, 2] = 1, 255  # ignored
    images = np.full((1, 4, 4, 1), 0.5, np.float32)
    fragment = Fragment(data.Dataset(images, labels, ("ground", "sky")), tmp_path)
    (drawn,) = shown(fragment, "Image 0")
    gray, colors = np.full(3, 128), np.array([class_color(0), class_color(1)])
    np.testing.assert_allclose(drawn[0, 0], 0.4 * gray + 0.6 * colors[0], atol=1)
    np.testing.assert_allclose(drawn[1, 0], 0.4 * gray + 0.6 * colors[1], atol=1)
    np.testing.assert_allclose(drawn[2, 0], gray, atol=1)
    assert "ground" in fragment.text
    assert "sky" in fragment.text


def test_bars_of_a_reliability_diagram(tmp_path):
    diagram = uncertainty.reliability_diagram(np.array([[0.9, 0.1], [0.9, 0.1]]), [0, 1], bins=2)
    fragment = Fragment(diagram, tmp_path)
    assert "confidence 90%, accuracy 50% of 2" in [mark.get("aria-label") for mark in fragment.found("svg")]


def test_scoped_rules():
    assert _notebook._scoped("\na, .b c { x: y; }\nd { z: f(1, 2); }\n") == (
        ".jaxcnn.jaxcnn a, .jaxcnn.jaxcnn .b c { x: y; }\n.jaxcnn.jaxcnn d { z: f(1, 2); }"
    )
