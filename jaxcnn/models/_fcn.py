"""FCN: segmentation by a classifier whose dense layers are replaced by convolutions."""

import operator

from jaxcnn._combine import AnyLayer, serial
from jaxcnn._conv import conv
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, constructor, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._resize import resize
from jaxcnn.models._backbone import backbone as backbone_of
from jaxcnn.models._unit import Norm, conv_norm_act, with_auxiliary
from jaxcnn.models._variant import variant


@constructor
def fcn(
    classes: int | None = 21,
    *,
    backbone: str,
    auxiliary: bool = True,
    norm: Norm = batch_norm,
    dropout: float = 0.1,
) -> Layer:
    """(N, H, W, 3) -> (N, H, W, classes): a fully convolutional network, for segmentation.

    y = resize(conv1x1(dropout(relu(norm(conv3x3(features)))))),  features (N, H / 8, W / 8, 2048) of a dilated ResNet

    New in 2015: dense layers become convolutions, so that a classifier predicts a class at each position, for images of
    any size. This is torchvision's version: dilation keeps the feature maps at 1/8 of the image's resolution, and
    bilinear interpolation enlarges the logits. The paper uses strides of 32 and transposed convolutions.

    Variants, for 520x520, multiply-adds without the auxiliary head (mean IoU of torchvision's weights, trained on COCO
    with the 20 classes of Pascal VOC):
        name           parameters  multiply-adds   mIoU
        fcn_resnet50   35,322,218      142.726 G   60.5
        fcn_resnet101  54,314,346      222.747 G   63.7

    Args:
        classes: number of classes, including the background; None gives the features (N, H / 8, W / 8, 512).
        backbone: a ResNet in `MODELS`.
        auxiliary: True to return (logits, auxiliary logits) in training. The auxiliary head has the feature maps of
            stage 3 as input. `cross_entropy` accepts both; torchvision's weight is auxiliary=0.5.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer of each head.

    Example:
        >>> model = jaxcnn.models.fcn_resnet50(classes=3)
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)[0].shape
        (1, 64, 64, 3)

    Source: Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015.
    """
    features = backbone_of(backbone, outputs={"aux": "stage3", "out": "stage4"}, output_stride=8, norm=norm)
    return segmentation(features, fcn_head(512, norm, dropout), classes, auxiliary, norm, dropout)


def fcn_head(width: int, norm: Norm, dropout: float) -> dict[str, AnyLayer]:
    """Return the layers before the logits, (N, H, W, C) -> (N, H, W, width), as keyword arguments of `serial`."""
    return {"unit": conv_norm_act(width, 3, norm=norm), "drop": drop(dropout)}


def segmentation(
    features: Layer,
    layers: dict[str, AnyLayer],
    classes: int | None,
    auxiliary: bool,
    norm: Norm,
    aux_dropout: float,
) -> Layer:
    """(N, H, W, 3) -> (N, H, W, classes): a backbone, a head for its output "out" and an FCN head for "aux"."""

    def logits(name, layers, size):
        end = {} if classes is None else {"head": conv(classes, 1), "resize": resize(size)}
        return serial(features=operator.itemgetter(name), **layers, **end)

    def build(shape):
        size = shape[1:-1]
        main = logits("out", layers, size)
        if classes is None or not auxiliary:
            return serial(backbone=features, heads=serial(main=main))
        aux = from_input_shape(lambda shapes: logits("aux", fcn_head(shapes["aux"][-1] // 4, norm, aux_dropout), size))
        return serial(backbone=features, heads=with_auxiliary(main, aux=aux))

    return from_input_shape(build)


fcn_resnet50 = variant("fcn_resnet50", fcn, size=520, backbone="resnet50")
fcn_resnet101 = variant("fcn_resnet101", fcn, size=520, backbone="resnet101")
