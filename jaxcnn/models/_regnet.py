"""RegNet: a parameterized family of networks, found by comparing thousands."""

import math

import jax
import numpy as np

from jaxcnn._arguments import check_choice
from jaxcnn._combine import residual, serial
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn._squeeze_excite import squeeze_excite
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant

ROUNDINGS = ("torchvision", "pycls")


@constructor
def regnet(
    classes: int | None = 1000,
    *,
    depth: int,
    width: int,
    slope: float,
    step: float,
    group_width: int,
    rounding: str = "torchvision",
    excite: bool = False,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): RegNet X, and RegNet Y with squeeze-and-excitation.

    y = relu(shortcut(x) + f(x));  block j has width * step^s channels, with step^s closest to 1 + slope * j / width

    New in 2020: the authors searched for a design space, not for a single network. They sampled many networks, trained
    them briefly and restricted the space to the good ones. In the result, the width grows linearly with the depth, and
    is rounded to a constant per stage. Five numbers define a network. f is a 1x1, a grouped 3x3 and a 1x1 convolution
    of equal width. Y has squeeze-and-excitation before the last one.

    Variants, for 224x224, regnet_y_128gf for 384x384 (top-1 of torchvision's first weights, where regnet_y_128gf was
    pretrained on billions of images; 200mf, 600mf, 4gf, 6_4gf and 12gf: of the authors' weights in timm):
        name             parameters  multiply-adds   top-1
        regnet_x_200mf    2,684,792        199.0 M  68.746
        regnet_x_400mf    5,495,976        413.8 M  72.834
        regnet_x_600mf    6,196,040        600.9 M  73.868
        regnet_x_800mf    7,259,656        799.7 M  75.212
        regnet_x_1_6gf    9,190,136        1.603 G  77.040
        regnet_x_3_2gf   15,296,552        3.177 G  78.364
        regnet_x_4gf     22,118,248        3.964 G  78.492
        regnet_x_6_4gf   26,209,256        6.460 G  79.066
        regnet_x_8gf     39,572,648        7.995 G  79.344
        regnet_x_12gf    46,106,056       12.087 G  79.588
        regnet_x_16gf    54,278,536       15.941 G  80.058
        regnet_x_32gf   107,811,560       31.736 G  80.622
        regnet_y_200mf    3,162,996        199.5 M  70.278
        regnet_y_400mf    4,344,144        401.8 M  74.046
        regnet_y_600mf    6,055,160        601.2 M  75.270
        regnet_y_800mf    6,432,512        833.9 M  76.420
        regnet_y_1_6gf   11,202,430        1.612 G  77.950
        regnet_y_3_2gf   19,436,338        3.176 G  78.948
        regnet_y_4gf     20,646,656        3.973 G  79.232
        regnet_y_6_4gf   30,583,252        6.355 G  79.714
        regnet_y_8gf     39,381,472        8.473 G  80.032
        regnet_y_12gf    51,822,544       12.092 G  80.386
        regnet_y_16gf    83,590,140       15.912 G  80.424
        regnet_y_32gf   145,046,770       32.280 G  80.878
        regnet_y_128gf  644,812,894      374.570 G  88.228

    Args:
        classes: number of classes; None gives the features (N, C).
        depth: total number of blocks, d in the paper.
        width: initial width, w_0.
        slope: growth of the width per block, w_a.
        step: factor between the widths of consecutive stages, w_m.
        group_width: channels per group of the 3x3 convolution, g. Widths are rounded to its multiples.
        rounding: "pycls" for the nearest multiple, as in the authors' code. "torchvision": never below 90 % of the
            width. Of the variants, they only differ in x_400mf, x_4gf, y_800mf, y_4gf and y_8gf.
        excite: True for squeeze-and-excitation.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        ValueError: for an unknown rounding.

    Example:
        >>> model = jaxcnn.models.regnet_y_400mf(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (440, 10)

    Source: Radosavovic, Kosaraju, Girshick, He and Dollar, "Designing network design spaces", 2020.
    """
    check_choice("regnet", "rounding", rounding, ROUNDINGS)

    def block(channels, features, groups, stride):
        branch = {
            "conv1": conv_norm_act(features, 1, norm=norm),
            "conv2": conv_norm_act(features, 3, stride=stride, groups=groups, norm=norm),
        }
        if excite:
            branch["excite"] = squeeze_excite(features=round(channels / 4))
        branch["conv3"] = conv_norm_act(features, 1, norm=norm, act=identity)
        project = stride > 1 or channels != features
        shortcut = conv_norm_act(features, 1, stride=stride, norm=norm, act=identity) if project else identity
        return serial(sum=residual(serial(**branch), shortcut), relu=jax.nn.relu)

    channels = 32
    layers = {"stem": conv_norm_act(channels, 3, stride=2, norm=norm)}
    for stage, (features, blocks, groups) in enumerate(_stages(depth, width, slope, step, group_width, rounding), 1):
        first = block(channels, features, groups, 2)
        layers[f"stage{stage}"] = serial(first, *(block(features, features, groups, 1) for _ in range(1, blocks)))
        channels = features
    return serial(**layers, features=global_avg_pool, **head(classes, dropout))


def _stages(
    depth: int, width: int, slope: float, step: float, group_width: int, rounding: str
) -> list[tuple[int, int, int]]:
    """Return (features, blocks, groups) of each stage.

    The widths u_j = w_0 + w_a j are rounded to w_0 w_m^s, then to multiples of 8, then to multiples of the group width.
    """
    linear = width + slope * np.arange(depth)
    exponents = np.round(np.log(linear / width) / math.log(step))
    widths, blocks = np.unique((8 * np.round(width * step**exponents / 8)).astype(int), return_counts=True)
    stages = []
    for features, count in zip(widths.tolist(), blocks.tolist(), strict=True):
        group = min(group_width, features)
        groups = round(features / group)
        if rounding == "torchvision":
            groups = int(features / group + 0.5)
            groups += groups * group < 0.9 * features
        stages.append((groups * group, count, groups))
    return stages


regnet_x_200mf = variant("regnet_x_200mf", regnet, depth=13, width=24, slope=36.44, step=2.49, group_width=8)
regnet_x_400mf = variant("regnet_x_400mf", regnet, depth=22, width=24, slope=24.48, step=2.54, group_width=16)
regnet_x_600mf = variant("regnet_x_600mf", regnet, depth=16, width=48, slope=36.97, step=2.24, group_width=24)
regnet_x_800mf = variant("regnet_x_800mf", regnet, depth=16, width=56, slope=35.73, step=2.28, group_width=16)
regnet_x_1_6gf = variant("regnet_x_1_6gf", regnet, depth=18, width=80, slope=34.01, step=2.25, group_width=24)
regnet_x_3_2gf = variant("regnet_x_3_2gf", regnet, depth=25, width=88, slope=26.31, step=2.25, group_width=48)
regnet_x_4gf = variant(
    "regnet_x_4gf", regnet, depth=23, width=96, slope=38.65, step=2.43, group_width=40, rounding="pycls"
)
regnet_x_6_4gf = variant("regnet_x_6_4gf", regnet, depth=17, width=184, slope=60.83, step=2.07, group_width=56)
regnet_x_8gf = variant("regnet_x_8gf", regnet, depth=23, width=80, slope=49.56, step=2.88, group_width=120)
regnet_x_12gf = variant("regnet_x_12gf", regnet, depth=19, width=168, slope=73.36, step=2.37, group_width=112)
regnet_x_16gf = variant("regnet_x_16gf", regnet, depth=22, width=216, slope=55.59, step=2.1, group_width=128)
regnet_x_32gf = variant("regnet_x_32gf", regnet, depth=23, width=320, slope=69.86, step=2.0, group_width=168)
regnet_y_200mf = variant(
    "regnet_y_200mf", regnet, depth=13, width=24, slope=36.44, step=2.49, group_width=8, excite=True
)
regnet_y_400mf = variant(
    "regnet_y_400mf", regnet, depth=16, width=48, slope=27.89, step=2.09, group_width=8, excite=True
)
regnet_y_600mf = variant(
    "regnet_y_600mf", regnet, depth=15, width=48, slope=32.54, step=2.32, group_width=16, excite=True
)
regnet_y_800mf = variant(
    "regnet_y_800mf", regnet, depth=14, width=56, slope=38.84, step=2.4, group_width=16, excite=True
)
regnet_y_1_6gf = variant(
    "regnet_y_1_6gf", regnet, depth=27, width=48, slope=20.71, step=2.65, group_width=24, excite=True
)
regnet_y_3_2gf = variant(
    "regnet_y_3_2gf", regnet, depth=21, width=80, slope=42.63, step=2.66, group_width=24, excite=True
)
regnet_y_4gf = variant(
    "regnet_y_4gf", regnet, depth=22, width=96, slope=31.41, step=2.24, group_width=64, rounding="pycls", excite=True
)
regnet_y_6_4gf = variant(
    "regnet_y_6_4gf", regnet, depth=25, width=112, slope=33.22, step=2.27, group_width=72, excite=True
)
regnet_y_8gf = variant("regnet_y_8gf", regnet, depth=17, width=192, slope=76.82, step=2.19, group_width=56, excite=True)
regnet_y_12gf = variant(
    "regnet_y_12gf", regnet, depth=19, width=168, slope=73.36, step=2.37, group_width=112, excite=True
)
regnet_y_16gf = variant(
    "regnet_y_16gf", regnet, depth=18, width=200, slope=106.23, step=2.48, group_width=112, excite=True
)
regnet_y_32gf = variant(
    "regnet_y_32gf", regnet, depth=20, width=232, slope=115.89, step=2.53, group_width=232, excite=True
)
regnet_y_128gf = variant(
    "regnet_y_128gf", regnet, size=384, depth=27, width=456, slope=160.83, step=2.52, group_width=264, excite=True
)
