"""Losses, metrics and trainings of all tasks give the same on one device, on several, from memory and from a stream."""

import copy
import json

import jax
import numpy as np
import pytest

from tests import test_faults
from tests.test_metrics import CASES, GOLDEN

PROGRAM = {"program": "tests.fit_tasks"}


def results(*processes):
    """What the programs print; all that run together must print the same."""
    outs = [test_faults.finish(process, timeout=300) for process in processes]
    lines = [[line for line in out.splitlines() if line.startswith("result ")] for out in outs]
    assert all(found == lines[0] and len(found) == 1 for found in lines), outs
    return json.loads(lines[0][0].removeprefix("result "))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        ("8 devices", "true"),
        ("2 processes", "false"),
        pytest.param("8 devices", "false", marks=pytest.mark.full),
        pytest.param("2 processes", "true", marks=pytest.mark.full),
    ],
)
def test_metrics_of_several_devices_equal_scikit_learn(tmp_path, kind, stream):
    """203 weighted examples in batches of 48, so the last batch is padded."""
    arguments = [f"stream={stream}"]
    if kind == "8 devices":
        values = results(test_faults.start(f"folder={tmp_path}", *arguments, devices=8, **PROGRAM))
    else:
        values = results(*test_faults.together(tmp_path, *arguments, **PROGRAM))
    assert values.keys() == CASES.keys()
    for name, value in values.items():
        np.testing.assert_allclose(value, GOLDEN[f"y/{name}"], rtol=1e-5, atol=1e-6, err_msg=name)


def close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


@pytest.mark.full
def test_segmentation_from_memory_from_a_stream_on_8_devices_and_resumed(tmp_path):
    """A U-Net with a sum of two losses and three metrics, one of them an array."""
    go = lambda name, *arguments, **options: results(
        test_faults.start("task=segmentation", f"folder={tmp_path / name}", *arguments, **PROGRAM, **options)
    )
    whole = go("memory")
    ious = [record["test"]["mean_iou"] for record in whole["history"]]
    assert len(ious) == 2
    assert ious[1] > ious[0] > 0.8  # it learns
    assert np.shape(whole["history"][0]["test"]["matrix"]) == (3, 3)
    assert np.sum(whole["history"][0]["test"]["matrix"]) == 21 * 16 * 16
    for name, arguments, devices in (("stream", ["stream=true"], 1), ("eight", [], 8), ("both", ["stream=true"], 8)):
        other = go(name, *arguments, devices=devices)  # another program, which may round differently
        close(whole["params"], other["params"], rtol=1e-3, atol=1e-4)
        for records in zip(copy.deepcopy(whole["history"]), other["history"], strict=True):
            matrices = [record["test"].pop("matrix") for record in records]
            close(*matrices, atol=2)  # a pixel of nearly equal logits may change its class
            close(*records, rtol=1e-2)
    stopped = go("stopped", "stop=28")  # in the second epoch of 20 steps
    assert len(stopped["history"]) == 1
    assert go("stopped") == whole  # to the bit
