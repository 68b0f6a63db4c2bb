"""U-Net: a class for each pixel, from what is around it and from what is there."""

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

    level(x) = convs([crop(a), up(level'(pool(a)))]),  a = convs(x),  with level' one deeper and twice as wide

    New in 2015: a path down to wide, coarse maps that see much of the image, a path up again, and at each level the
    fine maps of the path down beside the coarse ones. Without padding the result is smaller: 572x572 gives 388x388.

    Variants, for 572x572 with one channel:
        name  parameters  multiply-adds
        unet  31,030,658      150.428 G

    Args:
        classes: number of classes; None gives the features (N, H', W', widths[0]).
        widths: channels of each level.
        padding: "VALID" as in the paper, or "SAME", for images whose sides are multiples of 2^(levels - 1).
        dropout: rate of dropout in the lowest two levels, at the end of the way down.

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
        return serial(down=down, both=parallel(beside, across=identity, below=below), up=convs(width))

    head = {} if classes is None else {"head": conv(classes, 1)}
    return serial(net=level(*widths), **head)


def beside(across: jax.Array, below: jax.Array) -> jax.Array:
    """The middle of the fine maps, as large as the coarse ones are now, and these, side by side."""
    (top, left) = ((a - b) // 2 for a, b in zip(across.shape[1:3], below.shape[1:3], strict=True))
    middle = across[:, top : top + below.shape[1], left : left + below.shape[2]]
    return jnp.concatenate([middle, below], axis=-1)
