"""MobileNets: networks for phones with depthwise separable convolutions."""

import functools

import jax

from jaxcnn._combine import AnyLayer, serial
from jaxcnn._dense import dense
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn.models._inverted_residual import inverted_residual, make_divisible
from jaxcnn.models._unit import Norm, conv_norm_act, depthwise_norm_act, dilation_at, head, padding_of
from jaxcnn.models._variant import input_shape, variant

# (features, stride) of the 13 blocks of version 1
PLAN_1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))
# (expansion, features, blocks, stride) of the stages of version 2
PLAN_2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# (kernel size, hidden channels, features, excite, activation, stride) of the blocks of version 3
LARGE = (
    (3, 16, 16, False, jax.nn.relu, 1),
    (3, 64, 24, False, jax.nn.relu, 2),
    (3, 72, 24, False, jax.nn.relu, 1),
    (5, 72, 40, True, jax.nn.relu, 2),
    (5, 120, 40, True, jax.nn.relu, 1),
    (5, 120, 40, True, jax.nn.relu, 1),
    (3, 240, 80, False, jax.nn.hard_swish, 2),
    (3, 200, 80, False, jax.nn.hard_swish, 1),
    (3, 184, 80, False, jax.nn.hard_swish, 1),
    (3, 184, 80, False, jax.nn.hard_swish, 1),
    (3, 480, 112, True, jax.nn.hard_swish, 1),
    (3, 672, 112, True, jax.nn.hard_swish, 1),
    (5, 672, 160, True, jax.nn.hard_swish, 2),
    (5, 960, 160, True, jax.nn.hard_swish, 1),
    (5, 960, 160, True, jax.nn.hard_swish, 1),
)
SMALL = (
    (3, 16, 16, True, jax.nn.relu, 2),
    (3, 72, 24, False, jax.nn.relu, 2),
    (3, 88, 24, False, jax.nn.relu, 1),
    (5, 96, 40, True, jax.nn.hard_swish, 2),
    (5, 240, 40, True, jax.nn.hard_swish, 1),
    (5, 240, 40, True, jax.nn.hard_swish, 1),
    (5, 120, 48, True, jax.nn.hard_swish, 1),
    (5, 144, 48, True, jax.nn.hard_swish, 1),
    (5, 288, 96, True, jax.nn.hard_swish, 2),
    (5, 576, 96, True, jax.nn.hard_swish, 1),
    (5, 576, 96, True, jax.nn.hard_swish, 1),
)


@input_shape(224, 224, 3)
def mobilenet_v1(
    classes: int | None = 1000, *, norm: Norm = batch_norm, padding: str = "torch", dropout: float = 0.0
) -> Layer:
    """(N, H, W, 3) -> (N, classes): MobileNet.

    block(x) = relu6(norm(pointwise(relu6(norm(depthwise(x))))))

    New in 2017: nearly all layers are depthwise convolutions, separate for each channel, and 1x1 convolutions, separate
    for each position. They need 8 to 9 times fewer multiplications than 3x3 convolutions.

    Variants, for 224x224 (the paper's top-1):
        name          parameters  multiply-adds  top-1
        mobilenet_v1   4,231,976        0.569 G   70.6

    Args:
        classes: number of classes; None gives the features (N, 1024).
        norm: constructor of a normalization layer.
        padding: "torch", or "tensorflow" for the weights of transformers, whose norms have eps=1e-3.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.mobilenet_v1(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications", 2017.
    """

    def block(features, stride):
        return serial(
            depthwise=depthwise_norm_act(stride=stride, padding=padding_of(padding), norm=norm, act=jax.nn.relu6),
            pointwise=conv_norm_act(features, 1, norm=norm, act=jax.nn.relu6),
        )

    blocks = {f"block{i}": block(*row) for i, row in enumerate(PLAN_1, 1)}
    stem = conv_norm_act(32, 3, stride=2, padding=padding_of(padding), norm=norm, act=jax.nn.relu6)
    return serial(stem=stem, **blocks, features=global_avg_pool, **head(classes, dropout))


