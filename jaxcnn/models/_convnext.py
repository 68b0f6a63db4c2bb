"""ConvNeXt: a residual network with the design choices of vision transformers, except attention."""

import functools

import jax
import numpy as np

from jaxcnn._combine import residual, serial
from jaxcnn._conv import conv, depthwise_conv
from jaxcnn._dense import dense
from jaxcnn._initial import filled
from jaxcnn._layer import Layer, constructor, get_param, stateless
from jaxcnn._lowering import broadcast
from jaxcnn._norm import layer_norm
from jaxcnn._pool import global_avg_pool
from jaxcnn._response_norm import global_response_norm
from jaxcnn._transform import drop_path as with_drop_path
from jaxcnn.models._unit import Norm, head
from jaxcnn.models._variant import variant


@constructor
def convnext(
    classes: int | None = 1000,
    *,
    depths: tuple[int, ...],
    width: int,
    response_norm: bool = False,
    norm: Norm = functools.partial(layer_norm, eps=1e-6),
    dropout: float = 0.0,
    drop_path: float = 0.0,
) -> Layer:
    """(N, H, W, 3) -> (N, classes): ConvNeXt, and ConvNeXt v2 with response norms.

    y = x + scale * project(gelu(expand(norm(depthwise(x)))))

    New in 2022: a ResNet with the design choices of vision transformers. It has a patch stem, 7x7 depthwise
    convolutions, inverted bottlenecks with expansion 4, one layer norm and one GELU per block, and separate layers for
    downsampling. A scale per channel starts at 1e-6. V2 (2023) is designed for pretraining on masked images. It adds
    `global_response_norm` after the GELU, which makes the channels compete, and removes the scale.

    Variants, for 224x224 (top-1 of torchvision's first weights; v2: the paper's, trained only on ImageNet-1K):
        name               parameters  multiply-adds   top-1
        convnext_tiny      28,589,128        4.456 G  82.520
        convnext_small     50,223,688        8.684 G  83.616
        convnext_base      88,591,464       15.355 G  84.062
        convnext_large    197,767,336       34.361 G  84.414
        convnextv2_atto     3,708,400        547.3 M    76.7
        convnextv2_femto    5,233,240        779.6 M    78.5
        convnextv2_pico     9,066,280        1.367 G    80.3
        convnextv2_nano    15,623,800        2.446 G    81.9
        convnextv2_tiny    28,635,496        4.456 G    83.0
        convnextv2_base    88,717,800       15.355 G    84.9
        convnextv2_large  197,956,840       34.361 G    85.8
        convnextv2_huge   660,289,640      114.922 G    86.3

    Args:
        classes: number of classes; None gives the features (N, C).
        depths: blocks per stage.
        width: channels of the first stage. Each later stage doubles them.
        response_norm: True for v2.
        norm: constructor of a normalization layer.
        dropout: dropout rate before the last layer.
        drop_path: stochastic depth rate of the last block. It grows linearly from 0 in the first block.

    Example:
        >>> model = jaxcnn.models.convnext_tiny(classes=10)
        >>> jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))[0]["head"]["kernel"].shape
        (768, 10)

    Source: Liu et al., "A ConvNet for the 2020s", 2022; Woo et al., "ConvNeXt V2: co-designing and scaling ConvNets
    with masked autoencoders", 2023.
    """

    def block(features, rate):
        branch = {
            "depthwise": depthwise_conv(7, padding=3),
            "norm": norm(),
            "expand": dense(4 * features),
            "gelu": functools.partial(jax.nn.gelu, approximate=False),
        }
        if response_norm:
            branch |= {"response": global_response_norm(), "project": dense(features)}
        else:
            branch |= {"project": dense(features), "scale": _layer_scale(1e-6)}
        return residual(with_drop_path(serial(**branch), rate))

    rates = iter(np.linspace(0, drop_path, sum(depths)).tolist())
    layers = {"stem": serial(conv=conv(width, 4, stride=4, padding=0), norm=norm())}
    for stage, depth in enumerate(depths, 1):
        features = width * 2 ** (stage - 1)
        if stage > 1:
            layers[f"downsample{stage}"] = serial(norm=norm(), conv=conv(features, 2, stride=2, padding=0))
        layers[f"stage{stage}"] = serial(*(block(features, next(rates)) for _ in range(depth)))
    return serial(**layers, pool=global_avg_pool, features=norm(), **head(classes, dropout))


def _layer_scale(start: float) -> Layer:
    """(N, ..., C) -> the same: y = x * scale, with one scale per channel, initialized to `start`."""

    def init(key, x):
        return {"scale": filled(x.shape[-1:], start)}

    def fn(params, x):
        return x * broadcast(get_param("scale", params, "scale", x.shape[-1:], x).astype(x.dtype), x)

    return stateless(init, fn)


convnext_tiny = variant("convnext_tiny", convnext, depths=(3, 3, 9, 3), width=96, drop_path=0.1)
convnext_small = variant("convnext_small", convnext, depths=(3, 3, 27, 3), width=96, drop_path=0.4)
convnext_base = variant("convnext_base", convnext, depths=(3, 3, 27, 3), width=128, drop_path=0.5)
convnext_large = variant("convnext_large", convnext, depths=(3, 3, 27, 3), width=192, drop_path=0.5)
convnextv2_atto = variant("convnextv2_atto", convnext, depths=(2, 2, 6, 2), width=40, response_norm=True, drop_path=0.1)
convnextv2_femto = variant(
    "convnextv2_femto", convnext, depths=(2, 2, 6, 2), width=48, response_norm=True, drop_path=0.1
)
convnextv2_pico = variant("convnextv2_pico", convnext, depths=(2, 2, 6, 2), width=64, response_norm=True, drop_path=0.1)
convnextv2_nano = variant("convnextv2_nano", convnext, depths=(2, 2, 8, 2), width=80, response_norm=True, drop_path=0.1)
convnextv2_tiny = variant("convnextv2_tiny", convnext, depths=(3, 3, 9, 3), width=96, response_norm=True, drop_path=0.2)
convnextv2_base = variant(
    "convnextv2_base", convnext, depths=(3, 3, 27, 3), width=128, response_norm=True, drop_path=0.1
)
convnextv2_large = variant(
    "convnextv2_large", convnext, depths=(3, 3, 27, 3), width=192, response_norm=True, drop_path=0.2
)
convnextv2_huge = variant(
    "convnextv2_huge", convnext, depths=(3, 3, 27, 3), width=352, response_norm=True, drop_path=0.3
)
