"""Benchmarked operations equal `lax`, networks have the expected size, and pages match the result files."""

import functools
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar10_speedrun, mnist_speedrun
from experiments.benchmarks import (
    _measure,
    _networks,
    _result_records,
    _speed_records,
    ablations,
    compilation,
    many_runs,
    nets,
    ops,
    records,
    seeds,
    spread,
    sweep,
    vmap,
)
from experiments.benchmarks import cifar10_speedrun as cifar10_benchmark
from experiments.benchmarks import onnx as onnx_benchmark
from experiments.benchmarks._tasks import TASKS
from jaxcnn import dense, flatten, serial
from jaxcnn.data import Dataset
from jaxcnn.models import MODELS
from jaxcnn.train import override

PARAMETERS = {
    "lenet5": 61_706,
    "small": 50_186,
    "resnet20": 272_474,
    "mobilenet": 136_778,
    "convnext": 559_626,
    "vgg": 2_197_706,
    "resnet18": 11_181_642,
    "resnet50": 25_557_032,
    "convnext_tiny": 28_582_504,  # torchvision's 28,589,128 without the scales of the branches
    "densenet121": 7_978_856,
    "efficientnet_b0": 5_288_548,
}


@pytest.mark.sample(6)
@pytest.mark.parametrize("case", ops.CASES, ids=lambda case: case.name)
@pytest.mark.usefixtures("quick_compilation")
def test_operation_equals_lax(case):
    case = case._replace(batch=2, spatial=tuple(min(n, 9) for n in case.spatial))
    args = ops.inputs(case)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(function, *args):
        y, back = jax.vjp(function, *args)
        return y, *back(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    results = (value_and_gradients(function, *args) for function in (ops.ours(case), ops.plain(case)))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


def test_parameter_counts_of_networks():
    sizes = {}
    for name, net in compilation.NETWORKS.items():
        model, _, batch = _networks.jaxcnn_parts(net._replace(batch=1))
        params, _ = jax.eval_shape(model.init, jax.random.key(0), batch["image"])
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sizes == PARAMETERS


def test_random_operations_cover_all_kinds_and_are_bounded():
    rng = np.random.default_rng(0)
    cases = [sweep.draw(rng) for _ in range(200)]
    kinds = {case.name.split(" (")[0] for case in cases}
    assert kinds == {"conv", "depthwise", "grouped", "transposed", "max pool", "mean pool", "batch norm"}
    assert all(1e4 <= np.prod((case.batch, *case.spatial, case.channels)) <= 8e6 for case in cases)
    assert len(set(cases)) > 190


def test_ratio_is_against_the_fastest():
    turn_times = {"ours": [2.0, 2.0, 9.0], "slow": [8.0, 8.0, 8.0], "fast": [1.0, 1.0, 1.0]}
    assert _measure.ratio(turn_times, "ours", ["slow", "fast"]) == 2


@pytest.mark.slow
def test_measure_network(capsys):
    table = _measure.Table(("net", 9), ("kind", 6), "jaxcnn", "torch", ("best of torch", 27), *nets.NUMBERS)
    tiny = _networks.NETWORKS["lenet5"]._replace(batch=2)
    built = _networks.build(tiny, ["jaxcnn", "stax"])
    calls = {name: contender.train for name, contender in built.items()}
    timings, turn_times = _measure.compare(calls, turns=1, seconds=0.001)
    assert all(timing.median > 0 for timing in timings.values())
    nets._print_row(table, {"net": "lenet5", "kind": "train"}, turn_times, 1e3)
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.slow
def test_measure_onnx(capsys, monkeypatch):
    monkeypatch.setattr(onnx_benchmark, "BATCHES", (1, 2))
    table = _measure.Table(("ms per batch", 18), "batch", "jaxcnn", "onnxruntime", "ratio", "nodes", "PyTorch")
    first, second = onnx_benchmark.measure("lenet5", 1, 0.001, table)
    assert [first["batch"], second["batch"]] == [1, 2]
    assert first["seconds"].keys() == {"jaxcnn", "onnxruntime"}
    assert all(timing["median"] > 0 for timing in first["seconds"].values())
    assert first["nodes"] == 13
    assert first["torch_nodes"] in (None, 12)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_onnx_benchmark_rejects_different_results():
    pair = onnx_benchmark.Pair(jnp.sin, types.SimpleNamespace(run=lambda _, feed: [np.cos(feed["x"])]), 1)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        onnx_benchmark.calls(pair, np.ones((1, 2), np.float32))


def test_onnx_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _result_records.onnx_speed() == _result_records.onnx_zoo() == ""
    versions = {"jax": "0.10", "onnx": "1.2", "onnxruntime": "1.3"}
    machine = {"cores": 2, "device": "Some CPU", "date": "2026-01-02", "versions": versions}
    ours = {"median": 0.0123, "low": 0.012, "high": 0.0131, "turns": [0.0123, 0.0123, 0.0123]}
    theirs = {"median": 0.25, "low": 0.2, "high": 1.5, "turns": [0.0246, 0.25, 1.5]}
    row = {"net": "unet", "batch": 8, "shape": [128, 128, 1], "nodes": 51, "torch_nodes": None}
    row["seconds"] = {"jaxcnn": ours, "onnxruntime": theirs}
    zoo = {"model": "lenet5", "shape": [2, 28, 28, 1], "difference": 4.3e-7, "nodes": 13, "bytes": 246_840}
    for name, saved in (("onnx", row), ("onnx_zoo", zoo)):
        text = json.dumps({"machine": machine, "rows": [saved]})
        (tmp_path / "results" / f"{name}-cpu.json").write_text(text)
    cells = "unet | 8x128x128x1 | 12.3 (12.0 to 13.1) | 250 (200 to 1500) | 20.33 | 51 | -"
    assert f"| {cells} |\n" in _result_records.onnx_speed()
    assert "2 cores of Some CPU with jax 0.10, onnxruntime 1.3, 2026-01-02" in _result_records.onnx_speed()
    assert "| lenet5 | 2x28x28x1 | 4.3e-07 | 13 | 0.2 |\n" in _result_records.onnx_zoo()
    assert f"## ONNX exports of 1 of {len(MODELS)} models" in _result_records.onnx_zoo()


TINY = _networks.Network(
    (6, 6, 2),
    3,
    (
        *(_networks.Conv(4, bias=False), _networks.Norm(), _networks.Relu(), _networks.MaxPool(2, 2)),
        *(_networks.Conv(4, groups=4), _networks.GlobalAvgPool(), _networks.Dense(10)),
    ),
)


@pytest.mark.parametrize("framework", vmap.FRAMEWORKS)
@pytest.mark.parametrize(
    "kind", ["infer", pytest.param("train", marks=pytest.mark.slow), pytest.param("examples", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # PyTorch has no batching rule for this batch norm
@pytest.mark.usefixtures("quick_compilation")
def test_several_networks_equal_each_network(framework, kind):
    if not _measure.installed(framework):
        pytest.skip(f"{framework} is not installed")
    models = 1 if kind == "examples" else 2
    contender = vmap.create(framework, TINY, kind, models)
    assert contender.parameters == 72 + 8 + 40 + 50
    vmap.check({framework: contender}, kind)
    results = contender.loop()
    assert len(results) == models
    shapes = {array.shape for array in vmap._arrays(results[0])}
    assert (3, 10) in shapes if kind == "infer" else {(4,), (10,)} < shapes


def test_check_of_vmap_finds_differences():
    ours = vmap.Contender(3, lambda: [jnp.array([[1.0, 2.0], [3.0, 4.0]])], lambda: [[jnp.array([1.0, 2.0])]] * 2)
    with pytest.raises(ValueError, match=r"jaxcnn, train: vmap and loop differ by 0\.\d+ of the norm"):
        vmap.check({"jaxcnn": ours}, "train")
    with pytest.raises(ValueError, match="jaxcnn, infer: vmap and loop differ by nan"):
        vmap.check({"jaxcnn": ours._replace(vmap=lambda: [jnp.full((2, 2), jnp.nan)])}, "infer")
    vmap.check({"jaxcnn": ours._replace(loop=lambda: [[jnp.array([2.0, 3.0])]])}, "examples")
    with pytest.raises(ValueError, match=r"different parameter counts: \{'jaxcnn': 3, 'flax': 4\}"):
        vmap.check({"jaxcnn": ours, "flax": ours._replace(parameters=4)}, "train")


def test_vmap_benchmark_leaves_out_slow_calls_and_large_work(monkeypatch, capsys):
    """The loop of Flax takes 50 ms per model, more than 0.3 s for 8 models. 32 models need too much memory."""
    monkeypatch.setattr(vmap, "training_memory", lambda net: 1e9)
    monkeypatch.setattr(vmap, "BYTES", 31e9)
    monkeypatch.setattr(vmap, "SECONDS", 0.3)

    def create(framework, net, kind, models):
        slow = 0.05 if framework == "flax" else 0.002
        return vmap.Contender(5, lambda: time.sleep(0.001 * models), lambda: time.sleep(slow * models))

    monkeypatch.setattr(vmap, "create", create)
    monkeypatch.setattr(vmap, "check", lambda contenders, kind: None)
    rows = vmap.measure_network("lenet5", ["jaxcnn", "flax"], 1, vmap._table())
    calls = {(row["kind"], row["models"]): {*row["seconds"]} for row in rows}
    both, others = {"jaxcnn vmap", "jaxcnn loop", "flax vmap", "flax loop"}, {"jaxcnn vmap", "jaxcnn loop", "flax vmap"}
    work = [(kind, models) for kind in ("train", "infer") for models in (1, 2, 8)]
    expected = {(kind, models): others if models == 8 else both for kind, models in work}
    assert calls == expected | {("examples", 1): {name.replace("loop", "batch") for name in both}}
    assert rows[1]["ratio"]["flax"] < 0.5
    assert [{*row["ratio"]} for row in rows if row["models"] == 8] == [{"jaxcnn"}] * 2
    assert "skipping train of 32 lenet5: more than 31 GB" in capsys.readouterr().out


def test_select_names():
    assert _measure.select_names([], _networks.NETWORKS) == list(_networks.NETWORKS)
    assert _measure.select_names(["vgg", "lenet5"], _networks.NETWORKS) == ["vgg", "lenet5"]
    with pytest.raises(SystemExit, match="unknown: lenet6, vvg; expected one of: lenet5, small, "):
        _measure.select_names(["vvg", "lenet5", "lenet6"], _networks.NETWORKS)


def test_failed_process_reports_its_output():
    assert _measure.run_python("-c", "print(6 * 7)") == "42\n"
    with pytest.raises(SystemExit, match=r"failed with exit code 1:\nbefore\n(.*\n)*ValueError: no digits"):
        _measure.run_python("-c", "print('before', flush=True); raise ValueError('no digits')")


def test_spread_is_the_fraction_of_the_processes_near_the_median():
    assert spread.within([1.0, 1.0, 1.09, 0.91, 1.2]) == 0.8
    assert spread.within([2.0] * 20) == 1


@pytest.mark.parametrize("experiment", [mnist_speedrun, cifar10_speedrun])
def test_ablations_have_distinct_settings(experiment):
    name = experiment.__name__.rpartition(".")[2]
    configs = [override(experiment.CONFIG, settings) for settings in ablations.TRICKS[name].values()]
    assert configs[0] == experiment.CONFIG
    assert all(a != b for i, a in enumerate(configs) for b in configs[:i])


def test_cifar10_benchmark_requires_all_tricks():
    with pytest.raises(SystemExit, match=r"all tricks: .*dirac=true"):
        cifar10_benchmark.main(["dirac=false"])


def test_record_of_cifar10():
    rows = [
        {"contender": "jaxcnn", "accuracies": [0.94, 0.942], "seconds": [2.5, 2.7]},
        {"contender": "PyTorch", "accuracies": [0.94, 0.94], "seconds": [3.0, 3.0]},
    ]
    record = next(record for record in records.RECORDS if record.file == "cifar10_speedrun-gpu")
    assert record.results(rows) == (
        "2.600 ± 0.141 s, 94.10 % ± 0.14 (2 runs)",
        "3.000 ± 0.000 s, 94.00 % ± 0.00 (2 runs)",
    )


def test_every_network_has_a_title():
    assert compilation.NETWORKS.keys() <= _speed_records.TITLES.keys()


def test_pages_match_result_files():
    assert records.README.read_text() == records.page()
    root = _measure.FOLDER.parent.parent
    speed = (root / "docs" / "speed.md").read_text()
    networks = map(_speed_records.network_table, (_speed_records.NEWEST, _speed_records.FOR_PYTHON_311))
    tables = (*networks, _speed_records.ratio_table(), *_speed_records.vmap_tables("cpu")[:1])
    assert all(table in speed for table in tables)
    assert _speed_records.short_network_table() in (root / "README.md").read_text()


def test_table_of_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _result_records.tasks() == ""
    figures = {"network": [20.0, 21.0], "noisy": [9.0, 9.0], "gaussian filter": [16, 16], "median filter": [14, 14]}
    measured = {"machine": {"date": "2026-01-02"}, "rows": [{"figures": figures, "seconds": [1.0, 1.0]}]}
    (tmp_path / "results" / "seeds_autoencoder-cpu.json").write_text(json.dumps(measured))
    (row,) = [line for line in _result_records.tasks().splitlines() if "autoencoder" in line]
    assert row == (
        "| `autoencoder` | PSNR in dB: 20.50 ± 0.71 | Gaussian filter: 16.00 ± 0.00; median filter: 14.00 ± 0.00; "
        "noisy: 9.00 ± 0.00 | 2 | 2026-01-02 |"
    )


def test_record_of_result_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    speedrun = records.RECORDS[0]
    assert records.line(speedrun).split(" | ")[1] == "not measured"
    runs = {"jaxcnn, empty compilation cache": [[0.99, 7.0], [0.992, 9.0]], "PyTorch": [[0.991, 5.0], [0.991, 5.0]]}
    rows = [{"contender": name, "runs": values} for name, values in runs.items()]
    machine = {"cores": 2, "device": "Some CPU", "date": "2026-01-02", "python": "3.11", "versions": {"jax": "0.10"}}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mnist_speedrun-cpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    assert records.line(speedrun).split(" | ")[1:] == [
        "empty compilation cache: 8.0 ± 1.4 s, 99.10 % ± 0.14 (2 runs)",
        "5.0 ± 0.0 s, 99.10 % ± 0.00 (2 runs)",
        "`python -m experiments.benchmarks.mnist_speedrun`",
        "2 cores of Some CPU",
        "Python 3.11, jax 0.10",
        "2026-01-02 |\n",
    ]


def test_vmap_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _speed_records.vmap_tables("cpu") == []
    assert _speed_records.many_networks("cpu") == ""

    def row(kind, models, ratio, **milliseconds):
        seconds = {name.replace("_", " "): {"median": value / 1e3} for name, value in milliseconds.items()}
        return {"net": "lenet5", "batch": 32, "models": models, "kind": kind, "seconds": seconds, "ratio": ratio}

    rows = [
        row("train", 2, {"jaxcnn": 0.5}, jaxcnn_vmap=3, jaxcnn_loop=6, torch_vmap=30, torch_loop=8, flax_vmap=123.4),
        row("infer", 2, {"jaxcnn": 0.75}, jaxcnn_vmap=1.5, jaxcnn_loop=2, equinox_vmap=7),
        row("examples", 1, {"jaxcnn": 1.25}, jaxcnn_vmap=5, jaxcnn_batch=4, torch_vmap=3, torch_batch=2),
    ]
    (tmp_path / "results" / "vmap-cpu.json").write_text(json.dumps({"rows": rows}))
    several, single = (table.splitlines() for table in _speed_records.vmap_tables("cpu"))
    assert several[2:] == [
        "| LeNet-5, 32 | 2 | **3.0** | 6.0 | 0.50 | 30 | 8.0 | 123 | - | **1.5** | 2.0 | 0.75 | - | - | - | 7.0 |"
    ]
    assert single[2:] == ["| LeNet-5, 32 | **5.0** | 4.0 | 1.25 | 3.0 | 2.0 | - | - |"]
    assert all(len({line.count("|") for line in table}) == 1 for table in (several, single))
    section = _speed_records.many_networks("cpu")
    assert section.startswith("\n## Many networks in one program, on a CPU\n\n")
    assert "\n\n".join(["", "\n".join(several), "Gradients of one model"]) in section
    assert section.endswith("\n".join(["", "", *single, ""]))


@pytest.mark.slow
def test_measure_many_runs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 128).astype(np.int32)
    images = (rng.integers(0, 99, (128, 4, 4, 1)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    digits = Dataset(images, labels, ("0", "1"))
    row = many_runs.compare(serial(flatten, dense(2)), digits, digits, runs=4, sample=2, epochs=2)
    assert (row["runs"], row["sample"], row["epochs"], row["images"]) == (4, 2, 2, 128)
    for times in (row["sweep"], row["fit"], *row["fits"]):
        assert 0 < times["compilation"] < times["total"]
    for key in ("total", "compilation"):
        assert row["fit"][key] == pytest.approx(2 * sum(times[key] for times in row["fits"]))
    assert row["accuracy"]["sweep"] == pytest.approx(row["accuracy"]["fit"])


def test_length_of_intervals():
    assert many_runs.length([]) == 0
    assert many_runs.length([(5, 6), (0, 3), (1, 2), (2, 4)]) == 5


def test_section_on_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _speed_records.sweeps("cpu") == ""
    row = {"net": "lenet5", "runs": 100, "sample": 5, "epochs": 3, "images": 8000}
    row |= {"sweep": {"total": 100.0, "compilation": 10.0}, "fit": {"total": 500.0, "compilation": 320.0}}
    machine = {"cores": 2, "device": "Some CPU", "date": "2026-01-02", "versions": {"jax": "0.10"}}
    (tmp_path / "results" / "many_runs-cpu.json").write_text(json.dumps({"machine": machine, "rows": [row]}))
    text = _speed_records.sweeps("cpu")
    assert "100 seeds of LeNet-5, 3 epochs of 8,000 images, on 2 cores of Some CPU with jax 0.10, 2026-01-02." in text
    assert "5 of the consecutive runs were measured, and their time was scaled to 100." in text
    assert text.endswith("| with compilation | 100 | 500 | 5.0 |\n| without compilation | 90 | 180 | 2.0 |\n")


def test_signal_table(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    rows = [{"experiment": "signals/GunPoint/resnet1d", "figures": {"test error": [0.0, 0.02]}}]
    (tmp_path / "results" / "signals-cpu.json").write_text(json.dumps({"rows": rows}))
    table = _result_records.signal_table()
    assert "| GunPoint | resnet1d | 1.00 % ± 1.41 | 0.7 % | 2 |\n" in table
    assert "| OSULeaf | inception_time | not measured |  |  |\n" in table
    assert table.count("not measured") == 14


def test_results_of_a_group_are_in_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    monkeypatch.setattr(seeds, "measure", lambda label, extra: {"experiment": label, "figures": {}, "seconds": [1.0]})
    for labels in (["signals/GunPoint/fcn1d", "mnist_cnn"], ["signals/OSULeaf/fcn1d", "signals/GunPoint/fcn1d"]):
        seeds.main(labels)
    saved = {path.stem: json.loads(path.read_text())["rows"] for path in (tmp_path / "results").iterdir()}
    names = {stem: [row["experiment"] for row in rows] for stem, rows in saved.items()}
    assert names == {
        "seeds_mnist_cnn-cpu": ["mnist_cnn"],
        "signals-cpu": ["signals/OSULeaf/fcn1d", "signals/GunPoint/fcn1d"],
    }


@pytest.mark.parametrize(
    ("backend", "release", "name"),
    [
        ("cpu", _measure.RELEASE, "ops-cpu.json"),
        ("cpu", (0, 12), "ops-cpu-jax0.12.json"),
        ("gpu", (0, 12), "ops-gpu.json"),
    ],
)
def test_results_of_another_release_are_in_another_file(monkeypatch, backend, release, name):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "__version_info__", (*release, 1))
    assert _measure.results_path("ops").name == name


def test_sections_on_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _speed_records.operations() == _speed_records.random_operations() == ""
    machine = {"cores": 2, "device": "Some CPU", "date": "2026-01-02", "versions": {"jax": "0.12.3"}}
    times = {"jaxcnn": [2.0, 1, 3], "torch": [5.0, 4, 6], "torch channels_last": [4.0, 3, 5], "lax": [12.4, 9, 14]}
    rows = [{"case": "3x3", "kind": kind, "milliseconds": times} for kind in ("forward", "dw")]
    rows.append({"case": "pool", "kind": "forward + dx", "milliseconds": {"jaxcnn": [1.0, 1, 1], "lax": [2.0, 2, 2]}})
    (tmp_path / "results" / "ops-cpu-jax0.12.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    text = _speed_records.operations()
    assert text.startswith("\n## Operations, on a CPU with jax 0.12.3\n\n")
    assert "\n| 3x3 | **2.0** (4.0, 12) | - | **2.0** (4.0, 12) | - |\n" in text
    assert text.endswith("\n| pool | - | - | - | **1.0** (-, 2.0) |\n")
    rows = [
        {"case": case, "kind": "dx", "ratios": {"lax": ratio, "lax, same options": 2 * ratio}}
        for case, ratio in (("first", 0.25), ("second", 1.0))
    ]
    (tmp_path / "results" / "sweep-cpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    assert _speed_records.random_operations().splitlines()[-2:] == [
        "| 0.12.3 | lax | 2 | 0.50 | 0 | 1.00 | second, dx |",
        "| 0.12.3 | lax, same options | 2 | 1.00 | 1 | 2.00 | second, dx |",
    ]


def test_compile_seconds_are_those_of_the_first_call():
    pauses = iter((0.2, 0.05))
    times = compilation.compile_seconds(lambda: time.sleep(next(pauses)))
    assert times["passed"] == pytest.approx(0.15, abs=0.1)
    assert times["processor"] == pytest.approx(0, abs=0.1)


def test_sections_on_compilation_and_start(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert _speed_records.compile_times() == _speed_records.start_up() == ""
    machine = {"cores": 2, "device": "Some CPU", "date": "2026-01-02", "versions": {"jax": "0.10", "keras": "3.9"}}
    times = [{"processor": processor, "passed": processor / 2} for processor in (4.0, 9.0, 3.0)]
    rows = [{"net": "resnet50", "kind": "train", "seconds": {"jaxcnn": times, "flax": times[:1]}}]
    (tmp_path / "results" / "compilation-cpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    text = _speed_records.compile_times()
    assert text.endswith("| ResNet-50 | training step | 4.0 (2.0) | 4.0 (2.0) | - | - |\n")
    assert "On 2 cores of Some CPU with jax 0.10, keras 3.9, 2026-01-02." in text
    rows = [{"case": "keras, compilation cache", "seconds": [1.0, 2.5, 3.25], "runs": [[1.0, 2.5, 3.25]] * 5}]
    (tmp_path / "results" / "startup-cpu.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    assert _speed_records.start_up().endswith("| keras, compilation cache | 1.00 | 2.50 | 3.25 |\n")
    assert "medians of 5." in _speed_records.start_up()


def test_networks_of_torchvision_are_skipped_without_it(monkeypatch, capsys):
    monkeypatch.setattr(_measure, "installed", lambda package: None if package == "torchvision" else "1.0")
    monkeypatch.setattr(_networks, "create_contender", lambda net, name: _networks.Contender(1, lambda: 0.0, None))
    names = ["jaxcnn", "torch", "torch channels_last"]
    assert [*_networks.build(TASKS["r3d_18"], names)] == ["jaxcnn"]
    assert capsys.readouterr().out == "skipping torchvision: not installed\n"
    assert [*_networks.build(TASKS["unet"], names)] == names


def test_rows_of_another_processor_are_dropped(tmp_path):
    path = tmp_path / "nets.json"
    rows = [{"net": "a", "ms": 1}, {"net": "b", "ms": 2}]
    _measure.save("nets", rows, path)
    assert _measure.other_rows("nets", "net", ["b"], path) == rows[:1]
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"machine": saved["machine"] | {"device": "another"}}))
    assert _measure.other_rows("nets", "net", ["b"], path) == []
    assert _measure.other_rows("nets", "net", ["b"], tmp_path / "missing.json") == []
