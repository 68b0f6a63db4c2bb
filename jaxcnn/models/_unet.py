"""U-Net: segmentation, which predicts a class for each pixel."""

import jax
import jax.numpy as jnp

from jaxcnn._combine import parallel, serial
from jaxcnn._conv import conv, conv_transpose
from jaxcnn._dense import identity
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer
from jaxcnn._pool import max_pool
from jaxcnn.models._variant import input_shape


@input_shape(572, 572, 1)
def unet(
    classes: int | None = 2,
    *,
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
    padding: str = "VALID",
    dropout: float = 0.5,
) -> Layer:
    """(N, H, W, C) -> (N, H', W', classes): U-Net, for segmentation.

    level(x) = convs([crop(a), up(level'(pool(a)))]),  a = convs(x),  where level' is the next deeper level

    New in 2015: a contracting path to coarse feature maps with a large receptive field, then an expanding path. At each
    level, the fine maps of the contracting path are concatenated with the upsampled coarse maps. Without padding, the
    output is smaller than the input: 388x388 for 572x572.

    Variants, for 572x572 with one channel:
        name  parameters  multiply-adds
        unet  31,030,658      150.428 G

    Args:
        classes: number of classes; None gives the features (N, H', W', widths[0]).
        widths: channels of each level.
        padding: "VALID" as in the paper, or "SAME", for images whose sides are multiples of 2^(levels - 1).
        dropout: dropout rate in the two deepest levels of the contracting path.

    Example:
        >>> model = jaxcnn.models.unet(widths=(8, 16), padding="SAME")
        >>> x = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)[0].shape
        (1, 32, 32, 2)

    Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.
    """

    def convs(width, rate=0.0):
        return serial(
            conv1=conv(width, padding=padding),
            relu1=jax.nn.relu,
            conv2=conv(width, padding=padding),
            relu2=jax.nn.relu,
            drop=drop(rate),
        )

    def level(width, *deeper):
        down = convs(width, dropout if len(deeper) < 2 else 0.0)
        if not deeper:
            return down
        up = conv_transpose(width, 2, stride=2, padding="VALID")
        below = serial(pool=max_pool(2), level=level(*deeper), up=up)
        return serial(down=down, both=parallel(crop_and_concatenate, across=identity, below=below), up=convs(width))

    head = {} if classes is None else {"head": conv(classes, 1)}
    return serial(net=level(*widths), **head)


def crop_and_concatenate(across: jax.Array, below: jax.Array) -> jax.Array:
    """Center-crop `across` to the size of `below`, and concatenate both along the channels."""
    (top, left) = ((a - b) // 2 for a, b in zip(across.shape[1:3], below.shape[1:3], strict=True))
    cropped = across[:, top : top + below.shape[1], left : left + below.shape[2]]
    return jnp.concatenate([cropped, below], axis=-1)
