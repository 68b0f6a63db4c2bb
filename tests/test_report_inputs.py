"""The page of a run with unusual data, names or records: it is written, says what is left out, and injects nothing."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import report, train
from jaxcnn.data import DataError, Dataset, Stream
from tests.test_report import Page

HOSTILE = '"><meta http-equiv=refresh content="0;url=//example.org">\'<script>alert(1)</script>&'
RNG = np.random.default_rng(0)


def gathered(folder, images, labels, classes, outputs=3, data=None):
    """The page about a network that was not trained."""
    shape = images.shape[1:]
    parts = {"conv": cnn.conv(2), "pool": cnn.global_avg_pool} if len(shape) > 1 else {}
    net = cnn.serial(**parts, head=cnn.dense(outputs))
    params, state = net.init(jax.random.key(0), jnp.zeros((1, *shape)))
    run = train.Run("unusual", {"seed": 0}, folder=folder)
    run.log("", epoch=1, train={"loss": 1.0}, seconds=73.4)
    data = Dataset(images, np.asarray(labels, np.int32), classes) if data is None else data
    report.gather(run.folder, net, params, state, data)
    return Page(report.report(run.folder))


def bytes_of(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    ("labels", "classes", "kept", "left_out"),
    [
        ([0, 1, 2, 12], ("a", "b", "c"), 3, 1),  # beyond the outputs
        ([0, -1, 2, -(2**31)], ("a", "b", "c"), 2, 2),
        ([0, 1, 2, 4], ("a", "b", "c", "d", "e"), 3, 1),  # more names than outputs
        ([0, 1, 2, 2], ("a",), 4, 0),  # fewer
        ([0, 1, 2, 2], (), 4, 0),
        ([7, 8, 9, 9], ("a", "b", "c"), 0, 4),
    ],
)
def test_labels_and_class_names_that_do_not_fit_the_outputs(tmp_path, labels, classes, kept, left_out):
    page = gathered(tmp_path / "run", bytes_of(4, 6, 6, 3), labels, classes)
    assert (f"of {kept} images correctly" in page.text) == (kept > 0)
    assert (f"outside 0 to 2, the range of the model's outputs: {left_out}." in page.text) == (left_out > 0)
    if kept:
        (matrix,) = (rows for caption, rows in page.tables.items() if caption.startswith("Confusion matrix"))
        assert [row[0] for row in matrix[1:]] == [*classes[:3], *"012"[len(classes) :]]
        assert sum(int(cell) for row in matrix[1:] for cell in row[1:]) == kept


@pytest.mark.parametrize(("classes", "names"), [(None, "012"), (np.array(["a", "b", "c"]), "abc")])
def test_class_names_that_are_none_or_an_array(tmp_path, classes, names):
    page = gathered(tmp_path / "run", bytes_of(3, 5, 5, 3), [0, 1, 2], classes)
    (matrix,) = (rows for caption, rows in page.tables.items() if caption.startswith("Confusion matrix"))
    assert [row[0] for row in matrix[1:]] == [*names]


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    "shape", [(9, 2), (9,), (5, 5, 1), (5, 5, 2), (5, 5, 4), (4, 4, 4, 1), (1, 300, 3), (700, 2, 3)]
)
def test_inputs_of_all_ranks_and_channels(tmp_path, shape):
    page = gathered(tmp_path / "run", bytes_of(6, *shape), [0, 1, 2, 0, 1, 2], ("a", "b", "c"))
    assert f"of 6 {'signals' if len(shape) == 2 else 'images'}" in page.text
    assert ("Visualizations" in page.text) == (len(shape) == 3)


def test_floats_that_are_not_finite(tmp_path):
    images = RNG.standard_normal((6, 5, 5, 3)).astype(np.float32)
    images[0, 0, 0, 0], images[1] = np.nan, np.inf
    assert "of 6 images" in gathered(tmp_path / "run", images, [0, 1, 2, 0, 1, 2], ("a", "b", "c")).text


def test_rows_of_weight_zero_are_not_shown(tmp_path):
    batch = {"image": bytes_of(5, 4, 4, 1), "label": np.array([0, 1, 2, 0, 1]), "weight": np.array([1, 0, 1, 1, 0.0])}
    assert "of 3 images" in gathered(tmp_path / "run", batch["image"], [], (), data=batch).text
    with pytest.raises(DataError, match="at least one example"):
        gathered(tmp_path / "none", batch["image"], [], (), data=batch | {"weight": np.zeros(5)})


def test_streams_like_arrays(tmp_path):
    images, labels = bytes_of(6, 4, 4, 1), np.array([0, 1, 2, 3, 1, 0], np.int32)
    batches = lambda step: ({"image": images[i : i + 3], "label": labels[i : i + 3]} for i in (0, 3))
    stream = Stream(batches, 2, jax.ShapeDtypeStruct((3, 4, 4, 1), np.uint8), ("a", "b", "c"))
    pages = [
        gathered(tmp_path / name / "run", images, labels, ("a", "b", "c"), data=data).source
        for name, data in (("stream", stream), ("arrays", None))
    ]
    assert pages[0] == pages[1]
    assert "outside 0 to 2" in pages[0]


def test_large_images_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    from jaxcnn.report import _examples, _gather

    monkeypatch.setattr(_examples, "_BATCH_VALUES", 2 * 40 * 30 * 3)
    seen = []
    whole = _examples.batches
    monkeypatch.setattr(_gather, "batches", lambda data: (seen.append(len(x)) or (x, y) for x, y in whole(data)))
    assert "of 5 images" in gathered(tmp_path / "run", bytes_of(5, 40, 30, 3), [0, 1, 2, 0, 1], ()).text
    assert max(seen) == 2


def hostile(value):
    """The same with the hostile text in the place of each name and each string."""
    if isinstance(value, dict):
        known = {"experiment", "config", "versions", "device", "classes", "layers", "maps", "worked", "first"}
        return {key if key in known or key in KEYS else key + HOSTILE: hostile(part) for key, part in value.items()}
    if isinstance(value, list):
        return [hostile(part) for part in value]
    return HOSTILE if isinstance(value, str) else value


KEYS = {"size", "left_out", "params", "multiply_adds", "name", "output", "sees", "before", "position", "channel", "cam"}
KEYS |= {"bias", "value", "rows", "columns", "of_image", "steps", "pool", "path", "is"}


def test_nothing_that_a_file_says_becomes_html(tmp_path):
    """Every string in every file of a run, and the run's own name."""
    folder = tmp_path / "<meta http-equiv=refresh content=0>"
    images = bytes_of(30, 8, 8, 1)
    plain = gathered(tmp_path / "plain", images, [0, 1, 2] * 10, ("a", "b", "c"))
    (tmp_path / "plain").rename(folder)
    for name in ("config.json", "explain.json"):
        (folder / name).write_text(json.dumps(hostile(json.loads((folder / name).read_text()))))
    record = {"epoch": 1, "train": {HOSTILE: 1.0, "loss": 2.0, "accuracy": 0.5}, "test": {HOSTILE: None, "loss": None}}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    page = Page(report.report(folder))
    assert page.text.count(HOSTILE) > 10
    assert [tag for tag, _ in page.tags if tag == "meta"] == [tag for tag, _ in plain.tags if tag == "meta"]
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert {name for _, marks in page.tags for name in marks} <= {name for _, marks in plain.tags for name in marks}
    assert "<meta http-equiv=refresh" not in page.source
    assert "<script" not in page.source


