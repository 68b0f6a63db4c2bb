"""Write `experiments/README.md`, the table of records, and print the tables of networks of README and docs/speed.md.

python -m experiments.benchmarks.records
"""

import itertools
import json
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments import signals
from experiments.benchmarks import _gpu_records, _measure, many_runs, seeds, spread
from experiments.benchmarks._measure import mean_and_std
from jaxcnn.models import MODELS

FOLDER = pathlib.Path(__file__).parent
README = FOLDER.parent / "README.md"
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
        Record(f"{text}, 224x224, {kind}, on a {device.upper()}", f"imagenet_throughput-{device}", THROUGHPUT, results)
        for device in ("cpu", "gpu")
        for name, text in NETWORKS.items()
        for kind in ("training", "inference")
        for results in [_throughput(name, kind == "training")]
    ),
]


def line(record: Record) -> str:
    command = record.command
    if not (measured := _result(record.file)) and (measured := _gpu_records.part_of_file(FOLDER, record.file)):
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
    path = FOLDER / "results" / f"ablations_{name}-{device}.json"
    if not path.exists():
        return ""
    rows = json.loads(path.read_text())["rows"]
    text = f"\n## Ablations of `{name}`, on a {device.upper()}\n\n"
    text += f"`python -m experiments.benchmarks.ablations {name}`, {len(rows[0]['runs'])} runs each"
    text += "".join(f", `{setting}`" for setting in rows[0]["settings"])
    text += ". Differences smaller than the standard deviations may be noise.\n\n"
    text += "| change | accuracy | seconds |\n|---|---|---|\n"
    for row in rows:
        accuracy, seconds = zip(*row["runs"], strict=True)
        text += f"| {row['without']} | {mean_and_std(accuracy, '.2%')} | {mean_and_std(seconds, '.2f')} |\n"
    return text


TASKS = {  # experiment: (column "result", column "baseline"), each with figures by label and a format
    "regression": (
        ({"mean absolute error in degrees": "network mean_absolute_error", "R2": "network r2"}, ".2f"),
        ({"ridge regression": "ridge mean_absolute_error", "mean angle": "mean mean_absolute_error"}, ".2f"),
    ),
    "multilabel": (
        ({"average precision": "network average_precision", "macro F1": "network f1"}, ".3f"),
        (
            {
                "average precision of logistic regression": "linear average_precision",
                "of a constant": "always present average_precision",
            },
            ".3f",
        ),
    ),
    "segmentation": (
        ({"mean IoU of U-Net": "unet mean_iou"}, ".3f"),
        ({"FCN": "fcn mean_iou", "background only": "background mean_iou"}, ".3f"),
    ),
    "distillation": (
        ({"accuracy with teacher": "student with teacher accuracy"}, ".2%"),
        ({"without": "student alone accuracy", "teacher": "teacher accuracy"}, ".2%"),
    ),
    "autoencoder": (
        ({"PSNR in dB": "network"}, ".2f"),
        ({"Gaussian filter": "gaussian filter", "median filter": "median filter", "noisy": "noisy"}, ".2f"),
    ),
    "dcgan": (
        ({"Frechet distance": "distance samples", "entropy of the classes": "entropy"}, ".2f"),
        ({"training digits": "distance training digits", "untrained": "distance untrained"}, ".2f"),
    ),
}


def tasks() -> str:
    """The table of the experiments on other tasks than classification that were measured."""
    lines = []
    for name, columns in TASKS.items():
        path = FOLDER / "results" / f"seeds_{name}-cpu.json"
        if path.exists():
            measured = json.loads(path.read_text())
            (row,) = measured["rows"]
            cells = (
                "; ".join(f"{label}: {mean_and_std(row['figures'][key], spec)}" for label, key in figures.items())
                for figures, spec in columns
            )
            seeds, date = len(row["seconds"]), measured["machine"]["date"]
            lines.append(f"| `{name}` | {' | '.join(cells)} | {seeds} | {date} |\n")
    text = "\n## Other tasks, on a CPU\n\n`python -m experiments.benchmarks.seeds NAME`, on test data.\n\n"
    text += "| experiment | result | baseline | seeds | date |\n|---|---|---|---|---|\n"
    return text + "".join(lines) if lines else ""


