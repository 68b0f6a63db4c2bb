"""20 runs of `experiments.mnist_speedrun`, against the same network and recipe in PyTorch.

    python -m experiments.benchmarks.mnist_speedrun [key.path=value ...]

Each run is a separate process. Its time includes imports and compilation. jaxcnn runs with an empty and with a filled
compilation cache. The contenders take turns. JAXCNN_DATA must contain the full MNIST.
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
    """Train in idiomatic PyTorch, without importing jax, and return the test accuracy."""
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
    first, *rest = config["widths"]
    size, stride = config["stem"]["size"], config["stem"]["stride"]
    norm_and_relu = lambda width: (nn.BatchNorm2d(width, momentum=1 - config["norm_decay"]), nn.ReLU())
    layers = [nn.Conv2d(1, first, size, stride, 1, bias=False), *norm_and_relu(first)]
    for channels, width in zip(config["widths"], rest, strict=False):
        pool, norm = nn.MaxPool2d(2), norm_and_relu(width)
        after = (pool, *norm) if config["pool_first"] else (*norm, pool)
        layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), *after]
    side = 28 // stride // 2 ** len(rest)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(rest[-1] * side**2, 10)).to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    images, test = (read(f"{part}-images-idx3-ubyte", 16, 1, 28, 28) for part in ("train", "t10k"))
    labels, test_labels = (read(f"{part}-labels-idx1-ubyte", 8).long() for part in ("train", "t10k"))

    def floats(images):
        return (images.float() / 255 - config["mean"]) / config["std"]

    size = settings["batch_size"]
    steps = int(settings["epochs"] * len(images) / size)
    warmup = round(settings["schedule"]["warmup"] * steps)
    adam = settings["optimizer"]
    optimizer = torch.optim.Adam(net.parameters(), adam["learning_rate"], betas=adam["betas"])
    factor = lambda i: 0.2 + 0.8 * i / warmup if i < warmup else (steps - i) / (steps - warmup)
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
        batches = zip(test.split(500), test_labels.split(500), strict=True)
        correct = sum(int((net(floats(x)).argmax(1) == y).sum()) for x, y in batches)
    return correct / len(test)


def run_once(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a process and return its test accuracy and run time in seconds."""
    from experiments.benchmarks import _measure

    began = time.perf_counter()
    text = _measure.run_python(*command, environment=environment)
    seconds = time.perf_counter() - began
    return float(re.search(r"test accuracy ([\d.]+)%", text)[1]) / 100, seconds


def main(arguments: list[str]) -> None:
    from experiments import mnist_speedrun
    from experiments.benchmarks import _measure
    from jaxcnn.train import override

    constants = {"mean": mnist_speedrun.MEAN[0], "std": mnist_speedrun.STD[0]}
    config = override(mnist_speedrun.CONFIG, arguments) | constants
    results = {"jaxcnn, empty compilation cache": [], "jaxcnn, filled cache": [], "PyTorch": []}
    with tempfile.TemporaryDirectory() as cache:
        cached = os.environ | _measure.cache_environment(cache)
        script = ["-m", "experiments.mnist_speedrun", *arguments]
        run_once(script, cached)  # fills the cache
        for seed in range(RUNS):
            results["jaxcnn, empty compilation cache"].append(
                run_once([*script, f"train.seed={seed}"], dict(os.environ))
            )
            results["jaxcnn, filled cache"].append(run_once([*script, f"train.seed={seed}"], cached))
            torch = [
                "-m",
                "experiments.benchmarks.mnist_speedrun",
                "--torch",
                json.dumps(override(config, [f"train.seed={seed}"])),
            ]
            results["PyTorch"].append(run_once(torch, dict(os.environ)))
    for name, runs in results.items():
        accuracy, seconds = zip(*runs, strict=True)
        print(f"{name:24} {_measure.accuracy_and_time(accuracy, seconds)}, minimum {min(accuracy):.2%}")
    print(_measure.save("mnist_speedrun", [{"contender": name, "runs": runs} for name, runs in results.items()]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--torch"]:
        print(f"test accuracy {by_torch(json.loads(sys.argv[2])):.2%}")
    else:
        main(sys.argv[1:])
