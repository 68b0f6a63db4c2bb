"""Residual networks: each block adds its output to its input."""

import jax

from jaxcnn._arguments import check_choice, check_integer
from jaxcnn._combine import residual, serial
from jaxcnn._conv import conv
from jaxcnn._dense import identity
from jaxcnn._layer import Layer, constructor
from jaxcnn._norm import batch_norm
from jaxcnn._pool import avg_pool, global_avg_pool, max_pool
from jaxcnn._squeeze_excite import squeeze_excite
from jaxcnn.models._unit import Norm, conv_norm_act, dilation_at, head
from jaxcnn.models._variant import variant

DESIGNS = ("original", "d", "rs")


@constructor
def resnet(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...],
    bottleneck: bool = True,
    groups: int = 1,
    width: int = 64,
    excite: bool = False,
    reduction: int = 16,
    design: str = "original",
    output_stride: int = 32,
    norm: Norm = batch_norm,
    dropout: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): ResNet, ResNeXt, Wide ResNet, SE-ResNet, ResNet-D and ResNet-RS.

    y = relu(shortcut(x) + f(x))

    New in 2015: f learns only the residual, and the gradient also flows through the shortcut, so that 152 layers train
    as well as 18. f is two 3x3 convolutions, or a bottleneck: 1x1 to fewer channels, 3x3, 1x1 to more channels. In
    ResNeXt (2017), the 3x3 convolution has groups. In Wide ResNet (2016), it has more channels. SE-ResNet (2018)
    rescales the channels of f(x) by squeeze-and-excitation. The stride is in the 3x3 convolution, as in torchvision
    (in the paper: the first 1x1). ResNet-D (2019) starts with three 3x3 convolutions instead of a 7x7 one, and its
    shortcuts average 2x2 positions before a 1x1 convolution without stride, so that no value is skipped. ResNet-RS
    (2021) adds squeeze-and-excitation and replaces the max pool by a 3x3 convolution.

    Variants, for 224x224 (top-1 of torchvision's first weights; SE-ResNet, D and RS: timm's):
        name                parameters  multiply-adds   top-1
        resnet18            11,689,512        1.814 G  69.758
        resnet34            21,797,672        3.664 G  73.314
        resnet50            25,557,032        4.089 G  76.130
        resnet101           44,549,160        7.801 G  77.374
        resnet152           60,192,808       11.514 G  78.312
        resnext50_32x4d     25,028,904        4.230 G  77.618
        resnext101_32x8d    88,791,336       16.414 G  79.312
        resnext101_64x4d    83,455,272       15.460 G  83.246
        wide_resnet50_2     68,883,240       11.398 G  78.468
        wide_resnet101_2   126,886,696       22.753 G  78.848
        se_resnet18         11,779,624        1.814 G       -
        se_resnet34         21,960,416        3.664 G       -
        se_resnet50         28,088,024        4.092 G  80.012
        se_resnet101        49,326,872        7.806 G       -
        se_resnet152        66,821,848       11.520 G       -
        resnet26d           16,014,408        2.582 G       -
        resnet50d           25,576,264        4.329 G  79.078
        resnetrs50          35,691,912        4.454 G  79.896

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: blocks per stage.
        bottleneck: True for bottleneck blocks, False for two 3x3 convolutions.
        groups: groups of the 3x3 convolution of a bottleneck.
        width: channels per group of the 3x3 convolution in the first stage; each later stage doubles them.
        excite: True for squeeze-and-excitation of f(x).
        reduction: the hidden layer of squeeze-and-excitation has 1 / reduction of the channels, at least 8.
        design: "original", "d" for ResNet-D, or "rs" for the convolutions of ResNet-RS.
        output_stride: 8 or 16 for dilated convolutions instead of strides beyond it, for segmentation.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.

    Raises:
        TypeError, ValueError: for an unknown design, a reduction or output_stride that is not possible, or groups or a
            width without bottleneck blocks.

    Example:
        >>> model = jaxcnn.models.resnet18(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (512, 10)

    Source: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016; Xie et al., "Aggregated
    residual transformations for deep neural networks", 2017; Zagoruyko and Komodakis, "Wide residual networks", 2016;
    Hu, Shen and Sun, "Squeeze-and-excitation networks", 2018; He et al., "Bag of tricks for image classification with
    convolutional neural networks", 2019; Bello et al., "Revisiting ResNets: improved training and scaling strategies",
    2021.
    """
    check_choice("resnet", "design", design, DESIGNS)
    reduction = check_integer("resnet", "reduction", reduction)
    if not bottleneck and (groups, width) != (1, 64):
        raise ValueError(f"resnet: groups={groups} and width={width} have no effect without bottleneck blocks")

    def conv3x3(features, stride, dilation, groups):
        return conv(features, 3, stride=stride, padding=dilation, dilation=dilation, groups=groups, bias=False)

    def projection(features, stride, pooled):
        if design == "original" or not pooled:
            return conv_norm_act(features, 1, stride=stride, norm=norm, act=identity)
        pool = avg_pool(2, stride=stride, padding="SAME")
        return serial(pool=pool, unit=conv_norm_act(features, 1, norm=norm, act=identity))

    def block(planes, stride, previous, dilation, project):
        if bottleneck:
            inner, outer = planes * width // 64 * groups, 4 * planes
            branch = {
                "conv1": conv(inner, 1, bias=False),
                "norm1": norm(),
                "relu1": jax.nn.relu,
                "conv2": conv3x3(inner, stride, previous, groups),
                "norm2": norm(),
                "relu2": jax.nn.relu,
                "conv3": conv(outer, 1, bias=False),
                "norm3": norm(),
            }
        else:
            outer = planes
            branch = {
                "conv1": conv3x3(planes, stride, previous, 1),
                "norm1": norm(),
                "relu1": jax.nn.relu,
                "conv2": conv3x3(planes, 1, dilation, 1),
                "norm2": norm(),
            }
        if excite:
            branch["excite"] = squeeze_excite(features=max(outer // reduction, 8))  # at least 8, as in timm
        shortcut = projection(outer, stride, pooled=planes > 64) if project else identity
        return serial(sum=residual(serial(**branch), shortcut), relu=jax.nn.relu)

    stages, dilation = {}, 1
    for stage, depth in enumerate(depths):
        previous, dilation = dilation, dilation_at(4 * 2**stage, output_stride)
        stride = 2 if stage and dilation == previous else 1
        first = block(64 * 2**stage, stride, previous, dilation, project=bottleneck or stage > 0)
        others = [block(64 * 2**stage, 1, dilation, dilation, project=False) for _ in range(1, depth)]
        stages[f"stage{stage + 1}"] = serial(first, *others)
    stem, pool = conv_norm_act(64, 7, stride=2, norm=norm), max_pool(3, stride=2, padding=1)
    if design != "original":
        stem = serial(
            conv_norm_act(32, 3, stride=2, norm=norm), conv_norm_act(32, 3, norm=norm), conv_norm_act(64, 3, norm=norm)
        )
    if design == "rs":
        pool = conv_norm_act(64, 3, stride=2, norm=norm)
    return serial(stem=stem, pool=pool, **stages, features=global_avg_pool, **head(classes, dropout))


resnet18 = variant("resnet18", resnet, depths=(2, 2, 2, 2), bottleneck=False)
resnet34 = variant("resnet34", resnet, depths=(3, 4, 6, 3), bottleneck=False)
resnet50 = variant("resnet50", resnet, depths=(3, 4, 6, 3))
resnet101 = variant("resnet101", resnet, depths=(3, 4, 23, 3))
resnet152 = variant("resnet152", resnet, depths=(3, 8, 36, 3))
resnext50_32x4d = variant("resnext50_32x4d", resnet, depths=(3, 4, 6, 3), groups=32, width=4)
resnext101_32x8d = variant("resnext101_32x8d", resnet, depths=(3, 4, 23, 3), groups=32, width=8)
resnext101_64x4d = variant("resnext101_64x4d", resnet, depths=(3, 4, 23, 3), groups=64, width=4)
wide_resnet50_2 = variant("wide_resnet50_2", resnet, depths=(3, 4, 6, 3), width=128)
wide_resnet101_2 = variant("wide_resnet101_2", resnet, depths=(3, 4, 23, 3), width=128)
se_resnet18 = variant("se_resnet18", resnet, depths=(2, 2, 2, 2), bottleneck=False, excite=True)
se_resnet34 = variant("se_resnet34", resnet, depths=(3, 4, 6, 3), bottleneck=False, excite=True)
se_resnet50 = variant("se_resnet50", resnet, depths=(3, 4, 6, 3), excite=True)
se_resnet101 = variant("se_resnet101", resnet, depths=(3, 4, 23, 3), excite=True)
se_resnet152 = variant("se_resnet152", resnet, depths=(3, 8, 36, 3), excite=True)
resnet26d = variant("resnet26d", resnet, depths=(2, 2, 2, 2), design="d")
resnet50d = variant("resnet50d", resnet, depths=(3, 4, 6, 3), design="d")
resnetrs50 = variant("resnetrs50", resnet, depths=(3, 4, 6, 3), excite=True, reduction=4, design="rs")
