"""S3D: Inception for video, with convolutions factored into space and time."""

import functools

from jaxcnn._combine import concatenate, serial
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head
from jaxcnn.models._variant import input_shape


@input_shape(16, 224, 224, 3)
def s3d(
    classes: int | None = 400,
    *,
    norm: Norm = functools.partial(batch_norm, decay=0.999, eps=1e-3),
    dropout: float = 0.2,
) -> Layer:
    """(N, T, H, W, 3) -> (N, classes): S3D, separable 3-D convolutions in an Inception network.

    y = [a(x), b(reduce(x)), c(reduce(x)), d(max_pool(x))] along the channels;  a, d, reduce 1x1x1, b and c factored

    New in 2018: the network is GoogLeNet with each 3x3 convolution extended to three dimensions and then factored into
    1x3x3 over space and 3x1x1 over time, each with its own norm and relu. This is faster than 3x3x3 convolutions, and
    more accurate. This is torchvision's version, without the feature gating of the paper's S3D-G.

    Variants, for 16 frames of 224x224 (top-1 of torchvision on Kinetics-400, for clips of 128 frames):
        name  parameters  multiply-adds   top-1
        s3d    8,320,048       17.979 G  68.368

    Args:
        classes: number of classes; None gives the features (N, 1024).
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        ValueError: for clips of fewer than 13 frames or frames smaller than 209x209: the last pool is 2x7x7.

    Example:
        >>> model = jaxcnn.models.s3d(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 13, 209, 209, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Xie et al., "Rethinking spatiotemporal feature learning: speed-accuracy trade-offs in video
    classification", 2018.
    """

    def separable(features, size, stride=1):
        return serial(
            spatial=conv_norm_act(features, (1, size, size), stride=(1, stride, stride), norm=norm),
            temporal=conv_norm_act(features, (size, 1, 1), stride=(stride, 1, 1), norm=norm),
        )

    def inception(ones, reduce3, threes, reduce5, fives, pooled):
        return concatenate(
            branch1=conv_norm_act(ones, 1, norm=norm),
            branch2=serial(conv_norm_act(reduce3, 1, norm=norm), separable(threes, 3)),
            branch3=serial(conv_norm_act(reduce5, 1, norm=norm), separable(fives, 3)),
            branch4=serial(max_pool(3, stride=1, padding=1), conv_norm_act(pooled, 1, norm=norm)),
        )

    return serial(
        conv1=separable(64, 7, stride=2),
        pool1=max_pool((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
        conv2=conv_norm_act(64, 1, norm=norm),
        conv3=separable(192, 3),
        pool2=max_pool((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),  # 8 x 28 x 28 for 16 x 224 x 224
        inception3a=inception(64, 96, 128, 16, 32, 32),
        inception3b=inception(128, 128, 192, 32, 96, 64),
        pool3=max_pool(3, stride=2, padding=1),  # 4 x 14 x 14
        inception4a=inception(192, 96, 208, 16, 48, 64),
        inception4b=inception(160, 112, 224, 24, 64, 64),
        inception4c=inception(128, 128, 256, 24, 64, 64),
        inception4d=inception(112, 144, 288, 32, 64, 64),
        inception4e=inception(256, 160, 320, 32, 128, 128),
        pool4=max_pool(2),  # 2 x 7 x 7
        inception5a=inception(256, 160, 320, 32, 128, 128),
        inception5b=inception(384, 192, 384, 48, 128, 128),
        pool5=avg_pool((2, 7, 7), stride=1),
        features=global_avg_pool,
        **head(classes, dropout),
    )
