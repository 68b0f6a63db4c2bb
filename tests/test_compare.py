"""The page that compares runs, and the command that writes it."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from jaxcnn import dense, report, train
from jaxcnn.data import DataError
from jaxcnn.report import _compare
from jaxcnn.report.__main__ import main
from tests import test_report
from tests.test_report import Page

NASTY = '<b>"&'


def record(epoch, loss, accuracy=None, **test):
    metrics = {"loss": loss} | ({} if accuracy is None else {"accuracy": accuracy})
    return {"epoch": epoch, "seconds": 10.0 * epoch, "train": {"loss": loss}, "test": metrics | test}


def new_run(folder, config, records, *, name="test", device=None, **versions):
    """A run with these records, on another device or with other versions."""
    run = train.Run(name, config, folder=folder)
    for entry in records:
        run.log("", **entry)
    (folder / "metrics.jsonl").touch()  # if there is no record
    about = json.loads((folder / "config.json").read_text())
    about |= {"versions": about["versions"] | versions} | ({"device": device} if device else {})
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def folders(tmp_path):
    a = {"data": {"name": "mnist"}, "train": train.FIT, "only a": 1}
    b = a | {"train": train.FIT | {"epochs": 3, "augment": [["flip"]]}, "only b": NASTY}
    del b["only a"]
    return [
        new_run(tmp_path / "a", a, [record(1, 1.0, 0.5), record(2, 0.5, 0.9), record(3, 0.25, 0.75)], jax="0.10.2"),
        new_run(tmp_path / NASTY, b, [record(1, 2.0, 0.25), record(2, None, 0.5)], jax="0.11.0", device="GPU"),
    ]


@pytest.fixture
def page(folders, tmp_path):
    path = report.compare(folders, tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    return Page(path)


def test_only_settings_that_differ(page):
    header, *rows = page.tables["Settings that differ"]
    assert header == ["setting", "a", NASTY]
    assert rows == [
        ["train.epochs", "10", "3"],
        ["train.augment", "[]", '[["flip"]]'],
        ["only a", "1", "(none)"],
        ["only b", "(none)", NASTY],
    ]


def test_sections_are_in_order(page):
    assert [link["href"] for link in page.found("a")] == [
        "#settings",
        "#metrics",
        "#curves",
        "#versions-and-hardware",
    ]


def test_last_and_best_metrics(page):
    header, *rows = page.tables["Metrics of each run"]
    rows = [dict(zip(header, row, strict=True)) for row in rows]
    a, b = rows
    assert a == {
        "run": "a",
        "epochs": "3",
        "best epoch": "2",
        "test accuracy, last": "75.00%",
        "test accuracy, best epoch": "90.00%",
        "test loss, last": "0.25",
        "test loss, best epoch": "0.5",
        "time": "30.0 s",
    }
    assert b["run"] == NASTY
    assert (b["best epoch"], b["test accuracy, best epoch"]) == ("1", "25.00%")  # the loss of epoch 2 is not finite
    assert (b["epochs"], b["test loss, last"], b["test accuracy, last"]) == ("2", "not finite", "50.00%")


@pytest.mark.parametrize(
    ("watch", "history", "epoch"),
    [
        ("", [record(1, 2.0), record(2, 1.0), record(3, 1.5)], 2),
        ("", [record(1, 2.0, 0.5), record(2, 1.0, 0.5)], 1),  # the first of equals
        ("iou", [record(1, 1.0, iou=0.25), record(2, 2.0, iou=0.5)], 2),
        ("-error", [record(1, 1.0, error=3.0), record(2, 2.0, error=4.0)], 1),
        ("missing", [record(1, 1.0)], None),
        ("matrix", [record(1, 1.0, matrix=[[1]])], None),
        ("", [{"epoch": 1, "train": {"loss": 1.0}}], None),
        ("", [{"epoch": 1, "test": {"accuracy": 0.5}}, {"epoch": 2, "test": {"accuracy": 0.75}}], 2),
        ("", [], None),
    ],
)
def test_best_epoch(watch, history, epoch):
    assert _compare._best_record(history, watch).get("epoch") == epoch


def test_best_epoch_is_that_of_fit(tmp_path):
    x = np.random.default_rng(0).random((64, 5), np.float32)
    y = (x.sum(1) > 2.5).astype(np.int32)
    model = dense(2)
    folders, best = [], []
    for rate in (0.1, 3.0):
        config = {"epochs": 5, "batch_size": 8, "optimizer": {"learning_rate": rate}, "watch": "-loss"}
        run = train.Run("fit", train.resolve(config), folder=tmp_path / str(rate))
        result = train.fit(model, (x, y), eval_data=(x[:20], y[:20]), config=config, run=run)
        folders.append(result.folder)
        best.append(result.best)
    header, *rows = Page(report.compare(folders, tmp_path / "page.html")).tables["Metrics of each run"]
    for row, expected in zip(rows, best, strict=True):
        row = dict(zip(header, row, strict=True))
        assert int(row["best epoch"]) == expected.epoch
        assert float(row["test loss, best epoch"]) == pytest.approx(expected.metrics["loss"], rel=1e-3)


def test_shared_charts(page):
    """One chart per metric with a curve for each run, from pixels back to values by the labels of the axis."""
    charts = page.source.split('<figure class="chart">')[1:]
    titles = [re.search(r"<strong>(.*?)</strong>", chart)[1] for chart in charts]
    assert titles == ["test accuracy", "test loss", "training loss"]
    labels = {float(y) - 4: float(v) for y, v in re.findall(r'y="([\d.]+)" class="end">([\d.]+)<', charts[1])}
    paths = re.findall(r'<path d="([^"]*)" fill="none" stroke="(#\w+)"', charts[1])
    assert len({color for _, color in paths}) == 2
    b, a = ([float(point.split()[1]) for point in re.split("[ML]", data)[1:]] for data, _ in paths)
    line = np.polyfit([*labels], [*labels.values()], 1)
    np.testing.assert_allclose(np.polyval(line, a), [1, 0.5, 0.25], atol=0.02)
    np.testing.assert_allclose(np.polyval(line, b), [2], atol=0.02)  # a gap at the value that is not finite
    chart_label = "test accuracy per epoch of 2 runs; at the end: a 75.00%, "
    assert any(mark.get("aria-label", "").startswith(chart_label) for mark in page.found("svg"))
    fills = [rect["fill"] for rect in page.found("rect")]
    assert fills[-2:] == [color for _, color in reversed(paths)]  # the legend


def test_versions_and_hardware(page):
    header, *rows = page.tables["Versions and devices that differ"]
    assert header == ["component", "a", NASTY]
    assert [row[0] for row in rows] == ["device", "jax"]
    assert rows[0][2] == "GPU"
    assert rows[1] == ["jax", "0.10.2", "0.11.0"]
    equal = [row[0] for row in page.tables["Equal in all runs"][1:]]
    assert "numpy" in equal
    assert "jax" not in equal


def test_page_is_closed_and_escaped(page):
    test_report.test_needs_nothing_else(page)
    assert "<b>" not in page.source
    assert all(cell["scope"] in ("row", "col") for cell in page.found("th"))


def test_equal_runs(tmp_path):
    folders = [new_run(tmp_path / name / "run", {}, [record(1, 1.0)]) for name in "ab"]
    page = Page(report.compare(folders, tmp_path / "page.html"))
    assert "All settings are equal." in page.text
    assert "All runs used the same device and versions." in page.text
    rows = page.tables["Metrics of each run"][1:]
    assert [row[0] for row in rows] == [str(folder) for folder in folders]  # the names of the folders are equal
    assert len(page.found("circle")) == 2 * 2  # the only epoch is a dot


def test_runs_without_metrics_or_evaluation(tmp_path):
    empty = new_run(tmp_path / "empty", {}, [])
    bare = new_run(tmp_path / "bare", {}, [{"epoch": 1, "train": {"loss": 0.5, "vector": [1, 2]}}])
    page = Page(report.compare([empty, bare], tmp_path / "page.html"))
    assert page.tables["Metrics of each run"] == [
        ["run", "epochs", "training loss, last", "time"],
        ["empty", "0", "", ""],
        ["bare", "1", "0.5", ""],
    ]
    page = Page(report.compare([empty, empty], tmp_path / "page.html"))
    assert "No epoch has been recorded yet." in page.text


def test_the_best_run_of_a_sweep_is_compared(tmp_path):
    sweep = train.Run("sweep", {"epochs": 2}, folder=tmp_path / "sweep")
    for step, (rate, losses) in enumerate({0.1: (3.0, 2.0), 0.2: (3.0, 1.0), 0.3: (4.0, 4.0)}.items(), 1):
        history = [record(epoch, loss) for epoch, loss in enumerate(losses, 1)]
        sweep.log("", step=step, settings={"rate": rate}, history=history, nonfinite_step=None, watch="")
    other = new_run(tmp_path / "other", {"epochs": 2}, [record(1, 0.5)])
    page = Page(report.compare([sweep.folder, other], tmp_path / "page.html"))
    header, *rows = page.tables["Metrics of each run"]
    assert dict(zip(header, rows[0], strict=True))["test loss, last"] == "1"
    assert ["rate (best run)", "0.2", "(none)"] in page.tables["Settings that differ"]


def test_sweeps_without_a_finite_run_are_errors(tmp_path):
    sweep = train.Run("sweep", {}, folder=tmp_path / "sweep")
    sweep.log("", step=1, settings={"rate": 1}, history=[record(1, None)], nonfinite_step=3, watch="")
    with pytest.raises(DataError, match="sweep: no run of the sweep has a finite metric"):
        report.compare([sweep.folder, sweep.folder], tmp_path / "page.html")


def test_errors(folders, tmp_path):
    with pytest.raises(ValueError, match=r"at least two run folders, got 1; report\.report writes"):
        report.compare(folders[:1])
    with pytest.raises(TypeError, match=r"folders must be a list of run folders, got 'runs/a'; use report\.report"):
        report.compare("runs/a")
    (tmp_path / "no run").mkdir()
    for folder in (tmp_path / "no run", tmp_path / "missing"):
        with pytest.raises(DataError, match=rf"{folder}: expected the folder of a run, found no config.json"):
            report.compare([folders[0], folder], tmp_path / "page.html")
    (folders[1] / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl: expected the records of a run, line 2 is damaged"):
        report.compare(folders, tmp_path / "page.html")
    (folders[1] / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match=r"metrics\.jsonl: expected the records of a run, but the file does not exist"):
        report.compare(folders, tmp_path / "page.html")
    assert not list(tmp_path.glob("*.html"))


# The command


def command(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "jaxcnn.report", *arguments], cwd=folder, capture_output=True, text=True
    )


def test_command(folders, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    monkeypatch.chdir(tmp_path)
    assert run(folders[0]) == (0, f"{folders[0] / 'report.html'}\n", "")
    assert run(*folders) == (0, "comparison.html\n", "")
    assert pathlib.Path("comparison.html").read_text() == report.compare(folders, "other.html").read_text()
    assert run(*folders, "--path", "ab.html") == (0, "ab.html\n", "")
    status, _, error = run("missing", folders[0])
    assert status == 2
    assert error == "error: missing: expected the folder of a run, found no config.json, which train.Run writes\n"
    status, _, error = run(*folders, "--path", "missing/ab.html")
    assert status == 2
    assert error.startswith("error: [Errno 2]")
    status, _, error = run(folders[0], "--path", "ab.html")
    assert status == 2
    assert "--path is for several runs" in error
    assert run()[0] == 2
    status, out, _ = run("--help")
    assert status == 0
    assert "python -m jaxcnn.report runs/a runs/b" in out


@pytest.mark.slow
def test_command_in_a_process(folders, tmp_path):
    done = command(*map(str, folders), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "comparison.html\n", "")
