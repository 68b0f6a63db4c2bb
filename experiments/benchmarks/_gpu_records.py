"""The measurements of `gpu` for the page of `records`."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

COMMAND = "python -m experiments.benchmarks.gpu"
PARTS = {"imagenet_throughput-gpu": "imagenet", "cifar10_speedrun-gpu": "cifar10"}  # by the name of a results file

Rows = list[dict[str, Any]]


def results(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The contents of the files gpu-CARD.json."""
    return [json.loads(path.read_text()) for path in sorted((folder / "results").glob("gpu-*.json"))]


def part_of_file(folder: pathlib.Path, file: str) -> dict[str, Any] | None:
    """What the benchmark that writes this file would measure, from the first card. None if it was not measured."""
    for measured in results(folder):
        if rows := _rows(measured, PARTS.get(file)):
            return measured | {"rows": rows}
    return None


def _rows(measured: Mapping[str, Any], part: str | None) -> Rows:
    """The measurements of a part that did not fail."""
    return [row for row in measured["rows"] if row["part"] == part and "exception" not in row]


def sections(folder: pathlib.Path, titles: Mapping[str, str]) -> Iterator[str]:
    """A section per card: conformance, networks, operations and many networks in one program."""
    for measured in results(folder):
        machine = measured["machine"]
        names = ("jax", "torch", "flax")
        versions = ", ".join(f"{name} {machine['versions'][name]}" for name in names if name in machine["versions"])
        text = f"\n## One GPU: {machine['device']}\n\n`{COMMAND}`, with {versions}, {machine['date']}.\n"
        text += _conformance([row for row in measured["rows"] if row["part"] == "conformance"])
        text += _networks(_rows(measured, "networks"), titles)
        text += _operations(_rows(measured, "operations"))
        yield text + _many(_rows(measured, "vmap"))


def _conformance(rows: Rows) -> str:
    failed = [row["name"] for row in rows if "exception" in row or not row["passed"]]
    text = f"\n{len(rows) - len(failed)} of {len(rows)} checks against the CPU passed: values and gradients relative to"
    text += " the largest value, up to 1e-4 in float32 and 3e-2 in bfloat16."
    text += f" Failed: {'; '.join(failed)}." if failed else ""
    return f"{text}\n" if rows else ""


def _networks(rows: Rows, titles: Mapping[str, str]) -> str:
    """Milliseconds per batch, the time of jaxcnn divided by that of the others, and seconds of compilation."""
    columns = ("network, batch", "dtype", *_columns("training"), *_columns("inference"), "compilation", "Flax")
    text = "\nMilliseconds per batch; the ratios are the time of jaxcnn divided by that of the fastest contender of the"
    text += " framework. Compilation in seconds, of training and inference.\n\n" + _line(*columns)
    text += f"|{'---|' * len(columns)}\n"
    for row in rows:
        cells = [cell for kind in ("train", "infer") for cell in _times(row[kind])]
        seconds = [row["compilation"][kind] for kind in ("train", "infer")]
        cells += [
            f"{sum(kind[peer] for kind in seconds):.1f}" if peer in seconds[0] else "-" for peer in ("jaxcnn", "flax")
        ]
        text += _line(f"{titles.get(row['net'], row['net'])}, {row['batch']}", row["dtype"], *cells)
    return text if rows else ""


def _columns(kind: str) -> tuple[str, ...]:
    return kind, "PyTorch", "ratio", "Flax", "ratio"


def _times(measured: Mapping[str, Any]) -> list[str]:
    """Cells: the median milliseconds of jaxcnn, and for PyTorch and Flax the smallest ones and the ratio."""
    medians = {name: 1e3 * timing["median"] for name, timing in measured["seconds"].items()}
    cells = [f"**{medians['jaxcnn']:.2f}**"]
    for peer in ("torch", "flax"):
        fastest = min((median for name, median in medians.items() if name.split()[0] == peer), default=None)
        cells += ["-", "-"] if fastest is None else [f"{fastest:.2f}", f"{measured['ratio'][peer]:.2f}"]
    return cells


def _operations(rows: Rows) -> str:
    columns = ("operation", "result", "dtype", "jaxcnn", "PyTorch", "ratio", "lax")
    text = f"\nOperations, in milliseconds:\n\n{_line(*columns)}|{'---|' * len(columns)}\n"
    for row in rows:
        medians = {name: median for name, (median, _, _) in row["milliseconds"].items()}
        torch = min((median for name, median in medians.items() if name.startswith("torch")), default=None)
        peer = ("-", "-") if torch is None else (f"{torch:.3f}", f"{row['of torch']:.2f}")
        text += _line(
            row["case"], row["kind"], row["dtype"], f"**{medians['jaxcnn']:.3f}**", *peer, f"{medians['lax']:.3f}"
        )
    return text if rows else ""


def _many(rows: Rows) -> str:
    text = "\nNetworks in one program (`vmap`), in milliseconds, and this time divided by that of a loop:\n\n"
    for row in rows:
        cells = (
            f"{name} {1e3 * row['seconds'][f'{name} vmap']['median']:.2f} ({v:.2f})" for name, v in row["ratio"].items()
        )
        text += f"- {row['models']} LeNet-5, {row['kind']}: {', '.join(cells)}\n"
    return text if rows else ""


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"
