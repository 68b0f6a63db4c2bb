"""The famous networks of the last lesson: year, news, block and source; their numbers are computed from the code."""

import jax
import jax.numpy as jnp

from jaxcnn import explain, models

# A block: branches from its input, each a list of layers, and how their outputs are joined.
NETWORKS = {
    "lenet5_1998": {
        "name": "LeNet-5",
        "year": 1998,
        "news": "Learned filters with shared weights alternate with pooling, and fully connected layers follow. Banks"
        " read checks with it.",
        "block": {"branches": [["conv 5 × 5", "tanh", "average pool"]], "join": ""},
        "source": "LeCun et al., Gradient-based learning applied to document recognition, 1998",
    },
    "alexnet_2012": {
        "name": "AlexNet",
        "year": 2012,
        "news": "Deep, with ReLU and dropout, and trained on two GPUs in two groups of filters. It won ImageNet 2012 "
        "by a large margin and started the wave of deep learning.",
        "block": {"branches": [["conv, group 1"], ["conv, group 2"]], "join": "concatenate"},
        "source": "Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional networks, 2012",
    },
    "vgg16": {
        "name": "VGG-16",
        "year": 2014,
        "news": "Only 3 × 3 convolutions, in sequence: two of them see 5 × 5 pixels, three see 7 × 7, with fewer "
        "weights.",
        "block": {"branches": [["conv 3 × 3", "ReLU", "conv 3 × 3", "ReLU", "max pool"]], "join": ""},
        "source": "Simonyan and Zisserman, Very deep convolutional networks, 2014",
    },
    "googlenet": {
        "name": "GoogLeNet",
        "year": 2014,
        "news": "Filters of several sizes side by side. 1 × 1 convolutions reduce the channels first, and a global "
        "average pool replaces the large fully connected layers.",
        "block": {
            "branches": [
                ["conv 1 × 1"],
                ["conv 1 × 1", "conv 3 × 3"],
                ["conv 1 × 1", "conv 5 × 5"],
                ["max pool", "conv 1 × 1"],
            ],
            "join": "concatenate",
        },
        "source": "Szegedy et al., Going deeper with convolutions, 2014",
    },
    "unet": {
        "name": "U-Net",
        "year": 2015,
        "news": "A class for each pixel: maps become small and then large again, and each size is joined with the "
        "maps of the same size on the way down.",
        "block": {"branches": [[], ["max pool", "smaller U-Net", "up-convolution"]], "join": "concatenate"},
        "source": "Ronneberger, Fischer and Brox, U-Net, 2015",
    },
    "resnet50": {
        "name": "ResNet-50",
        "year": 2015,
        "news": "Shortcuts: a block adds its result to its input, so the gradient has a direct path. Networks of 50 "
        "to 152 layers became trainable.",
        "block": {"branches": [["conv 1 × 1", "conv 3 × 3", "conv 1 × 1"], []], "join": "add"},
        "source": "He et al., Deep residual learning for image recognition, 2015",
    },
    "densenet121": {
        "name": "DenseNet-121",
        "year": 2016,
        "news": "Each layer reads the outputs of all layers before it in its block, and adds a few channels of its "
        "own.",
        "block": {"branches": [["conv 1 × 1", "conv 3 × 3"], []], "join": "concatenate"},
        "source": "Huang et al., Densely connected convolutional networks, 2016",
    },
    "mobilenet_v1": {
        "name": "MobileNet",
        "year": 2017,
        "news": "A depthwise convolution filters each channel on its own, and a 1 × 1 convolution mixes the channels:"
        " eight to nine times fewer multiplications than a full 3 × 3 convolution.",
        "block": {"branches": [["depthwise 3 × 3", "conv 1 × 1"]], "join": ""},
        "source": "Howard et al., MobileNets, 2017",
    },
    "mobilenet_v2": {
        "name": "MobileNet v2",
        "year": 2018,
        "news": "Inverted residuals: the shortcut connects the narrow ends, and the block is wide inside.",
        "block": {"branches": [["conv 1 × 1, wider", "depthwise 3 × 3", "conv 1 × 1"], []], "join": "add"},
        "source": "Sandler et al., MobileNetV2, 2018",
    },
    "efficientnet_b0": {
        "name": "EfficientNet-B0",
        "year": 2019,
        "news": "Depth, width and image size grow together, by one factor. Squeeze and excitation "
        "multiplies each channel by a factor computed from all channels.",
        "block": {
            "branches": [["conv 1 × 1, wider", "depthwise", "squeeze, excite", "conv 1 × 1"], []],
            "join": "add",
        },
        "source": "Tan and Le, EfficientNet, 2019",
    },
    "repvgg_a0": {
        "name": "RepVGG-A0",
        "year": 2021,
        "news": "Trained with three branches, which are then added up to a single 3 × 3 convolution: since "
        "convolution is linear, the result is the same.",
        "block": {"branches": [["conv 3 × 3"], ["conv 1 × 1"], []], "join": "add"},
        "source": "Ding et al., RepVGG, 2021",
    },
    "convnext_tiny": {
        "name": "ConvNeXt-T",
        "year": 2022,
        "news": "What vision transformers do, with convolutions: depthwise 7 × 7, layer norm, GELU, few activations.",
        "block": {
            "branches": [["depthwise 7 × 7", "layer norm", "dense, wider", "GELU", "dense"], []],
            "join": "add",
        },
        "source": "Liu et al., A ConvNet for the 2020s, 2022",
    },
    "mobilenetv4_conv_small": {
        "name": "MobileNet v4",
        "year": 2024,
        "news": "A universal block, with optional depthwise convolutions at its start and inside, chosen by search "
        "for phones.",
        "block": {
            "branches": [["depthwise", "conv 1 × 1, wider", "depthwise", "conv 1 × 1"], []],
            "join": "add",
        },
        "source": "Qin et al., MobileNetV4, 2024",
    },
}


def networks():
    """Return the networks in order of their years, with their parameters, multiply-adds and receptive fields."""
    found = []
    for name, facts in NETWORKS.items():
        build = models.MODELS[name]
        x = jax.ShapeDtypeStruct((1, *build.input_shape), jnp.float32)
        summary = explain.summary(build(), x)
        numbers = {"params": summary.params, "multiplyAdds": summary.multiply_adds, "field": field(build(), x)}
        found.append(facts | numbers | {"model": name, "input": build.input_shape})
    return sorted(found, key=lambda network: network["year"])


def field(model, x):
    """Return the largest receptive field of a layer with several positions, in pixels; None if it is all pixels."""
    fields = [
        layer.fields[0]
        for layer in explain.receptive_field(model, x).layers
        if len(layer.output.shape) == 4 and layer.output.shape[1] > 1
    ]
    return None if any(each.stride == 0 for each in fields) else max(each.size for each in fields)
