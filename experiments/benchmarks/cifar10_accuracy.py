"""Accuracy and training time of ResNet-20 on CIFAR-10 with the same recipe in jaxcnn and PyTorch.

    python -m experiments.benchmarks.cifar10_accuracy [key.path=value ...]

The recipe and its settings are those of `experiments.cifar10_resnet20`, by default with 5 epochs. The PyTorch version
is idiomatic: it crops and flips batches of tensors and uses channels last. JAXCNN_DATA must contain CIFAR-10.
"""

import os
import sys
import time

import numpy as np

from experiments import cifar10_resnet20
from experiments.benchmarks import _measure
from jaxcnn import data, train


def torch_network(classes: int = 10):
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self, channels, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(width)
            self.added_channels = width - channels

        def forward(self, x):
            y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
            if self.added_channels:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.added_channels))
            return F.relu(x + y)

    layers, channels = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for width in (16, 32, 64):
        for i in range(3):
            layers.append(Block(channels, width, 2 if i == 0 and width > 16 else 1))
            channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return net.to(memory_format=torch.channels_last)


def train_torch(config, dataset, test_set) -> tuple[list[float], float]:
    """Train in PyTorch. Returns the test accuracy after each epoch and the training time without evaluation."""
    import torch
    from torch.nn import functional as F

    fit = config["train"]
    torch.manual_seed(fit["seed"])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    net = torch_network()
    optimizer = torch.optim.SGD(
        net.parameters(),
        fit["optimizer"]["learning_rate"],
        fit["optimizer"]["momentum"],
        weight_decay=fit["weight_decay"]["rate"],
    )
    steps = len(dataset.images) // fit["batch_size"]
    total = fit["epochs"] * steps
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [total // 2, total * 3 // 4], 0.1)
    mean, std = dataset.images.mean((0, 1, 2)) / 255, dataset.images.std((0, 1, 2)) / 255

    def normalize(images):
        images = (images.astype(np.float32) / 255 - mean.astype(np.float32)) / std.astype(np.float32)
        return torch.tensor(images).permute(0, 3, 1, 2)

    images, labels = normalize(dataset.images), torch.tensor(dataset.labels, dtype=torch.long)
    black = normalize(np.zeros((1, 1, 1, 3), np.uint8))
    test, test_labels = normalize(test_set.images), torch.tensor(test_set.labels, dtype=torch.long)
    accuracies, seconds = [], 0.0
    for _ in range(fit["epochs"]):
        net.train()
        began = time.perf_counter()
        order = torch.randperm(len(images))
        for indices in order[: steps * fit["batch_size"]].split(fit["batch_size"]):
            batch = F.pad(images[indices] - black, (4, 4, 4, 4)) + black  # pads with black
            rows, columns = torch.randint(0, 9, (2, len(indices), 1))
            offsets = torch.arange(32)
            batch = batch.permute(0, 2, 3, 1)[
                torch.arange(len(indices))[:, None, None], (rows + offsets)[:, :, None], (columns + offsets)[:, None, :]
            ].permute(0, 3, 1, 2)
            flipped = torch.rand(len(indices)) < 0.5
            batch = torch.where(flipped[:, None, None, None], batch.flip(3), batch)
            loss = F.cross_entropy(net(batch), labels[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - began
        net.eval()
        with torch.no_grad():
            correct = sum(
                int((net(x).argmax(1) == y).sum()) for x, y in zip(test.split(500), test_labels.split(500), strict=True)
            )
        accuracies.append(correct / len(test))
        print(f"PyTorch, epoch {len(accuracies)}: {accuracies[-1]:.2%}", flush=True)
    return accuracies, seconds


def train_jaxcnn(config) -> tuple[list[float], float]:
    """Train in jaxcnn. Returns the same as `train_torch`."""
    records = cifar10_resnet20.main(config)
    image_count = records[0]["step"] * config["train"]["batch_size"]
    seconds = sum(image_count / record["images_per_second"] for record in records)
    return [record["test"]["accuracy"] for record in records], seconds


def main(arguments: list[str]) -> None:
    train.reuse_memory()
    config = train.override(cifar10_resnet20.CONFIG, ["train.epochs=5", *arguments])
    root = config["data"]["root"] or None
    dataset, test_set = (data.load("cifar10", split, root=root) for split in ("train", "test"))
    rows = []
    for name, (accuracies, seconds) in {
        "jaxcnn": train_jaxcnn(config),
        "PyTorch": train_torch(config, dataset, test_set),
    }.items():
        rows.append({"framework": name, "seed": config["train"]["seed"], "accuracies": accuracies, "seconds": seconds})
        print(f"{name:10} {accuracies[-1]:.2%} after {len(accuracies)} epochs, {seconds:.0f} s of training")
    if not arguments:
        print(_measure.save("cifar10_accuracy", rows))


if __name__ == "__main__":
    main(sys.argv[1:])
