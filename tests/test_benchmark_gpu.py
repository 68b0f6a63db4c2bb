"""`benchmarks.gpu` at tiny size on a CPU: parts, budget, failing cases, saved results and records."""

import itertools
import json
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar10_speedrun
from experiments.benchmarks import _conformance, _gpu_parts, _measure, _networks, gpu

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def only_jax(monkeypatch):
    """As on a machine without PyTorch and Flax, whose contenders would take long to compile."""
    monkeypatch.setattr(_networks, "installed_frameworks", lambda names: [n for n in names if n == "jaxcnn"])
    monkeypatch.setattr(_measure, "installed", lambda package: None)


def run(tmp_path, *arguments):
    """The exit status and the saved rows."""
    status = gpu.main(["--tiny", "--output", str(tmp_path), *arguments])
    saved = json.loads((tmp_path / "tiny-cpu.json").read_text())
    assert saved["machine"]["versions"] == {}
    return status, saved["rows"]


def fake_part(*tasks, fraction=0.5):
    return gpu.Part(fraction, lambda tiny, deadline: (task for task in tasks), lambda row: f"value {row.get('value')}")


@pytest.mark.slow
def test_tiny_conformance_passes(tmp_path, capsys):
    status, rows = run(tmp_path, "conformance")
    assert status == 0
    by_name = {row["name"]: row for row in rows}
    assert {"training step of tiny, bfloat16", "layer roi_align, float32", "loss dice, bfloat16"} < by_name.keys()
    assert all(row["passed"] for row in rows)
    assert by_name["repeat of a step"]["bit-exact"]
    # In float32 both devices are this CPU. In bfloat16 the expected results are those of float32.
    assert by_name["layer conv, float32"]["difference"] == 0
    assert 1e-4 < by_name["layer conv, bfloat16"]["difference"] < 3e-2
    assert f"conformance: {len(rows)} of {len(rows)} measurements passed" in capsys.readouterr().out


def test_failing_case_is_named_and_gives_status_1(tmp_path, monkeypatch, capsys):
    values = itertools.count(1.0)
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    changing = lambda x: {"y": x, "sum": jax.pure_callback(lambda: np.float32(next(values)), shape)}
    cases = [
        _conformance.Case("changing", lambda dtype: changing, lambda: (np.ones(2, np.float32),), ("float32",)),
        _conformance.Case("failing", lambda dtype: 1 / 0, lambda: (np.ones(2, np.float32),), ("float32",)),
        _conformance.loss_case("dice", *_conformance.LOSSES["dice"]),
    ]
    monkeypatch.setattr(_conformance, "tiny_cases", lambda net: cases)
    for name in ("check_export", "check_vmap", "check_repeat"):
        monkeypatch.setattr(_conformance, name, lambda net: {"passed": True})
    status, rows = run(tmp_path, "conformance")
    assert status == 1
    by_name = {row["name"]: row for row in rows}
    assert by_name["changing, float32"]["passed"] is False
    assert by_name["changing, float32"]["difference"] == pytest.approx(0.5)  # 1 against 2
    assert by_name["failing, float32"]["exception"] == "ZeroDivisionError: division by zero"
    assert by_name["loss dice, float32"]["passed"]
    output = capsys.readouterr().out
    assert "FAILED changing, float32: difference 0.5, where ['sum'], tolerance 0.0001" in output
    assert "FAILED failing, float32: ZeroDivisionError: division by zero" in output
    assert f"conformance: {len(rows) - 2} of {len(rows)} measurements passed" in output


@pytest.mark.parametrize(
    ("found", "difference", "where"),
    [
        ([10.0, -21.0], 0.05, "['a']"),
        ([10.0, np.nan], np.inf, "['a']"),
        ([np.inf, -20.0], np.inf, "['a']"),
    ],
)
def test_largest_difference(found, difference, where):
    expected = {"a": np.array([10.0, -20.0]), "b": np.zeros(2), "c": np.zeros((0, 2))}
    found = {"a": np.array(found), "b": np.array([0, 1e-5]), "c": np.zeros((0, 2))}
    assert _conformance.largest_difference(found, expected, 1e-3) == (pytest.approx(difference), where)


def test_array_of_zeros_is_compared_with_the_largest_value():
    expected = {"a": np.array([10.0, -20.0]), "b": np.zeros(2)}
    found = {"a": np.array([10.0, -20.0]), "b": np.array([0, 1e-3])}
    assert _conformance.largest_difference(found, expected, 0.1) == (pytest.approx(5e-4), "['b']")
    assert _conformance.largest_difference(found, expected, 1e-3) == (pytest.approx(5e-2), "['b']")


