"""The sections of `records` on speed, and the tables of README and docs/speed.md."""

import statistics
from typing import Any

from experiments.benchmarks import _measure, compilation, many_runs, spread, sweep

TITLES = {
    "lenet5": "LeNet-5",
    "small": "two convolutions",
    "resnet20": "ResNet-20",
    "mobilenet": "MobileNet-like",
    "convnext": "ConvNeXt-like",
    "vgg": "VGG-like",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "convnext_tiny": "ConvNeXt-T",
    "densenet121": "DenseNet-121",
    "efficientnet_b0": "EfficientNet-B0",
    "unet": "U-Net",
    "deeplabv3_mobilenet_v3_large": "DeepLab v3, MobileNet v3",
    "r3d_18": "R3D-18",
    "inception_time": "InceptionTime",
}


# Suffixes of result files that were measured with the newest release of jax, and with the newest for Python 3.11.
NEWEST, FOR_PYTHON_311 = "cpu-jax0.12", "cpu"


def network_table(release: str = NEWEST) -> str:
    """Milliseconds per batch and megabytes per training step of each network, as in docs/speed.md."""
    result = _measure.load(f"nets-{release}")
    by_kind = {(row["net"], row["kind"]): row for row in result["rows"]} if result else {}
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


# Suffixes of the result files of `nets` and the processors they are of. `nets` writes those without a suffix.
PROCESSORS = {"": "Zen 5", "-zen4": "Zen 4"}


def ratio_table() -> str:
    """The time of jaxcnn divided by that of PyTorch, by processor and release of jax, as in docs/speed.md."""
    columns, ratios = [], {}
    for suffix, processor in PROCESSORS.items():
        for release in (NEWEST, FOR_PYTHON_311):
            if not (result := _measure.load(f"nets-{release}{suffix}")):
                continue
            version = ".".join(result["machine"]["versions"]["jax"].split(".")[:2])
            for kind, heading in (("train", f"{processor}, jax {version}: training"), ("infer", "inference")):
                columns.append(heading)
                for row in (row for row in result["rows"] if row["kind"] == kind):
                    turns = {peer: timing["turns"] for peer, timing in row["seconds"].items()}
                    if peers := [peer for peer in turns if peer.startswith("torch")]:
                        ratios[row["net"], len(columns)] = f"{_measure.ratio(turns, 'jaxcnn', peers):.2f}"
    text = f"| network | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}\n"
    for net, title in TITLES.items():
        cells = [ratios.get((net, column), "-") for column in range(1, len(columns) + 1)]
        if {*cells} != {"-"}:
            text += f"| {title} | {' | '.join(cells)} |\n"
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
    result = _measure.load(f"vmap-{device}")
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
    if not (result := _measure.load(f"many_runs-{device}")):
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


def operations() -> str:
    """The sections on single operations with each release of jax. One that was not measured is left out."""
    return "".join(map(_operations, _of_releases("ops")))


def _of_releases(name: str) -> list[dict[str, Any]]:
    """The results of a benchmark with each release of jax that it was measured with."""
    return [result for release in (NEWEST, FOR_PYTHON_311) if (result := _measure.load(f"{name}-{release}"))]


def _operations(result: dict[str, Any]) -> str:
    text = f"\n## Operations, on a CPU with jax {result['machine']['versions']['jax']}\n\n"
    text += "`python -m experiments.benchmarks.ops`. Milliseconds of jaxcnn and, in brackets, of PyTorch and of plain"
    text += f" `lax`. {_on(result['machine'])}\n\n"
    text += _header("operation", "forward", "input gradient", "kernel gradient", "forward and input gradient")
    cells: dict[str, dict[str, str]] = {}
    for row in result["rows"]:
        medians = {name: timing[0] for name, timing in row["milliseconds"].items()}
        ours, *peers = (_number(medians, peer, 1) for peer in ("jaxcnn", "torch", "lax"))
        cells.setdefault(row["case"], {})[row["kind"]] = f"**{ours}** ({', '.join(peers)})"
    for case, by_kind in cells.items():
        values = (by_kind.get(kind, "-") for kind in ("forward", "dx", "dw", "forward + dx"))
        text += f"| {case} | {' | '.join(values)} |\n"
    return text


