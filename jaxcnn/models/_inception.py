"""Inception v3: large kernels factorized into smaller and one-dimensional ones."""

import functools

from jaxcnn._combine import concatenate, serial
from jaxcnn._dense import dense
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head, with_auxiliary
from jaxcnn.models._variant import input_shape


@input_shape(299, 299, 3)
def inception_v3(
    classes: int | None = 1000,
    *,
    auxiliary: bool = True,
    norm: Norm = functools.partial(batch_norm, eps=1e-3),
    dropout: float = 0.5,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): Inception v3.

    y = [f_1(x), .., f_n(x)] along the channels, with 7x7 kernels as column(row(x)): 14 weights instead of 49

    New in 2015: large kernels are factorized, 5x5 into two 3x3, 7x7 into 1x7 and 7x1, with a nonlinearity after each.
    Downsampling uses pooling and strided convolution in parallel, which avoids a representational bottleneck. The paper
    also introduced label smoothing. torchvision enables `transform_input` with its trained weights. It rescales the
    data and is not part of this model: use these weights with `data.normalize([0.5] * 3, [0.5] * 3)`.

    Variants, for 299x299 (top-1 of torchvision's first weights; 23,834,568 parameters without the auxiliary head):
        name          parameters  multiply-adds   top-1
        inception_v3  27,161,264        5.713 G  77.294

    Args:
        classes: number of classes; None gives the features (N, 2048), without the auxiliary head.
        auxiliary: True to return (logits, auxiliary logits) in training, as `cross_entropy` accepts them. It needs
            images of at least 299x299. In evaluation, the output is always the logits only.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.inception_v3(classes=10, auxiliary=False)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))[0]["head"]["kernel"].shape
        (2048, 10)

    Source: Szegedy et al., "Rethinking the inception architecture for computer vision", 2016.
    """
    same = functools.partial(conv_norm_act, norm=norm, padding="SAME")
    valid = functools.partial(conv_norm_act, norm=norm, padding="VALID")

    def pooled(features):
        return serial(pool=avg_pool(3, stride=1, padding=1, count_include_pad=True), project=same(features, 1))

    def inception_a(features):
        return concatenate(
            branch1x1=same(64, 1),
            branch5x5=serial(conv1=same(48, 1), conv2=same(64, 5)),
            branch3x3dbl=serial(conv1=same(64, 1), conv2=same(96, 3), conv3=same(96, 3)),
            branch_pool=pooled(features),
        )

    def reduction_b():
        return concatenate(
            branch3x3=valid(384, 3, stride=2),
            branch3x3dbl=serial(conv1=same(64, 1), conv2=same(96, 3), conv3=valid(96, 3, stride=2)),
            branch_pool=max_pool(3, stride=2),
        )

    def inception_c(inner):
        row, column = (1, 7), (7, 1)
        return concatenate(
            branch1x1=same(192, 1),
            branch7x7=serial(conv1=same(inner, 1), conv2=same(inner, row), conv3=same(192, column)),
            branch7x7dbl=serial(
                conv1=same(inner, 1),
                conv2=same(inner, column),
                conv3=same(inner, row),
                conv4=same(inner, column),
                conv5=same(192, row),
            ),
            branch_pool=pooled(192),
        )

    def reduction_d():
        return concatenate(
            branch3x3=serial(conv1=same(192, 1), conv2=valid(320, 3, stride=2)),
            branch7x7x3=serial(
                conv1=same(192, 1),
                conv2=same(192, (1, 7)),
                conv3=same(192, (7, 1)),
                conv4=valid(192, 3, stride=2),
            ),
            branch_pool=max_pool(3, stride=2),
        )

    def inception_e():
        def fork():
            return concatenate(a=same(384, (1, 3)), b=same(384, (3, 1)))

        return concatenate(
            branch1x1=same(320, 1),
            branch3x3=serial(conv1=same(384, 1), conv2=fork()),
            branch3x3dbl=serial(conv1=same(448, 1), conv2=same(384, 3), conv3=fork()),
            branch_pool=pooled(192),
        )

    lower = {
        "conv1a": valid(32, 3, stride=2),  # 149 x 149 for 299 x 299
        "conv2a": valid(32, 3),
        "conv2b": same(64, 3),
        "pool1": max_pool(3, stride=2),  # 73 x 73
        "conv3b": same(80, 1),
        "conv4a": valid(192, 3),
        "pool2": max_pool(3, stride=2),  # 35 x 35
        "mixed5b": inception_a(32),
        "mixed5c": inception_a(64),
        "mixed5d": inception_a(64),
        "mixed6a": reduction_b(),  # 17 x 17
        "mixed6b": inception_c(128),
        "mixed6c": inception_c(160),
        "mixed6d": inception_c(160),
        "mixed6e": inception_c(192),
    }
    upper = {
        "mixed7a": reduction_d(),  # 8 x 8
        "mixed7b": inception_e(),
        "mixed7c": inception_e(),
        "features": global_avg_pool,
        **head(classes, dropout),
    }
    if classes is None or not auxiliary:
        return serial(**lower, **upper)
    classifier = serial(
        pool=avg_pool(5, stride=3),
        conv0=same(128, 1),
        conv1=valid(768, 5),
        features=global_avg_pool,
        head=dense(classes),
    )
    return serial(**lower, upper=with_auxiliary(serial(**upper), aux=classifier))
