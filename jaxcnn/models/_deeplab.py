"""DeepLab v3: segmentation with dilated convolutions of several rates side by side."""

import functools

import jax.numpy as jnp

from jaxcnn._adaptive_pool import adaptive_avg_pool
from jaxcnn._combine import AnyLayer, concatenate, serial
from jaxcnn._dropout import dropout as drop
from jaxcnn._layer import Layer, constructor, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn.models._backbone import backbone as backbone_of
from jaxcnn.models._fcn import segmentation
from jaxcnn.models._unit import Norm, conv_norm_act
from jaxcnn.models._variant import variant


@constructor
def deeplabv3(
    classes: int | None = 21,
    *,
    backbone: str,
    output_stride: int = 8,
    aux: str = "stage3",
    out: str = "stage4",
    rates: tuple[int, ...] = (12, 24, 36),
    auxiliary: bool = True,
    norm: Norm = batch_norm,
    backbone_norm: Norm | None = None,
    dropout: float = 0.5,
) -> Layer:
    """(N, H, W, 3) -> (N, H, W, classes): DeepLab v3, for segmentation.

    pyramid(x) = merge([conv1x1(x), conv3x3(x, dilation 12), conv3x3(x, 24), conv3x3(x, 36), mean(x)])
    y = resize(conv1x1(conv3x3(dropout(pyramid(features)))))

    New in 2017: parallel dilated (atrous) convolutions see the context of a position at several scales, at the cost of
    3x3 kernels. The mean over the image adds the global context. Dilation also replaces the last strides of the
    backbone.

    Variants, for 520x520, multiply-adds without the auxiliary head (mean IoU of torchvision's weights, trained on COCO
    with the 20 classes of Pascal VOC):
        name                          parameters  multiply-adds   mIoU
        deeplabv3_resnet50            42,004,074      168.731 G   66.4
        deeplabv3_resnet101           60,996,202      248.752 G   67.4
        deeplabv3_mobilenet_v3_large  11,029,328       10.436 G   60.3

    Args:
        classes: number of classes, including the background; None gives the features (N, H / 8, W / 8, 256).
        backbone: a ResNet or MobileNet in `MODELS`.
        output_stride: 8 or 16: stride of the feature maps.
        aux, out: the backbone's layers whose outputs are the inputs of the auxiliary and of the main head.
        rates: dilations of the parallel convolutions. The paper has half of them for output_stride=16.
        auxiliary: True to return (logits, auxiliary logits) in training. `cross_entropy` accepts both; torchvision's
            weight is auxiliary=0.5.
        norm: constructor of a normalization layer.
        backbone_norm: the same for the backbone. Default: the default of the backbone.
        dropout: dropout rate after the pyramid. 0 also disables the dropout of the auxiliary head (rate 0.1).

    Example:
        >>> model = jaxcnn.models.deeplabv3_mobilenet_v3_large(classes=3)
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)[0].shape
        (1, 64, 64, 3)

    Source: Chen, Papandreou, Schroff and Adam, "Rethinking atrous convolution for semantic image segmentation", 2017.
    """
    options = {} if backbone_norm is None else {"norm": backbone_norm}
    maps = backbone_of(backbone, outputs={"aux": aux, "out": out}, output_stride=output_stride, **options)
    unit = functools.partial(conv_norm_act, 256, norm=norm)
    pooled = from_input_shape(
        lambda shape: serial(
            pool=adaptive_avg_pool(1),
            unit=unit(1),
            expand=lambda y: jnp.broadcast_to(y, (*shape[:-1], y.shape[-1])),
        )
    )
    dilated = {f"rate{rate}": unit(3, dilation=rate) for rate in rates}
    layers: dict[str, AnyLayer] = {
        "pyramid": concatenate(pointwise=unit(1), **dilated, pooled=pooled),
        "merge": unit(1),
        "drop": drop(dropout),
        "unit": unit(3),
    }
    return segmentation(maps, layers, classes, auxiliary, norm, 0.1 if dropout else 0.0)


deeplabv3_resnet50 = variant("deeplabv3_resnet50", deeplabv3, size=520, backbone="resnet50")
deeplabv3_resnet101 = variant("deeplabv3_resnet101", deeplabv3, size=520, backbone="resnet101")
deeplabv3_mobilenet_v3_large = variant(
    "deeplabv3_mobilenet_v3_large",
    deeplabv3,
    size=520,
    backbone="mobilenet_v3_large",
    output_stride=16,
    aux="block4",
    out="top",
)
