"""LR-ASPP: a light segmentation head for mobile backbones."""

import operator

import jax

from jaxcnn._adaptive_pool import adaptive_avg_pool
from jaxcnn._combine import parallel, serial
from jaxcnn._conv import conv
from jaxcnn._layer import Layer, from_input_shape
from jaxcnn._norm import batch_norm
from jaxcnn._resize import resize
from jaxcnn.models._backbone import backbone
from jaxcnn.models._unit import Norm, conv_norm_act
from jaxcnn.models._variant import input_shape


@input_shape(520, 520, 3)
def lraspp_mobilenet_v3_large(
    classes: int | None = 21, *, norm: Norm = batch_norm, backbone_norm: Norm | None = None
) -> Layer:
    """(N, H, W, 3) -> (N, H, W, classes): MobileNet v3 with the lite reduced atrous spatial pyramid pooling.

    y = resize(conv1x1(low) + conv1x1(resize(unit(high) * sigmoid(conv1x1(mean(high))))))

    New in 2019: the pyramid of DeepLab shrinks to a 1x1 convolution, weighted per channel by the mean over the image,
    and a 1x1 convolution of finer feature maps. low has stride 8 and high has stride 16.

    Variants, for 520x520 (mean IoU of torchvision's weights, trained on COCO with the 20 classes of Pascal VOC):
        name                       parameters  multiply-adds   mIoU
        lraspp_mobilenet_v3_large   3,221,538        2.086 G   57.9

    Args:
        classes: number of classes, including the background; None gives the features (N, H / 8, W / 8, 128).
        norm: constructor of a normalization layer.
        backbone_norm: the same for the backbone. Default: the default of the backbone.

    Example:
        >>> model = jaxcnn.models.lraspp_mobilenet_v3_large(classes=3)
        >>> x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), x)
        >>> jax.eval_shape(lambda *a: model.apply(*a, train=False), params, state, x)[0].shape
        (1, 64, 64, 3)

    Source: Howard et al., "Searching for MobileNetV3", 2019.
    """
    options = {} if backbone_norm is None else {"norm": backbone_norm}
    maps = backbone("mobilenet_v3_large", outputs={"low": "block4", "high": "top"}, output_stride=16, **options)
    low, high = map(operator.itemgetter, ("low", "high"))
    gate = serial(pool=adaptive_avg_pool(1), conv=conv(128, 1, bias=False), sigmoid=jax.nn.sigmoid)
    excited = serial(high=high, scale=parallel(operator.mul, unit=conv_norm_act(128, 1, norm=norm), gate=gate))

    def build(shapes):
        enlarged = serial(excited=excited, resize=resize(shapes["low"][1:-1]))
        if classes is None:
            return serial(high=enlarged)
        return parallel(
            operator.add, low=serial(low=low, head=conv(classes, 1)), high=serial(high=enlarged, head=conv(classes, 1))
        )

    if classes is None:
        return serial(backbone=maps, heads=from_input_shape(build))
    return from_input_shape(
        lambda shape: serial(backbone=maps, heads=from_input_shape(build), resize=resize(shape[1:-1]))
    )
