"""AlexNet, the network that made deep learning the standard in computer vision, and ZFNet, its refinement."""

import jax

from jaxcnn._adaptive_pool import adaptive_avg_pool
from jaxcnn._combine import AnyLayer, serial
from jaxcnn._conv import conv
from jaxcnn._dense import dense, flatten
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._pool import max_pool
from jaxcnn._response_norm import local_response_norm
from jaxcnn.models._unit import head
from jaxcnn.models._variant import input_shape

relu = jax.nn.relu
response_norm = local_response_norm(5, alpha=5e-4, beta=0.75, k=2.0)  # the papers' alpha, 1e-4, is not divided by 5


@input_shape(224, 224, 3)
def alexnet(classes: int | None = 1000, *, dropout: float = 0.5) -> Layer:
    """(N, H, W, 3) -> (N, classes): AlexNet for a single device, as in torchvision.

    Five convolutions and three dense layers as in 2012, but with fewer filters in the first two convolutions, no groups
    and no local response normalization.

    Variants, for 224x224 (top-1 of torchvision's weights):
        name      parameters  multiply-adds   top-1
        alexnet   61,100,840        0.714 G  56.522

    Args:
        classes: number of classes; None gives the features (N, 4096).
        dropout: dropout rate before the first two dense layers.

    Example:
        >>> model = jaxcnn.models.alexnet(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (4096, 10)

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
    """
    return serial(
        conv1=conv(64, 11, stride=4, padding=2),
        relu1=relu,
        pool1=max_pool(3, stride=2),
        conv2=conv(192, 5, padding=2),
        relu2=relu,
        pool2=max_pool(3, stride=2),
        conv3=conv(384, 3, padding=1),
        relu3=relu,
        conv4=conv(256, 3, padding=1),
        relu4=relu,
        conv5=conv(256, 3, padding=1),
        relu5=relu,
        pool5=max_pool(3, stride=2),
        pool=adaptive_avg_pool(6),
        flatten=flatten,
        drop1=drop(dropout),
        dense1=dense(4096),
        relu6=relu,
        drop2=drop(dropout),
        dense2=dense(4096),
        relu7=relu,
        **head(classes),
    )


@input_shape(227, 227, 3)
def alexnet_2012(classes: int | None = 1000, *, dropout: float = 0.5) -> Layer:
    """(N, 227, 227, 3) -> (N, classes): AlexNet, the winner of ImageNet 2012.

    New in 2012: depth, a large data set, and training on two GPUs with half of the filters each (groups). ReLU trains
    several times faster than tanh. The network also uses dropout, overlapping pooling and local response normalization.

    Variants, for 227x227, which the paper calls 224x224 (the paper's top-1 of a single network):
        name          parameters  multiply-adds  top-1
        alexnet_2012  60,965,224        0.724 G   59.3

    Args:
        classes: number of classes; None gives the features (N, 4096).
        dropout: dropout rate after the first two dense layers.

    Example:
        >>> model = jaxcnn.models.alexnet_2012()
        >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 227, 227, 3)))
        >>> params["conv2"]["kernel"].shape
        (5, 5, 48, 256)

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012.
    """
    return serial(
        conv1=conv(96, 11, stride=4, padding="VALID"),  # 55 x 55
        relu1=relu,
        norm1=response_norm,
        pool1=max_pool(3, stride=2),  # 27 x 27
        conv2=conv(256, 5, padding=2, groups=2),
        relu2=relu,
        norm2=response_norm,
        pool2=max_pool(3, stride=2),  # 13 x 13
        conv3=conv(384, 3, padding=1),
        relu3=relu,
        conv4=conv(384, 3, padding=1, groups=2),
        relu4=relu,
        conv5=conv(256, 3, padding=1, groups=2),
        relu5=relu,
        pool5=max_pool(3, stride=2),  # 6 x 6
        **dense_layers(classes, dropout),
    )


@input_shape(224, 224, 3)
def zfnet(classes: int | None = 1000, *, dropout: float = 0.5) -> Layer:
    """(N, 224, 224, 3) -> (N, classes): ZFNet.

    New in 2013: the authors projected activations back to pixels. AlexNet's first filters were too coarse, and its
    stride of 4 caused aliasing. ZFNet therefore uses 7x7 filters with stride 2.

    Variants, for 224x224 (the paper's top-1 of a single network):
        name   parameters  multiply-adds  top-1
        zfnet  62,357,608        1.168 G   61.6

    Args:
        classes: number of classes; None gives the features (N, 4096).
        dropout: dropout rate after the first two dense layers.

    Example:
        >>> model = jaxcnn.models.zfnet()
        >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
        >>> params["conv1"]["kernel"].shape
        (7, 7, 3, 96)

    Source: Zeiler and Fergus, "Visualizing and understanding convolutional networks", 2014.
    """
    return serial(
        conv1=conv(96, 7, stride=2, padding=1),  # 110 x 110
        relu1=relu,
        pool1=max_pool(3, stride=2, padding=1),  # 55 x 55
        norm1=response_norm,
        conv2=conv(256, 5, stride=2, padding="VALID"),  # 26 x 26
        relu2=relu,
        pool2=max_pool(3, stride=2, padding=1),  # 13 x 13
        norm2=response_norm,
        conv3=conv(384, 3, padding=1),
        relu3=relu,
        conv4=conv(384, 3, padding=1),
        relu4=relu,
        conv5=conv(256, 3, padding=1),
        relu5=relu,
        pool5=max_pool(3, stride=2),  # 6 x 6
        **dense_layers(classes, dropout),
    )


def dense_layers(classes: int | None, dropout: float) -> dict[str, AnyLayer]:
    """Return the dense layers of a classifier as keyword arguments of `serial`. They hold most of the parameters."""
    return {
        "flatten": flatten,
        "dense1": dense(4096),
        "relu6": relu,
        "drop1": drop(dropout),
        "dense2": dense(4096),
        "relu7": relu,
        **head(classes, dropout),
    }
