"""The sections of `records` on the results of networks: tasks, signals, exports to ONNX."""

from experiments import signals
from experiments.benchmarks import _measure, seeds
from experiments.benchmarks._measure import mean_and_std
from jaxcnn.models import MODELS

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
        if measured := _measure.load(f"seeds_{name}-cpu"):
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
    result = _measure.load("signals-cpu")
    figures = {row["experiment"]: row["figures"] for row in result["rows"]} if result else {}
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


def onnx_speed() -> str:
    """Milliseconds per batch of exported networks in onnxruntime and in jaxcnn, and operators of the exports."""
    if not (result := _measure.load("onnx-cpu")):
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
    if not (result := _measure.load("onnx_zoo-cpu")):
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