def random_operations() -> str:
    """The section on random operations against `lax`, or an empty string if they were not measured."""
    if not (results := _of_releases("sweep")):
        return ""
    text = "\n## Random operations against plain `lax`, on a CPU\n\n`python -m experiments.benchmarks.sweep --count N`."
    text += " The time of jaxcnn divided by that of `lax`, each for the forward pass and the gradients of N random"
    text += " convolutions, pools and batch norms. An operation counts as slower above 1.1.\n\n"
    text += _header("jax", "compared with", "operations", "geometric mean", "slower", "largest ratio", "of")
    for result in results:
        for peer in ("lax", "lax, same options"):
            ratios = [row["ratios"][peer] for row in result["rows"]]
            worst = max(result["rows"], key=lambda row, peer=peer: row["ratios"][peer])
            text += f"| {result['machine']['versions']['jax']} | {peer} | {len(ratios)}"
            text += f" | {statistics.geometric_mean(ratios):.2f} | {sum(ratio > sweep.NOISE for ratio in ratios)}"
            text += f" | {max(ratios):.2f} | {worst['case']}, {worst['kind']} |\n"
    return text


def spread_between_processes() -> str:
    """The section on the variation between processes, or an empty string if it was not measured."""
    if not (result := _measure.load("spread-cpu")):
        return ""
    machine = result["machine"]
    text = "\n## Times in 20 processes, on a CPU\n\n`python -m experiments.benchmarks.spread`, on"
    text += (
        f" {machine['cores']} cores of {machine['device']} with jax {machine['versions']['jax']}, {machine['date']}."
    )
    text += " Milliseconds, and the fraction of the processes whose time is within 10 % of the median.\n\n"
    text += _header("network or operation", "kind", "median", "smallest", "largest", "within 10 %")
    for row in result["rows"]:
        times = (_digits(1e3 * reduce(row["seconds"])) for reduce in (statistics.median, min, max))
        cells = TITLES.get(row["name"], row["name"]), row["kind"], *times, f"{spread.within(row['seconds']):.0%}"
        text += f"| {' | '.join(cells)} |\n"
    return text


def compile_times() -> str:
    """The section on compilation, or an empty string if it was not measured."""
    if not (result := _measure.load("compilation-cpu")):
        return ""
    text = "\n## Compilation, on a CPU\n\n`python -m experiments.benchmarks.compilation`. Seconds of processor time of"
    text += (
        " the first call without that of the second, and the seconds that pass in brackets, each in a process of its"
    )
    most = max(len(runs) for row in result["rows"] for runs in row["seconds"].values())
    text += f" own; medians of up to {most} runs. {_on(result['machine'])}\n\n"
    text += _header("network", "kind", *compilation.RUNS)
    for row in result["rows"]:
        cells = (_processor_time(row["seconds"].get(framework)) for framework in compilation.RUNS)
        kind = {"train": "training step", "infer": "inference"}[row["kind"]]
        text += f"| {TITLES[row['net']]} | {kind} | {' | '.join(cells)} |\n"
    return text


def _processor_time(runs: list[dict[str, float]] | None) -> str:
    if not runs:
        return "-"
    processor, passed = (statistics.median(run[key] for run in runs) for key in ("processor", "passed"))
    return f"{processor:.1f} ({passed:.1f})"


def start_up() -> str:
    """The section on the start of a process, or an empty string if it was not measured."""
    if not (result := _measure.load("startup-cpu")):
        return ""
    text = "\n## Start of a process, on a CPU\n\n`python -m experiments.benchmarks.startup`. LeNet-5, seconds since the"
    text += f" start of the process, medians of {len(result['rows'][0]['runs'])}. {_on(result['machine'])}\n\n"
    text += _header("library", "imported", "first training step", "62 steps")
    for row in result["rows"]:
        text += f"| {row['case']} | {' | '.join(f'{value:.2f}' for value in row['seconds'])} |\n"
    return text


def _on(machine: dict[str, Any]) -> str:
    versions = machine["versions"]
    named = (f"{name} {versions[name]}" for name in ("jax", "flax", "keras", "torch") if name in versions)
    return f"On {machine['cores']} cores of {machine['device']} with {', '.join(named)}, {machine['date']}."
