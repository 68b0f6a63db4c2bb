"""GoogLeNet: parallel convolutions of several kernel sizes, and auxiliary classifiers."""

import functools

import jax

from jaxcnn._adaptive_pool import adaptive_avg_pool
from jaxcnn._combine import concatenate, serial
from jaxcnn._dense import dense, flatten
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool, max_pool
from jaxcnn.models._unit import Norm, conv_norm_act, head, with_auxiliary
from jaxcnn.models._variant import input_shape


@input_shape(224, 224, 3)
def googlenet(
    classes: int | None = 1000,
    *,
    auxiliary: bool = False,
    norm: Norm = functools.partial(batch_norm, eps=1e-3),
    dropout: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): GoogLeNet, the first Inception network, with batch norm.

    y = [a(x), b(reduce(x)), c(reduce(x)), d(max_pool(x))] along the channels;  a, d, reduce 1x1, b and c 3x3

    New in 2014: each block applies several kernel sizes in parallel. 1x1 convolutions first reduce the channels, which
    makes this cheap. Global average pooling replaces the large dense layers of AlexNet. Two auxiliary heads provide
    gradients to the lower layers. As in torchvision, all convolutions have batch norm, and c is 3x3 (5x5 in the paper).
    torchvision enables `transform_input` with its trained weights. It rescales the data and is not part of this model:
    use these weights with `data.normalize([0.5] * 3, [0.5] * 3)`.

    Variants, for 224x224 (top-1 of torchvision's first weights; 13,004,888 parameters with auxiliary heads):
        name       parameters  multiply-adds   top-1
        googlenet   6,624,904        1.498 G  69.778

    Args:
        classes: number of classes; None gives the features (N, 1024), without auxiliary heads.
        auxiliary: True to return (logits, upper auxiliary logits, lower auxiliary logits) in training, as
            `cross_entropy` accepts them. In evaluation, the output is always the logits only.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer. 0 also disables the dropout of the auxiliary heads (rate 0.7).

    Example:
        >>> model = jaxcnn.models.googlenet(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Szegedy et al., "Going deeper with convolutions", 2015.
    """

    def inception(ones, reduce3, threes, reduce5, fives, pooled):
        return concatenate(
            branch1=conv_norm_act(ones, 1, norm=norm),
            branch2=serial(conv_norm_act(reduce3, 1, norm=norm), conv_norm_act(threes, 3, norm=norm)),
            branch3=serial(conv_norm_act(reduce5, 1, norm=norm), conv_norm_act(fives, 3, norm=norm)),
            branch4=serial(max_pool(3, stride=1, padding=1), conv_norm_act(pooled, 1, norm=norm)),
        )

    lower = {
        "conv1": conv_norm_act(64, 7, stride=2, norm=norm),
        "pool1": max_pool(3, stride=2, ceil_mode=True),
        "conv2": conv_norm_act(64, 1, norm=norm),
        "conv3": conv_norm_act(192, 3, norm=norm),
        "pool2": max_pool(3, stride=2, ceil_mode=True),  # 28 x 28 for 224 x 224
        "inception3a": inception(64, 96, 128, 16, 32, 32),
        "inception3b": inception(128, 128, 192, 32, 96, 64),
        "pool3": max_pool(3, stride=2, ceil_mode=True),  # 14 x 14
        "inception4a": inception(192, 96, 208, 16, 48, 64),
    }
    middle = {
        "inception4b": inception(160, 112, 224, 24, 64, 64),
        "inception4c": inception(128, 128, 256, 24, 64, 64),
        "inception4d": inception(112, 144, 288, 32, 64, 64),
    }
    upper = {
        "inception4e": inception(256, 160, 320, 32, 128, 128),
        "pool4": max_pool(2, stride=2, ceil_mode=True),  # 7 x 7
        "inception5a": inception(256, 160, 320, 32, 128, 128),
        "inception5b": inception(384, 192, 384, 48, 128, 128),
        "features": global_avg_pool,
        **head(classes, dropout),
    }
    if classes is None or not auxiliary:
        return serial(**lower, **middle, **upper)

    def classifier():
        return serial(
            pool=adaptive_avg_pool(4),
            conv=conv_norm_act(128, 1, norm=norm),
            flatten=flatten,
            fc1=dense(1024),
            relu=jax.nn.relu,
            drop=drop(0.7 if dropout else 0.0),
            fc2=dense(classes),
        )

    from_4e = with_auxiliary(serial(**upper), aux2=classifier())
    from_4b = with_auxiliary(serial(**middle, upper=from_4e), aux1=classifier())
    return serial(**lower, middle=from_4b)
