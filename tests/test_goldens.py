"""Outputs and gradients of PyTorch, stored by `goldens/make_goldens.py`."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

import jaxcnn
from tests import oracle


def load():
    """(name, arrays) of each case, where the array "NAME/params/kernel" is arrays["params"]["kernel"]."""
    cases = {}
    for file in sorted((pathlib.Path(__file__).parent / "goldens").glob("*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            for key in arrays:
                name, *path, leaf = key.split("/")
                case = cases.setdefault(f"{file.stem}-{name}", {"params": {}, "state": {}, "new_state": {}})
                (case[path[0]] if path else case)[leaf] = arrays[key]
    return cases


CASES = load()


def test_all_files_are_here():
    assert {name.split("-")[0] for name in CASES} == {"conv", "norm", "pool", "resize", "shape"}
    assert sum("dx" in case for case in CASES.values()) > 40


@pytest.mark.sample(6)
@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    case = CASES[name]
    call = json.loads(case["layer"].item())
    layer = getattr(jaxcnn, call["layer"])(*call["args"], **call["options"])

    @jax.jit
    def forward(params, state, x, dy):
        apply = functools.partial(layer.apply, train=call["train"])
        if dy is None:
            return *apply(params, state, x), None
        y, pull, new_state = jax.vjp(lambda x: apply(params, state, x), x, has_aux=True)
        return y, new_state, pull(dy)[0]

    y, new_state, dx = forward(case["params"], case["state"], case["x"], case.get("dy"))
    oracle.assert_close(y, case["y"])
    assert new_state.keys() == case["new_state"].keys()
    for leaf, value in case["new_state"].items():
        oracle.assert_close(new_state[leaf], value)
    if dx is not None:
        oracle.assert_close(dx, case["dx"])
