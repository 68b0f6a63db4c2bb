"""Architectures. Each is a function that returns a layer. `MODELS` maps names to these functions.

Families have arguments for the architecture: `resnet(depths=(2, 2, 2, 2))`. Variants are named: `resnet18()`.
"""

from jaxcnn.models._alexnet import alexnet as alexnet
from jaxcnn.models._alexnet import alexnet_2012 as alexnet_2012
from jaxcnn.models._alexnet import zfnet as zfnet
from jaxcnn.models._backbone import backbone as backbone
from jaxcnn.models._cifar_resnet import cifar_resnet as cifar_resnet
from jaxcnn.models._cifar_resnet import resnet20 as resnet20
from jaxcnn.models._cifar_resnet import resnet32 as resnet32
from jaxcnn.models._cifar_resnet import resnet44 as resnet44
from jaxcnn.models._cifar_resnet import resnet56 as resnet56
from jaxcnn.models._cifar_resnet import resnet110 as resnet110
from jaxcnn.models._convnext import convnext as convnext
from jaxcnn.models._convnext import convnext_base as convnext_base
from jaxcnn.models._convnext import convnext_large as convnext_large
from jaxcnn.models._convnext import convnext_small as convnext_small
from jaxcnn.models._convnext import convnext_tiny as convnext_tiny
from jaxcnn.models._convnext import convnextv2_atto as convnextv2_atto
from jaxcnn.models._convnext import convnextv2_base as convnextv2_base
from jaxcnn.models._convnext import convnextv2_femto as convnextv2_femto
from jaxcnn.models._convnext import convnextv2_huge as convnextv2_huge
from jaxcnn.models._convnext import convnextv2_large as convnextv2_large
from jaxcnn.models._convnext import convnextv2_nano as convnextv2_nano
from jaxcnn.models._convnext import convnextv2_pico as convnextv2_pico
from jaxcnn.models._convnext import convnextv2_tiny as convnextv2_tiny
from jaxcnn.models._deeplab import deeplabv3 as deeplabv3
from jaxcnn.models._deeplab import deeplabv3_mobilenet_v3_large as deeplabv3_mobilenet_v3_large
from jaxcnn.models._deeplab import deeplabv3_resnet50 as deeplabv3_resnet50
from jaxcnn.models._deeplab import deeplabv3_resnet101 as deeplabv3_resnet101
from jaxcnn.models._densenet import densenet as densenet
from jaxcnn.models._densenet import densenet121 as densenet121
from jaxcnn.models._densenet import densenet161 as densenet161
from jaxcnn.models._densenet import densenet169 as densenet169
from jaxcnn.models._densenet import densenet201 as densenet201
from jaxcnn.models._dla import dla34 as dla34
from jaxcnn.models._efficientnet import efficientnet as efficientnet
from jaxcnn.models._efficientnet import efficientnet_b0 as efficientnet_b0
from jaxcnn.models._efficientnet import efficientnet_b1 as efficientnet_b1
from jaxcnn.models._efficientnet import efficientnet_b2 as efficientnet_b2
from jaxcnn.models._efficientnet import efficientnet_b3 as efficientnet_b3
from jaxcnn.models._efficientnet import efficientnet_b4 as efficientnet_b4
from jaxcnn.models._efficientnet import efficientnet_b5 as efficientnet_b5
from jaxcnn.models._efficientnet import efficientnet_b6 as efficientnet_b6
from jaxcnn.models._efficientnet import efficientnet_b7 as efficientnet_b7
from jaxcnn.models._efficientnet import efficientnet_lite0 as efficientnet_lite0
from jaxcnn.models._efficientnet import efficientnet_v2_l as efficientnet_v2_l
from jaxcnn.models._efficientnet import efficientnet_v2_m as efficientnet_v2_m
from jaxcnn.models._efficientnet import efficientnet_v2_s as efficientnet_v2_s
from jaxcnn.models._fcn import fcn as fcn
from jaxcnn.models._fcn import fcn_resnet50 as fcn_resnet50
from jaxcnn.models._fcn import fcn_resnet101 as fcn_resnet101
from jaxcnn.models._feature_pyramid import feature_pyramid as feature_pyramid
from jaxcnn.models._ghostnet import ghostnet_100 as ghostnet_100
from jaxcnn.models._googlenet import googlenet as googlenet
from jaxcnn.models._hrnet import hrnet as hrnet
from jaxcnn.models._hrnet import hrnet_w18 as hrnet_w18
from jaxcnn.models._inception import inception_v3 as inception_v3
from jaxcnn.models._lenet import lenet5 as lenet5
from jaxcnn.models._lenet import lenet5_1998 as lenet5_1998
from jaxcnn.models._lenet import tiny as tiny
from jaxcnn.models._lraspp import lraspp_mobilenet_v3_large as lraspp_mobilenet_v3_large
from jaxcnn.models._mnasnet import mnasnet as mnasnet
from jaxcnn.models._mnasnet import mnasnet0_5 as mnasnet0_5
from jaxcnn.models._mnasnet import mnasnet0_75 as mnasnet0_75
from jaxcnn.models._mnasnet import mnasnet1_0 as mnasnet1_0
from jaxcnn.models._mnasnet import mnasnet1_3 as mnasnet1_3
from jaxcnn.models._mobilenet import mobilenet_v1 as mobilenet_v1
from jaxcnn.models._mobilenet import mobilenet_v2 as mobilenet_v2
from jaxcnn.models._mobilenet import mobilenet_v3 as mobilenet_v3
from jaxcnn.models._mobilenet import mobilenet_v3_large as mobilenet_v3_large
from jaxcnn.models._mobilenet import mobilenet_v3_small as mobilenet_v3_small
from jaxcnn.models._mobilenet_v4 import mobilenetv4 as mobilenetv4
from jaxcnn.models._mobilenet_v4 import mobilenetv4_conv_medium as mobilenetv4_conv_medium
from jaxcnn.models._mobilenet_v4 import mobilenetv4_conv_small as mobilenetv4_conv_small
from jaxcnn.models._nin import nin as nin
from jaxcnn.models._preact_resnet import preact_resnet as preact_resnet
from jaxcnn.models._preact_resnet import preact_resnet18 as preact_resnet18
from jaxcnn.models._preact_resnet import preact_resnet34 as preact_resnet34
from jaxcnn.models._preact_resnet import preact_resnet50 as preact_resnet50
from jaxcnn.models._preact_resnet import preact_resnet101 as preact_resnet101
from jaxcnn.models._preact_resnet import preact_resnet152 as preact_resnet152
from jaxcnn.models._regnet import regnet as regnet
from jaxcnn.models._regnet import regnet_x_1_6gf as regnet_x_1_6gf
from jaxcnn.models._regnet import regnet_x_3_2gf as regnet_x_3_2gf
from jaxcnn.models._regnet import regnet_x_4gf as regnet_x_4gf
from jaxcnn.models._regnet import regnet_x_6_4gf as regnet_x_6_4gf
from jaxcnn.models._regnet import regnet_x_8gf as regnet_x_8gf
from jaxcnn.models._regnet import regnet_x_12gf as regnet_x_12gf
from jaxcnn.models._regnet import regnet_x_16gf as regnet_x_16gf
from jaxcnn.models._regnet import regnet_x_32gf as regnet_x_32gf
from jaxcnn.models._regnet import regnet_x_200mf as regnet_x_200mf
from jaxcnn.models._regnet import regnet_x_400mf as regnet_x_400mf
from jaxcnn.models._regnet import regnet_x_600mf as regnet_x_600mf
from jaxcnn.models._regnet import regnet_x_800mf as regnet_x_800mf
from jaxcnn.models._regnet import regnet_y_1_6gf as regnet_y_1_6gf
from jaxcnn.models._regnet import regnet_y_3_2gf as regnet_y_3_2gf
from jaxcnn.models._regnet import regnet_y_4gf as regnet_y_4gf
from jaxcnn.models._regnet import regnet_y_6_4gf as regnet_y_6_4gf
from jaxcnn.models._regnet import regnet_y_8gf as regnet_y_8gf
from jaxcnn.models._regnet import regnet_y_12gf as regnet_y_12gf
from jaxcnn.models._regnet import regnet_y_16gf as regnet_y_16gf
from jaxcnn.models._regnet import regnet_y_32gf as regnet_y_32gf
from jaxcnn.models._regnet import regnet_y_128gf as regnet_y_128gf
from jaxcnn.models._regnet import regnet_y_200mf as regnet_y_200mf
from jaxcnn.models._regnet import regnet_y_400mf as regnet_y_400mf
from jaxcnn.models._regnet import regnet_y_600mf as regnet_y_600mf
from jaxcnn.models._regnet import regnet_y_800mf as regnet_y_800mf
from jaxcnn.models._repvgg import fuse_repvgg as fuse_repvgg
from jaxcnn.models._repvgg import repvgg as repvgg
from jaxcnn.models._repvgg import repvgg_a0 as repvgg_a0
from jaxcnn.models._repvgg import repvgg_a1 as repvgg_a1
from jaxcnn.models._repvgg import repvgg_a2 as repvgg_a2
from jaxcnn.models._res2net import res2net as res2net
from jaxcnn.models._res2net import res2net50_26w_4s as res2net50_26w_4s
from jaxcnn.models._resnet import resnet as resnet
from jaxcnn.models._resnet import resnet18 as resnet18
from jaxcnn.models._resnet import resnet26d as resnet26d
from jaxcnn.models._resnet import resnet34 as resnet34
from jaxcnn.models._resnet import resnet50 as resnet50
from jaxcnn.models._resnet import resnet50d as resnet50d
from jaxcnn.models._resnet import resnet101 as resnet101
from jaxcnn.models._resnet import resnet152 as resnet152
from jaxcnn.models._resnet import resnetrs50 as resnetrs50
from jaxcnn.models._resnet import resnext50_32x4d as resnext50_32x4d
from jaxcnn.models._resnet import resnext101_32x8d as resnext101_32x8d
from jaxcnn.models._resnet import resnext101_64x4d as resnext101_64x4d
from jaxcnn.models._resnet import se_resnet18 as se_resnet18
from jaxcnn.models._resnet import se_resnet34 as se_resnet34
from jaxcnn.models._resnet import se_resnet50 as se_resnet50
from jaxcnn.models._resnet import se_resnet101 as se_resnet101
from jaxcnn.models._resnet import se_resnet152 as se_resnet152
from jaxcnn.models._resnet import wide_resnet50_2 as wide_resnet50_2
from jaxcnn.models._resnet import wide_resnet101_2 as wide_resnet101_2
from jaxcnn.models._s3d import s3d as s3d
from jaxcnn.models._shufflenet import shufflenet_v2 as shufflenet_v2
from jaxcnn.models._shufflenet import shufflenet_v2_x0_5 as shufflenet_v2_x0_5
from jaxcnn.models._shufflenet import shufflenet_v2_x1_0 as shufflenet_v2_x1_0
from jaxcnn.models._shufflenet import shufflenet_v2_x1_5 as shufflenet_v2_x1_5
from jaxcnn.models._shufflenet import shufflenet_v2_x2_0 as shufflenet_v2_x2_0
from jaxcnn.models._signal import fcn1d as fcn1d
from jaxcnn.models._signal import inception_time as inception_time
from jaxcnn.models._signal import resnet1d as resnet1d
from jaxcnn.models._squeezenet import squeezenet as squeezenet
from jaxcnn.models._squeezenet import squeezenet1_0 as squeezenet1_0
from jaxcnn.models._squeezenet import squeezenet1_1 as squeezenet1_1
from jaxcnn.models._unet import unet as unet
from jaxcnn.models._variant import MODELS as MODELS
from jaxcnn.models._variant import Model as Model
from jaxcnn.models._vgg import vgg as vgg
from jaxcnn.models._vgg import vgg11 as vgg11
from jaxcnn.models._vgg import vgg11_bn as vgg11_bn
from jaxcnn.models._vgg import vgg13 as vgg13
from jaxcnn.models._vgg import vgg13_bn as vgg13_bn
from jaxcnn.models._vgg import vgg16 as vgg16
from jaxcnn.models._vgg import vgg16_bn as vgg16_bn
from jaxcnn.models._vgg import vgg19 as vgg19
from jaxcnn.models._vgg import vgg19_bn as vgg19_bn
from jaxcnn.models._video_resnet import mc3_18 as mc3_18
from jaxcnn.models._video_resnet import r2plus1d_18 as r2plus1d_18
from jaxcnn.models._video_resnet import r3d_18 as r3d_18
from jaxcnn.models._video_resnet import video_resnet as video_resnet
from jaxcnn.models._wide_resnet import wide_resnet as wide_resnet
from jaxcnn.models._wide_resnet import wrn_16_4 as wrn_16_4
from jaxcnn.models._wide_resnet import wrn_16_8 as wrn_16_8
from jaxcnn.models._wide_resnet import wrn_28_10 as wrn_28_10
from jaxcnn.models._wide_resnet import wrn_40_2 as wrn_40_2
from jaxcnn.models._xception import xception as xception

