"""U-Net: segmentation, which predicts a class for each pixel."""

import functools
import math
from operator import itemgetter

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn._combine import AnyLayer, parallel, serial
from jaxcnn._conv import conv, conv_transpose
from jaxcnn._dense import identity
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, as_layer, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._pool import max_pool
from jaxcnn.models._backbone import as_backbone, check_maps
from jaxcnn.models._feature_pyramid import enlarge
from jaxcnn.models._unit import Norm
from jaxcnn.models._variant import input_shape

_WIDTHS = (64, 128, 256, 512, 1024)
_DECODER_WIDTHS = (16, 32, 64, 128, 256)


@input_shape(572, 572, 1)
def unet(
    classes: int | None = 2,
    *,
    backbone: str | Layer | None = None,
    widths: tuple[int, ...] | None = None,
    padding: str = "VALID",
    norm: Norm | None = None,
    dropout: float = 0.5,
) -> Layer:
    """(N, *spatial, C) -> (N, *spatial', classes): U-Net, for segmentation in 1-D, 2-D and 3-D.

    level(x) = convs([crop(a), up(level'(pool(a)))]),  a = convs(x),  where level' is the next deeper level

    New in 2015: a contracting path to coarse feature maps with a large receptive field, then an expanding path. At each
    level, the fine maps of the contracting path are concatenated with the upsampled coarse maps. Without padding, the
    output is smaller than the input: 388x388 for 572x572.

    With a backbone, a classifier is the contracting path, and the output has the size of the image:

    x[s] = convs([maps[s], enlarge(x[2 s])])

    Variants, for 572x572 with one channel:
        name  parameters  multiply-adds
        unet  31,030,658      150.428 G

    Args:
        classes: number of classes; None gives the features (N, *spatial', widths[0]).
        backbone: the name of a classifier in `MODELS`, such as "resnet34", whose weights can be loaded (see
            `backbone`), or a layer with the output {stride: feature map}, such as
            `backbone("resnet34", norm=instance_norm)`.
        widths: channels of each level, from fine to coarse. Default: 64 to 1024; with a backbone, 16 to 256 for the
            strides 1 to 16.
        padding: "VALID" as in the paper, or "SAME", for images whose sides are multiples of 2^(levels - 1). The layers
            on a backbone have "SAME".
        norm: constructor of a normalization layer after each convolution. The paper has none. With a backbone, it is
            for the expanding path only, with the default `batch_norm`; the backbone keeps its own.
        dropout: dropout rate in the two deepest levels of the contracting path; not used with a backbone.

    Raises:
        ValueError: if the output of a backbone is not a dict of feature maps with their strides as keys.

    Example:
        >>> model = jaxcnn.models.unet(widths=(8, 16), padding="SAME")
        >>> x = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)[0].shape
        (1, 32, 32, 2)

    Source: Ronneberger, Fischer and Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015.
    """
    head = {} if classes is None else {"head": conv(classes, 1)}
    if backbone is not None:
        return _on_backbone(as_backbone(backbone), widths or _DECODER_WIDTHS, norm or batch_norm, head)
    convs = functools.partial(_convolutions, padding=padding, norm=norm)

    def level(width, *deeper):
        down = convs(width, dropout=dropout if len(deeper) < 2 else 0.0)
        if not deeper:
            return down
        up = conv_transpose(width, 2, stride=2, padding="VALID")
        below = serial(pool=max_pool(2), level=level(*deeper), up=up)
        return serial(down=down, both=parallel(crop_and_concatenate, across=identity, below=below), up=convs(width))

    return serial(net=level(*(widths or _WIDTHS)), **head)


def _on_backbone(backbone: Layer, widths: tuple[int, ...], norm: Norm, head: dict[str, Layer]) -> Layer:
    """(N, *spatial, C) -> (N, *spatial, classes): the expanding path on the feature maps of a backbone."""

    def concatenate_enlarged(fine, coarse):
        return jnp.concatenate([fine, enlarge(coarse, fine.shape[1:-1])], axis=-1)

    def level(stride, *coarser):
        if not coarser:
            return itemgetter(stride)
        both = parallel(concatenate_enlarged, across=itemgetter(stride), below=level(*coarser))
        width = widths[min(round(math.log2(stride)), len(widths) - 1)]
        return serial(both=both, up=_convolutions(width, padding="SAME", norm=norm))

    def expanding(shapes):
        check_maps("unet", shapes)
        if not all(isinstance(stride, int) and stride > 0 for stride in shapes):
            raise ValueError(f"unet: the keys of the feature maps must be their strides, got {list(shapes)}")
        return as_layer(level(*sorted(shapes)))

    def build(shape):
        return serial(
            backbone=backbone,
            net=from_input_shape(expanding),
            enlarge=functools.partial(enlarge, sizes=shape[1:-1]),
            up=_convolutions(widths[0], padding="SAME", norm=norm),
            **head,
        )

    return from_input_shape(build)


def _convolutions(width: int, *, padding: str, norm: Norm | None, dropout: float = 0.0) -> Layer:
    """Two 3x3 convolutions, each with an optional normalization and ReLU."""
    layers: dict[str, AnyLayer] = {}
    for i in (1, 2):
        layers[f"conv{i}"] = conv(width, padding=padding, bias=norm is None)
        if norm is not None:
            layers[f"norm{i}"] = norm()
        layers[f"relu{i}"] = jax.nn.relu
    return serial(**layers, drop=drop(dropout))


def crop_and_concatenate(across: jax.Array, below: jax.Array) -> jax.Array:
    """Center-crop `across` to the size of `below`, and concatenate both along the channels."""
    for axis, size in enumerate(below.shape[1:-1], 1):
        start = (across.shape[axis] - size) // 2
        across = lax.slice_in_dim(across, start, start + size, axis=axis)
    return jnp.concatenate([across, below], axis=-1)
