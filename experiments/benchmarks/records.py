"""The table of records, `experiments/README.md`, from the files of what the benchmarks measured.

python -m experiments.benchmarks.records
"""

import itertools
import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.benchmarks._measure import spread

FOLDER = pathlib.Path(__file__).parent
README = FOLDER.parent / "README.md"
HEADER = """# Records

Written by `python -m experiments.benchmarks.records` from the files in `benchmarks/results/`, which the commands below
measure anew. Mean ± standard deviation; the peer's figures are from the same run.

| claim | jaxcnn | peer | command | hardware | versions | date |
|---|---|---|---|---|---|---|
"""
Rows = list[dict[str, Any]]


class Record(NamedTuple):
    """What is claimed, the file that says how it went, and (rows of the file) -> (ours, the peer's)."""

    claim: str
    file: str
    command: str
    figures: Callable[[Rows], tuple[str, str]]


def _speedrun(rows: Rows) -> tuple[str, str]:
    texts = {}
    for row in rows:
        accuracies, seconds = zip(*row["runs"], strict=True)
        texts[row["contender"]] = f"{spread(seconds, '.1f')} s, {spread(accuracies, '.2%')} ({len(seconds)} runs)"
    peer = texts.pop("PyTorch")
    return "; ".join(f"{name.removeprefix('jaxcnn, ')}: {text}" for name, text in texts.items()), f"PyTorch: {peer}"


def _best(rows: Rows) -> tuple[str, str]:
    (row,) = rows
    accuracy, minutes = row["figures"]["test accuracy"], [seconds / 60 for seconds in row["seconds"]]
    seeds = "1 seed" if len(accuracy) == 1 else f"{len(accuracy)} seeds"
    return f"{spread(accuracy, '.2%')}, {spread(minutes, '.1f')} minutes ({seeds})", ""


def _cifar10(rows: Rows) -> tuple[str, str]:
    ours, theirs = (
        f"{spread(row['seconds'], '.3f')} s, {spread(row['accuracies'], '.2%')} ({len(row['seconds'])} runs)"
        for row in rows
    )
    return ours, f"PyTorch: {theirs}"


def _throughput(network: str, training: bool) -> Callable[[Rows], tuple[str, str]]:
    """Images a second at each batch size, or at the best one of a GPU."""

    def figures(rows):
        rows = [row for row in rows if row["network"] == network and row["training"] == training]
        return tuple("; ".join(f"batch {row['batch']}: {_rate(row, ours)}" for row in rows) for ours in (True, False))

    return figures


def _rate(row: dict[str, Any], ours: bool) -> str:
    found = {name: turns for name, turns in row["images_per_second"].items() if (name == "jaxcnn") == ours}
    name = max(found, key=lambda name: statistics.median(found[name]))
    return f"{spread(found[name], '.1f')}/s" + ("" if ours else f" ({name})")


THROUGHPUT = "python -m experiments.benchmarks.imagenet_throughput"
NETWORKS = {
    "resnet50": "ResNet-50",
    "convnext_tiny": "ConvNeXt-T",
    "efficientnet_b0": "EfficientNet-B0",
    "mobilenet_v2": "MobileNet v2",
}
RECORDS = [
    Record(
        "99 % of MNIST, from the start of the process",
        "mnist_speedrun-cpu",
        "python -m experiments.benchmarks.mnist_speedrun",
        _speedrun,
    ),
    Record(
        "MNIST by one network below a million parameters",
        "seeds_mnist_best-cpu",
        "python -m experiments.benchmarks.seeds mnist_best",
        _best,
    ),
    Record(
        "94 % of CIFAR-10 on one GPU",
        "cifar10_speedrun-gpu",
        "python -m experiments.benchmarks.cifar10_speedrun",
        _cifar10,
    ),
    *(
        Record(f"{text}, 224x224, {kind}, on a {device.upper()}", f"imagenet_throughput-{device}", THROUGHPUT, figures)
        for device, kinds in (("cpu", ["inference"]), ("gpu", ["training", "inference"]))
        for name, text in NETWORKS.items()
        for kind in kinds
        for figures in [_throughput(name, kind == "training")]
    ),
]


def line(record: Record) -> str:
    path = FOLDER / "results" / f"{record.file}.json"
    cells = ["not measured", "", f"`{record.command}`", "", "", ""]
    if path.exists():
        found = json.loads(path.read_text())
        machine = found["machine"]
        versions = {"Python": machine["python"]} | {
            name: machine["versions"][name] for name in ("jax", "torch") if name in machine["versions"]
        }
        cells[:2] = record.figures(found["rows"])
        cells[3] = f"{machine['cores']} cores of {machine['device']}"
        cells[4] = ", ".join(f"{name} {version}" for name, version in versions.items())
        cells[5] = machine["date"]
    return f"| {' | '.join([record.claim, *cells])} |\n"


def ablation(name: str, device: str) -> str:
    """What each trick of a speedrun is worth, or nothing if that is not measured."""
    path = FOLDER / "results" / f"ablations_{name}-{device}.json"
    if not path.exists():
        return ""
    rows = json.loads(path.read_text())["rows"]
    text = f"\n## Tricks of `{name}`, on a {device.upper()}\n\n"
    text += f"`python -m experiments.benchmarks.ablations {name}`, {len(rows[0]['runs'])} runs each"
    text += "".join(f", `{setting}`" for setting in rows[0]["settings"])
    text += "; what differs by less than the stds may be chance.\n\n"
    text += "| what is other | accuracy | seconds |\n|---|---|---|\n"
    for row in rows:
        accuracy, seconds = zip(*row["runs"], strict=True)
        text += f"| {row['without']} | {spread(accuracy, '.2%')} | {spread(seconds, '.2f')} |\n"
    return text


def page() -> str:
    tables = itertools.product(("mnist_speedrun", "cifar10_speedrun"), ("cpu", "gpu"))
    return HEADER + "".join(map(line, RECORDS)) + "".join(itertools.starmap(ablation, tables))


if __name__ == "__main__":
    README.write_text(page())
    print(README)
