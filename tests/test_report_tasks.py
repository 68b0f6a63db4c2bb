"""The page's sections for tasks other than the classification of images, and images that a user adds."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from jaxcnn import report, train
from jaxcnn.data import DataError, Stream
from jaxcnn.report import _drawing
from jaxcnn.report._tasks import task_of
from tests.test_report import Page, shown

RNG = np.random.default_rng(0)
NASTY = '<script>"&'


def page_of(folder, function, image, label, classes=(), **batch):
    """The page about a function of images as a network without parameters."""
    run = train.Run("task", {}, folder=folder)
    run.log("", epoch=1, train={"loss": 1.0}, test={"loss": 0.5, "mean_iou": 0.25, "matrix": [[1, 2], [3, 4]]})
    examples = {"image": image, "label": label} | batch
    if classes:
        spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        others = {name: spec(value) for name, value in examples.items() if name != "image"}
        examples = Stream(lambda step, whole=examples: iter([whole]), 1, spec(image), classes, "", others)
    report.gather(run.folder, cnn.as_layer(function), {}, {}, examples)
    page = Page(report.report(run.folder))
    assert all(img["alt"] for img in page.found("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.found("svg"))
    assert not {"style", "onclick"} & {name for _, marks in page.tags for name in marks}
    return page


IMAGE, ROW = (8, 6, 6, 3), (8, 4)


@pytest.mark.parametrize(
    ("task", "image", "output", "label"),
    [
        ("classification", IMAGE, (8, 3), np.arange(8) % 3),
        ("classification", ROW, (8, 3), np.full((8, 3), 1 / 3)),
        ("labels", IMAGE, (8, 3), np.ones((8, 3), int)),
        ("labels", IMAGE, (8, 3), np.ones((8, 3), bool)),
        ("labels", IMAGE, (8, 3), np.ones((8, 3), np.float32)),
        ("labels", IMAGE, (8, 1), np.arange(8) % 2),
        ("labels", IMAGE, (8,), np.arange(8) % 2),
        ("regression", IMAGE, (8, 1), np.linspace(0, 1, 8)),
        ("regression", IMAGE, (8,), np.arange(8)),
        ("regression", IMAGE, (8, 1), np.arange(8)),
        ("regression", IMAGE, (8, 3), np.arange(24.0).reshape(8, 3)),
        ("segmentation", IMAGE, (8, 6, 6, 5), np.zeros((8, 6, 6), np.uint8)),
        ("segmentation", (8, 9, 2), (8, 9, 5), np.full((8, 9), 4)),
        ("masks", IMAGE, (8, 6, 6, 1), np.ones((8, 6, 6, 1), np.float32)),
        ("masks", IMAGE, IMAGE, np.ones(IMAGE, bool)),
        ("reconstruction", IMAGE, IMAGE, np.ones(IMAGE, np.float32)),
        ("reconstruction", IMAGE, (8, 12, 12, 3), np.full((8, 12, 12, 3), 0.5)),
        ("reconstruction", (8, 9, 2), (8, 9, 2), np.full((8, 9, 2), 0.5)),
        ("", IMAGE, (8, 3), np.linspace(0, 1, 8)),
        ("", IMAGE, (8, 6, 6, 5), np.arange(8)),
        ("", IMAGE, (8, 5), np.zeros((8, 6, 6), int)),
    ],
)
def test_the_task_follows_from_shapes_and_labels(task, image, output, label):
    assert task_of(image, jnp.zeros(output), label) == task
    assert task_of(image, (jnp.zeros(output),), label) == ""


def squares(count=9, size=8):
    label = np.zeros((count, size, size), np.int32)
    label[:, 2:6, 2:4], label[:, 2:6, 4:6] = 1, 2
    label[:, 0, 0] = 255  # ignored
    return RNG.random((count, size, size, 3), np.float32), label


def noisy_logits(image):
    """Logits of 4 classes; the last has never the largest."""
    noise = jnp.stack([image[..., 0], image[..., 1], image[..., 2], image[..., 0] - 1], -1)
    return noise + 0.5 * jax.nn.one_hot(jnp.asarray(squares(1)[1]).clip(0, 3)[0], 4)


def test_segmentation(tmp_path):
    image, label = squares()
    names = ("background", "left", NASTY, "never")
    page = page_of(tmp_path, noisy_logits, image, label, names)
    predicted = np.asarray(noisy_logits(jnp.asarray(image)).argmax(-1))
    counts = label != 255
    header, *rows = page.tables["Intersection over union (IoU) of each class that occurs"]
    assert header == ["class", "positions", "predicted positions", "IoU"]
    assert [row[0].strip() for row in rows] == ["background", "left", NASTY, "mean or total"]
    ious = []
    for k, row in enumerate(rows[:3]):
        a, b = (label == k) & counts, (predicted == k) & counts
        ious.append((a & b).sum() / (a | b).sum())
        assert [int(cell) for cell in row[1:3]] == [a.sum(), b.sum()]
        assert float(row[3]) == pytest.approx(ious[-1], abs=1e-4)
    assert float(rows[3][3]) == pytest.approx(np.mean(ious), abs=1e-4)
    wrong = np.array([(predicted[i] != label[i])[counts[i]].mean() for i in range(9)])
    order = [0, 1, 2, 3, *(i for i in np.argsort(-wrong, kind="stable") if i > 3)]
    told = [int(m[1]) for img in page.found("img") if (m := re.fullmatch(r"Image (\d+)", img["alt"]))]
    assert told == order
    for i in order:
        assert f"Image {i} {1 - wrong[i]:.1%} correct" in page.text
    for kind, classes in (("True", label), ("Predicted", predicted)):
        drawn = shown(page, f"{kind} classes of image 0")[0]
        colors = np.array([_drawing.class_color(k) for k in range(4)])
        pixels = np.round(255 * image[0])
        expected = 0.4 * pixels + 0.6 * colors[classes[0].clip(0, 3)]
        expected = np.where((classes[0] == 255)[..., None], pixels, expected)
        np.testing.assert_allclose(drawn, expected, atol=1)
    swatches = [rect["fill"] for rect in page.found("rect") if "fill" in rect]
    assert swatches == [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in map(_drawing.class_color, [0, 1, 2])] * 2
    alt = next(img["alt"] for img in page.found("img") if img["alt"].startswith("True classes of image 0"))
    assert alt == f"True classes of image 0: none 1.6%, background 73.4%, left 12.5%, {NASTY} 12.5%"


def test_binary_masks_and_maps_smaller_than_the_image(tmp_path):
    image = RNG.random((5, 6, 6, 1), np.float32)
    label = image[:, 1:-1, 1:-1] > 0.5
    page = page_of(tmp_path, lambda x: x[:, 1:-1, 1:-1] - 0.6, image, label.astype(np.float32))
    predicted = image[:, 1:-1, 1:-1] > 0.6
    row = page.tables["Intersection over union (IoU) of each class that occurs"][1]
    assert [int(cell) for cell in row[1:3]] == [label.sum(), predicted.sum()]
    assert float(row[3]) == pytest.approx((label & predicted).sum() / (label | predicted).sum(), abs=1e-4)
    drawn = shown(page, "True classes of image 2")[0]
    np.testing.assert_array_equal(drawn, np.where(label[2], _drawing.class_color(0), 255))
    assert not [img for img in page.found("img") if re.fullmatch(r"Image \d", img["alt"])]  # of another size


def test_reconstruction(tmp_path):
    image = RNG.random((7, 5, 4, 3), np.float32)
    page = page_of(tmp_path, lambda x: 0.5 * x, image, image)
    difference = 0.5 * image
    text = re.search(r"squared error is (\S+), the mean absolute error (\S+)\. ", page.text)
    assert float(text[1]) == pytest.approx(np.mean(difference**2), rel=1e-3)
    assert float(text[2].rstrip(".")) == pytest.approx(np.mean(difference), rel=1e-3)
    np.testing.assert_allclose(shown(page, "Target of image 1")[0], 255 * image[1], atol=1)
    np.testing.assert_allclose(shown(page, "Output of image 1")[0], 255 * 0.5 * image[1], atol=1)
    error = difference.mean(-1)
    largest = error.max()
    np.testing.assert_allclose(shown(page, "Error of image 1")[0], 255 * error[1] / largest, atol=1)
    assert float(re.search(r"White is an error of (\S+)\.", page.text)[1]) == pytest.approx(largest, rel=1e-3)
    squared = np.mean(difference**2, (1, 2, 3))
    assert f"Example 1 squared error {squared[1]:.4g}" in page.text


def test_regression(tmp_path):
    image = RNG.random((40, 3, 3, 1), np.float32)
    label = image.mean((1, 2, 3)) - 0.5
    predict = lambda x: x.mean((1, 2)) - 0.5 + 0.2 * x[:, 0, 0]
    page = page_of(tmp_path, predict, image, label, ("height",))
    error = 0.2 * image[:, 0, 0, 0]
    (row,) = page.numbers("Errors of each target over 40 examples")
    r2 = 1 - np.mean(error**2) / np.var(label)
    np.testing.assert_allclose(row, [np.mean(error), np.sqrt(np.mean(error**2)), r2], rtol=1e-3)
    svg = next(mark for mark in page.found("svg") if mark.get("aria-label", "").startswith("Predicted against true"))
    low, high = map(
        float, re.search(r"values of height: 40 points between (\S+) and (\S+)", svg["aria-label"]).groups()
    )
    assert low <= label.min()
    assert high >= (label + error).max()
    points = [mark for mark in page.found("circle") if "point" in mark["class"]]
    line = next(mark for mark in page.found("line") if mark["class"] == "diagonal")
    start, end, bottom, top = (float(line[name]) for name in ("x1", "x2", "y1", "y2"))
    x, y = (np.array([float(point[name]) for point in points]) for name in ("cx", "cy"))
    np.testing.assert_allclose(low + (x - start) / (end - start) * (high - low), label, atol=5e-3)
    np.testing.assert_allclose(low + (y - bottom) / (top - bottom) * (high - low), label + error, atol=5e-3)
    worst = np.argsort(-(error**2), kind="stable")[:12]
    told = [int(m[1]) for img in page.found("img") if (m := re.match(r"Example (\d+): true", img["alt"]))]
    assert told == worst.tolist()


def test_regression_of_several_targets(tmp_path):
    image = RNG.random((30, 6), np.float32)
    label = image[:, :5] * [1, 10, 100, 1, 0] + [0, 0, 0, 0, 3]
    page = page_of(
        tmp_path, lambda x: x[:, :5] * jnp.array([1.1, 10, 90, 1, 0]) + 3, image, label, ("a", "b", "c", "d", NASTY)
    )
    rows = page.tables["Errors of each target over 30 examples"][1:]
    assert [row[0] for row in rows] == ["a", "b", "c", "d", NASTY]
    error = np.abs(image[:, :5] * [1.1, 10, 90, 1, 0] + 3 - label)
    np.testing.assert_allclose([float(row[1]) for row in rows], error.mean(0), rtol=1e-3)
    assert rows[4][3] == "not defined"  # the target is constant
    assert sum(mark.get("class") == "scatter" for mark in page.found("figure")) == 4
    assert page.found("img") == []  # vectors are not drawn


@pytest.mark.sample(2)
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_outputs_that_are_not_finite(tmp_path, broken):
    image = RNG.random((4, 3, 3, 1), np.float32)
    label = np.linspace(0, 1, 4, dtype=np.float32) + 0.1
    page = page_of(tmp_path / "some", lambda x: x.mean((1, 2)).at[1].set(broken), image, label)
    assert ["the target", *["not defined"] * 3] in page.tables["Errors of each target over 4 examples"]
    assert "3 points" in next(
        mark["aria-label"] for mark in page.found("svg") if "points" in mark.get("aria-label", "")
    )
    for name, label in (("maps", image), ("masks", image > 0.5), ("segmentation", np.zeros((4, 3, 3), int))):
        page_of(tmp_path / name, lambda x: x * broken, image, label)
    page_of(tmp_path / "labels", lambda x: x.reshape(len(x), 9) * broken, image, (image > 0.5).reshape(4, 9))


def test_labels(tmp_path):
    sklearn_like = lambda score, true: (
        sum(  # the mean, over positives, of the precision at their score
            true[score >= s].mean() for s in score[true]
        )
        / true.sum()
    )
    image = RNG.random((40, 4, 4, 1), np.float32)
    label = (image[:, 0, :3, 0] + 0.3 * image[:, 1, :3, 0] > 0.7).astype(np.int32)
    label[:, 2] = 0
    page = page_of(tmp_path, lambda x: x[:, 0, :3, 0] - 0.6, image, label, ("cat", NASTY, "never"))
    header, *rows = page.tables["Quality of each label. A label with a probability above 50% is predicted"]
    assert header == ["label", "prevalence", "precision", "recall", "average precision"]
    score = image[:, 0, :3, 0] - np.float32(0.6)
    predicted = score > 0
    for k, row in enumerate(rows[:2]):
        true = label[:, k] == 1
        hits = (predicted[:, k] & true).sum()
        assert row[1] == f"{true.mean():.1%}"
        expected = [hits / predicted[:, k].sum(), hits / true.sum(), sklearn_like(score[:, k], true)]
        np.testing.assert_allclose([float(cell) for cell in row[2:]], expected, rtol=1e-3)
    assert rows[2] == ["never", "0%", "0", "not defined", "not defined"]
    listed = lambda chosen: ", ".join(np.array(["cat", NASTY, "never"])[np.flatnonzero(chosen)]) or "none"
    alts = [img["alt"] for img in page.found("img")]
    assert alts[0] == f"Example 0, labels {listed(label[0])}, predicted {listed(predicted[0])}"
    wrong = (predicted != label).mean(1)
    order = [0, 1, 2, 3, *(i for i in np.argsort(-wrong, kind="stable") if i > 3)][:12]
    assert [int(re.match(r"Example (\d+),", alt)[1]) for alt in alts] == order


def test_binary_labels_of_shape_n(tmp_path):
    image = RNG.random((20, 5))  # float64
    page = page_of(tmp_path, lambda x: x[:, :1] - 0.5, image, (image[:, 0] > 0.5).astype(np.int32))
    (row,) = page.tables["Quality of each label. A label with a probability above 50% is predicted"][1:]
    assert [float(cell) for cell in row[2:]] == [1, 1, 1]


def test_class_probabilities_are_classes(tmp_path):
    image = RNG.random((6, 3), np.float32)
    label = np.full((6, 3), 0.1, np.float32)
    label[np.arange(6), [0, 1, 2, 0, 1, 2]] = 0.8
    page = page_of(tmp_path, lambda x: x, image, label)
    matrix = next(page.numbers(caption) for caption in page.tables if caption.startswith("Confusion"))
    np.testing.assert_array_equal(matrix.sum(1), [2, 2, 2])


def test_signals(tmp_path):
    """Classified signals are drawn as curves; so are targets and outputs of a reconstruction."""
    time = np.linspace(0, 6, 300, dtype=np.float32)
    image = np.stack([np.stack([np.sin(time * (1 + i % 3)), np.cos(time)], 1) for i in range(9)])
    page = page_of(
        tmp_path / "classes", lambda x: x[:, 7, :1] * jnp.arange(3), image, np.arange(9) % 3, ("a", "b", "c")
    )
    assert "of 9 signals correctly" in page.text
    (caption,) = [caption for caption in page.tables if caption.startswith("Layers")]
    assert page.tables[caption][1][2] == "1"  # the receptive field of a layer that selects a position
    labels = [mark["aria-label"] for mark in page.found("svg") if "points" in mark.get("aria-label", "")]
    examples = [label for label in labels if label.startswith("Example")]
    assert [label[:20] for label in examples] == [f"Example {i} of class {c}" for i, c in enumerate("abc")]
    low, high = image[0, ::3].min(), image[0, ::3].max()
    assert examples[0].endswith(f", 100 points from \N{MINUS SIGN}{-low:.3f} to {high:.3f}")
    assert any("misclassified as" in label for label in labels)
    paths = [mark["d"] for mark in page.found("path") if mark["class"] == "line c0"]
    points = np.array([[float(v) for v in point.split()] for point in re.split("[ML]", paths[-3])[1:]])
    drawn = np.polyval(np.polyfit([points[:, 1].max(), points[:, 1].min()], [0, 1], 1), points[:, 1])
    wave = image[0, ::3, 0]
    np.testing.assert_allclose(drawn, (wave - wave.min()) / np.ptp(wave), atol=0.01)
    page = page_of(tmp_path / "copies", lambda x: 0.9 * x, image, image)
    labels = [mark["aria-label"] for mark in page.found("svg") if "aria-label" in mark]
    assert sum(label.startswith("Target and output of example") for label in labels) == 9 * 2
    assert all(", 100 points from" in label for label in labels if label.startswith("Target"))
    many = RNG.random((3, 20, 30), np.float32)  # channels
    page = page_of(tmp_path / "channels", lambda x: x[:, 0, :3], many, np.arange(3))
    assert sum(mark.get("class", "").startswith("line c") for mark in page.found("path")) >= 3 * 8


def test_other_outputs_are_only_listed(tmp_path):
    image = RNG.random((4, 3, 3, 1), np.float32)
    page = page_of(tmp_path / "other", lambda x: x.mean((1, 2)), image, np.linspace(0, 1, 12).reshape(4, 3))
    assert "The network" in page.text
    page_of(tmp_path / "pair", lambda x: (x, x), image, image)
    volume = RNG.random((4, 3, 3, 3, 1), np.float32)
    page = page_of(tmp_path / "volume", lambda x: x, volume, volume)
    assert "The mean squared error is 0" in page.text
    assert page.found("img") == []


def test_the_header_shows_all_metrics(tmp_path):
    page = page_of(tmp_path, lambda x: x, RNG.random((4, 3), np.float32), np.arange(4) % 3)
    head = page.text[: page.text.index("epochs")]
    assert "test loss0.5" in head
    assert "test mean_iou0.25" in head
    assert "matrix" not in head
    np.testing.assert_array_equal(page.numbers("test matrix, after epoch 1"), [[1, 2], [3, 4]])


def test_rows_of_weight_0_do_not_count(tmp_path):
    image, label = squares(6)
    weight = np.array([1, 0, 1, 1, 0, 1.0])
    pages = [
        page_of(tmp_path / name / "run", noisy_logits, image[rows], label[rows], **batch)
        for name, rows, batch in (("all", slice(None), {"weight": weight}), ("some", weight > 0, {}))
    ]
    assert pages[0].source == pages[1].source


def test_predictions_are_made_in_batches(tmp_path, monkeypatch):
    from jaxcnn.report import _examples

    image, label = squares(7)
    whole = page_of(tmp_path / "whole" / "run", noisy_logits, image, label).source
    monkeypatch.setattr(_examples, "_BATCH", 3)
    assert page_of(tmp_path / "parts" / "run", noisy_logits, image, label).source == whole


@pytest.mark.slow
def test_fit_writes_the_page_of_its_task(tmp_path):
    from tests.fit_tasks import maps

    net = cnn.serial(cnn.conv(8), jax.nn.relu, cnn.conv(3))
    config = {"epochs": 1, "batch_size": 8, "report": True, "checkpoint": {"keep": 0}}
    run = train.Run("maps", {}, folder=tmp_path)
    train.fit(net, maps(16, 0), eval_data=maps(9, 1), config=config, run=run)
    assert "Intersection over union (IoU) of each class that occurs" in Page(tmp_path / "report.html").tables


@pytest.mark.parametrize(
    ("change", "damage"),
    [({"task": "poems"}, None), ({"names": []}, None), ({"task": "labels"}, None), ({}, slice(0, 200))],
)
def test_damaged_files_of_a_task(tmp_path, change, damage):
    page_of(tmp_path, noisy_logits, *squares())
    text, arrays = tmp_path / "explain.json", tmp_path / "explain.npz"
    text.write_text(json.dumps(json.loads(text.read_text()) | change))
    if damage:
        arrays.write_bytes(arrays.read_bytes()[damage])
    with pytest.raises(DataError, match=r"call report\.gather again"):
        report.report(tmp_path)


# Images of the user


def new_run(folder):
    run = train.Run("images", {}, folder=folder)
    run.log("", epoch=1, train={"loss": 1.0})
    return folder


def test_added_images(tmp_path):
    new_run(tmp_path)
    color, gray = RNG.integers(0, 256, (2, 5, 4, 3)).astype(np.uint8), RNG.random((1, 6, 7, 1), np.float32)
    report.add_images(tmp_path, f"Samples {NASTY}", color, ["first", NASTY])
    report.add_images(tmp_path, "Figures", jnp.asarray(gray))
    page = Page(report.report(tmp_path))
    np.testing.assert_array_equal(shown(page, "first")[0], color[0])
    np.testing.assert_array_equal(shown(page, NASTY)[0], color[1])
    np.testing.assert_allclose(shown(page, "Figures, image 0")[0], 255 * gray[0, ..., 0], atol=0.51)
    headings = [text for text in (f"Samples {NASTY}", "Figures") if text in page.text]
    assert headings == [f"Samples {NASTY}", "Figures"]
    assert page.text.rindex(NASTY) < page.text.rindex("Figures")
    assert "<script" not in page.source
    report.add_images(tmp_path, f"Samples {NASTY}", color[1:])  # replaces the two images, and keeps the order
    page = Page(report.report(tmp_path))
    assert len(page.found("img")) == 2
    assert page.found("img")[0]["alt"] == f"Samples {NASTY}, image 0"
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["0.npz", "1.npz"]


def test_added_images_with_the_title_of_another_section(tmp_path):
    new_run(tmp_path)
    report.add_images(tmp_path, "Training", np.zeros((1, 2, 2, 1)))
    report.add_images(tmp_path, "Settings", np.zeros((1, 2, 2, 1)))
    page = Page(report.report(tmp_path))
    assert "Training (added)" in page.text
    assert "Settings (added)" in page.text
    assert "Metrics after each epoch" in page.tables


def test_large_images_are_resized(tmp_path):
    new_run(tmp_path)
    report.add_images(tmp_path, "Figure", np.zeros((1, 1024, 300, 3), np.uint8))
    (image,) = Page(report.report(tmp_path)).found("img")
    assert (image["width"], image["height"]) == ("150", "512")


@pytest.mark.parametrize(
    ("title", "images", "captions", "message"),
    [
        ("", np.zeros((1, 2, 2, 1)), (), "title must be a text that is not empty, got ''"),
        (3, np.zeros((1, 2, 2, 1)), (), "title must be a text that is not empty, got 3"),
        ("a", np.zeros((2, 2, 1)), (), r"images must have shape \(N, H, W, C\), got \(2, 2, 1\)"),
        ("a", np.zeros((0, 2, 2, 1)), (), r"images must have shape \(N, H, W, C\), got \(0, 2, 2, 1\)"),
        ("a", np.zeros((2, 2, 2, 1)), ["one"], r"captions must be one text per image, 2, got \['one'\]"),
        ("a", np.zeros((3, 2, 2, 1)), "one", "captions must be one text per image, 3, got 'one'"),
        ("a", np.zeros((3, 2, 2, 1)), None, "captions must be one text per image, 3, got None"),
    ],
)
def test_images_that_are_refused(tmp_path, title, images, captions, message):
    with pytest.raises(ValueError, match=f"add_images: {message}"):
        report.add_images(tmp_path, title, images, captions)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive", slice(0, 100), {"images": np.zeros(3)}])
def test_damaged_images(tmp_path, content):
    new_run(tmp_path)
    report.add_images(tmp_path, "Samples", np.zeros((1, 8, 8, 1)))
    path = tmp_path / "images" / "0.npz"
    if isinstance(content, dict):
        np.savez(path, title="a", captions=np.array([], str), **content)
    else:
        path.write_bytes(path.read_bytes()[content] if isinstance(content, slice) else content)
    for read in (report.report, lambda folder: report.add_images(folder, "Others", np.zeros((1, 8, 8, 1)))):
        with pytest.raises(DataError, match=r"0\.npz: expected images of report\.add_images"):
            read(tmp_path)


def test_an_interrupted_write_keeps_the_old_images(tmp_path, monkeypatch):
    new_run(tmp_path)
    report.add_images(tmp_path, "Samples", np.zeros((1, 8, 8, 1)))
    before = (tmp_path / "images" / "0.npz").read_bytes()

    def full(file, **arrays):
        file.write(b"part")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="disk full"):
        report.add_images(tmp_path, "Samples", np.ones((1, 8, 8, 1)))
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["0.npz"]
    assert (tmp_path / "images" / "0.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "not finite"), (0.0, "from 0.000 to 0.000"), (2.0, "from 2.000 to 2.000")]
)
def test_curves_tell_their_values(value, text):
    assert f'"Target, 4 points {text}"' in _drawing.curves(np.full((1, 4), value), "Target")


def test_class_colors_differ():
    colors = [_drawing.class_color(k) for k in range(40)]
    assert len({*colors}) == 40
    assert all(0 <= c <= 255 for color in colors for c in color)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_ignored_positions_of_any_dtype(tmp_path, dtype):
    """Labels of a folder of masks are uint8, with 255 where positions do not count."""
    image = RNG.random((3, 8, 8, 2), np.float32)
    label = (image[..., 0] < image[..., 1]).astype(dtype)
    label[:, 0] = 255
    page = page_of(tmp_path, lambda x: x, image, label)
    assert len(page.found("img")) >= 6
    arrays = np.load(tmp_path / "explain.npz")
    assert (arrays["true"][:, 0] == -1).all()
    np.testing.assert_array_equal(arrays["counts"][0], arrays["counts"][2])  # all other positions are hits


def test_a_pair_of_images_and_labels(tmp_path):
    run = train.Run("task", {}, folder=tmp_path)
    x = RNG.random((4, 6, 6, 2), np.float32)
    report.gather(run.folder, cnn.as_layer(lambda x: x), {}, {}, (x, x.argmax(-1)))
    assert json.loads((tmp_path / "explain.json").read_text())["task"] == "segmentation"


def test_images_without_a_position_that_counts(tmp_path):
    image = RNG.uniform(size=(6, 8, 8, 3)).astype(np.float32)
    label = RNG.integers(0, 3, (6, 8, 8))
    label[2] = 255
    page = page_of(tmp_path, lambda x: x, image, label)
    assert page.text.count("no position counts") == 1
    assert "nan" not in page.text.lower()
