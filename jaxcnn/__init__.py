"""Convolutional networks as pairs of pure functions on JAX."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from jaxcnn._activation import prelu as prelu
from jaxcnn._adaptive_pool import adaptive_avg_pool as adaptive_avg_pool
from jaxcnn._adaptive_pool import adaptive_max_pool as adaptive_max_pool
from jaxcnn._adversarial import adversarial as adversarial
from jaxcnn._adversarial import pgd as pgd
from jaxcnn._binary_loss import binary_cross_entropy as binary_cross_entropy
from jaxcnn._binary_loss import dice as dice
from jaxcnn._blur_pool import blur_pool as blur_pool
from jaxcnn._combine import concatenate as concatenate
from jaxcnn._combine import parallel as parallel
from jaxcnn._combine import repeat as repeat
from jaxcnn._combine import residual as residual
from jaxcnn._combine import serial as serial
from jaxcnn._composed_loss import distillation as distillation
from jaxcnn._composed_loss import per_member as per_member
from jaxcnn._composed_loss import weighted_sum as weighted_sum
from jaxcnn._conv import conv as conv
from jaxcnn._conv import conv_transpose as conv_transpose
from jaxcnn._conv import depthwise_conv as depthwise_conv
from jaxcnn._conv import separable_conv as separable_conv
from jaxcnn._crop import crop_and_resize as crop_and_resize
from jaxcnn._crop import roi_align as roi_align
from jaxcnn._cross_entropy import cross_entropy as cross_entropy
from jaxcnn._cross_entropy import focal as focal
from jaxcnn._deform_conv import deform_conv as deform_conv
from jaxcnn._dense import dense as dense
from jaxcnn._dense import flatten as flatten
from jaxcnn._dense import identity as identity
from jaxcnn._dense import pad as pad
from jaxcnn._dropout import alpha_dropout as alpha_dropout
from jaxcnn._dropout import drop_block as drop_block
from jaxcnn._dropout import dropout as dropout
from jaxcnn._dropout import gaussian_dropout as gaussian_dropout
from jaxcnn._dropout import gaussian_noise as gaussian_noise
from jaxcnn._dropout import spatial_dropout as spatial_dropout
from jaxcnn._ensemble import ensemble as ensemble
from jaxcnn._ensemble import monte_carlo as monte_carlo
from jaxcnn._ensemble import split_members as split_members
from jaxcnn._ensemble import stack_members as stack_members
from jaxcnn._export import export as export
from jaxcnn._grid_sample import grid_sample as grid_sample
from jaxcnn._jit import jit as jit
from jaxcnn._layer import Layer as Layer
from jaxcnn._layer import as_layer as as_layer
from jaxcnn._layer import stateless as stateless
from jaxcnn._loss import LossFn as LossFn
from jaxcnn._loss_gradient import clip_per_example as clip_per_example
from jaxcnn._loss_gradient import sharpness_aware as sharpness_aware
from jaxcnn._mix import cutmix as cutmix
from jaxcnn._mix import mixup as mixup
from jaxcnn._norm import batch_norm as batch_norm
from jaxcnn._norm import group_norm as group_norm
from jaxcnn._norm import instance_norm as instance_norm
from jaxcnn._norm import layer_norm as layer_norm
from jaxcnn._norm import rms_norm as rms_norm
from jaxcnn._path import count_params as count_params
from jaxcnn._path import mask as mask
from jaxcnn._path import paths as paths
from jaxcnn._pixel_shuffle import pixel_shuffle as pixel_shuffle
from jaxcnn._pixel_shuffle import pixel_unshuffle as pixel_unshuffle
from jaxcnn._pool import avg_pool as avg_pool
from jaxcnn._pool import global_avg_pool as global_avg_pool
from jaxcnn._pool import global_max_pool as global_max_pool
from jaxcnn._pool import lp_pool as lp_pool
from jaxcnn._pool import max_pool as max_pool
from jaxcnn._pool import min_pool as min_pool
from jaxcnn._program import plain as plain
from jaxcnn._regression_loss import huber as huber
from jaxcnn._regression_loss import mean_absolute_error as mean_absolute_error
from jaxcnn._regression_loss import mean_squared_error as mean_squared_error
from jaxcnn._regularize import elastic_net as elastic_net
from jaxcnn._regularize import l1 as l1
from jaxcnn._regularize import l2 as l2
from jaxcnn._regularize import orthogonal as orthogonal
from jaxcnn._regularize import regularized as regularized
from jaxcnn._reparametrize import drop_connect as drop_connect
from jaxcnn._reparametrize import spectral_norm as spectral_norm
from jaxcnn._reparametrize import weight_norm as weight_norm
from jaxcnn._reparametrize import weight_standardized as weight_standardized
from jaxcnn._resize import resize as resize
from jaxcnn._resize import upsample as upsample
from jaxcnn._response_norm import global_response_norm as global_response_norm
from jaxcnn._response_norm import local_response_norm as local_response_norm
from jaxcnn._squeeze_excite import squeeze_excite as squeeze_excite
from jaxcnn._transform import capture as capture
from jaxcnn._transform import cast as cast
from jaxcnn._transform import drop_path as drop_path
from jaxcnn._transform import freeze as freeze
from jaxcnn._transform import remat as remat
from jaxcnn._transform import with_dropout as with_dropout
from jaxcnn._transform import with_precision as with_precision
from jaxcnn._transform import with_spatial_dropout as with_spatial_dropout
from jaxcnn._unpool import max_pool_with_indices as max_pool_with_indices
from jaxcnn._unpool import max_unpool as max_unpool

if TYPE_CHECKING:
    from jaxcnn import curvature as curvature
    from jaxcnn import data as data
    from jaxcnn import explain as explain
    from jaxcnn import metrics as metrics
    from jaxcnn import models as models
    from jaxcnn import report as report
    from jaxcnn import train as train
    from jaxcnn import uncertainty as uncertainty
    from jaxcnn import weights as weights

__version__ = "0.1.0"

__all__ = [
    "Layer",
    "LossFn",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "adversarial",
    "alpha_dropout",
    "as_layer",
    "avg_pool",
    "batch_norm",
    "binary_cross_entropy",
    "blur_pool",
    "capture",
    "cast",
    "clip_per_example",
    "concatenate",
    "conv",
    "conv_transpose",
    "count_params",
    "crop_and_resize",
    "cross_entropy",
    "curvature",
    "cutmix",
    "data",
    "deform_conv",
    "dense",
    "depthwise_conv",
    "dice",
    "distillation",
    "drop_block",
    "drop_connect",
    "drop_path",
    "dropout",
    "elastic_net",
    "ensemble",
    "explain",
    "export",
    "flatten",
    "focal",
    "freeze",
    "gaussian_dropout",
    "gaussian_noise",
    "global_avg_pool",
    "global_max_pool",
    "global_response_norm",
    "grid_sample",
    "group_norm",
    "huber",
    "identity",
    "instance_norm",
    "jit",
    "l1",
    "l2",
    "layer_norm",
    "local_response_norm",
    "lp_pool",
    "mask",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "mean_absolute_error",
    "mean_squared_error",
    "metrics",
    "min_pool",
    "mixup",
    "models",
    "monte_carlo",
    "orthogonal",
    "pad",
    "parallel",
    "paths",
    "per_member",
    "pgd",
    "pixel_shuffle",
    "pixel_unshuffle",
    "plain",
    "prelu",
    "regularized",
    "remat",
    "repeat",
    "report",
    "residual",
    "resize",
    "rms_norm",
    "roi_align",
    "separable_conv",
    "serial",
    "sharpness_aware",
    "spatial_dropout",
    "spectral_norm",
    "split_members",
    "squeeze_excite",
    "stack_members",
    "stateless",
    "train",
    "uncertainty",
    "upsample",
    "weight_norm",
    "weight_standardized",
    "weighted_sum",
    "weights",
    "with_dropout",
    "with_precision",
    "with_spatial_dropout",
]


def __getattr__(name: str) -> Any:
    """Import a sub-package at its first use. All of them take several times as long to import as the layers."""
    if name in __all__:
        return importlib.import_module(f"jaxcnn.{name}")
    message = f"module 'jaxcnn' has no attribute {name!r}"
    if not name.startswith("_") and hasattr(importlib.import_module("jax.nn"), name):
        message += f"; activation functions are those of JAX: jax.nn.{name}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])  # Python adds a similar name, if there is one


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
