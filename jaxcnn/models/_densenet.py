"""DenseNet: the input of each layer is the concatenated outputs of all earlier layers."""

import jax

from jaxcnn._combine import concatenate, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import variant


@constructor
def densenet(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...],
    growth: int = 32,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): DenseNet.

    y = [x, f(x)] along the channels

    New in 2016: every later layer receives the features of a layer. A layer therefore adds only a few channels, and
    no weights are spent on learning features again. f is batch norm, ReLU and a 1x1 convolution to 4 * growth channels,
    then the same with a 3x3 convolution to `growth` channels. Between blocks, a 1x1 convolution halves the channels,
    and average pooling halves height and width.

    Variants, for 224x224 (top-1 of torchvision's first weights):
        name         parameters  multiply-adds   top-1
        densenet121   7,978,856        2.834 G  74.434
        densenet161  28,681,000        7.728 G  77.138
        densenet169  14,149,480        3.360 G  75.600
        densenet201  20,013,928        4.291 G  76.896

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: layers per block.
        growth: channels that each layer adds. The first convolution has twice as many.
        norm: constructor of a normalization layer.
        dropout: dropout rate of each f(x).

    Example:
        >>> model = jaxcnn.models.densenet121(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Huang, Liu, van der Maaten and Weinberger, "Densely connected convolutional networks", 2017.
    """

    def layer():
        new = serial(
            norm1=norm(),
            relu1=jax.nn.relu,
            conv1=conv(4 * growth, 1, bias=False),
            norm2=norm(),
            relu2=jax.nn.relu,
            conv2=conv(growth, 3, padding=1, bias=False),
            drop=drop(dropout),
        )
        return concatenate(old=identity, new=new)

    def transition(features):
        return serial(norm=norm(), relu=jax.nn.relu, conv=conv(features, 1, bias=False), pool=avg_pool(2))

    channels = 2 * growth
    layers = {"stem": conv_norm_act(channels, 7, stride=2, norm=norm), "pool": max_pool(3, stride=2, padding=1)}
    for block, depth in enumerate(depths, 1):
        if block > 1:
            channels //= 2
            layers[f"transition{block - 1}"] = transition(channels)
        layers[f"block{block}"] = serial(**{f"layer{i}": layer() for i in range(1, depth + 1)})
        channels += depth * growth
    return serial(**layers, norm=norm(), relu=jax.nn.relu, features=global_avg_pool, **head(classes))


densenet121 = variant("densenet121", densenet, depths=(6, 12, 24, 16))
densenet161 = variant("densenet161", densenet, depths=(6, 12, 36, 24), growth=48)
densenet169 = variant("densenet169", densenet, depths=(6, 12, 32, 32))
densenet201 = variant("densenet201", densenet, depths=(6, 12, 48, 32))
