"""The networks in PyTorch."""

import os
from typing import Any

import jax

from experiments.benchmarks._networks import _layers
from experiments.benchmarks._networks._contender import (
    LEARNING_RATE,
    MOMENTUM,
    Contender,
    random_batch,
)
from experiments.benchmarks._tasks import Task


def torch_module(net: _layers.Network | Task) -> Any:
    import torch
    from torch import nn

    class Sum(nn.Module):
        def __init__(self, branch, shortcut):
            super().__init__()
            self.branch, self.shortcut = branch, shortcut

        def forward(self, x):
            return self.branch(x) + self.shortcut(x)

    class Concatenated(nn.Module):
        def __init__(self, branch):
            super().__init__()
            self.branch = branch

        def forward(self, x):
            return torch.cat([x, self.branch(x)], 1)

    class Excited(nn.Module):
        def __init__(self, channels, features):
            super().__init__()
            conv = nn.Conv2d
            pool = nn.AdaptiveAvgPool2d(1)
            self.weights = nn.Sequential(pool, conv(channels, features, 1), nn.SiLU(), conv(features, channels, 1))

        def forward(self, x):
            return x * self.weights(x).sigmoid()

    class OverChannels(nn.Module):
        """Apply a layer for (N, .., C) to (N, C, ..) by permuting views, as in the official ConvNeXt code."""

        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x.movedim(1, -1)).movedim(-1, 1)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    def build(layers, shape):
        built = []
        for layer in layers:
            built.append(layer_of(layer, shape))
            shape = _layers.output_shape(layer, shape)
        return nn.Sequential(*built)

    def layer_of(layer, shape):
        channels = shape[-1]
        match layer:
            case _layers.Conv(features, size, stride, groups, bias):
                return nn.Conv2d(channels, features, size, stride, layer.padding, groups=groups, bias=bias)
            case _layers.Norm():
                return nn.BatchNorm2d(channels)
            case _layers.LayerNorm():
                return OverChannels(nn.LayerNorm(channels))
            case _layers.Relu():
                return nn.ReLU(inplace=True)
            case _layers.Gelu():
                return nn.GELU()
            case _layers.Silu():
                return nn.SiLU(inplace=True)
            case _layers.MaxPool(size, stride, padding):
                return nn.MaxPool2d(size, stride, padding)
            case _layers.AvgPool(size):
                return nn.AvgPool2d(size)
            case _layers.GlobalAvgPool():
                return Mean()
            case _layers.Flatten():
                return nn.Flatten()
            case _layers.Dense(features):
                dense = nn.Linear(channels, features)
                return dense if len(shape) == 1 else OverChannels(dense)
            case _layers.Residual(branch, shortcut):
                return Sum(build(branch, shape), build(shortcut, shape))
            case _layers.Append(branch):
                return Concatenated(build(branch, shape))
            case _layers.Excite(features):
                return Excited(channels, features)

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return net.module() if isinstance(net, Task) else build(net.layers, net.shape)


def create(net: _layers.Network | Task, *, channels_last: bool = False, compiled: bool = False) -> Contender:
    import torch
    from torch import nn

    torch.manual_seed(0)
    device = torch_device()
    last = torch.channels_last_3d if len(net.shape) == 4 else torch.channels_last
    layout = last if channels_last else torch.contiguous_format
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    if compiled:
        torch._dynamo.reset()  # all networks share the cache of nn.Sequential.forward, which holds 8 entries

    def create_model():
        module = torch_module(net).to(device, memory_format=layout)
        return torch.compile(module) if compiled else module

    def loss_of(output):
        if isinstance(output, dict):  # of torchvision's segmentation models
            return sum(
                weight * nn.functional.cross_entropy(output[name], label)
                for name, weight in (("out", 1.0), ("aux", 0.3))
            )
        return nn.functional.cross_entropy(output, label)

    image, label = map(torch.from_numpy, random_batch(net))
    image = image.movedim(-1, 1).to(device).contiguous(memory_format=layout)
    label = label.to(device)
    model, eval_model = create_model(), create_model().eval()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    autocast = torch.autocast(device, torch.bfloat16, enabled=net.dtype != "float32")

    def train():
        with autocast:
            loss = loss_of(model(image))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end, so that gradients count as memory of the step, as in JAX
        synchronize()
        return loss.detach()

    @torch.inference_mode()
    def infer():
        with autocast:
            logits = eval_model(image)
        synchronize()
        return logits

    return Contender(sum(param.numel() for param in model.parameters()), train, infer)


def torch_device() -> str:
    return "cuda" if jax.default_backend() == "gpu" else "cpu"
