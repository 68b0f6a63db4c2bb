"""LeNet, the first widely used CNN and the model for most later ones."""

import jax
import jax.numpy as jnp
from jax.nn.initializers import ones

from jaxcnn._combine import concatenate, serial
from jaxcnn._conv import conv, depthwise_conv
from jaxcnn._dense import dense, flatten
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn.models._unit import head
from jaxcnn.models._variant import input_shape


@input_shape(28, 28, 1)
def lenet5(classes: int | None = 10, *, dropout: float = 0.0) -> Layer:
    """(N, 28, 28, 1) -> (N, classes): LeNet-5 in its modern form.

    Two convolutions with pooling, then three dense layers. Differences from 1998: full connections between the
    convolutions, ReLU instead of tanh, max pooling instead of scaled average pooling, and logits instead of
    radial basis functions.

    Variants, for 28x28:
        name    parameters  multiply-adds
        lenet5      61,706        416,520

    Args:
        classes: number of classes; None gives the features (N, 84).
        dropout: dropout rate of the outputs of the first two dense layers.

    Example:
        >>> params, _ = jax.eval_shape(jaxcnn.models.lenet5().init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.count_params(params)
        61706

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """
    return serial(
        conv1=conv(6, 5, padding=2),  # 28 x 28 x 6
        relu1=jax.nn.relu,
        pool1=max_pool(2),  # 14 x 14 x 6
        conv2=conv(16, 5, padding="VALID"),  # 10 x 10 x 16
        relu2=jax.nn.relu,
        pool2=max_pool(2),  # 5 x 5 x 16
        flatten=flatten,  # 400
        dense1=dense(120),
        relu3=jax.nn.relu,
        drop1=drop(dropout),
        dense2=dense(84),
        relu4=jax.nn.relu,
        **head(classes, dropout),
    )


# The input channels (S2) of each output channel of C3: table I of the paper.
C3_INPUTS = (
    *([(i + j) % 6 for j in range(3)] for i in range(6)),
    *([(i + j) % 6 for j in range(4)] for i in range(6)),
    *([0, 1, 3, 4], [1, 2, 4, 5], [0, 2, 3, 5]),
    [0, 1, 2, 3, 4, 5],
)


@input_shape(28, 28, 1)
def lenet5_1998(classes: int | None = 10) -> Layer:
    """(N, 28, 28, 1) -> (N, classes): the original LeNet-5, except for its output layer.

    squash(x) = 1.7159 tanh(2/3 x);  a pool is squash(scale * mean + bias), with one scale and bias per channel

    New in 1989 to 1998: learned filters with shared weights, alternating with pooling. Each filter of C3 has only some
    input channels, so that the filters learn different features. The original output layer compared the features
    with images of the characters (radial basis functions). Here it is a dense layer.

    Variants, for 28x28 (the paper's error on MNIST):
        name         parameters  multiply-adds   error
        lenet5_1998      60,850        328,096  0.95 %

    The paper counts 60,000 without the output: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164. The dense layer
    adds 850.

    Args:
        classes: number of classes; None gives the features (N, 84).

    Example:
        >>> model = jaxcnn.models.lenet5_1998(classes=None)
        >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.count_params(params), jaxcnn.count_params(params, "c3/.*")
        (60000, 1516)

    Source: LeCun et al., "Gradient-based learning applied to document recognition", 1998.
    """

    def squash(x):
        return 1.7159 * jnp.tanh(2 / 3 * x)

    def pool():
        return serial(mean=avg_pool(2), scale=depthwise_conv(1, kernel_init=ones))

    def filter_of(channels):
        return serial(maps=lambda x: x[..., channels], conv=conv(1, 5, padding="VALID"))

    return serial(
        c1=conv(6, 5, padding=2),  # 28 x 28 x 6
        squash1=squash,
        s2=pool(),  # 14 x 14 x 6
        squash2=squash,
        c3=concatenate(*(filter_of(channels) for channels in C3_INPUTS)),  # 10 x 10 x 16
        squash3=squash,
        s4=pool(),  # 5 x 5 x 16
        squash4=squash,
        c5=conv(120, 5, padding="VALID"),  # 1 x 1 x 120
        squash5=squash,
        flatten=flatten,
        f6=dense(84),
        squash6=squash,
        **head(classes),
    )


@input_shape(28, 28, 1)
def tiny(classes: int | None = 10) -> Layer:
    """(N, H, W, C) -> (N, classes): a small network for tutorials, simple enough to follow every step.

    Variants, for 28x28:
        name  parameters  multiply-adds
        tiny      19,162      1,693,920

    Args:
        classes: number of classes; None gives the features (N, 48).

    Example:
        >>> params, _ = jax.eval_shape(jaxcnn.models.tiny().init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        >>> jaxcnn.count_params(params, "conv1/.*")  # 16 filters of 3 x 3, with one bias each
        160
    """
    return serial(
        conv1=conv(16),
        relu1=jax.nn.relu,
        pool1=max_pool(2),
        conv2=conv(32),
        relu2=jax.nn.relu,
        pool2=max_pool(2),
        conv3=conv(48),
        relu3=jax.nn.relu,
        pool=global_avg_pool,
        **head(classes),
    )