def test_class_names_that_are_not_utf8(tmp_path):
    """As os.listdir gives a folder of other bytes."""
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    page = gathered(tmp_path / "run", bytes_of(3, 4, 4, 1), [0, 1, 2], (name, "b", "c\0"))
    assert "caf\\udce9" in page.source


def test_names_from_right_to_left_do_not_move_the_numbers_beside_them(tmp_path):
    """They are between the characters that isolate a direction, which the name itself cannot end."""
    names = ("x\u202egnp", "\u05d0\u2069\u202e", "cat")
    page = gathered(tmp_path / "run", bytes_of(6, 5, 5, 3), [0, 1, 2, 0, 1, 2], names)
    assert "\u2068x\u202egnp\u2069: " in page.text
    for text in (page.text, page.source):
        assert text.count("\u202e") == len(re.findall("\u2068x\u202egnp\u2069|\u2068\u05d0\u202e\u2069", text)) > 2
        assert "\u2068cat" not in text
    data = Dataset(bytes_of(3, 5, 5, 3), np.array([0, 1, 2]), np.array(names))
    assert data._repr_html_().count("\u2068x\u202egnp\u2069") > 1


@pytest.mark.parametrize("surrogate", ["\udc80", "\ud800\udfff\udcff"])
def test_settings_that_are_not_utf8(tmp_path, surrogate):
    run = train.Run(f"run {surrogate}", {"path": f"photos/{surrogate}"}, folder=tmp_path)
    run.log("", epoch=1, train={"loss": 0.5})
    assert "\\ud" in Page(report.report(tmp_path)).source


