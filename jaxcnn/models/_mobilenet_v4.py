"""MobileNet v4: networks for phones of one block, the universal inverted bottleneck."""

from typing import Any

import jax

from jaxcnn._combine import AnyLayer, serial
from jaxcnn._dense import dense, identity
from jaxcnn._layer import Layer, constructor, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._inverted_residual import fused_inverted_residual, with_shortcut
from jaxcnn.models._unit import Norm, conv_norm_act, depthwise_norm_act, head
from jaxcnn.models._variant import variant

# Blocks of each stage as (kind, ..): ("conv", size, stride, features), ("fused", expansion, stride, features), or
# ("universal", size of the first depthwise convolution, of the second, stride, expansion, features); size 0 is none.
SMALL = (
    (("conv", 3, 2, 32), ("conv", 1, 1, 32)),
    (("conv", 3, 2, 96), ("conv", 1, 1, 64)),
    (
        ("universal", 5, 5, 2, 3, 96),
        *4 * (("universal", 0, 3, 1, 2, 96),),
        ("universal", 3, 0, 1, 4, 96),
    ),
    (
        ("universal", 3, 3, 2, 6, 128),
        ("universal", 5, 5, 1, 4, 128),
        ("universal", 0, 5, 1, 4, 128),
        ("universal", 0, 5, 1, 3, 128),
        *2 * (("universal", 0, 3, 1, 4, 128),),
    ),
    (("conv", 1, 1, 960),),
)
MEDIUM = (
    (("fused", 4, 2, 48),),
    (("universal", 3, 5, 2, 4, 80), ("universal", 3, 3, 1, 2, 80)),
    (
        ("universal", 3, 5, 2, 6, 160),
        *2 * (("universal", 3, 3, 1, 4, 160),),
        ("universal", 3, 5, 1, 4, 160),
        ("universal", 3, 3, 1, 4, 160),
        ("universal", 3, 0, 1, 4, 160),
        ("universal", 0, 0, 1, 2, 160),
        ("universal", 3, 0, 1, 4, 160),
    ),
    (
        *(("universal", 5, 5, 2, 6, 256), ("universal", 5, 5, 1, 4, 256)),
        *2 * (("universal", 3, 5, 1, 4, 256),),
        ("universal", 0, 0, 1, 4, 256),
        ("universal", 3, 0, 1, 4, 256),
        ("universal", 3, 5, 1, 2, 256),
        ("universal", 5, 5, 1, 4, 256),
        *2 * (("universal", 0, 0, 1, 4, 256),),
        ("universal", 5, 0, 1, 2, 256),
    ),
    (("conv", 1, 1, 960),),
)


@constructor
def mobilenetv4(
    classes: int | None = 1000,
    *,
    stages: tuple[tuple[tuple, ...], ...],
    norm: Norm = batch_norm,
    dropout: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): MobileNet v4, the convolutional networks.

    block(x) = x + project(depthwise2(expand(depthwise1(x))))

    New in 2024: each of the two depthwise convolutions is optional. The block is then an inverted residual (only the
    second), a ConvNeXt block (only the first), a feed-forward network (none), or has both for a larger receptive field.
    An architecture search chose the networks for speed on many phones, with ReLUs and without squeeze-and-excitation.

    Variants, for 224x224, conv_medium for 256x256 (the paper's top-1):
        name                     parameters  multiply-adds  top-1
        mobilenetv4_conv_small    3,774,024        0.186 G   73.8
        mobilenetv4_conv_medium   9,715,512        1.080 G   79.9

    Args:
        classes: number of classes; None gives the features (N, 1280).
        stages: the blocks of each stage: ("conv", size, stride, features), ("fused", expansion, stride, features) or
            ("universal", size of the first depthwise convolution, of the second, stride, expansion, features).
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.mobilenetv4_conv_small(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Qin et al., "MobileNetV4: universal models for the mobile ecosystem", 2024.
    """

    def block(kind, *row):
        if kind == "universal":
            return universal_bottleneck(*row, norm=norm)
        first, stride, features = row
        options: dict[str, Any] = {"stride": stride, "norm": norm, "act": jax.nn.relu}
        if kind == "fused":
            return fused_inverted_residual(features, expand=first, **options)
        return conv_norm_act(features, first, **options)

    layers = {"stem": conv_norm_act(32, 3, stride=2, norm=norm)}
    for stage, blocks in enumerate(stages, 1):
        layers[f"stage{stage}"] = serial(*(block(*row) for row in blocks))
    last = serial(dense=dense(1280, bias=False), norm=norm(), relu=jax.nn.relu)
    return serial(**layers, pool=global_avg_pool, last=last, **head(classes, dropout))


def universal_bottleneck(first: int, second: int, stride: int, expand: int, features: int, *, norm: Norm) -> Layer:
    """(N, H, W, C) -> (N, H / stride, W / stride, features): the universal inverted bottleneck.

    y = x + project(depthwise(expand(start(x)))), without the shortcut x if the shape changes

    `first` and `second` are the kernel sizes of the depthwise convolutions `start` and `depthwise`, 0 for none. The
    second one has the stride, if both exist. There is no activation after `start` and `project`.
    """

    def depthwise(size: int, stride: int, act: AnyLayer) -> Layer:
        return depthwise_norm_act(size, stride=stride, norm=norm, act=act)

    def build(shape: tuple[int, ...]) -> Layer:
        parts: dict[str, AnyLayer] = {}
        if first:
            parts["start"] = depthwise(first, 1 if second else stride, identity)
        parts["expand"] = conv_norm_act(expand * shape[-1], 1, norm=norm)
        if second:
            parts["depthwise"] = depthwise(second, stride, jax.nn.relu)
        parts["project"] = conv_norm_act(features, 1, norm=norm, act=identity)
        return with_shortcut(parts, shape, features, stride, 0.0)

    return from_input_shape(build)


mobilenetv4_conv_small = variant("mobilenetv4_conv_small", mobilenetv4, stages=SMALL)
mobilenetv4_conv_medium = variant("mobilenetv4_conv_medium", mobilenetv4, size=256, stages=MEDIUM)