@input_shape(224, 224, 3)
def mobilenet_v2(
    classes: int | None = 1000,
    *,
    output_stride: int = 32,
    norm: Norm = batch_norm,
    padding: str = "torch",
    dropout: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): MobileNet v2.

    block(x) = x + project(relu6(depthwise(relu6(expand(x)))))

    New in 2018: the shortcuts connect narrow layers, and the depthwise convolution between them has six times as many
    channels. The narrow layers have no activation, because a ReLU would lose too much information there.

    Variants, for 224x224 (top-1 of torchvision's first weights):
        name          parameters  multiply-adds   top-1
        mobilenet_v2   3,504,872        0.301 G  71.878

    Args:
        classes: number of classes; None gives the features (N, 1280).
        output_stride: 8 or 16 for dilated convolutions instead of strides beyond it, for segmentation.
        norm: constructor of a normalization layer.
        padding: "torch", or "tensorflow" for the weights of transformers, whose norms have eps=1e-3.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.mobilenet_v2(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1280, 10)

    Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018.
    """
    act = jax.nn.relu6
    layers = {"stem": conv_norm_act(32, 3, stride=2, padding=padding_of(padding), norm=norm, act=act)}
    channels, reached = 32, 2
    for expand, features, count, stage_stride in PLAN_2:
        for i in range(count):
            dilation = dilation_at(reached, output_stride)
            reached *= 1 if i else stage_stride
            layers[f"block{len(layers)}"] = inverted_residual(
                features,
                hidden=expand * channels,
                stride=1 if i or reached > output_stride else stage_stride,
                padding=padding_of(padding),
                dilation=dilation,
                norm=norm,
                act=act,
            )
            channels = features
    layers["top"] = conv_norm_act(1280, 1, norm=norm, act=act)
    return serial(**layers, features=global_avg_pool, **head(classes, dropout))


@constructor
def mobilenet_v3(
    classes: int | None = 1000,
    *,
    blocks: tuple,
    last: int,
    output_stride: int = 32,
    norm: Norm = functools.partial(batch_norm, decay=0.99, eps=1e-3),
    padding: str = "torch",
    dropout: float = 0.2,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): MobileNet v3.

    block(x) = x + project(excite(act(depthwise(act(expand(x))))))

    New in 2019: an architecture search for low latency on a phone. The blocks can have squeeze-and-excitation, the
    deeper half uses hard swish, x relu6(x + 3) / 6, and the last stage moves behind the pooling.

    Variants, for 224x224 (top-1 of torchvision's first weights):
        name                parameters  multiply-adds   top-1
        mobilenet_v3_large   5,483,032        0.217 G  74.042
        mobilenet_v3_small   2,542,856        0.057 G  67.668

    Args:
        classes: number of classes; None gives the features (N, last).
        output_stride: 8 or 16 for dilated convolutions instead of strides beyond it, for segmentation. As in
            torchvision, the first block of each of these stages is dilated, too.
        blocks: (kernel size, hidden channels, features, excite, activation, stride) of each block.
        last: units of the second-to-last dense layer.
        norm: constructor of a normalization layer.
        padding: "torch", or "tensorflow" for timm's `tf_` weights.
        dropout: dropout rate before the last layer.

    Example:
        >>> model = jaxcnn.models.mobilenet_v3_small(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (1024, 10)

    Source: Howard et al., "Searching for MobileNetV3", 2019.
    """
    swish = jax.nn.hard_swish
    layers, reached = {"stem": conv_norm_act(16, 3, stride=2, padding=padding_of(padding), norm=norm, act=swish)}, 2
    for size, hidden, features, use_excite, act, stride in blocks:
        reached *= stride
        layers[f"block{len(layers)}"] = inverted_residual(
            features,
            size,
            hidden=hidden,
            stride=stride if reached <= output_stride else 1,
            padding=padding_of(padding),
            dilation=dilation_at(reached, output_stride),
            squeeze=make_divisible(hidden // 4) if use_excite else 0,
            norm=norm,
            act=act,
            gate=jax.nn.hard_sigmoid,
        )
    layers["top"] = conv_norm_act(6 * features, 1, norm=norm, act=swish)
    end: dict[str, AnyLayer] = {"last": dense(last), "swish": swish}
    return serial(**layers, pool=global_avg_pool, **end, **head(classes, dropout))


mobilenet_v3_large = variant("mobilenet_v3_large", mobilenet_v3, blocks=LARGE, last=1280)
mobilenet_v3_small = variant("mobilenet_v3_small", mobilenet_v3, blocks=SMALL, last=1024)
