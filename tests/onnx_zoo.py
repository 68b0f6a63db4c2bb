"""Compares every model of the zoo in onnxruntime with itself in jaxcnn, and records the largest differences.

    python -m tests.onnx_zoo [models ...]

By default the models that have no result yet. Each runs in a process of its own, and its result is saved at once. The
largest models, convnextv2_huge and regnet_y_128gf, have 2.6 GB of weights and need up to 20 GB of memory.
"""

import json
import sys
import time
from typing import Any

from experiments.benchmarks import _measure
from jaxcnn.models import MODELS

FILE = "onnx_zoo"


def compare(name: str) -> dict[str, Any]:
    """The row of a model. Each difference is relative to the largest value of the output."""
    from tests import test_onnx  # not at the top: the parent process needs no onnxruntime

    began = time.perf_counter()
    model, layer, params, state, x = test_onnx.exported(name)
    size = sum(len(weight.raw_data) for weight in model.graph.initializer)
    difference = max(test_onnx.differences(model, layer, params, state, x))
    return {
        "model": name,
        "shape": x.shape,
        "difference": float(difference),
        "nodes": len(model.graph.node),
        "bytes": size,
        "seconds": time.perf_counter() - began,
    }


def main(names: list[str]) -> None:
    path = _measure.results_path(FILE)
    done = {row["model"] for row in json.loads(path.read_text())["rows"]} if path.exists() else set()
    table = _measure.Table(("model", 30), "difference", "nodes", "MB", "seconds")
    for name in _measure.select_names(names, MODELS) if names else [name for name in MODELS if name not in done]:
        row = _measure.run_module(__spec__.name, "--one", name)
        rows = [*_measure.other_rows(FILE, "model", [name]), row]
        _measure.save(FILE, sorted(rows, key=lambda row: [*MODELS].index(row["model"])))
        table.row(name, row["difference"], row["nodes"], row["bytes"] / 1e6, row["seconds"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(compare(sys.argv[2])))
    else:
        main(sys.argv[1:])
