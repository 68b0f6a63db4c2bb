"""Xception: depthwise separable convolutions in all blocks."""

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

    New in 2016: Inception applies convolutions to groups of channels. Xception takes this to the extreme, one channel
    per group: a depthwise 3x3 and a 1x1 convolution, without a nonlinearity in between. It has the shortcuts of ResNet,
    repeats a single block, and has no more parameters than Inception v3.

    Variants, for 299x299 (the paper's top-1):
        name      parameters  multiply-adds  top-1
        xception  22,855,952        8.357 G   79.0

    Args:
        classes: number of classes; None gives the features (N, 2048).
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

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

    # The paper's first block has no first ReLU. Here it follows another ReLU and changes nothing.
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
