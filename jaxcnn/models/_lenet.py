"""LeNet: the network that read cheques, and the plan of most that came after it."""

import jax

from jaxcnn._combine import serial
from jaxcnn._conv import conv
from jaxcnn._dense import dense, flatten
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._pool import max_pool
from jaxcnn.models._variant import variants


def lenet5(classes: int | None = 10, *, dropout: float = 0.0) -> Layer:
    """(N, 28, 28, 1) -> (N, classes): LeNet-5 as it is built today.

    Twice convolution and pooling, then three dense layers. Against 1998: every filter of the second
    convolution sees all maps of the first, ReLU for tanh, the maximum for a scaled mean, logits for
    radial basis functions.

    Variants, for 28x28 (test error on MNIST, of 1998's):
        name    parameters  multiply-adds  error
        lenet5      61,706        416,520  0.95 %

    Args:
        classes: number of classes.
        dropout: rate of dropping in the first two dense layers' outputs.

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
        drop2=drop(dropout),
        head=dense(classes),
    )


VARIANTS = variants(lenet5, {"lenet5": {}}, size=28, channels=1)
