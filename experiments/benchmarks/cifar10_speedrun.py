"""50 runs of `experiments.cifar10_speedrun` and of the same recipe in PyTorch, on the same files and device.

    python -m experiments.benchmarks.cifar10_speedrun [key.path=value ...]
    python -m experiments.benchmarks.cifar10_speedrun runs=1 dtype=float32 warm_up=false     on a CPU, for the accuracy

PyTorch is eager on a CPU and compiled on a GPU. The script published by the author of the recipe uses the same timing
rules and is another baseline on a GPU.
"""

import itertools
import json
import sys
import time
from collections.abc import Generator
from typing import Any

from experiments import cifar10_speedrun
from experiments.benchmarks import _measure
from jaxcnn.train import override

TRICKS = ("whitening.enabled=true", "dirac=true", "muon.enabled=true", "flip=alternating", "tta=flip_and_shift")


def torch_runs(config: dict) -> Generator[tuple[float, float]]:
    """The same as `cifar10_speedrun.runs` in idiomatic PyTorch."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    config, arrays = cifar10_speedrun.prepared(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = config["train"]
    autocast = torch.autocast(device, getattr(torch, settings["dtype"]), enabled=settings["dtype"] != "float32")
    size, muon, sgd, shift = settings["batch_size"], config["muon"], config["sgd"], config["translate"]
    maybe_compile = torch.compile if device == "cuda" else lambda function: function

    def conv(channels, width):
        return nn.Conv2d(channels, width, 3, padding=1, bias=False)

    def norm(width):
        layer = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
        layer.weight.requires_grad = False
        return layer

    whiten, layers = nn.Conv2d(3, 24, 2), []
    whiten.weight.requires_grad = False
    for channels, width in zip([24, *config["widths"]], config["widths"], strict=False):
        layers += [conv(channels, width), nn.MaxPool2d(2), norm(width), nn.GELU()]
        layers += [conv(width, width), norm(width), nn.GELU()]
    head = nn.Linear(config["widths"][-1], 10, bias=False)
    net = nn.Sequential(whiten, nn.GELU(), *layers, nn.MaxPool2d(3), nn.Flatten(), head)
    net = net.to(device, memory_format=torch.channels_last)
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    biases = [layer.bias for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    logits = maybe_compile(lambda x: net(x) / head.in_features)

    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (cifar10_speedrun.MEAN, cifar10_speedrun.STD)
    )

    def normalize(images):
        return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def initialize(images):
        """Reset all parameters."""
        for layer in (whiten, *layers, head):
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        for layer in convs:
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
        head.weight.data /= head.weight.data.std()
        patches = F.unfold(normalize(images[: config["whitening"]["images"]]), 2).transpose(1, 2).reshape(-1, 12)
        variance, directions = torch.linalg.eigh(torch.cov(patches.T))
        filters = (directions / torch.sqrt(variance + 5e-4)).T.reshape(12, 3, 2, 2)
        whiten.weight.data.copy_(torch.cat([filters, -filters]))

    @maybe_compile
    def orthogonalize(matrix):
        x = matrix.to(torch.bfloat16)
        x = x / (x.norm() + 1e-7)
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        for _ in range(3):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        return (x.T if tall else x).float()

    def augment(images, flipped):
        """Pad images by reflection, crop each at a random position, and flip those where `flipped` is true."""
        padded = F.pad(images, (shift,) * 4, "reflect")
        count, _, height, width = images.shape
        rows, columns = (
            torch.randint(2 * shift + 1, (count, 1), device=device) + torch.arange(n, device=device)
            for n in (height, width)
        )
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
        image = torch.arange(count, device=device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def run_once(images, labels, test_images, test_labels):
        """Train and return the test accuracy."""
        initialize(images)
        steps_per_epoch = len(images) // size
        steps = settings["epochs"] * steps_per_epoch
        rates = {"whitening": sgd["bias"], "bias": sgd["bias"], "head": sgd["head"]}
        trained = {"whitening": [whiten.bias], "bias": biases, "head": [head.weight]}
        groups = [
            {"params": trained[kind], "lr": rate, "weight_decay": sgd["decay"] / rate} for kind, rate in rates.items()
        ]
        optimizer = torch.optim.SGD(groups, momentum=sgd["momentum"], nesterov=True)
        traces = [torch.zeros_like(layer.weight) for layer in convs]
        flipped = torch.rand(len(images), device=device) < 0.5
        net.train()
        for step in range(steps):
            epoch, batch_index = divmod(step, steps_per_epoch)
            if batch_index == 0:
                order = torch.randperm(len(images), device=device)
            rows = order[batch_index * size : (batch_index + 1) * size]
            with autocast:
                y = logits(augment(normalize(images[rows]), flipped[rows] ^ (epoch % 2 == 1)))
            loss = F.cross_entropy(
                y.float(), labels[rows], label_smoothing=settings["label_smoothing"], reduction="sum"
            )
            net.zero_grad()
            loss.backward()
            decay = 1 - step / steps
            whitening = max(0.0, 1 - step / (config["whitening"]["epochs"] * steps_per_epoch))
            for group, rate, factor in zip(
                optimizer.param_groups, rates.values(), (whitening, decay, decay), strict=True
            ):
                group["lr"] = rate * factor
            optimizer.step()
            with torch.no_grad():
                for layer, trace in zip(convs, traces, strict=True):
                    kernel, gradient = layer.weight, layer.weight.grad
                    trace.mul_(muon["momentum"]).add_(gradient)
                    nesterov = gradient + muon["momentum"] * trace
                    kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
                    direction = orthogonalize(nesterov.reshape(len(nesterov), -1)).reshape(kernel.shape)
                    kernel.sub_(muon["learning_rate"] * decay * direction)
        net.eval()
        correct = 0
        with torch.no_grad(), autocast:
            for batch, batch_labels in zip(test_images.split(2000), test_labels.split(2000), strict=True):
                x = normalize(batch)
                padded = F.pad(x, (1, 1, 1, 1), "reflect")
                views = (0.5, x), (0.25, padded[:, :, :32, :32]), (0.25, padded[:, :, 2:, 2:])
                scores = sum(weight * (logits(view) + logits(view.flip(3))) for weight, view in views)
                correct += int((scores.argmax(1) == batch_labels).sum())
        return correct / len(test_images)

    images, test_images = (torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).to(device) for array in arrays[::2])
    labels, test_labels = (torch.from_numpy(np.array(array)).long().to(device) for array in arrays[1::2])
    if config["warm_up"]:
        run_once(images, labels[torch.randperm(len(labels), device=device)], test_images, test_labels)
    for seed in itertools.count(settings["seed"]):
        torch.manual_seed(seed)
        began = time.perf_counter()
        accuracy = run_once(images, labels, test_images, test_labels)  # synchronizes with the device
        yield accuracy, time.perf_counter() - began


def train_torch(config: dict) -> dict[str, Any]:
    """Return the same as `cifar10_speedrun.main`."""
    accuracies, seconds = zip(*itertools.islice(torch_runs(config), config["runs"]), strict=True)
    return {"accuracies": accuracies, "seconds": seconds}


def main(arguments: list[str]) -> None:
    config = override(cifar10_speedrun.CONFIG, ["runs=50", *arguments])
    if override(config, list(TRICKS)) != config:
        sys.exit(
            f"PyTorch always uses all tricks: {', '.join(TRICKS)}; see experiments.benchmarks.ablations for others"
        )
    rows = []
    for contender in ("jaxcnn", "PyTorch"):
        result = _measure.run_module(__spec__.name, "--child", contender, json.dumps(config))
        rows.append({"contender": contender, **result})
        print(f"{contender:8} {_measure.accuracy_and_time(result['accuracies'], result['seconds'], '.3f')}", flush=True)
    if not arguments:
        print(_measure.save("cifar10_speedrun", rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        mains = {"jaxcnn": cifar10_speedrun.main, "PyTorch": train_torch}
        print(json.dumps(mains[sys.argv[2]](json.loads(sys.argv[3]))))
    else:
        main(sys.argv[1:])