def signal_table() -> str:
    """The test errors of the networks for signals, with the published ones."""
    path = FOLDER / "results" / "signals-cpu.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    figures = {row["experiment"]: row["figures"] for row in rows}
    text = "\n## Test errors of the networks for signals\n\n"
    text += "`python -m experiments.benchmarks.seeds signals/GunPoint/fcn1d`, and so on, with"
    text += f" {signals.CONFIG['train']['epochs']} epochs. The papers train for 1500 or 2000 epochs. The published"
    text += " errors are those of Wang, Yan and Oates (2017).\n\n"
    text += "| data set | network | test error | published | seeds |\n|---|---|---|---|---|\n"
    for label in seeds.EXPERIMENTS:
        if not label.startswith("signals/"):
            continue
        _, name, model = label.split("/")
        errors = figures[label]["test error"] if label in figures else []
        measured = mean_and_std(errors, ".2%") if errors else "not measured"
        published = signals.PUBLISHED.get((name, model))
        cells = name, model, measured, "" if published is None else f"{published:.1%}".replace("%", " %")
        text += f"| {' | '.join(cells)} | {len(errors) or ''} |\n"
    return text


def _result(name: str) -> dict[str, Any] | None:
    """The contents of a results file, or None if it was not measured."""
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def onnx_speed() -> str:
    """Milliseconds per batch of exported networks in onnxruntime and in jaxcnn, and operators of the exports."""
    if not (result := _result("onnx-cpu")):
        return ""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "onnxruntime"))
    text = "\n## ONNX exports, on a CPU\n\n`python -m experiments.benchmarks.onnx`. Milliseconds per batch: medians and"
    text += f" quartiles, on {machine['cores']} cores of {machine['device']} with {versions}, {machine['date']}."
    text += " The ratio is the time of onnxruntime divided by that of jaxcnn. Operators are those of the exports.\n\n"
    text += "| network | input | jaxcnn | onnxruntime | ratio | operators | operators of PyTorch's export |\n"
    text += "|" + "---|" * 7 + "\n"
    for row in result["rows"]:
        turns = {peer: timing["turns"] for peer, timing in row["seconds"].items()}
        both = (_median_and_quartiles(row["seconds"][peer]) for peer in ("jaxcnn", "onnxruntime"))
        ratio = f"{_measure.ratio(turns, 'onnxruntime', ['jaxcnn']):.2f}"
        size = "x".join(map(str, (row["batch"], *row["shape"])))
        cells = row["net"], size, *both, ratio, row["nodes"], row["torch_nodes"] or "-"
        text += f"| {' | '.join(map(str, cells))} |\n"
    return text


def _median_and_quartiles(timing: dict[str, float]) -> str:
    """Milliseconds."""
    median, low, high = (1e3 * timing[key] for key in ("median", "low", "high"))
    digits = 0 if median >= 100 else 1 if median >= 1 else 3
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def onnx_zoo() -> str:
    """The largest difference between jaxcnn and onnxruntime for each model."""
    if not (result := _result("onnx_zoo-cpu")):
        return ""
    rows, machine = result["rows"], result["machine"]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("jax", "onnx", "onnxruntime"))
    text = f"\n## ONNX exports of {len(rows)} of {len(MODELS)} models\n\n`python -m tests.onnx_zoo`, with {versions},"
    text += f" {machine['date']}. The largest difference between onnxruntime and jaxcnn, divided by the largest value"
    text += f" of the output; {max(row['difference'] for row in rows):.1e} over all models. Two random inputs each.\n\n"
    text += "| model | input | difference | operators | weights in MB |\n|---|---|---|---|---|\n"
    for row in rows:
        cells = row["model"], "x".join(map(str, row["shape"])), f"{row['difference']:.1e}", str(row["nodes"])
        text += f"| {' | '.join(cells)} | {row['bytes'] / 1e6:.1f} |\n"
    return text


