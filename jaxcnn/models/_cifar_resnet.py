"""Residual networks for small pictures: the first that were trained with more than a hundred layers."""

import jax
import jax.numpy as jnp

from jaxcnn._combine import AnyLayer, residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import dense, identity
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._variant import variants


def resnet20(classes: int = 10, *, option: str = "A") -> Layer:
    """(N, 32, 32, 3) -> (N, classes): ResNet-20 for CIFAR.

    y = relu(x + f(x)) twenty layers deep: f only has to learn what is to be changed, and the gradient has a way around
    it. Three stages of 16, 32 and 64 channels, each of three blocks of two 3x3 convolutions.

    Variants, for 32x32 (the paper's error on CIFAR-10):
        name      parameters  multiply-adds  error
        resnet20     269,722         40.6 M  8.75 %

    Args:
        classes: number of classes.
        option: how x gets more channels on its way around: "A", by zeros; "B", by a 1x1 convolution.

    Example:
        >>> params, _ = jax.eval_shape(jaxcnn.models.resnet20().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> jaxcnn.count_params(params)
        269722

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2.
    """
    return cifar_resnet(20, classes, option)


def cifar_resnet(depth: int, classes: int, option: str) -> Layer:
    """`depth` is 6 n + 2 for n blocks in each stage."""
    if option not in ("A", "B"):
        raise ValueError(f"option must be 'A' or 'B', got {option!r}")
    blocks = (depth - 2) // 6
    layers = {"conv": conv(16, bias=False), "norm": batch_norm(), "relu": jax.nn.relu}
    channels = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for i in range(blocks):
            stride = 2 if i == 0 and stage > 1 else 1
            around = identity if width == channels else _more_channels(channels, width, option)
            layers[f"stage{stage}_block{i}"] = serial(sum=residual(_branch(width, stride), around), relu=jax.nn.relu)
            channels = width
    return serial(**layers, pool=global_avg_pool, head=dense(classes))


def _branch(width: int, stride: int) -> Layer:
    return serial(
        conv1=conv(width, stride=stride, padding=1, bias=False),
        norm1=batch_norm(),
        relu=jax.nn.relu,
        conv2=conv(width, padding=1, bias=False),
        norm2=batch_norm(),
    )


def _more_channels(channels: int, width: int, option: str) -> AnyLayer:
    """Every other position, with zeros in the new channels, or as the convolution sees them."""
    if option == "B":
        return serial(conv=conv(width, 1, stride=2, bias=False), norm=batch_norm())
    return lambda x: jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, width - channels)))


VARIANTS = variants(resnet20, {"resnet20": {}}, size=32)
