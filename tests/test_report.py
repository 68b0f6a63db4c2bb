"""The page about a run: in one file, true to its numbers, and closed to everything else."""

import base64
import hashlib
import html.parser
import io
import itertools
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn as cnn
from experiments import mnist_lenet
from jaxcnn import data, explain, report, train
from jaxcnn.data import DataError, Dataset, Stream
from jaxcnn.report import _by_hand, _chart, _page
from jaxcnn.train import override

DIGITS = data.load("mnist_small", "test")
NASTY = ("<script>alert(1)</script>", "\"&'", *DIGITS.classes[2:])
FEW = Dataset(DIGITS.images[:300], DIGITS.labels[:300], NASTY)
TEST_DATA = Dataset(DIGITS.images[-200:], DIGITS.labels[-200:], NASTY)
CONFIG = {"fit": train.FIT | {"epochs": 2, "batch_size": 60, "checkpoint": {"every": 0, "keep": 0}, "report": True}}
FIRST = np.unique(TEST_DATA.labels, return_index=True)[1]  # of each class
VOID = {"meta", "img"}


def model():
    return cnn.serial(
        half=data.normalize([0.5], [0.5]),
        block=cnn.serial(conv=cnn.conv(6, 3, stride=2, dilation=2, padding=1), act=jax.nn.relu, pool=cnn.max_pool(2)),
        flat=cnn.flatten,
        head=cnn.dense(10),
    )


