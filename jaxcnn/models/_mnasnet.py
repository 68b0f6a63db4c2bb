"""MNASNet: the first network from a search that measured latency on a phone."""

import functools

import jax

from jaxcnn._combine import serial
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._inverted_residual import inverted_residual, make_divisible
from jaxcnn.models._unit import Norm, conv_norm_act, depthwise_norm_act, head
from jaxcnn.models._variant import variant

# (features, kernel size, stride, expansion, blocks) per stage
PLAN = ((24, 3, 2, 3, 3), (40, 5, 2, 3, 3), (80, 5, 2, 6, 3), (96, 3, 1, 6, 2), (192, 5, 2, 6, 4), (320, 3, 1, 6, 1))


@constructor
def mnasnet(
    classes: int | None = 1000,
    *,
    width: float,
    norm: Norm = functools.partial(batch_norm, decay=0.9997),
    dropout: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): MNASNet B1.

    block(x) = x + project(relu(depthwise(relu(expand(x)))))

    New in 2018: an architecture search chose expansion, kernel size and number of blocks for each stage. It measured
    the latency of every candidate on a phone.

    Variants, for 224x224 (top-1 of torchvision's first weights):
        name         parameters  multiply-adds   top-1
        mnasnet0_5    2,218,512        0.104 G  67.734
        mnasnet0_75   3,170,208        0.215 G  71.180
        mnasnet1_0    4,383,312        0.314 G  73.456
        mnasnet1_3    6,282,256        0.526 G  76.506

    Args:
        classes: number of classes; None gives the features (N, 1280).
        width: factor for all channels except those of the last convolution.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.mnasnet0_5(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Tan et al., "MnasNet: platform-aware neural architecture search for mobile", 2019.
    """
    channels = make_divisible(16 * width)
    layers = {
        "stem": conv_norm_act(make_divisible(32 * width), 3, stride=2, norm=norm),
        "depthwise": depthwise_norm_act(norm=norm),
        "project": conv_norm_act(channels, 1, norm=norm, act=identity),
    }
    for stage, (features, size, stride, expand, count) in enumerate(PLAN, 1):
        blocks = []
        for i in range(count):
            hidden, out = expand * channels, make_divisible(features * width)
            step = 1 if i else stride
            blocks.append(inverted_residual(out, size, hidden=hidden, stride=step, norm=norm, act=jax.nn.relu))
            channels = out
        layers[f"stage{stage}"] = serial(*blocks)
    return serial(**layers, top=conv_norm_act(1280, 1, norm=norm), features=global_avg_pool, **head(classes, dropout))


mnasnet0_5 = variant("mnasnet0_5", mnasnet, width=0.5)
mnasnet0_75 = variant("mnasnet0_75", mnasnet, width=0.75)
mnasnet1_0 = variant("mnasnet1_0", mnasnet, width=1.0)
mnasnet1_3 = variant("mnasnet1_3", mnasnet, width=1.3)
