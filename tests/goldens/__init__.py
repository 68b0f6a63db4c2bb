"""PyTorch's outputs, and the scripts that store them."""

import json
import pathlib

import numpy as np


def operators(file):
    """(options, arrays) of each case in a file of `make_operators.py`."""
    cases = {}
    with np.load(pathlib.Path(__file__).parent / "operators" / file, allow_pickle=False) as arrays:
        for key in arrays:
            case, name = key.split("/")
            cases.setdefault(case, {})[name] = arrays[key]
    return [(json.loads(case.pop("options").item()), case) for case in cases.values()]
