"""Xception: space and channels are looked at one after the other, everywhere."""

import jax

from jaxcnn._combine import residual, serial
from jaxcnn._conv import separable_conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import input_shape


@input_shape(299, 299, 3)
def xception(classes: int | None = 1000, *, norm: Norm = batch_norm, dropout: float = 0.5) -> Layer:
    """(N, H, W, 3) -> (N, classes): Xception.

    y = shortcut(x) + f(x),  f: ReLU and a separable convolution, two or three times

    New in 2016: Inception's 1x1 convolutions and windows for groups of channels, taken to the end, with a window for
    each single channel: a depthwise 3x3 and a 1x1 convolution, without a nonlinearity in between. With the residuals of
    ResNet, no more parameters than Inception v3, and a network that is one block many times.

    Variants, for 299x299 (top-1 as in the paper):
        name      parameters  multiply-adds  top-1
        xception  22,855,952        8.357 G   79.0

    Args:
        classes: number of classes; None gives the features (N, 2048).
        norm: a constructor of a normalization.
        dropout: rate of dropout before the last layer.

    Example:
        >>> model = jaxcnn.models.xception(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 71, 71, 3)))[0]["head"]["kernel"].shape
        (2048, 10)

    Source: Chollet, "Xception: deep learning with depthwise separable convolutions", 2017.
    """

    def separable(features):
        return separable_conv(features, 3, padding=1, bias=False)

    def block(*widths, shrink):
        layers = {}
        for i, width in enumerate(widths, 1):
            layers |= {f"relu{i}": jax.nn.relu, f"conv{i}": separable(width), f"norm{i}": norm()}
        if not shrink:
            return residual(serial(**layers))
        shortcut = conv_norm_act(widths[-1], 1, stride=2, norm=norm, act=identity)
        return residual(serial(**layers, pool=max_pool(3, stride=2, padding=1)), shortcut)

    # The paper's first block has no first ReLU; here it comes after another and changes nothing.
    entry = ((128, 128), (256, 256), (728, 728))
    middle = 8 * ((728, 728, 728),)
    blocks = [
        *(block(*widths, shrink=True) for widths in entry),
        *(block(*widths, shrink=False) for widths in middle),
        block(728, 1024, shrink=True),
    ]
    return serial(
        conv1=conv_norm_act(32, 3, stride=2, padding="VALID", norm=norm),
        conv2=conv_norm_act(64, 3, padding="VALID", norm=norm),
        **{f"block{i}": layer for i, layer in enumerate(blocks, 1)},
        conv3=separable(1536),
        norm3=norm(),
        relu3=jax.nn.relu,
        conv4=separable(2048),
        norm4=norm(),
        relu4=jax.nn.relu,
        features=global_avg_pool,
        **head(classes, dropout),
    )
