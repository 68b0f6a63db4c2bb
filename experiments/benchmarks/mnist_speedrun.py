"""`experiments.mnist_speedrun` twenty times, beside the same network and recipe in PyTorch.

    python -m experiments.benchmarks.mnist_speedrun [key.path=value ...]

Each run is a process of its own; its time is all of it, from start to end, imports and compilation included. jaxcnn
runs with an empty compilation cache and with a filled one; the contenders take turns. Needs all of MNIST in
JAXCNN_DATA.
"""

import glob
import gzip
import json
import os
import re
import sys
import tempfile
import time

RUNS = 20


def by_torch(config) -> float:
    """The same in PyTorch as its users write it, without a trace of jax; the test accuracy."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    def read(name, header, *shape):
        file = sorted(glob.glob(f"{os.environ['JAXCNN_DATA']}/**/{name}*", recursive=True))[0]
        with gzip.open(file) if file.endswith(".gz") else open(file, "rb") as stream:
            return torch.from_numpy(np.frombuffer(bytearray(stream.read()), np.uint8)[header:].reshape(-1, *shape))

    settings = config["train"]
    torch.manual_seed(settings["seed"])
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    first, *others = config["widths"]
    size, stride = config["stem"]["size"], config["stem"]["stride"]
    active = lambda width: (nn.BatchNorm2d(width, momentum=1 - config["norm_decay"]), nn.ReLU())
    layers = [nn.Conv2d(1, first, size, stride, 1, bias=False), *active(first)]
    for before, width in zip(config["widths"], others, strict=False):
        pool, rest = nn.MaxPool2d(2), active(width)
        after = (pool, *rest) if config["pool_first"] else (*rest, pool)
        layers += [nn.Conv2d(before, width, 3, 1, 1, bias=False), *after]
    side = 28 // stride // 2 ** len(others)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(others[-1] * side**2, 10)).to(
        memory_format=torch.channels_last
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images, test = (read(f"{part}-images-idx3-ubyte", 16, 1, 28, 28) for part in ("train", "t10k"))
    labels, test_labels = (read(f"{part}-labels-idx1-ubyte", 8).long() for part in ("train", "t10k"))

    def floats(images):
        return (images.float() / 255 - config["mean"]) / config["std"]

    size = settings["batch_size"]
    steps = int(settings["epochs"] * len(images) / size)
    rise = round(settings["schedule"]["warmup"] * steps)
    adam = settings["optimizer"]
    optimizer = torch.optim.Adam(net.parameters(), adam["learning_rate"], betas=adam["betas"])
    factor = lambda i: 0.2 + 0.8 * i / rise if i < rise else (steps - i) / (steps - rise)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    epochs = -(-steps * size // len(images))
    order = torch.cat([torch.randperm(len(images)) for _ in range(epochs)])
    for rows in order[: steps * size].split(size):
        loss = F.cross_entropy(net(floats(images[rows])), labels[rows], label_smoothing=settings["label_smoothing"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        parts = zip(test.split(500), test_labels.split(500), strict=True)
        right = sum(int((net(floats(x)).argmax(1) == y).sum()) for x, y in parts)
    return right / len(test)


def one(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Test accuracy and seconds of a process."""
    from experiments.benchmarks import _measure

    began = time.perf_counter()
    text = _measure.output(*command, environment=environment)
    seconds = time.perf_counter() - began
    return float(re.search(r"test accuracy ([\d.]+)%", text)[1]) / 100, seconds


def main(arguments: list[str]) -> None:
    from experiments import mnist_speedrun
    from experiments.benchmarks import _measure
    from jaxcnn.train import override

    constants = {"mean": mnist_speedrun.MEAN[0], "std": mnist_speedrun.STD[0]}
    config = override(mnist_speedrun.CONFIG, arguments) | constants
    results = {"jaxcnn, nothing compiled": [], "jaxcnn, compiled before": [], "PyTorch": []}
    with tempfile.TemporaryDirectory() as cache:
        cached = os.environ | _measure.cached(cache)
        script = ["-m", "experiments.mnist_speedrun", *arguments]
        one(script, cached)
        for seed in range(RUNS):
            results["jaxcnn, nothing compiled"].append(one([*script, f"train.seed={seed}"], dict(os.environ)))
            results["jaxcnn, compiled before"].append(one([*script, f"train.seed={seed}"], cached))
            torch = [
                "-m",
                "experiments.benchmarks.mnist_speedrun",
                "--torch",
                json.dumps(override(config, [f"train.seed={seed}"])),
            ]
            results["PyTorch"].append(one(torch, dict(os.environ)))
    for name, runs in results.items():
        accuracy, seconds = zip(*runs, strict=True)
        print(f"{name:24} {_measure.reached(accuracy, seconds)}, {min(accuracy):.2%} at least")
    print(_measure.save("mnist_speedrun", [{"contender": name, "runs": runs} for name, runs in results.items()]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        print(f"test accuracy {by_torch(json.loads(sys.argv[2])):.2%}")
    else:
        main(sys.argv[1:])
