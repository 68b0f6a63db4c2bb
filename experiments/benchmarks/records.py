"""Write `experiments/README.md`, the table of records, and print the tables of networks of README and docs/speed.md.

python -m experiments.benchmarks.records
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import _gpu_records, _measure, _result_records
from experiments.benchmarks import _speed_records as speed
from experiments.benchmarks._measure import mean_and_std

README = _measure.FOLDER.parent / "README.md"
HEADER = """# Records

`python -m experiments.benchmarks.records` writes this page from the files in `benchmarks/results/`. The command in each
row repeats the measurement. Values are mean ± standard deviation. jaxcnn and PyTorch are measured in the same run.

| benchmark | jaxcnn | PyTorch | command | hardware | versions | date |
|---|---|---|---|---|---|---|
"""
Rows = list[dict[str, Any]]


class Record(NamedTuple):
    """A line of the table.

    `file` is the name of the results file. `results` maps its rows to the cells of jaxcnn and PyTorch.
    """

    title: str
    file: str
    command: str
    results: Callable[[Rows], tuple[str, str]]


def _speedrun(rows: Rows) -> tuple[str, str]:
    texts = {}
    for row in rows:
        accuracies, seconds = zip(*row["runs"], strict=True)
        texts[row["contender"]] = _time_and_accuracy(seconds, accuracies)
    peer = texts.pop("PyTorch")
    return "; ".join(f"{name.removeprefix('jaxcnn, ')}: {text}" for name, text in texts.items()), peer


def _time_and_accuracy(seconds: Sequence[float], accuracies: Sequence[float], spec: str = ".1f") -> str:
    return f"{mean_and_std(seconds, spec)} s, {mean_and_std(accuracies, '.2%')} ({len(seconds)} runs)"


def _best(rows: Rows) -> tuple[str, str]:
    (row,) = rows
    accuracy, minutes = row["figures"]["test accuracy"], [seconds / 60 for seconds in row["seconds"]]
    seeds = "1 seed" if len(accuracy) == 1 else f"{len(accuracy)} seeds"
    return f"{mean_and_std(accuracy, '.2%')}, {mean_and_std(minutes, '.1f')} minutes ({seeds})", ""


def _cifar10(rows: Rows) -> tuple[str, str]:
    texts = {row["contender"]: _time_and_accuracy(row["seconds"], row["accuracies"], ".3f") for row in rows}
    return texts["jaxcnn"], texts.get("PyTorch", "")


def _throughput(network: str, training: bool) -> Callable[[Rows], tuple[str, str]]:
    """Images per second at each batch size."""

    def results(rows):
        rows = [row for row in rows if row["network"] == network and row["training"] == training]
        return tuple("; ".join(f"batch {row['batch']}: {_rate(row, ours)}" for row in rows) for ours in (True, False))

    return results


def _rate(row: dict[str, Any], ours: bool) -> str:
    framework = "jaxcnn" if ours else "torch"
    rates = {name: turns for name, turns in row["images_per_second"].items() if name.split()[0] == framework}
    if not rates:
        return "not measured"
    fastest = max(rates, key=lambda name: statistics.median(rates[name]))
    return f"{mean_and_std(rates[fastest], '.1f')}/s" + ("" if ours else f" ({fastest})")


THROUGHPUT = "python -m experiments.benchmarks.imagenet_throughput"
NETWORKS = {
    "resnet50": "ResNet-50",
    "convnext_tiny": "ConvNeXt-T",
    "efficientnet_b0": "EfficientNet-B0",
    "mobilenet_v2": "MobileNet v2",
}
RECORDS = [
    Record(
        "MNIST to 99 %, whole process",
        "mnist_speedrun-cpu",
        "python -m experiments.benchmarks.mnist_speedrun",
        _speedrun,
    ),
    Record(
        "MNIST, best accuracy of one network with less than a million parameters",
        "seeds_mnist_best-cpu",
        "python -m experiments.benchmarks.seeds mnist_best",
        _best,
    ),
    Record(
        "CIFAR-10 to 94 %, on one GPU",
        "cifar10_speedrun-gpu",
        "python -m experiments.benchmarks.cifar10_speedrun",
        _cifar10,
    ),
    *(
        Record(f"{text}, 224x224, {kind}, on a {device}", f"imagenet_throughput-{suffix}", THROUGHPUT, results)
        for device, suffix in (("CPU", speed.NEWEST), ("GPU", "gpu"))
        for name, text in NETWORKS.items()
        for kind in ("training", "inference")
        for results in [_throughput(name, kind == "training")]
    ),
]


def line(record: Record) -> str:
    command = record.command
    folder = _measure.FOLDER
    if not (measured := _measure.load(record.file)) and (measured := _gpu_records.part_of_file(folder, record.file)):
        command = _gpu_records.COMMAND
    cells = ["not measured", "", f"`{command}`", "", "", ""]
    if measured and (results := record.results(measured["rows"]))[0]:
        machine = measured["machine"]
        versions = {"Python": machine["python"]} | {
            name: machine["versions"][name] for name in ("jax", "torch") if name in machine["versions"]
        }
        cells[:2] = results
        cells[3] = f"{machine['cores']} cores of {machine['device']}"
        cells[4] = ", ".join(f"{name} {version}" for name, version in versions.items())
        cells[5] = machine["date"]
    return f"| {' | '.join([record.title, *cells])} |\n"


def ablation(name: str, device: str) -> str:
    """The table of ablations of a speedrun, or an empty string if it was not measured."""
    if not (result := _measure.load(f"ablations_{name}-{device}")):
        return ""
    rows = result["rows"]
    text = f"\n## Ablations of `{name}`, on a {device.upper()}\n\n"
    text += f"`python -m experiments.benchmarks.ablations {name}`, {len(rows[0]['runs'])} runs each"
    text += "".join(f", `{setting}`" for setting in rows[0]["settings"])
    text += ". Differences smaller than the standard deviations may be noise.\n\n"
    text += "| change | accuracy | seconds |\n|---|---|---|\n"
    for row in rows:
        accuracy, seconds = zip(*row["runs"], strict=True)
        text += f"| {row['without']} | {mean_and_std(accuracy, '.2%')} | {mean_and_std(seconds, '.2f')} |\n"
    return text


def page() -> str:
    tables = itertools.product(("mnist_speedrun", "cifar10_speedrun"), ("cpu", "gpu"))
    sections = (
        *(_result_records.tasks(), _result_records.signal_table()),
        *(section(device) for section in (speed.many_networks, speed.sweeps) for device in ("cpu", "gpu")),
        *itertools.starmap(ablation, tables),
        *(speed.operations(), speed.random_operations(), speed.spread_between_processes()),
        *(speed.compile_times(), speed.start_up()),
        *(_result_records.onnx_speed(), _result_records.onnx_zoo()),
        *_gpu_records.sections(_measure.FOLDER, speed.TITLES),
    )
    return HEADER + "".join(map(line, RECORDS)) + "".join(sections)


if __name__ == "__main__":
    README.write_text(page())
    print(README)
    networks = map(speed.network_table, (speed.NEWEST, speed.FOR_PYTHON_311))
    print(speed.short_network_table(), *networks, speed.ratio_table(), *speed.vmap_tables("cpu")[:1], sep="\n")