class Page(html.parser.HTMLParser):
    """What a reader of the page finds; it refuses tags that are not closed where they should be."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.tables, self.words = [], [], {}, []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        if tag == "table":
            self.caption, self.rows = "", []
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, text):
        if "caption" in self.open:
            self.caption += text
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += text
        elif "style" not in self.open:
            self.words.append(text)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def found(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def numbers(self, caption):
        """What is in a table, without the names of rows and columns."""
        return np.array(
            [[float(cell.replace("\N{MINUS SIGN}", "-")) for cell in row[1:]] for row in self.tables[caption][1:]]
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run by `fit`, with a copy of the page after each epoch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    copies = []

    class Copying(train.Run):
        def log(self, line, **record):
            copies.extend(path.read_text() for path in folder.glob("report.html"))
            super().log(line, **record)

    run = Copying("nasty <b>", CONFIG, folder=folder)
    fitted = train.fit(model(), FEW, eval_data=TEST_DATA, config=CONFIG["fit"], run=run)
    return fitted, copies


@pytest.fixture(scope="module")
def page(run):
    return Page(run[0].folder / "report.html")


def test_needs_nothing_else(page):
    assert len(page.source) < 3_000_000
    assert not re.search(r"https?:|url\(|@import|javascript:", page.source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in ("style", "srcset")}
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.found("a")} <= ids


def test_policy(page):
    (policy,) = (meta["content"] for meta in page.found("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert "script-src" not in rules


def test_can_be_read_without_seeing_it(page):
    assert page.found("html") == [{"lang": "en"}]
    assert {"header", "nav", "main", "footer", "title"} <= {tag for tag, _ in page.tags}
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.found("img")) > 50
    assert all(image["alt"] for image in page.found("img"))
    assert all(cell["scope"] in ("row", "col") for cell in page.found("th"))
    assert "" not in page.tables
    for group in page.found("g"):
        assert group["tabindex"] == "0"
        assert re.fullmatch(r"epoch \d: training \S+, test \S+", group["aria-label"])
    assert len(page.found("g")) == 2 * 2  # epochs of loss and accuracy


def test_all_text_is_escaped(page):
    assert "<script" not in page.source
    assert "<b>" not in page.source
    assert NASTY[0] in page.text
    assert "nasty <b>" in page.text
    matrix = next(rows for caption, rows in page.tables.items() if caption.startswith("Confusion"))
    assert matrix[0][1:] == list(NASTY)
    assert any(NASTY[1] in image["alt"] for image in page.found("img"))


def test_curves_and_settings_are_those_of_the_run(run, page):
    records = run[0].history
    header, *rows = page.tables["Metrics after each epoch"]
    for record, row in zip(records, rows, strict=True):
        row = dict(zip(header, row, strict=True))
        assert int(row["epoch"]) == record["epoch"]
        assert row["test accuracy"] == f"{record['test']['accuracy']:.2%}"
        assert float(row["training loss"]) == pytest.approx(record["train"]["loss"], rel=1e-3)
    changed = {path: rest for path, *rest in page.tables["Settings that differ from the defaults of train.fit"][1:]}
    assert changed == {
        "fit.epochs": ["2", "10"],
        "fit.batch_size": ["60", "128"],
        "fit.checkpoint.keep": ["0", "3"],
        "fit.report": ["true", "false"],
    }
    assert ["fit.seed", "0"] in page.tables["Settings with default values"]
    assert ["jax", jax.__version__] in page.tables["Environment"]


def test_a_curve_lies_where_its_values_are(tmp_path):
    """Its vertices, from pixels back to values by the labels of the axis."""
    values = [0.9, 0.4, 0.25, 0.2]
    drawn = _chart.chart("loss", [1, 2, 3, 4], {"training": values, "test": [np.nan, 0.5, np.nan, 0.3]}, percent=False)
    labels = {float(y) - 4: float(value) for y, value in re.findall(r'y="([\d.]+)" class="end">([\d.]+)<', drawn)}
    assert len(labels) >= 4
    (training, test) = re.findall(r'<path d="([^"]*)" class="line \w+"', drawn)[2:]
    heights = [float(point.split()[1]) for point in re.split("[ML]", training)[1:]]
    np.testing.assert_allclose(np.polyval(np.polyfit([*labels], [*labels.values()], 1), heights), values, atol=2e-3)
    assert "L" not in test  # two points with a gap between them
    assert 'aria-label="epoch 3: training 0.25, test none"' in drawn


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.123, 0.1234), (5.0, 5.0), (0.0, 0.0), (1e-8, 3e4), (-3.0, 1.0)]
)
def test_ticks(low, high):
    ticks = _chart.axis_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 7
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_mistakes_are_the_models(run, page):
    fitted = run[0]
    logits, _ = model().apply(fitted.params, fitted.state, TEST_DATA.images / np.float32(255), train=False)
    guesses = np.asarray(logits.argmax(-1))
    expected = np.zeros((10, 10), int)
    for label, guess in zip(TEST_DATA.labels, guesses, strict=True):
        expected[label, guess] += 1
    caption = next(caption for caption in page.tables if caption.startswith("Confusion"))
    np.testing.assert_array_equal(page.numbers(caption), expected)
    right = fitted.history[-1]["test"]["accuracy"]
    assert f"classified {expected.trace()} of 200 images correctly ({right:.2%})" in page.text
    wrong = {i for i in range(200) if guesses[i] != TEST_DATA.labels[i]}
    told = {int(m[1]) for i in page.found("img") if (m := re.match(r"Image (\d+), .* misclassified as", i["alt"]))}
    assert len(told) == min(len(wrong), 12)
    assert told <= wrong


def test_the_convolution_adds_up(run, page):
    """By the numbers on the page alone, and against the same position computed with numpy."""
    patch, weights, products = (page.numbers(name) for name in ("Patch", "Weights", "Products"))
    assert patch.shape == (3, 3)
    np.testing.assert_allclose(products, patch * weights, atol=6e-4)
    total, bias, result, exact = map(
        float,
        re.search(
            r"9 products is (\S+)\. Adding the bias (\S+) gives (\S+)\. "
            r"Without this rounding, the network computes (\S+)\.",
            page.text.replace("\N{MINUS SIGN}", "-"),
        ).groups(),
    )
    assert total == pytest.approx(products.sum(), abs=1e-6)
    assert result == pytest.approx(total + bias, abs=1e-6)
    assert exact == pytest.approx(result, abs=0.02)
    channel, row, column = map(int, re.search(r"block/conv: channel (\d), row (\d+), column (\d+)", page.text).groups())
    first = TEST_DATA.images[FIRST[0], ..., 0] / 127.5 - 1
    own = run[0].params["block"]["conv"]
    rows = 2 * row - 1 + 2 * np.arange(3)
    columns = 2 * column - 1 + 2 * np.arange(3)
    np.testing.assert_allclose(patch, first[np.ix_(rows, columns)], atol=6e-4)
    np.testing.assert_allclose(weights, own["kernel"][..., 0, channel], atol=6e-4)
    assert exact == pytest.approx((patch * weights).sum() + float(own["bias"][channel]), abs=0.02)
    assert [name for name, *_ in page.tables["Patch"][1:]] == [str(i) for i in rows]
    assert f"block/act gives {max(exact, 0):.3f}." in page.text
    window = page.numbers("Window")
    assert window.shape == (2, 2)
    assert (
        f"The maximum is {window.max():.3f}. This is the output at row {row // 2}, column {column // 2}." in page.text
    )
    assert window[row % 2, column % 2] == pytest.approx(max(exact, 0), abs=1e-6)


def test_calibration(run, page):
    """The bars, from pixels back to accuracies, and the error, by a loop over the bins."""
    fitted = run[0]
    logits, _ = model().apply(fitted.params, fitted.state, TEST_DATA.images / np.float32(255), train=False)
    probabilities = np.asarray(jax.nn.softmax(logits))
    confidence, hits = probabilities.max(-1), probabilities.argmax(-1) == TEST_DATA.labels
    error, bars, gaps, texts = 0.0, [], [], []
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if not inside.any():
            continue
        accuracy, mean = hits[inside].mean(), confidence[inside].mean()
        error += abs(accuracy - mean) * inside.mean()
        bars.append([b / 15, accuracy])
        gaps.append([mean, accuracy, mean])
        texts.append(f"confidence {mean:.0%}, accuracy {accuracy:.0%} of {inside.sum()}")
    assert len(bars) >= 4
    assert f"expected calibration error: {error:.1%}." in page.text
    number = lambda mark, name: float(mark[name])
    x, y = (lambda value: (value - 48) / (292 - 48)), (lambda value: (252 - value) / (252 - 8))
    drawn = [rect for rect in page.found("rect") if rect.get("class") == "bar"]
    np.testing.assert_allclose([[x(number(bar, "x")), y(number(bar, "y"))] for bar in drawn], bars, atol=1e-3)
    np.testing.assert_allclose([number(bar, "height") / (252 - 8) for bar in drawn], [a for _, a in bars], atol=1e-3)
    drawn = [[x(number(g, "x1")), *(y(number(g, n)) for n in ("y1", "y2"))] for g in page.found("line") if is_gap(g)]
    np.testing.assert_allclose(drawn, gaps, atol=1e-3)
    assert "; ".join(texts) in [svg.get("aria-label") for svg in page.found("svg")]


def is_gap(line):
    return line.get("class") == "gap"


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("layer", "pool"),
    [
        (cnn.conv(4, 3, bias=False), cnn.avg_pool(3, stride=2)),
        (cnn.conv(4, (1, 2), padding="VALID"), cnn.max_pool(2, stride=1)),
    ],
)
def test_numbers_by_hand_of_other_layers(tmp_path, layer, pool):
    net = cnn.serial(conv=layer, pool=pool, flat=cnn.flatten, head=cnn.dense(10))
    words, arrays = gathered(tmp_path, net, channels=3)
    worked = words["worked"]
    assert np.sum(arrays["patch"] * arrays["weights"]) + worked["bias"] == pytest.approx(worked["value"], abs=1e-4)
    (i, j), window = worked["position"], arrays["window"]
    assert window[worked["pool"]["rows"].index(i), worked["pool"]["columns"].index(j)] == pytest.approx(worked["value"])
    reduce = {"largest": np.max, "mean": np.mean}[worked["pool"]["is"]]
    assert reduce(window) == pytest.approx(worked["pool"]["value"], abs=1e-4)
    assert len([caption for caption in Page(report.report(tmp_path)).tables if caption.startswith("Products")]) == 3


def test_what_is_not_the_sum_is_not_shown(tmp_path):
    net = cnn.serial(
        conv=cnn.weight_standardized(cnn.conv(4)), pool=cnn.max_pool(2), flat=cnn.flatten, head=cnn.dense(10)
    )
    words, _ = gathered(tmp_path, net)
    assert words["worked"] is None
    page = Page(report.report(tmp_path))
    assert "Filters of conv" in page.text
    assert "step by step" not in page.text


def new_run(folder, config=None):
    run = train.Run("test", config or {}, folder=folder)
    run.log("epoch 1", epoch=1, train={"loss": float("nan"), "accuracy": 0.5})
    return run


def gathered(folder, net, *, channels=1, classes=10, shape=None):
    """What is kept of a net with its initial values, on noise."""
    new_run(folder)
    rng = np.random.default_rng(0)
    x = rng.random((30, *(shape or (12, 12, channels))), np.float32)
    params, state = net.init(jax.random.key(0), x)
    report.gather(folder, net, params, state, {"image": x, "label": rng.integers(0, classes, 30)})
    with np.load(folder / "explain.npz") as arrays:
        return json.loads((folder / "explain.json").read_text()), dict(arrays)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (cnn.serial(cnn.flatten, cnn.dense(10)), (6, 6, 1)),
        (cnn.serial(cnn.conv(2), cnn.flatten, cnn.dense(10)), (8, 2)),
        (cnn.serial(cnn.dense(10)), (5,)),
        (cnn.as_layer(lambda x: x.reshape(len(x), -1)[:, :10]), (4, 4, 1)),
    ],
    ids=["dense", "1d", "vectors", "bare"],
)
def test_networks_with_less_to_see(tmp_path, net, shape):
    words, _ = gathered(tmp_path, net, shape=shape)
    assert words["maps"] == []
    page = Page(report.report(tmp_path))
    assert any(caption.startswith("Confusion") for caption in page.tables)
    assert ("Visualizations" in page.text) == (len(shape) == 3)


def test_values_that_are_not_finite(tmp_path):
    diverged = cnn.serial(double=lambda x: x * jnp.nan, conv=cnn.conv(4), flat=cnn.flatten, head=cnn.dense(10))
    words, _ = gathered(tmp_path, diverged)
    assert words["worked"] is None
    page = Page(report.report(tmp_path))
    assert page.tables["Metrics after each epoch"][1] == ["1", "not finite", "50.00%"]
    assert "expected calibration error: not finite." in page.text
    assert '"nan"' not in page.source


def test_many_classes_are_told_as_pairs(tmp_path):
    net = cnn.serial(cnn.flatten, cnn.dense(30))
    _, arrays = gathered(tmp_path, net, classes=30)
    rows = Page(report.report(tmp_path)).tables["Most frequent confusions"][1:]
    assert 0 < len(rows) <= 20
    for label, guess, count, _ in rows:
        assert arrays["matrix"][int(label), int(guess)] == int(count) > 0


def test_a_deep_network_is_shown_once_for_each_size(tmp_path):
    block = lambda width: cnn.serial(conv=cnn.conv(width), norm=cnn.batch_norm(), act=jax.nn.relu, more=cnn.conv(width))
    down = cnn.serial(inner=block(3), pool=cnn.max_pool(2))
    net = cnn.serial(a=block(1), down=down, c=cnn.residual(block(3)), d=block(3), pool=cnn.global_avg_pool)
    words, arrays = gathered(tmp_path, cnn.serial(net=net, head=cnn.dense(10)))
    assert words["maps"] == [["net/down/inner", "12 x 12 x 3"], ["net/d", "6 x 6 x 3"]]
    assert words["cam"] == "net/d"
    assert arrays["cam"].shape == (10, 12, 12)


@pytest.mark.slow
def test_a_stream_is_the_same_as_its_images(tmp_path):
    few = Dataset(DIGITS.images[:50], DIGITS.labels[:50], DIGITS.classes)

    def batches(step):
        while True:  # without end, as of an epoch of 3 batches, the last filled up
            at = np.arange(20 * (step % 3), 20 * (step % 3) + 20)
            there = at < 50
            rows = np.where(there, at, 0)
            yield {"image": few.images[rows], "label": few.labels[rows], "weight": there.astype(np.float32)}
            step += 1

    stream = Stream(batches, 3, jax.ShapeDtypeStruct((20, 28, 28, 1), np.uint8), few.classes)
    net = model()
    params, state = net.init(jax.random.key(0), few.images[:1] / np.float32(255))
    pages = []
    for name, source in {"stream": stream, "whole": few}.items():
        new_run(tmp_path / name / "run")
        report.gather(tmp_path / name / "run", net, params, state, source)
        pages.append(report.report(tmp_path / name / "run").read_bytes())
    assert pages[0] == pages[1]


def test_the_same_run_gives_the_same_page(run, tmp_path):
    folder = run[0].folder
    before = (folder / "report.html").read_bytes()
    shutil.copytree(folder, tmp_path / folder.name)
    assert report.report(str(tmp_path / folder.name)).read_bytes() == before
    assert report.report(folder).read_bytes() == before
    assert not list(folder.glob("*.part"))
    assert not list(folder.glob(".report*"))


def test_the_page_while_training_goes_on(run):
    _, copies = run
    assert len(copies) == 1  # when the second epoch is logged, the page of the first is there
    assert "Training is still running" in copies[0]
    assert "1 of 2" in copies[0]
    assert "analyzed when training ends" in copies[0]
    assert "Training is still running" not in (run[0].folder / "report.html").read_text()


def test_a_run_that_is_over_gets_its_page(tmp_path):
    """As its checkpoints do not say whether there is one."""
    pytest.importorskip("orbax.checkpoint")
    linear = cnn.serial(cnn.max_pool(4), cnn.flatten, cnn.dense(10))
    for wanted in (False, True):
        run = train.Run("test", {}, folder=tmp_path / "run")
        train.fit(linear, FEW, config={"epochs": 1, "report": wanted}, run=run)
        assert (run.folder / "report.html").exists() == wanted
    assert "of 300 images" in Page(run.folder / "report.html").text


def test_without_images(tmp_path):
    new_run(tmp_path)
    page = Page(report.report(tmp_path))
    assert "Call report.gather to analyze the network." in page.text
    assert page.found("img") == []
    assert "This run recorded no settings" in page.text
    assert Page(report.report(tmp_path, epochs=1)).text.count("Training is still running") == 0


def test_figures_of_the_folder(tmp_path):
    """In the order of their names, unchanged, each with its title; one with a script only as an image."""
    new_run(tmp_path)
    assert "Figures" not in Page(report.report(tmp_path)).text
    script = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
    titled = "<svg><title>Rates &lt;b&gt; &amp;\n &quot;decay&quot; \N{GREEK SMALL LETTER LAMDA}</title>"
    titled += "<title>no</title></svg>"
    files = {"b.svg": script, "a.svg": titled.encode(), "c.svg": b"\xff<title></title>", "d.png": b"none"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.svg").mkdir()
    os.mkfifo(tmp_path / "pipe.svg")  # a reader would wait for a writer
    page = Page(report.report(tmp_path))
    prefix = "data:image/svg+xml;base64,"
    assert [(i["alt"], base64.b64decode(i["src"].removeprefix(prefix))) for i in page.found("img")] == [
        ('Rates <b> & "decay" \N{GREEK SMALL LETTER LAMDA}', files["a.svg"]),
        ("b", script),
        ("c", files["c.svg"]),
    ]
    assert {"href": "#figures"} in page.found("a")
    assert 'Rates <b> & "decay"' in page.text
    test_needs_nothing_else(page)
    assert "<b>" not in page.source


def test_figures_of_matplotlib(tmp_path):
    pytest.importorskip("matplotlib")
    new_run(tmp_path)
    figure = explain.plot_images(DIGITS.images[:2])
    figure.savefig(tmp_path / "digits.svg", metadata={"Title": "Two digits"})
    report.add_images(tmp_path, "Figures", DIGITS.images[:1], ["a seven"])
    page = Page(report.report(tmp_path))
    assert [image["alt"] for image in page.found("img")] == ["Two digits", "a seven"]
    assert [link["href"] for link in page.found("a")] == [
        "#training",
        "#figures",
        "#the-network",
        "#figures-(added)",
        "#settings",
    ]


def test_long_runs_are_thinned(tmp_path):
    run = train.Run("test", {}, folder=tmp_path)
    for epoch in range(1, 302):
        run.records.append({"epoch": epoch, "train": {"loss": 1 / epoch}})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in run.records))
    page = Page(report.report(tmp_path))
    rows = page.tables["Metrics after each epoch"][1:]
    assert len(rows) == 200
    assert (rows[0][0], rows[-1][0]) == ("1", "301")
    assert "200 of 301 epochs are shown" in page.text
    assert len(page.found("g")) == 40


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", None, r"metrics\.jsonl: expected the records of a run"),
        (
            "metrics.jsonl",
            '{"epoch": 1}\n{"epo\n{"epoch": 3}\n',
            r"metrics\.jsonl: .*, line 2 is damaged",
        ),
        ("metrics.jsonl", "[1]\n", r"line 1 is damaged: expected a JSON object"),
        ("metrics.jsonl", b"\xff\xfe\n", r"metrics\.jsonl: expected the records"),
        ("config.json", None, r"run: expected the folder of a run, found no config\.json"),
        ("config.json", "{", r"config\.json: expected the JSON"),
        ("config.json", "{}", r"config\.json: expected experiment, config, versions and device"),
        ("explain.json", "{", r"explain\.json and explain\.npz cannot be read .* report\.gather again"),
        ("explain.npz", "no archive", r"cannot be read"),
        ("explain.npz", None, r"cannot be read"),
    ],
)
def test_damaged_files(run, tmp_path, name, content, message):
    folder = shutil.copytree(run[0].folder, tmp_path / "run")
    (folder / "report.html").unlink()
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message):
        report.report(folder)
    assert not list(folder.glob("report.html*"))


def test_a_last_record_that_was_cut_off_is_left_out(tmp_path):
    new_run(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "tra')
    assert len(Page(report.report(tmp_path)).tables["Metrics after each epoch"]) == 2


def test_images_are_what_pillow_reads():
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        pixels = rng.integers(0, 256, (5, 7, channels)).astype(np.uint8)
        with image.open(io.BytesIO(_page._png(pixels))) as file:
            np.testing.assert_array_equal(np.asarray(file).reshape(pixels.shape), pixels)


def shown(page, alt):
    """The images (H, W, channels) whose text begins so."""
    image = pytest.importorskip("PIL.Image")
    files = [i["src"].partition(",")[2] for i in page.found("img") if i["alt"].startswith(alt)]
    return [np.asarray(image.open(io.BytesIO(base64.b64decode(file))), int) for file in files]


def test_filters_are_orange_where_they_are_positive(run, page):
    kernels = explain.filters(run[0].params, "block/conv")[..., 0]
    images = shown(page, "Filter")
    assert len(images) == 6
    for kernel, pixels in zip(kernels, images, strict=True):
        redder = pixels[..., 0] - pixels[..., 2]
        np.testing.assert_allclose(redder / np.where(redder > 0, 213, 178), kernel / jnp.abs(kernels).max(), atol=0.01)


def test_maps_and_their_images(run, page):
    """The images are the first of their classes; a map is drawn from its layer's least to its largest value."""
    assert [f"Image of class {name}" in page.text for name in NASTY[:3]] == [True, True, False]
    x = TEST_DATA.images[FIRST[:2]]
    np.testing.assert_array_equal(np.stack(shown(page, "Input image")), x[..., 0])
    fitted = run[0]
    maps = explain.feature_maps(model(), fitted.params, fitted.state, x / np.float32(255), "block/pool")["block/pool"]
    drawn = np.stack(shown(page, "block/pool, channel")).reshape(2, 6, *maps.shape[1:3])
    low, high = (f(maps, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    expected = np.moveaxis(np.asarray(255 * (maps - low) / (high - low)), -1, 1)
    np.testing.assert_allclose(drawn, expected, atol=1.5)


def test_grad_cam_is_where_the_layer_sees_it(run, page):
    fitted, x = run[0], TEST_DATA.images[FIRST] / np.float32(255)
    maps = explain.grad_cam(model(), fitted.params, fitted.state, x, "block")
    maps = np.asarray(jax.image.resize(maps, x.shape[:3], "linear"))
    over = shown(page, "Grad-CAM for")
    assert len(over) == 10
    for cam, pixels in zip(maps, over, strict=True):
        # Gray has no hue: red less blue is 0.85 times the map divided by its maximum, times what is not already gray.
        orange = (pixels[..., 0] - pixels[..., 2]) / 213
        np.testing.assert_allclose(orange, 0.85 * cam / max(cam.max(), 1e-9), atol=0.01)


def test_the_frame_is_around_the_patch():
    pixels = np.zeros((6, 7, 1))
    large = _by_hand.framed(pixels, [1, 3], [2, 3, 4])
    assert large.shape == (48, 56, 3)
    line = large.any(-1)
    outside = np.ones_like(line)
    outside[8:32, 16:40] = False
    assert not line[outside].any()
    assert not line[10:30, 18:38].any()
    assert line.sum() == 24 * 24 - 20 * 20


@pytest.mark.slow
def test_an_experiment_writes_it(tmp_path):
    mnist_lenet.main(override(mnist_lenet.CONFIG, ["train.report=true", "train.epochs=1", f"runs={tmp_path}"]))
    page = Page(next(tmp_path.glob("*/report.html")))
    assert "Filters of conv1" in page.text
    assert ["train.optimizer.learning_rate", "0.003"] in page.tables["All settings"]
    assert page.tables["Layers: output shape, receptive field, parameters, and multiply-adds per example"][1] == [
        "conv1",
        "28 x 28 x 6",
        "5 x 5",
        "156",
        "117,600",
    ]
