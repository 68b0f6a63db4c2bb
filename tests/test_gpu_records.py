"""The page of records shows the measurements of `benchmarks.gpu`."""

import json

from experiments.benchmarks import _gpu_records, _measure, _speed_records, records


def timing(milliseconds):
    return {"median": milliseconds / 1e3, "low": 0, "high": 0}


MILLISECONDS = {"jaxcnn": 0.5, "lax": 0.4, "torch": 0.6, "torch channels_last": 0.25}
CASE = {"part": "conformance", "difference": 0.0, "tolerance": 1e-4}
NET = {"part": "networks", "name": "lenet5, bfloat16", "net": "lenet5", "dtype": "bfloat16", "batch": 128}
ROWS = [
    CASE | {"name": "conv", "passed": True},
    CASE | {"name": "pool", "passed": False},
    {"part": "conformance", "name": "dice", "exception": "ValueError: x"},
    NET
    | {
        "train": {
            "seconds": {
                "jaxcnn": timing(2),
                "torch channels_last": timing(3),
                "torch compile channels_last": timing(2.5),
                "flax": timing(4),
            },
            "ratio": {"torch": 0.8, "flax": 0.5},
        },
        "infer": {"seconds": {"jaxcnn": timing(1)}, "ratio": {}},
        "compilation": {"train": {"jaxcnn": 2.0, "flax": 3.0}, "infer": {"jaxcnn": 1.0, "flax": 1.5}},
    },
    NET | {"name": "vgg, bfloat16", "exception": "out of memory"},
    {
        "part": "imagenet",
        "name": "resnet50, training",
        "network": "resnet50",
        "training": True,
        "batch": 256,
        "images_per_second": {"jaxcnn": [2000.0, 2010.0], "torch channels_last": [1900.0, 1900.0]},
    },
    {
        "part": "operations",
        "name": "a",
        "case": "max pool",
        "kind": "forward",
        "dtype": "float32",
        "milliseconds": {name: [value, 0, 1] for name, value in MILLISECONDS.items()},
        "of torch": 2.0,
        "of lax": 1.25,
    },
    {
        "part": "vmap",
        "name": "b",
        "models": 32,
        "kind": "train",
        "seconds": {"jaxcnn vmap": timing(3), "jaxcnn loop": timing(12)},
        "ratio": {"jaxcnn": 0.25},
    },
    {"part": "cifar10", "name": "jaxcnn", "contender": "jaxcnn", "accuracies": [0.94, 0.942], "seconds": [2.5, 2.7]},
]


def test_records_of_a_card(tmp_path, monkeypatch):
    monkeypatch.setattr(_measure, "FOLDER", tmp_path)
    (tmp_path / "results").mkdir()
    assert [*_gpu_records.sections(tmp_path, _speed_records.TITLES)] == []
    throughput = next(r for r in records.RECORDS if r.title == "ResNet-50, 224x224, training, on a GPU")
    speedrun = next(r for r in records.RECORDS if r.file == "cifar10_speedrun-gpu")
    assert records.line(throughput).split(" | ")[1] == records.line(speedrun).split(" | ")[1] == "not measured"

    machine = {"cores": 16, "device": "Some GPU", "date": "2026-01-02", "python": "3.11", "versions": {"jax": "0.10"}}
    text = json.dumps({"machine": machine, "rows": ROWS})
    (tmp_path / "results" / "tiny-some-gpu.json").write_text(text)  # is not a measurement
    assert [*_gpu_records.sections(tmp_path, _speed_records.TITLES)] == []
    (tmp_path / "results" / "gpu-some-gpu.json").write_text(text)
    cells = records.line(throughput).split(" | ")
    assert cells[1] == "batch 256: 2005.0 ± 7.1/s"
    assert cells[2] == "batch 256: 1900.0 ± 0.0/s (torch channels_last)"
    assert cells[3:5] == ["`python -m experiments.benchmarks.gpu`", "16 cores of Some GPU"]
    assert records.line(speedrun).split(" | ")[1:3] == ["2.600 ± 0.141 s, 94.10 % ± 0.14 (2 runs)", ""]
    inference = next(r for r in records.RECORDS if r.title == "ResNet-50, 224x224, inference, on a GPU")
    assert records.line(inference).split(" | ")[1] == "not measured"

    (section,) = _gpu_records.sections(tmp_path, _speed_records.TITLES)
    assert section.startswith("\n## One GPU: Some GPU\n\n")
    assert "\n`python -m experiments.benchmarks.gpu`, with jax 0.10, 2026-01-02.\n" in section
    assert "\n1 of 3 checks against the CPU passed" in section
    assert "Failed: pool; dice.\n" in section
    cells = "LeNet-5, 128 | bfloat16 | **2.00** | 2.50 | 0.80 | 4.00 | 0.50 | **1.00** | - | - | - | - | 3.0 | 4.5"
    assert f"| {cells} |\n" in section
    assert "vgg" not in section
    assert "| max pool | forward | float32 | **0.500** | 0.250 | 2.00 | 0.400 |\n" in section
    assert section.endswith("- 32 LeNet-5, train: jaxcnn 3.00 (0.25)\n")
    tables = [line for line in section.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in tables] == [15] * 3 + [8] * 3
    assert section in records.page()
