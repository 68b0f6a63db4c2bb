"""SqueezeNet: the accuracy of AlexNet with 50 times fewer parameters."""

import jax

from jaxcnn._combine import AnyLayer, concatenate, serial
from jaxcnn._conv import conv
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, constructor
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._variant import variant


@constructor
def squeezenet(classes: int | None = 1000, *, stem: tuple[int, int], plan: tuple, dropout: float = 0.5) -> Layer:
    """(N, H, W, 3) -> (N, classes): SqueezeNet.

    fire(x) = [relu(conv1x1(s)), relu(conv3x3(s))],  s = relu(conv1x1(x))

    New in 2016: a 1x1 convolution first squeezes x to few channels, and half of the remaining filters are 1x1 instead
    of 3x3. Global average pooling per class replaces the dense layers. Version 1.1 pools earlier.

    Variants, for 224x224 (top-1 of torchvision's weights):
        name           parameters  multiply-adds   top-1
        squeezenet1_0   1,248,424        0.819 G  58.092
        squeezenet1_1   1,235,496        0.349 G  58.178

    Args:
        classes: number of classes; None gives the features (N, 512).
        stem: (filters, kernel size) of the first convolution.
        plan: the following layers: "pool", or the squeezed channels of a fire module, whose output has 8 times as many.
        dropout: dropout rate before the last convolution.

    Example:
        >>> model = jaxcnn.models.squeezenet1_1(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1, 1, 512, 10)

    Source: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size", 2016.
    """
    pool = max_pool(3, stride=2, ceil_mode=True)
    features, size = stem
    layers: list[AnyLayer] = [conv(features, size, stride=2, padding="VALID"), jax.nn.relu]
    layers += [pool if part == "pool" else fire(part) for part in plan]
    end: dict[str, AnyLayer] = {}
    if classes is not None:
        end = {"drop": drop(dropout), "head": conv(classes, 1), "relu": jax.nn.relu}
    return serial(features=serial(*layers), **end, pool=global_avg_pool)


def fire(squeezed: int) -> Layer:
    """(N, H, W, C) -> (N, H, W, 8 * squeezed): the fire module."""
    expand = concatenate(
        expand1x1=serial(conv=conv(4 * squeezed, 1), relu=jax.nn.relu),
        expand3x3=serial(conv=conv(4 * squeezed, 3, padding=1), relu=jax.nn.relu),
    )
    return serial(squeeze=conv(squeezed, 1), relu=jax.nn.relu, expand=expand)


squeezenet1_0 = variant(
    "squeezenet1_0", squeezenet, stem=(96, 7), plan=("pool", 16, 16, 32, "pool", 32, 48, 48, 64, "pool", 64)
)
squeezenet1_1 = variant(
    "squeezenet1_1", squeezenet, stem=(64, 3), plan=("pool", 16, 16, "pool", 32, 32, "pool", 48, 48, 64, 64)
)
