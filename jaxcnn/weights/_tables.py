"""How PyTorch's libraries name the parameters of each architecture: tables, first torchvision's, then timm's.

A table turns the path of a leaf of `params` or `state` into a name there. Layouts follow from the rank: kernels
(*window, in, out) are weights (out, in, *window).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple


class Table(NamedTuple):
    """Names and layouts of one family in one library."""

    # regular expressions and what stands instead, one after the other; then "/" becomes "."
    names: tuple[tuple[str, str], ...] = ()
    # kernels after a flattened (C, H, W), which is (H, W, C) here; by path
    flattened: Mapping[str, tuple[int, int, int]] = {}
    # parameters that have so many dimensions of 1 at their end there; by regular expression on the path
    ones: Mapping[str, int] = {}


PLAIN = Table()

RESNET = Table(
    names=(
        ("^stem/conv", "conv1"),
        ("^stem/norm", "bn1"),
        ("^stage", "layer"),
        ("sum/layer/conv", "conv"),
        ("sum/layer/norm", "bn"),
        ("sum/layer/excite/weights/squeeze", "se/fc1"),
        ("sum/layer/excite/weights/expand", "se/fc2"),
        ("sum/shortcut/conv", "downsample/0"),
        ("sum/shortcut/norm", "downsample/1"),
        ("^head", "fc"),
    ),
    ones={".*/excite/weights/.*/kernel": 2},
)

# By the names of the models; all others are named as they are here, with dots.
TABLES: dict[str, tuple[Table, ...]] = {
    "(wide_|se_)?resnet(18|34|50|101|152)(_2)?|resnext.*": (RESNET,),
    "lenet5": (Table(flattened={"dense1/kernel": (16, 5, 5)}),),
}


def tables(model_name: str) -> tuple[Table, ...]:
    """Those for a model; the first is what `to_torch` writes."""
    for pattern, found in TABLES.items():
        if re.fullmatch(pattern, model_name):
            return found
    return (PLAIN,)