@pytest.mark.parametrize(
    "records",
    [
        [],
        [{"epoch": 1}],
        [{"epoch": 1, "train": {}, "test": {}, "seconds": None}],
        [{"epoch": 1, "train": {"loss": math.nan, "accuracy": math.inf}, "seconds": 1.0}] * 3,
        [{"epoch": 1, "train": {"loss": None}}, {"epoch": 2, "train": {"penalty": 0.0}, "seconds": None}],
        [{"epoch": 10**12, "train": {"loss": 1e300}}, {"epoch": 10**12 + 1, "train": {"loss": -1e300}}],
        [{"epoch": 3, "train": {"loss": 5e-324}}],
        [{"step": 3}],
        [{"epoch": 1, "test": {"a": [0.5, None], "b": [[1, 2]], "c": [[[3]]], "d": [0] * 21, "e": []}}],
    ],
)
def test_records_without_numbers(tmp_path, records):
    run = train.Run("run", {}, folder=tmp_path)
    for record in records:
        run.log("", **record)
    (tmp_path / "metrics.jsonl").touch()
    page = Page(report.report(tmp_path))
    assert ("No epoch has been recorded yet." in page.text) == (not any("epoch" in record for record in records))


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": "1"}',
        '{"epoch": 1, "train": [1]}',
        '{"epoch": 1, "test": {"loss": "0"}}',
        '{"epoch": 1, "test": {"loss": [0, "0"]}}',
        '{"epoch": 1, "test": {"matrix": [[0, 1], [2]]}}',
        '{"epoch": 1, "seconds": "9"}',
    ],
)
def test_records_of_another_kind(tmp_path, line):
    train.Run("run", {}, folder=tmp_path)
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 1: expected a record as train\.Run\.log writes it"):
        report.report(tmp_path)


@pytest.mark.parametrize("change", [{"layers": 3}, {"maps": [["conv"]]}, {"worked": {}}, {"classes": []}])
def test_damaged_text_of_the_network(tmp_path, change):
    gathered(tmp_path / "run", bytes_of(3, 4, 4, 1), [0, 1, 2], ("a", "b", "c"))
    file = tmp_path / "run" / "explain.json"
    words = json.loads(file.read_text())
    file.write_text(json.dumps(words | change))
    if change == {"worked": {}}:  # none, as with a network that has no convolution
        assert "One convolution step by step" not in Page(report.report(tmp_path / "run")).text
        return
    with pytest.raises(DataError, match=r"do not have the format of report\.gather .* call report\.gather again"):
        report.report(tmp_path / "run")


@pytest.mark.parametrize("damage", [slice(0, 200), slice(100, None)])
def test_damaged_arrays_of_the_network(tmp_path, damage):
    gathered(tmp_path / "run", bytes_of(3, 4, 4, 1), [0, 1, 2], ("a", "b", "c"))
    file = tmp_path / "run" / "explain.npz"
    file.write_bytes(file.read_bytes()[damage])
    with pytest.raises(DataError, match=r"call report\.gather again"):
        report.report(tmp_path / "run")


def test_the_penalty_is_explained_and_the_time_is_that_of_the_record(tmp_path):
    run = train.Run("run", {}, folder=tmp_path)
    run.log("", epoch=1, train={"loss": 0.5, "penalty": 0.1}, seconds=73.4)
    assert "penalties on the weights" in (page := Page(report.report(tmp_path))).text
    assert "1 min 13 s" in page.text
    run.log("", epoch=2, train={"loss": 0.4}, seconds=119.0)
    assert "1 min 59 s" in Page(report.report(tmp_path)).text