def many_networks(device: str) -> str:
    """The section on many networks in one program, or an empty string if it was not measured."""
    if not (tables := vmap_tables(device)):
        return ""
    text = f"\n## Many networks in one program, on a {device.upper()}\n\n"
    text += "`python -m experiments.benchmarks.vmap`. Milliseconds for the gradients and an SGD update of several"
    text += " models, each with its own batch, and for their logits for the same images. `loop` is one call per model."
    text += " The ratio is the time of jaxcnn in one program divided by that of its loop.\n\n"
    return text + "\nGradients of one model for each example of a batch, and of the mean loss:\n\n".join(tables)


def sweeps(device: str) -> str:
    """The section on a sweep against consecutive runs, or an empty string if it was not measured."""
    if not (result := _result(f"many_runs-{device}")):
        return ""
    (row,), machine = result["rows"], result["machine"]
    hardware = f"{machine['cores']} cores of {machine['device']} with jax {machine['versions']['jax']}"
    text = f"\n## Many training runs as one program, on a {device.upper()}\n\n"
    text += (
        f"`python -m experiments.benchmarks.many_runs`. {row['runs']} seeds of {TITLES[row['net']]}, {row['epochs']}"
    )
    text += f" epochs of {row['images']:,} images, on {hardware}, {machine['date']}. {row['sample']} of the consecutive"
    text += f" runs were measured, and their time was scaled to {row['runs']}. Each of them compiles again.\n\n"
    text += "| seconds | `train.sweep` | consecutive `train.fit` | ratio |\n|---|---|---|---|\n"
    seconds = [(row[name]["total"], row[name]["total"] - row[name]["compilation"]) for name in ("sweep", "fit")]
    for title, *values, ratio in zip(
        ("with compilation", "without compilation"), *seconds, many_runs.ratios(row), strict=True
    ):
        text += f"| {title} | {' | '.join(f'{value:.0f}' for value in values)} | {ratio:.1f} |\n"
    return text


def spread_between_processes() -> str:
    """The section on the variation between processes, or an empty string if it was not measured."""
    if not (result := _result("spread-cpu")):
        return ""
    machine = result["machine"]
    text = "\n## Training steps in 20 processes, on a CPU\n\n`python -m experiments.benchmarks.spread`, on"
    text += (
        f" {machine['cores']} cores of {machine['device']} with jax {machine['versions']['jax']}, {machine['date']}."
    )
    text += " Milliseconds, and the fraction of the processes whose time is within 10 % of the median.\n\n"
    text += "| network | median | smallest | largest | within 10 % |\n|---|---|---|---|---|\n"
    for row in result["rows"]:
        times = (_digits(1e3 * reduce(row["seconds"])) for reduce in (statistics.median, min, max))
        text += f"| {TITLES[row['net']]} | {' | '.join(times)} | {spread.within(row['seconds']):.0%} |\n"
    return text


def page() -> str:
    tables = itertools.product(("mnist_speedrun", "cifar10_speedrun"), ("cpu", "gpu"))
    sections = (
        *(tasks(), signal_table(), *map(many_networks, ("cpu", "gpu")), *map(sweeps, ("cpu", "gpu"))),
        *(*itertools.starmap(ablation, tables), spread_between_processes(), onnx_speed(), onnx_zoo()),
        *_gpu_records.sections(FOLDER, TITLES),
    )
    return HEADER + "".join(map(line, RECORDS)) + "".join(sections)


TITLES = {
    "lenet5": "LeNet-5",
    "small": "two convolutions",
    "resnet20": "ResNet-20",
    "mobilenet": "MobileNet-like",
    "convnext": "ConvNeXt-like",
    "vgg": "VGG-like",
    "resnet18": "ResNet-18",
    "unet": "U-Net",
    "deeplabv3_mobilenet_v3_large": "DeepLab v3, MobileNet v3",
    "r3d_18": "R3D-18",
    "inception_time": "InceptionTime",
}