def test_arguments_are_rounded_and_compared_with_float32():
    x = np.array([1 + 2**-9, 3.0], np.float32)  # the first value is not a bfloat16
    seen = []

    def build(dtype):
        seen.append(dtype)
        return lambda x, i: (x * 257 - 256 * x, i)  # exact in float32

    case = _conformance.Case("case", build, lambda: (x, np.array([300])))
    assert _conformance.compare(case, "bfloat16")["difference"] == 0
    assert seen == ["bfloat16", "float32"]
    assert _conformance.compare(case, "bfloat16")["tolerance"] == 3e-2
    apply = lambda dtype: lambda x: x - 1 if dtype == "bfloat16" else x
    row = _conformance.compare(_conformance.Case("case", apply, lambda: (x,)), "bfloat16")
    assert (row["passed"], row["difference"]) == (False, pytest.approx(1 / 3))


def test_networks_with_gelu():
    relu, gelu, conv = _networks.Relu(), _networks.Gelu(), _networks.Conv(3)
    layers = (relu, _networks.Residual((conv, relu), (relu,)), conv)
    assert _conformance.with_gelu(layers) == (gelu, _networks.Residual((conv, gelu), (gelu,)), conv)


def test_cases_are_distinct_and_cover_the_named_networks():
    names = [(case.name, dtype) for case in _conformance.all_cases() for dtype in case.dtypes]
    assert len({*names}) == len(names)
    both = sum(map(len, (_conformance.LAYERS, _conformance.LOSSES, _conformance.STEPS)))
    assert len(names) == 2 * both - len(_conformance.SENSITIVE) + len(_conformance.CLASSIFIERS)
    assert {*_conformance.SMOOTH} < {*_conformance.CLASSIFIERS}
    assert {*_conformance.SENSITIVE} <= {*_conformance.LAYERS}


@pytest.mark.slow
def test_tiny_networks_operations_and_vmap(tmp_path, capsys):
    status, rows = run(tmp_path, "networks", "operations", "vmap")
    output = capsys.readouterr().out
    assert status == 0, output
    by_part = {part: [row for row in rows if row["part"] == part] for part in ("networks", "operations", "vmap")}
    assert [row["name"] for row in by_part["networks"]] == ["tiny, bfloat16", "tiny, float32"]
    for row in by_part["networks"]:
        assert row["train"]["seconds"]["jaxcnn"]["median"] > 0
        assert row["compilation"]["infer"]["jaxcnn"] > 0
    kinds = [(row["kind"], row["dtype"]) for row in by_part["operations"]]
    assert kinds == [(kind, dtype) for dtype in ("bfloat16", "float32") for kind in ("forward", "forward + dx")]
    assert [(row["models"], row["kind"]) for row in by_part["vmap"]] == [(2, "train"), (2, "infer")]
    assert "tiny, float32: train jaxcnn " in output
    # the first run measured `networks` only; a second one keeps its rows
    status, more = run(tmp_path, "operations")
    assert [row for row in more if row["part"] == "networks"] == by_part["networks"]


@pytest.mark.full
def test_tiny_imagenet(tmp_path, capsys):
    status, rows = run(tmp_path, "imagenet")
    assert status == 0, capsys.readouterr().out
    assert [(row["network"], row["training"], row["batch"]) for row in rows] == [
        ("mobilenet_v2", True, 2),
        ("mobilenet_v2", False, 2),
    ]
    for row in rows:
        median = np.median(row["images_per_second"]["jaxcnn"])
        # mobilenet_v2 has 300.8 million multiply-adds at 224x224, and 1/49 of those of its convolutions at 32x32
        work = (3 if row["training"] else 1) * (300.8e6 - 1.28e6) / 49 + (3 if row["training"] else 1) * 1.28e6
        assert row["of_peak"]["jaxcnn"] == pytest.approx(median * work / row["peak"], rel=0.02)


def test_compiled_contender_completes_the_row(monkeypatch):
    """PyTorch is compiled after all other measurements, and then compared with all contenders."""
    built = []

    def create(net, name):
        built.append((net.dtype, name))
        call = lambda: time.sleep(0.001)
        return _networks.Contender(5, lambda: call() or 0.0, call)

    monkeypatch.setattr(_networks, "create_contender", create)
    torch = [_gpu_parts.EAGER, _gpu_parts.COMPILED]
    monkeypatch.setattr(_gpu_parts, "torch_contenders", lambda compiled: torch[: 1 + compiled])
    monkeypatch.setattr(_gpu_parts, "_repeats", lambda tiny: {"turns": 1, "seconds": 0.001})
    monkeypatch.setattr(_networks, "NETWORKS", {"net": _gpu_parts.TINY})
    tasks = [(name, measure()) for name, measure in _gpu_parts.networks(False)]
    assert [name for name, _ in tasks] == ["net, bfloat16", "net, float32"] * 2
    first, last = tasks[0][1], tasks[2][1]
    assert [*first["train"]["seconds"]] == ["jaxcnn", "torch channels_last"]
    assert [*last["infer"]["seconds"]] == ["jaxcnn", "torch channels_last", "torch compile channels_last"]
    assert last["compilation"]["train"].keys() == last["train"]["seconds"].keys()
    assert len(built) == 6  # each contender once


