"""The networks of the benchmarks: framework-independent descriptions and a builder for each framework.

All frameworks do the same work: the same layers on the same shapes, the same number of parameters, cross entropy, and
SGD with momentum. In bfloat16, parameters and losses stay float32: `cast` in jaxcnn, `dtype=` in Flax, autocast in
PyTorch. Otherwise the code of each framework is idiomatic. PyTorch and Equinox use channels first by default, the
others channels last. Only jaxcnn sets compiler options. `Silu`, `AvgPool`, `Append` and `Excite` are for the networks
of `compilation`, which Equinox and stax do not build. Differences:

    stax has no grouped convolution and no layer norm. Networks that need one are not built.
    The batch norm of stax has no running statistics. Its training step does less, and inference is not measured.
    stax pads max pooling only by "SAME". At stride 2 this pads only at the end. The output shapes are equal.
"""

import functools
import math
from collections.abc import Callable, Iterable

from experiments.benchmarks import _measure
from experiments.benchmarks._networks import _equinox, _flax, _jaxcnn, _keras, _stax, _torch
from experiments.benchmarks._networks._contender import Contender, Model, mean_loss, parameter_count, random_batch
from experiments.benchmarks._networks._equinox import equinox_model
from experiments.benchmarks._networks._flax import flax_model
from experiments.benchmarks._networks._jaxcnn import jaxcnn_model, jaxcnn_parts, jaxcnn_training
from experiments.benchmarks._networks._layers import (
    NETWORKS,
    Conv,
    Dense,
    Gelu,
    GlobalAvgPool,
    LayerNorm,
    MaxPool,
    Network,
    Norm,
    Relu,
    Residual,
    convnext_tiny,
    densenet121,
    efficientnet_b0,
    resnet50,
    widen,
)
from experiments.benchmarks._networks._torch import torch_device, torch_module
from experiments.benchmarks._tasks import Task

__all__ = [
    "FRAMEWORKS",
    "NETWORKS",
    "Contender",
    "Conv",
    "Dense",
    "Gelu",
    "GlobalAvgPool",
    "LayerNorm",
    "MaxPool",
    "Model",
    "Network",
    "Norm",
    "Relu",
    "Residual",
    "build",
    "check",
    "contenders",
    "convnext_tiny",
    "create_contender",
    "densenet121",
    "efficientnet_b0",
    "equinox_model",
    "flax_model",
    "installed_frameworks",
    "jaxcnn_model",
    "jaxcnn_parts",
    "jaxcnn_training",
    "mean_loss",
    "parameter_count",
    "random_batch",
    "resnet50",
    "torch_device",
    "torch_module",
    "widen",
]

_BUILDERS: dict[str, Callable[[Network], Contender | None]] = {
    "jaxcnn": _jaxcnn.create,
    "torch": _torch.create,
    "torch channels_last": functools.partial(_torch.create, channels_last=True),
    "torch compile": functools.partial(_torch.create, compiled=True),
    "torch compile channels_last": functools.partial(_torch.create, channels_last=True, compiled=True),
    "flax": _flax.create,
    "equinox": _equinox.create,
    "stax": _stax.create,
    "keras": _keras.create,  # only for compilation and the start: its calls copy the batch
}
FRAMEWORKS = tuple(dict.fromkeys(name.split()[0] for name in _BUILDERS if name != "keras"))


def create_contender(net: Network | Task, name: str) -> Contender | None:
    """Build a network and initialize its parameters, without running it. None if the framework lacks a layer.

    A `Task` is built in jaxcnn and PyTorch. PyTorch has no channels last for signals.
    """
    if net.dtype != "float32" and name in ("equinox", "stax"):
        return None
    if isinstance(net, Task) and (not name.startswith(("jaxcnn", "torch")) or ("last" in name and len(net.shape) < 3)):
        return None
    return _BUILDERS[name](net)


def installed_frameworks(frameworks: Iterable[str]) -> list[str]:
    """The frameworks that are installed. Prints which are skipped."""
    installed = []
    for framework in frameworks:
        if framework in ("torch", "torchvision", "flax", "equinox") and not _measure.installed(framework):
            print(f"skipping {framework}: not installed")
        else:
            installed.append(framework)
    return installed


def contenders(frameworks: Iterable[str]) -> list[str]:
    """The contenders of the frameworks that work on this machine. Prints why the others are skipped."""
    frameworks = installed_frameworks(frameworks)
    names = [name for framework in frameworks for name in _BUILDERS if name.split()[0] == framework]
    if "torch" in names and (reason := _torch_compile_error()):
        print(f"skipping torch.compile, which fails: {reason}")
        names = [name for name in names if "compile" not in name]
    return names


def build(net: Network | Task, names: Iterable[str]) -> dict[str, Contender]:
    """Build a network in each contender that supports it. Checks the parameter counts and runs one training step."""
    if isinstance(net, Task) and net.torchvision and not installed_frameworks(["torchvision"]):
        names = [name for name in names if not name.startswith("torch")]
    built = {name: contender for name in names if (contender := create_contender(net, name))}
    check(built)
    return built


def check(built: dict[str, Contender]) -> None:
    """Raise an error unless all contenders have the same size and a finite loss after a training step."""
    counts = {name: contender.parameters for name, contender in built.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the contenders have different parameter counts: {counts}")
    for name, contender in built.items():
        if not math.isfinite(loss := float(contender.train())):
            raise ValueError(f"{name}: the loss of the first step is {loss}, expected a finite value")


def _torch_compile_error() -> str | None:
    """The error message of a minimal torch.compile call, or None if it works."""
    import torch

    try:
        torch.compile(torch.sin)(torch.ones(8, device=torch_device()))
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return None
