"""Networks for other tasks than image classification, as `jaxcnn.models` and as modules of PyTorch, for `nets`."""

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.benchmarks import _torchvision
from jaxcnn import Layer, models


class Task(NamedTuple):
    shape: tuple[int, ...]  # (*spatial, channels) of an example
    batch: int
    classes: int
    dense: bool  # whether the labels are maps
    model: Callable[[], Layer]
    module: Callable[[], Any]  # the same network in PyTorch
    torchvision: bool = False  # whether it is torchvision's
    dtype: str = "float32"  # as in `_networks.Network`


def torch_unet() -> Any:
    import torch
    from torch import nn

    def convolutions(channels, width):
        first, second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))

    class Level(nn.Module):
        def __init__(self, channels, width, *deeper):
            super().__init__()
            self.down, self.up = convolutions(channels, width), convolutions(2 * width, width)
            below = Level(width, *deeper) if len(deeper) > 1 else convolutions(width, *deeper)
            self.below = nn.Sequential(nn.MaxPool2d(2), below, nn.ConvTranspose2d(deeper[0], width, 2, 2))

        def forward(self, x):
            across = self.down(x)
            return self.up(torch.cat([across, self.below(across)], 1))

    return nn.Sequential(Level(1, 64, 128, 256, 512, 1024), nn.Conv2d(64, 2, 1))


def torch_inception_time() -> Any:
    import torch
    from torch import nn

    def conv(channels, features, size):
        return nn.Conv1d(channels, features, size, padding="same", bias=False)

    class Module(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.reduce = conv(channels, 32, 1) if channels > 32 else nn.Identity()
            self.convs = nn.ModuleList(conv(min(channels, 32), 32, size) for size in (40, 20, 10))
            self.pooled = nn.Sequential(nn.MaxPool1d(3, 1, 1), conv(channels, 32, 1))
            self.norm = nn.Sequential(nn.BatchNorm1d(128), nn.ReLU(inplace=True))

        def forward(self, x):
            reduced = self.reduce(x)
            return self.norm(torch.cat([*(layer(reduced) for layer in self.convs), self.pooled(x)], 1))

    class Group(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.layer = nn.Sequential(Module(channels), Module(128), Module(128))
            self.shortcut = nn.Sequential(conv(channels, 128, 1), nn.BatchNorm1d(128))

        def forward(self, x):
            return torch.relu(self.layer(x) + self.shortcut(x))

    return nn.Sequential(Group(1), Group(128), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(128, 2))


def torchvision_model(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: _torchvision.models().get_model(name, weights=None, **options)


TASKS = {
    "unet": Task((128, 128, 1), 8, 2, True, lambda: models.unet(padding="SAME", dropout=0.0), torch_unet),
    "deeplabv3_mobilenet_v3_large": Task(
        (224, 224, 3),
        2,
        21,
        True,
        models.deeplabv3_mobilenet_v3_large,
        torchvision_model("deeplabv3_mobilenet_v3_large", weights_backbone=None, aux_loss=True),
        torchvision=True,
    ),
    "r3d_18": Task((8, 112, 112, 3), 2, 400, False, models.r3d_18, torchvision_model("r3d_18"), torchvision=True),
    "inception_time": Task((128, 1), 64, 2, False, models.inception_time, torch_inception_time),
}
