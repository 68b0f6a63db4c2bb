"""Backbones: the convolutional part of a classifier, with its feature maps at several strides as output."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn._combine import compose, serial
from jaxcnn._key import key_spec
from jaxcnn._layer import Layer, as_layer, constructor, in_layer
from jaxcnn._path import expected_one_of
from jaxcnn.models._variant import MODELS

_STRIDES = (2, 4, 8, 16, 32)
_SIDE = 512  # for the measurement of strides; large, so that unpadded convolutions hardly change the ratio


@constructor
def backbone(
    name: str, *, outputs: Mapping[Any, str] | None = None, output_stride: int | None = None, **options: Any
) -> Layer:
    """(N, *spatial, C) -> {stride: (N, *spatial / stride, C')}: a classifier without its head.

    y[s] = the last feature map of stride s, for each s in 2, 4, 8, 16, 32 that the network has

    The parameters have the paths of the classifier, so that its trained weights can be loaded (see the example). For
    example, `params, state = weights.from_torch(name, state_dict, classes=None)` and then
    `train.fit(models.unet(5, backbone=name), .., start=({"backbone": params}, {"backbone": state}))`.

    Args:
        name: a classifier in `MODELS`, such as "resnet50".
        outputs: {key: layer name}, to choose other outputs, such as {"low": "stage2", "high": "stage4"}. The layers
            after the last of them are removed. Default: the last map of each stride.
        output_stride: 8 or 16: dilated convolutions replace the strides beyond it, so that the deeper maps keep this
            resolution. The keys remain the strides of the network without dilation. ResNets, MobileNet v2 and v3 only.
        options: the model's options.

    Raises:
        ValueError: for a model without feature maps, an unknown layer, or a model without dilation.

    Example:
        >>> backbone = jaxcnn.models.backbone("resnet18")
        >>> x = jnp.zeros((1, 64, 64, 3))
        >>> params, state = backbone.init(jax.random.key(0), x)
        >>> {stride: y.shape for stride, y in backbone.apply(params, state, x, train=False)[0].items()}
        {2: (1, 32, 32, 64), 4: (1, 16, 16, 64), 8: (1, 8, 8, 128), 16: (1, 4, 4, 256), 32: (1, 2, 2, 512)}

        The parameters of a trained classifier, without those of its last layers:

        >>> trained, _ = jaxcnn.models.resnet18().init(jax.random.key(1), x)
        >>> params = {part: trained[part] for part in params}
    """
    build = MODELS[name]
    strided, parent = _spatial_layers(name, build(classes=None, **options))
    layers = strided
    if output_stride is not None:
        options_of = {key: inspect.signature(model).parameters for key, model in MODELS.items()}
        supported = [key for key, names in options_of.items() if "output_stride" in names and "backbone" not in names]
        if name not in supported:
            raise ValueError(f"backbone: {name} has no output_stride; {expected_one_of(name, supported)}")
        layers, _ = _spatial_layers(name, build(classes=None, **options, output_stride=output_stride))
    if outputs is None:
        maps = _last_of_each_stride(strided, parent, build.input_shape)
        if not maps:
            raise ValueError(f"backbone: {name} is not a classifier")
    else:
        maps = {key: (layer, None) for key, layer in outputs.items()}
    for layer, _ in maps.values():
        if layer not in layers:
            raise ValueError(f"backbone: {name} has no layer {layer!r}; {expected_one_of(layer, layers)}")
    names = [*layers][: 1 + max([*layers].index(layer) for layer, _ in maps.values())]

    def select(*ys: Any) -> dict[Any, Any]:
        by_name = dict(zip(names, ys, strict=True))
        return {key: by_name[layer] if i is None else by_name[layer][i] for key, (layer, i) in maps.items()}

    network = compose({layer: layers[layer] for layer in names}, select, chained=True)
    return serial(**{parent: network}) if parent else network


def as_backbone(backbone_or_name: str | Layer) -> Layer:
    """The backbone of this name with its default outputs, or the layer itself."""
    return backbone(backbone_or_name) if isinstance(backbone_or_name, str) else as_layer(backbone_or_name)


def check_maps(model: str, shapes: Any) -> None:
    """Raise ValueError if the shapes of a backbone's output are not those of a dict of feature maps."""
    if not isinstance(shapes, dict):
        raise ValueError(f"{model}: the backbone must return a dict of feature maps, got shape {shapes}")


def _spatial_layers(name: str, model: Layer) -> tuple[dict[str, Layer], str]:
    """The layers of a classifier, and the name of the layer that contains them, "" if it is the model itself."""
    composition = model._composition
    if not composition or not composition.chained:
        raise ValueError(f"backbone: {name} is not a classifier")
    layers = composition.layers
    if "features" in layers and (inner := layers["features"]._composition):  # VGG and SqueezeNet
        return inner.layers, "features"
    return layers, ""


def _last_of_each_stride(
    layers: dict[str, Layer], parent: str, input_shape: tuple[int, ...]
) -> dict[int, tuple[str, int | None]]:
    """{stride: (name of the last layer with it, index in its output if that is a tuple of maps)}.

    From the shapes of the outputs for a large input. {} for a model whose output is a feature map, too.
    """
    x: Any = jax.ShapeDtypeStruct((1, *(_SIDE,) * (len(input_shape) - 1), input_shape[-1]), jnp.float32)
    result: dict[int, tuple[str, int | None]] = {}
    stride, side = 1, _SIDE
    for name, layer in layers.items():
        with in_layer(name):
            params, state = jax.eval_shape(layer.init, key_spec(), x)
            y, _ = jax.eval_shape(functools.partial(layer.apply, train=False), params, state, x)
        maps = y if isinstance(y, tuple) else (y,)
        if any(getattr(map_, "ndim", 0) != len(input_shape) + 1 for map_ in maps):  # the end of the feature maps
            break
        strides = [stride * round(side / map_.shape[-2]) for map_ in maps]
        result |= {s: (name, i if isinstance(y, tuple) else None) for i, s in enumerate(strides)}
        x, stride, side = y, strides[0], maps[0].shape[-2]
    else:
        if not parent:
            return {}
    return {stride: layer for stride, layer in result.items() if stride in _STRIDES} or result
