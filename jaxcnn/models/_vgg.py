"""VGG: deep networks of only 3x3 convolutions and pooling."""

import jax

from jaxcnn._adaptive_pool import adaptive_avg_pool
from jaxcnn._combine import AnyLayer, serial
from jaxcnn._conv import conv
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import max_pool
from jaxcnn.models._alexnet import dense_layers
from jaxcnn.models._unit import Norm
from jaxcnn.models._variant import variant

WIDTHS = (64, 128, 256, 512, 512)


@constructor
def vgg(
    classes: int | None = 1000, *, depths: tuple[int, ...], norm: Norm | None = None, dropout: float = 0.5
) -> Layer:
    """(N, H, W, 3) -> (N, classes): VGG, without or with batch norm.

    New in 2014: two 3x3 convolutions have the receptive field of one 5x5, three that of one 7x7, with fewer weights and
    more nonlinearities. So all convolutions are 3x3, in five stages with a pool after each.

    Variants, for 224x224 (top-1 of torchvision's weights):
        name       parameters  multiply-adds   top-1
        vgg11     132,863,336        7.609 G  69.020
        vgg11_bn  132,868,840        7.609 G  70.370
        vgg13     133,047,848       11.308 G  69.928
        vgg13_bn  133,053,736       11.308 G  71.586
        vgg16     138,357,544       15.470 G  71.592
        vgg16_bn  138,365,992       15.470 G  73.360
        vgg19     143,667,240       19.632 G  72.376
        vgg19_bn  143,678,248       19.632 G  74.218

    Args:
        classes: number of classes; None gives the features (N, 4096).
        depths: convolutions per stage.
        norm: constructor of a normalization layer after each convolution, or None.
        dropout: dropout rate after the first two dense layers.

    Example:
        >>> model = jaxcnn.models.vgg11(classes=10)
        >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> params["features"]["0"]["kernel"].shape
        (3, 3, 3, 64)

    Source: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015.
    """
    layers: list[AnyLayer] = []
    for width, depth in zip(WIDTHS, depths, strict=True):
        for _ in range(depth):
            layers += [conv(width, 3, padding=1), *([norm()] if norm else []), jax.nn.relu]
        layers.append(max_pool(2))
    return serial(features=serial(*layers), pool=adaptive_avg_pool(7), **dense_layers(classes, dropout))


vgg11 = variant("vgg11", vgg, depths=(1, 1, 2, 2, 2))
vgg13 = variant("vgg13", vgg, depths=(2, 2, 2, 2, 2))
vgg16 = variant("vgg16", vgg, depths=(2, 2, 3, 3, 3))
vgg19 = variant("vgg19", vgg, depths=(2, 2, 4, 4, 4))
vgg11_bn = variant("vgg11_bn", vgg, depths=(1, 1, 2, 2, 2), norm=batch_norm)
vgg13_bn = variant("vgg13_bn", vgg, depths=(2, 2, 2, 2, 2), norm=batch_norm)
vgg16_bn = variant("vgg16_bn", vgg, depths=(2, 2, 3, 3, 3), norm=batch_norm)
vgg19_bn = variant("vgg19_bn", vgg, depths=(2, 2, 4, 4, 4), norm=batch_norm)
