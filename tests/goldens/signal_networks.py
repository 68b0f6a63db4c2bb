"""The networks for signals in PyTorch, written from the papers, whose modules have jaxcnn's names."""

import torch
from torch import nn


class Sum(nn.Module):
    """layer(x) + shortcut(x)."""

    def __init__(self, layer: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.layer, self.shortcut = layer, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.shortcut(x)


class Concatenation(nn.ModuleDict):
    """The outputs of all modules, along the channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([module(x) for module in self.values()], 1)


class MeanOverTime(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(-1)


def sequential(**modules: nn.Module) -> nn.Sequential:
    net = nn.Sequential()
    for name, module in modules.items():
        net.add_module(name, module)
    return net


def convolution(channels: int, features: int, size: int) -> nn.Conv1d:
    """With an even size, the window extends one step further into the future than into the past."""
    return nn.Conv1d(channels, features, size, padding="same", bias=False)


def unit(channels: int, features: int, size: int, act: bool = True) -> nn.Sequential:
    parts = {"conv": convolution(channels, features, size), "norm": nn.BatchNorm1d(features)}
    return sequential(**parts, **({"act": nn.ReLU()} if act else {}))


def fcn1d(classes: int) -> nn.Module:
    convs = {"conv1": unit(1, 128, 8), "conv2": unit(128, 256, 5), "conv3": unit(256, 128, 3)}
    return sequential(**convs, features=MeanOverTime(), head=nn.Linear(128, classes))


def resnet1d(classes: int) -> nn.Module:
    def block(channels, features):
        layer = sequential(
            conv1=unit(channels, features, 8),
            conv2=unit(features, features, 5),
            last=unit(features, features, 3, act=False),
        )
        same = channels == features
        shortcut = sequential(norm=nn.BatchNorm1d(features)) if same else unit(channels, features, 1, act=False)
        return sequential(sum=Sum(layer, shortcut), relu=nn.ReLU())

    blocks = {"block1": block(1, 64), "block2": block(64, 128), "block3": block(128, 128)}
    return sequential(**blocks, features=MeanOverTime(), head=nn.Linear(128, classes))


def inception_time(classes: int) -> nn.Module:
    def module(channels):
        convs = Concatenation({f"conv{i}": convolution(min(channels, 32), 32, 80 // 2**i) for i in (1, 2, 3)})
        reduce = {"reduce": convolution(channels, 32, 1)} if channels > 32 else {}
        pooled = sequential(pool=nn.MaxPool1d(3, 1, 1), conv=convolution(channels, 32, 1))
        branches = Concatenation({"convolved": sequential(**reduce, convs=convs), "pooled": pooled})
        return sequential(branches=branches, norm=nn.BatchNorm1d(128), relu=nn.ReLU())

    def group(channels):
        layer = nn.Sequential(module(channels), module(128), module(128))
        return sequential(sum=Sum(layer, unit(channels, 128, 1, act=False)), relu=nn.ReLU())

    return sequential(group1=group(1), group2=group(128), features=MeanOverTime(), head=nn.Linear(128, classes))