# fmt: off
__all__ = [
    "MODELS", "Model", "alexnet", "alexnet_2012", "backbone", "cifar_resnet", "convnext", "convnext_base",
    "convnext_large", "convnext_small", "convnext_tiny", "convnextv2_atto", "convnextv2_base", "convnextv2_femto",
    "convnextv2_huge", "convnextv2_large", "convnextv2_nano", "convnextv2_pico", "convnextv2_tiny", "deeplabv3",
    "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "deeplabv3_resnet101", "densenet", "densenet121",
    "densenet161", "densenet169", "densenet201", "dla34", "efficientnet", "efficientnet_b0", "efficientnet_b1",
    "efficientnet_b2", "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_lite0", "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "fcn", "fcn1d",
    "fcn_resnet50", "fcn_resnet101", "feature_pyramid", "fuse_repvgg", "ghostnet_100", "googlenet", "hrnet",
    "hrnet_w18", "inception_time", "inception_v3", "lenet5", "lenet5_1998", "lraspp_mobilenet_v3_large", "mc3_18",
    "mnasnet", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v1", "mobilenet_v2",
    "mobilenet_v3", "mobilenet_v3_large", "mobilenet_v3_small", "mobilenetv4", "mobilenetv4_conv_medium",
    "mobilenetv4_conv_small", "nin", "preact_resnet", "preact_resnet18", "preact_resnet34", "preact_resnet50",
    "preact_resnet101", "preact_resnet152", "r2plus1d_18", "r3d_18", "regnet", "regnet_x_1_6gf", "regnet_x_3_2gf",
    "regnet_x_4gf", "regnet_x_6_4gf", "regnet_x_8gf", "regnet_x_12gf", "regnet_x_16gf", "regnet_x_32gf",
    "regnet_x_200mf", "regnet_x_400mf", "regnet_x_600mf", "regnet_x_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf",
    "regnet_y_4gf", "regnet_y_6_4gf", "regnet_y_8gf", "regnet_y_12gf", "regnet_y_16gf", "regnet_y_32gf",
    "regnet_y_128gf", "regnet_y_200mf", "regnet_y_400mf", "regnet_y_600mf", "regnet_y_800mf", "repvgg", "repvgg_a0",
    "repvgg_a1", "repvgg_a2", "res2net", "res2net50_26w_4s", "resnet", "resnet1d", "resnet18", "resnet20",
    "resnet26d", "resnet32", "resnet34", "resnet44", "resnet50", "resnet50d", "resnet56", "resnet101", "resnet110",
    "resnet152", "resnetrs50", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "s3d", "se_resnet18",
    "se_resnet34", "se_resnet50", "se_resnet101", "se_resnet152", "shufflenet_v2", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "squeezenet", "squeezenet1_0", "squeezenet1_1",
    "tiny", "unet", "vgg", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "video_resnet", "wide_resnet", "wide_resnet50_2", "wide_resnet101_2", "wrn_16_4", "wrn_16_8", "wrn_28_10",
    "wrn_40_2", "xception", "zfnet",
]
# fmt: on