def test_budget_skips_parts_and_keeps_results(tmp_path, monkeypatch, capsys):
    clock = [0.0]

    def slow():
        clock[0] += 40
        return {"value": 1}

    quick = lambda: {"value": 2}
    parts = {
        "first": fake_part(("a", slow), ("b", quick), fraction=0.3),
        "second": fake_part(("c", quick), ("d", slow), ("e", quick), fraction=0.5),
        "third": fake_part(("f", quick), fraction=0.0),
    }
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    status, rows = run(tmp_path, "--budget", "60")
    assert status == 0
    assert [(row["part"], row["name"]) for row in rows] == [("first", "a"), ("second", "c"), ("second", "d")]
    output = capsys.readouterr().out
    assert "first: skipped from b on, the budget is used up" in output
    assert "second: skipped from e on, the budget is used up" in output
    assert "third: skipped, the budget is used up" in output


def test_results_are_saved_after_each_measurement(tmp_path, monkeypatch):
    saved = lambda: [row["name"] for row in json.loads((tmp_path / "tiny-cpu.json").read_text())["rows"]]
    seen = []

    def killed():
        seen.append(saved())
        raise KeyboardInterrupt

    def fails():
        raise MemoryError("out of memory")

    parts = {"part": fake_part(("a", dict), ("b", fails), ("c", killed)), "other": fake_part(("d", dict))}
    monkeypatch.setattr(gpu, "PARTS", parts)
    run(tmp_path, "other")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "part")
    assert seen == [["d", "a", "b"]]
    assert saved() == ["d", "a", "b"]


def test_failure_of_a_part_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    def broken(tiny, deadline):
        yield "a", dict
        raise ValueError("no such library")

    parts = {"broken": gpu.Part(0.5, broken, str), "other": fake_part(("d", lambda: {"value": 7}))}
    monkeypatch.setattr(gpu, "PARTS", parts)
    status, rows = run(tmp_path)
    assert status == 1
    assert [row["name"] for row in rows] == ["a", "preparation", "d"]
    output = capsys.readouterr().out
    assert "FAILED preparation: ValueError: no such library" in output
    assert "d: value 7" in output


def test_unknown_part(tmp_path):
    with pytest.raises(SystemExit, match="unknown: network; expected one of: conformance, networks, "):
        gpu.main(["network", "--output", str(tmp_path)])
    assert sum(part.fraction for part in gpu.PARTS.values()) == pytest.approx(1)


def test_results_of_a_card(tmp_path, monkeypatch):
    class Card:
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(jax, "devices", lambda: [Card()])
    assert gpu.results_path(tmp_path, False) == tmp_path / "gpu-nvidia-h100-80gb-hbm3.json"
    assert gpu.results_path(tmp_path, True) == tmp_path / "tiny-nvidia-h100-80gb-hbm3.json"


def test_cifar10_says_what_it_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAXCNN_DATA", raising=False)
    assert [*_gpu_parts.cifar10(True, time.perf_counter() + 9)] == []
    assert "cifar10: skipped, it needs the folder of CIFAR-10 in JAXCNN_DATA" in capsys.readouterr().out
    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path))
    assert [*_gpu_parts.cifar10(True, time.perf_counter() + 9)] == []
    assert f"cifar10: skipped, data_batch_1.bin: not found in {tmp_path}" in capsys.readouterr().out


def test_cifar10_runs_until_the_deadline(tmp_path, monkeypatch):
    def runs(config):
        assert config["small"]
        for seed in itertools.count():
            time.sleep(0.05)
            yield 0.9 + 0.01 * seed, 0.05

    monkeypatch.setenv("JAXCNN_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10_speedrun, "prepared", lambda config: (config, []))
    monkeypatch.setattr(cifar10_speedrun, "runs", runs)
    ((name, measure),) = _gpu_parts.cifar10(True, time.perf_counter() + 0.3)
    row = measure()
    assert (name, row["contender"]) == ("jaxcnn", "jaxcnn")
    assert 2 <= len(row["seconds"]) == len(row["accuracies"]) <= 6
    assert len(_gpu_parts.collected(runs({"small": True}), time.perf_counter() - 1)["seconds"]) == 1