def network_table() -> str:
    """Milliseconds per batch and megabytes per training step of each network, as in docs/speed.md."""
    rows = json.loads((FOLDER / "results" / "nets-cpu.json").read_text())["rows"]
    by_kind = {(row["net"], row["kind"]): row for row in rows}
    peers = "PyTorch | Flax | Equinox | stax"
    text = f"| network, batch | training | {peers} | inference | PyTorch | Flax | memory | PyTorch |\n"
    text += "|" + "---|" * 11 + "\n"
    for net, title in TITLES.items():
        if (net, "train") not in by_kind:
            continue
        train, infer, memory = (by_kind[net, kind] for kind in ("train", "infer", "memory"))
        seconds = [{peer: timing["median"] for peer, timing in row["seconds"].items()} for row in (train, infer)]
        cells = [_number(seconds[0], peer, 1e3) for peer in ("jaxcnn", "torch", "flax", "equinox", "stax")]
        cells += [_number(seconds[1], peer, 1e3) for peer in ("jaxcnn", "torch", "flax")]
        cells += [_number(memory["bytes"], peer, 1e-6) for peer in ("jaxcnn", "torch")]
        bold = [f"**{cell}**" if i in (0, 5, 8) else cell for i, cell in enumerate(cells)]
        size = "x".join(map(str, train["shape"][:-1]))
        text += f"| {title}, {size}, {train['batch']} | {' | '.join(bold)} |\n"
    return text


SHORT = ("LeNet-5", "ResNet-20", "MobileNet-like", "ResNet-18", "InceptionTime")


def short_network_table() -> str:
    """The training times of jaxcnn, PyTorch and Flax for some networks, as in the README."""
    lines = network_table().splitlines()
    lines = [*lines[:2], *(line for line in lines if line[2:].startswith(tuple(f"{net}," for net in SHORT)))]
    return "".join(f"{'|'.join(line.split('|')[:5])}|\n" for line in lines)


def vmap_tables(device: str) -> list[str]:
    """Milliseconds of several models in one program and in separate calls, and of gradients per example.

    The first table is in docs/speed.md, too. Without measurements the list is empty.
    """
    result = _result(f"vmap-{device}")
    rows = result["rows"] if result else []
    lines: dict[str, list[str]] = {"train": [], "examples": []}
    by_work = {(row["net"], row["models"], row["kind"]): row for row in rows}
    for (net, models, kind), row in by_work.items():
        if kind == "infer":
            continue
        cells = _vmap_cells(row, "loop") if kind == "train" else _vmap_cells(row, "batch")
        title = f"{TITLES[net]}, {row['batch']}"
        if kind == "train":
            title += f" | {models}"
            cells += _vmap_cells(by_work[net, models, "infer"], "loop")
        lines[kind].append(f"| {title} | {' | '.join(cells)} |\n")
    several = _header("network, batch", "models", *_vmap_header("training", "loop"), *_vmap_header("inference", "loop"))
    single = _header("network, batch", *_vmap_header("per example", "mean loss"))
    return [several + "".join(lines["train"]), single + "".join(lines["examples"])] if rows else []


def _header(*columns: str) -> str:
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"


def _vmap_header(kind: str, other: str) -> list[str]:
    return [kind, other, "ratio", "PyTorch", other, "Flax", "Equinox"]


def _vmap_cells(row: dict[str, Any], other: str) -> list[str]:
    calls = ("jaxcnn vmap", f"jaxcnn {other}", "torch vmap", f"torch {other}", "flax vmap", "equinox vmap")
    milliseconds = {name: 1e3 * timing["median"] for name, timing in row["seconds"].items()}
    ours, loop, *peers = (_digits(milliseconds.get(call)) for call in calls)
    return [f"**{ours}**", loop, f"{row['ratio']['jaxcnn']:.2f}", *peers]


def _number(values: dict[str, float], peer: str, unit: float) -> str:
    """Two digits or more of the value of a contender, the least of PyTorch's; "-" if it was not measured."""
    return _digits(min((unit * value for name, value in values.items() if name.split()[0] == peer), default=None))


def _digits(value: float | None) -> str:
    """Two digits or more; "-" for None."""
    return "-" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


if __name__ == "__main__":
    README.write_text(page())
    print(README)
    print(short_network_table(), network_table(), *vmap_tables("cpu")[:1], sep="\n")
