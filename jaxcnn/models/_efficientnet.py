"""EfficientNet: one base network, scaled in depth, width and image size by one rule."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxcnn._combine import serial
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._inverted_residual import fused_inverted_residual, inverted_residual, make_divisible
from jaxcnn.models._unit import Norm, conv_norm_act, head, padding_of
from jaxcnn.models._variant import variant

# (expansion, kernel size, stride, features, blocks) per stage; kernel size 0 means fused blocks
V1 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
V2_S = (
    (1, 0, 1, 24, 2),
    (4, 0, 2, 48, 4),
    (4, 0, 2, 64, 4),
    (4, 3, 2, 128, 6),
    (6, 3, 1, 160, 9),
    (6, 3, 2, 256, 15),
)
V2_M = (
    (1, 0, 1, 24, 3),
    (4, 0, 2, 48, 5),
    (4, 0, 2, 80, 5),
    (4, 3, 2, 160, 7),
    (6, 3, 1, 176, 14),
    (6, 3, 2, 304, 18),
    (6, 3, 1, 512, 5),
)
V2_L = (
    (1, 0, 1, 32, 4),
    (4, 0, 2, 64, 7),
    (4, 0, 2, 96, 7),
    (4, 3, 2, 192, 10),
    (6, 3, 1, 224, 19),
    (6, 3, 2, 384, 25),
    (6, 3, 1, 640, 7),
)
NORM_V2 = functools.partial(batch_norm, eps=1e-3)
NORM_B5_TO_B7 = functools.partial(batch_norm, decay=0.99, eps=1e-3)


@constructor
def efficientnet(
    classes: int | None = 1000,
    *,
    stages: tuple[tuple[int, ...], ...] = V1,
    width: float = 1.0,
    depth: float = 1.0,
    stem: int = 32,
    top: int | None = None,
    act: Callable[[jax.Array], jax.Array] = jax.nn.silu,
    excite: bool = True,
    norm: Norm = batch_norm,
    padding: str = "torch",
    dropout: float = 0.2,
    drop_path: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): EfficientNet, EfficientNet Lite and EfficientNet v2.

    block(x) = x + drop_path(project(excite(silu(depthwise(silu(expand(x)))))))

    New in 2019: an architecture search found b0. b1 to b7 scale its depth by 1.2^k, its width by 1.1^k and the image
    size by 1.15^k together. New in 2021 (v2): the search minimized training time. For the early stages it chose fused
    blocks, with one 3x3 convolution instead of expansion and depthwise convolution. Lite is for integer arithmetic on
    phones: b0 with ReLU6 and without squeeze-and-excitation.

    Variants, for their evaluation image sizes, 224 to 600 (top-1 of torchvision's first weights, lite0: the authors'):
        name               parameters  multiply-adds   top-1
        efficientnet_b0     5,288,548        0.386 G  77.692
        efficientnet_b1     7,794,184        0.687 G  78.642
        efficientnet_b2     9,109,994        1.088 G  80.608
        efficientnet_b3    12,233,232        1.827 G  82.008
        efficientnet_b4    19,341,616        4.394 G  83.384
        efficientnet_b5    30,389,784       10.266 G  83.444
        efficientnet_b6    43,040,704       19.068 G  84.008
        efficientnet_b7    66,347,960       37.746 G  84.122
        efficientnet_lite0   4,652,008        0.385 G    75.1
        efficientnet_v2_s  21,458,488        8.366 G  84.228
        efficientnet_v2_m  54,139,356       24.582 G  85.112
        efficientnet_v2_l 118,515,272       56.080 G  85.808

    Args:
        classes: number of classes; None gives the features (N, C).
        stages: (expansion, kernel size, stride, features, blocks) per stage. Kernel size 0 means fused blocks.
        width: factor for all channels.
        depth: factor for the number of blocks of each stage.
        stem: channels of the first convolution, before scaling by `width`.
        top: channels of the last convolution. By default, four times its input channels.
        act: activation function.
        excite: True for squeeze-and-excitation in the blocks that are not fused.
        norm: constructor of a normalization layer.
        padding: "torch", or "tensorflow" for timm's `tf_` weights, whose norms have eps=1e-3.
        dropout: dropout rate before the last layer.
        drop_path: stochastic depth rate. Block i of n, counted from 0, has the rate drop_path * i / n.

    Example:
        >>> model = jaxcnn.models.efficientnet_b0(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019, and
    "EfficientNetV2: smaller models and faster training", 2021.
    """
    channels = make_divisible(stem * width)
    layers = {"stem": conv_norm_act(channels, 3, stride=2, padding=padding_of(padding), norm=norm, act=act)}
    counts = [math.ceil(count * depth) for *_, count in stages]
    block_index = 0
    for stage, ((expand, size, stride, features, _), count) in enumerate(zip(stages, counts, strict=True), 1):
        blocks, out = [], make_divisible(features * width)
        for i in range(count):
            options: dict[str, Any] = {
                "stride": 1 if i else stride,
                "padding": padding_of(padding),
                "norm": norm,
                "act": act,
                "drop_path": drop_path * block_index / sum(counts),
            }
            if size == 0:
                blocks.append(fused_inverted_residual(out, expand=expand, **options))
            else:
                squeeze = max(1, channels // 4) if excite else 0
                options |= {"squeeze": squeeze, "squeeze_act": act}
                blocks.append(inverted_residual(out, size, hidden=expand * channels, **options))
            channels, block_index = out, block_index + 1
        layers[f"stage{stage}"] = serial(*blocks)
    layers["top"] = conv_norm_act(top or 4 * channels, 1, norm=norm, act=act)
    return serial(**layers, features=global_avg_pool, **head(classes, dropout))


efficientnet_b0 = variant("efficientnet_b0", efficientnet)
efficientnet_b1 = variant("efficientnet_b1", efficientnet, size=240, depth=1.1)
efficientnet_b2 = variant("efficientnet_b2", efficientnet, size=288, width=1.1, depth=1.2, dropout=0.3)
efficientnet_b3 = variant("efficientnet_b3", efficientnet, size=300, width=1.2, depth=1.4, dropout=0.3)
efficientnet_b4 = variant("efficientnet_b4", efficientnet, size=380, width=1.4, depth=1.8, dropout=0.4)
efficientnet_b5 = variant(
    "efficientnet_b5", efficientnet, size=456, width=1.6, depth=2.2, dropout=0.4, norm=NORM_B5_TO_B7
)
efficientnet_b6 = variant(
    "efficientnet_b6", efficientnet, size=528, width=1.8, depth=2.6, dropout=0.5, norm=NORM_B5_TO_B7
)
efficientnet_b7 = variant(
    "efficientnet_b7", efficientnet, size=600, width=2.0, depth=3.1, dropout=0.5, norm=NORM_B5_TO_B7
)
efficientnet_lite0 = variant("efficientnet_lite0", efficientnet, act=jax.nn.relu6, excite=False)
efficientnet_v2_s = variant("efficientnet_v2_s", efficientnet, size=384, stages=V2_S, stem=24, top=1280, norm=NORM_V2)
efficientnet_v2_m = variant(
    "efficientnet_v2_m", efficientnet, size=480, stages=V2_M, stem=24, top=1280, norm=NORM_V2, dropout=0.3
)
efficientnet_v2_l = variant(
    "efficientnet_v2_l", efficientnet, size=480, stages=V2_L, stem=32, top=1280, norm=NORM_V2, dropout=0.4
)
