"""Wide residual networks for small images: fewer layers with more channels."""

import jax

from jaxcnn._combine import serial
from jaxcnn._conv import conv
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._preact_resnet import basic_branch, preact_block
from jaxcnn.models._unit import Norm, head
from jaxcnn.models._variant import variant


@constructor
def wide_resnet(
    classes: int | None = 10,
    *,
    depth: int,
    factor: int,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, 32, 32, 3) -> (N, classes): Wide ResNet for CIFAR. For ImageNet, use wide_resnet50_2.

    y = x + conv(dropout(relu(norm(conv(relu(norm(x)))))))

    New in 2016: 16 wide layers match a thousand thin ones, and are faster because their convolutions are large. Three
    stages have 16, 32 and 64 channels, times `factor`. The pre-activation blocks have two 3x3 convolutions with dropout
    in between, which affects the branch but not the shortcut.

    Variants, for 32x32 (the paper's error on CIFAR-10):
        name       parameters  multiply-adds   error
        wrn_16_4    2,748,890        392.6 M  5.02 %
        wrn_16_8   10,961,370        1.548 G  4.27 %
        wrn_28_10  36,479,194        5.243 G  4.00 %
        wrn_40_2    2,243,546        327.6 M  5.33 %

    Args:
        classes: number of classes; None gives the features (N, 64 * factor).
        depth: number of convolutions, 6 n + 4 for n blocks per stage.
        factor: widening factor, a multiple of the channels of the thin network.
        norm: constructor of a normalization layer.
        dropout: dropout rate in each block. With 0.3, the paper's WRN-28-10 has an error of 3.89 %.

    Raises:
        ValueError: for a depth that is not 6 n + 4.

    Example:
        >>> model = jaxcnn.models.wrn_16_4(classes=100)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))[0]["head"]["kernel"].shape
        (256, 100)

    Source: Zagoruyko and Komodakis, "Wide residual networks", 2016.
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth must be 6 n + 4 for n blocks per stage, for example 16, 28 or 40, got {depth}")
    channels = 16
    layers = {"stem": conv(channels, 3, padding=1, bias=False)}
    for stage in (1, 2, 3):
        width = 8 * 2**stage * factor
        blocks = []
        for i in range(depth // 6):
            stride = 2 if i == 0 and stage > 1 else 1
            shortcut = None if width == channels else conv(width, 1, stride=stride, bias=False)
            blocks.append(preact_block(basic_branch(width, stride, norm, dropout), shortcut, norm))
            channels = width
        layers[f"stage{stage}"] = serial(*blocks)
    return serial(**layers, norm=norm(), relu=jax.nn.relu, features=global_avg_pool, **head(classes))


wrn_16_4 = variant("wrn_16_4", wide_resnet, size=32, depth=16, factor=4)
wrn_16_8 = variant("wrn_16_8", wide_resnet, size=32, depth=16, factor=8)
wrn_28_10 = variant("wrn_28_10", wide_resnet, size=32, depth=28, factor=10)
wrn_40_2 = variant("wrn_40_2", wide_resnet, size=32, depth=40, factor=2)
