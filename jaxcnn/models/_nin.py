"""Network in network: 1x1 convolutions, and global average pooling instead of dense layers."""

import jax

from jaxcnn._combine import AnyLayer, serial
from jaxcnn._conv import conv
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._variant import input_shape

relu = jax.nn.relu


@input_shape(32, 32, 3)
def nin(classes: int | None = 10, *, dropout: float = 0.5) -> Layer:
    """(N, 32, 32, 3) -> (N, classes): Network in network, for CIFAR-10.

    New in 2013: two 1x1 convolutions follow each convolution, like a small dense network that slides over the image.
    The last convolution has one channel per class, and its mean is the logit (global average pooling).

    Variants, for 32x32 (the paper's error on CIFAR-10 with augmentation):
        name  parameters  multiply-adds   error
        nin      966,986        222.5 M  8.81 %

    Args:
        classes: number of classes; None gives the features (N, 192).
        dropout: dropout rate after the first two pools.

    Example:
        >>> model = jaxcnn.models.nin()
        >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        >>> params["head"]["kernel"].shape
        (1, 1, 192, 10)

    Source: Lin, Chen and Yan, "Network in network", 2014.
    """

    def mlpconv(features: int, size: int, *mlp_widths: int) -> Layer:
        layers: dict[str, AnyLayer] = {"conv": conv(features, size, padding=size // 2), "relu": relu}
        for i, width in enumerate(mlp_widths, 1):
            layers |= {f"mlp{i}": conv(width, 1), f"relu{i}": relu}
        return serial(**layers)

    last: dict[str, AnyLayer] = {} if classes is None else {"head": conv(classes, 1), "relu": relu}
    return serial(
        block1=mlpconv(192, 5, 160, 96),
        pool1=max_pool(3, stride=2, ceil_mode=True),  # 16 x 16
        drop1=drop(dropout),
        block2=mlpconv(192, 5, 192, 192),
        pool2=avg_pool(3, stride=2, ceil_mode=True),  # 8 x 8
        drop2=drop(dropout),
        block3=mlpconv(192, 3, 192),
        **last,
        pool=global_avg_pool,
    )
