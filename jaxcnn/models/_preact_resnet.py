"""Pre-activation residual networks: normalization and activation precede the convolutions."""

import jax

from jaxcnn._combine import AnyLayer, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, head
from jaxcnn.models._variant import variant


@constructor
def preact_resnet(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...],
    bottleneck: bool = True,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): pre-activation ResNet, ResNet v2.

    y = x + f(relu(norm(x)))

    New in 2016: no ReLU follows the sum. x therefore passes unchanged through all blocks of a stage, and so does its
    gradient in the backward pass. This makes a thousand layers trainable. f is two 3x3 convolutions, or a bottleneck of
    1x1, 3x3 and 1x1, with normalization and ReLU in between. Where the shape changes, the shortcut is a 1x1
    convolution of relu(norm(x)). The stride is in the 3x3 convolution, as in timm (in the paper: the first 1x1).

    Variants, for 224x224 (top-1 of timm's a1h weights; "-": no published value for this size):
        name              parameters  multiply-adds   top-1
        preact_resnet18   11,687,720        1.814 G       -
        preact_resnet34   21,795,880        3.664 G       -
        preact_resnet50   25,549,352        4.089 G  80.410
        preact_resnet101  44,541,480        7.801 G       -
        preact_resnet152  60,185,128       11.514 G       -

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: blocks per stage.
        bottleneck: True for bottleneck blocks, False for two 3x3 convolutions.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.preact_resnet18(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (512, 10)

    Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", 2016.
    """

    def bottleneck_branch(width, stride):
        return {
            "conv1": conv(width // 4, 1, bias=False),
            "norm2": norm(),
            "relu2": jax.nn.relu,
            "conv2": conv(width // 4, 3, stride=stride, padding=1, bias=False),
            "norm3": norm(),
            "relu3": jax.nn.relu,
            "conv3": conv(width, 1, bias=False),
        }

    channels = 64
    layers = {"stem": conv(channels, 7, stride=2, padding=3, bias=False), "pool": max_pool(3, stride=2, padding=1)}
    for stage, depth in enumerate(depths, 1):
        width = 2 ** (stage - 1) * (256 if bottleneck else 64)
        blocks = []
        for i in range(depth):
            stride = 2 if i == 0 and stage > 1 else 1
            branch = bottleneck_branch(width, stride) if bottleneck else basic_branch(width, stride, norm)
            shortcut = None if width == channels else conv(width, 1, stride=stride, bias=False)
            blocks.append(preact_block(branch, shortcut, norm))
            channels = width
        layers[f"stage{stage}"] = serial(*blocks)
    return serial(**layers, norm=norm(), relu=jax.nn.relu, features=global_avg_pool, **head(classes, dropout))


def basic_branch(width: int, stride: int, norm: Norm, dropout: float = 0.0) -> dict[str, AnyLayer]:
    """Return the branch of two 3x3 convolutions, without its first normalization and ReLU."""
    return {
        "conv1": conv(width, 3, stride=stride, padding=1, bias=False),
        "norm2": norm(),
        "relu2": jax.nn.relu,
        "drop": drop(dropout),
        "conv2": conv(width, 3, padding=1, bias=False),
    }


def preact_block(branch: dict[str, AnyLayer], shortcut: AnyLayer | None, norm: Norm) -> Layer:
    """y = x + branch(h) or, with a shortcut, y = shortcut(h) + branch(h), for h = relu(norm(x))."""
    preact: dict[str, AnyLayer] = {"norm1": norm(), "relu1": jax.nn.relu}
    if shortcut is None:
        return residual(serial(**preact, **branch))
    return serial(**preact, sum=residual(serial(**branch), shortcut))


preact_resnet18 = variant("preact_resnet18", preact_resnet, depths=(2, 2, 2, 2), bottleneck=False)
preact_resnet34 = variant("preact_resnet34", preact_resnet, depths=(3, 4, 6, 3), bottleneck=False)
preact_resnet50 = variant("preact_resnet50", preact_resnet, depths=(3, 4, 6, 3))
preact_resnet101 = variant("preact_resnet101", preact_resnet, depths=(3, 4, 23, 3))
preact_resnet152 = variant("preact_resnet152", preact_resnet, depths=(3, 8, 36, 3))
