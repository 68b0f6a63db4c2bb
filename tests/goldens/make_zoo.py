"""Makes `zoo/NAME.npz`: what models in PyTorch give for the weights of `tests/zoo_weights.py`.

They are torchvision's and timm's, and for signals those of `signal_networks.py`.

    pip install torch==2.13.0 safetensors pyyaml huggingface_hub
    pip install --no-deps torchvision==0.29.1 timm==1.0.31
    python -m tests.goldens.make_zoo [NAME ...]

Each file has the logits of ten classes in evaluation and in training, computed in float64, and a hash of the names and
shapes of the state dict. torchvision's own operators are not needed, so its Python files work beside any PyTorch.
"""

import pathlib
import sys

import numpy as np
import torch

from experiments.benchmarks._torchvision import models as torchvision
from jaxcnn.models import MODELS
from tests import zoo_weights
from tests.goldens import signal_networks

# What our names are in timm; all others are torchvision's.
TIMM = {
    "convnextv2_atto": "convnextv2_atto",
    "convnextv2_base": "convnextv2_base",
    "convnextv2_femto": "convnextv2_femto",
    "convnextv2_huge": "convnextv2_huge",
    "convnextv2_large": "convnextv2_large",
    "convnextv2_nano": "convnextv2_nano",
    "convnextv2_pico": "convnextv2_pico",
    "convnextv2_tiny": "convnextv2_tiny",
    "dla34": "dla34",
    "hrnet_w18": "hrnet_w18",
    "efficientnet_lite0": "efficientnet_lite0",
    "ghostnet_100": "ghostnet_100",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenetv4_conv_medium": "mobilenetv4_conv_medium",
    "mobilenetv4_conv_small": "mobilenetv4_conv_small",
    "preact_resnet101": "resnetv2_101",
    "preact_resnet152": "resnetv2_152",
    "preact_resnet18": "resnetv2_18",
    "preact_resnet34": "resnetv2_34",
    "preact_resnet50": "resnetv2_50",
    "repvgg_a0": "repvgg_a0",
    "repvgg_a1": "repvgg_a1",
    "repvgg_a2": "repvgg_a2",
    "regnet_x_12gf": "regnetx_120",
    "regnet_x_200mf": "regnetx_002",
    "regnet_x_4gf": "regnetx_040",
    "regnet_x_600mf": "regnetx_006",
    "regnet_x_6_4gf": "regnetx_064",
    "regnet_y_12gf": "regnety_120",
    "regnet_y_200mf": "regnety_002",
    "regnet_y_4gf": "regnety_040",
    "regnet_y_600mf": "regnety_006",
    "regnet_y_6_4gf": "regnety_064",
    "res2net50_26w_4s": "res2net50_26w_4s",
    "resnet26d": "resnet26d",
    "resnet50d": "resnet50d",
    "resnetrs50": "resnetrs50",
    "se_resnet101": "seresnet101",
    "se_resnet152": "seresnet152",
    "se_resnet18": "seresnet18",
    "se_resnet34": "seresnet34",
    "se_resnet50": "seresnet50",
    "xception": "legacy_xception",
}


def build(name: str) -> torch.nn.Module:
    if hasattr(signal_networks, name):
        return getattr(signal_networks, name)(10)
    models = torchvision()  # before timm, which imports torchvision
    if name in TIMM:
        import timm

        return timm.create_model(TIMM[name], num_classes=10)
    options = {}
    if name.startswith(("fcn_", "deeplabv3_", "lraspp_")):
        options = {"weights_backbone": None, "aux_loss": not name.startswith("lraspp_")}
    return models.get_model(name, weights=None, num_classes=10, **options)


def without_chance(net: torch.nn.Module) -> torch.nn.Module:
    for module in net.modules():
        for rate in ("p", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
        if isinstance(getattr(module, "drop_rate", None), float):
            module.drop_rate = 0.0
    return net


def golden(name: str) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    net = without_chance(build(name))
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    weights = net.state_dict()  # which has versions of modules, too
    weights.update({key: torch.from_numpy(zoo_weights.weight(key, shape)) for key, shape in shapes.items()})
    net.load_state_dict(weights)
    net = net.double()
    x = zoo_weights.images((zoo_weights.BATCH, *zoo_weights.shape_of(name, MODELS[name].input_shape)))
    x = torch.from_numpy(x).movedim(-1, 1).double()
    result = {"names": np.array(zoo_weights.names_hash(shapes))}
    for mode in ("eval", "train"):
        with torch.no_grad():
            y = net.train(mode == "train")(x)
        if isinstance(y, dict):  # segmentation: "out" and perhaps "aux", which jaxcnn computes in training only
            y = tuple(y.values()) if mode == "train" and len(y) > 1 else y["out"]
        y = y if isinstance(y, torch.Tensor) else torch.stack(tuple(y))
        y = zoo_weights.sampled(y.movedim(-3, -1) if y.ndim > 3 else y)
        result[mode] = y.numpy().astype(np.float32)
    return result


def main(names: list[str]) -> None:
    folder = pathlib.Path(__file__).parent / "zoo"
    for name in names:
        arrays = golden(name)
        np.savez(folder / f"{name}.npz", **arrays)
        print(f"{name}: largest logit {abs(arrays['eval']).max():.3g}, {abs(arrays['train']).max():.3g} in training")


if __name__ == "__main__":
    main(sys.argv[1:])
