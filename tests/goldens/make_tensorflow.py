"""Makes `trained/tensorflow.npz`: logits of networks with TensorFlow's padding.

They are timm's `tf_` variants and transformers' MobileNets, with the weights of `tests/zoo_weights.py`.

pip install torch==2.13.0 safetensors pyyaml huggingface_hub transformers==5.24.0
pip install --no-deps torchvision==0.29.1 timm==1.0.31
python -m tests.goldens.make_tensorflow
"""

import pathlib

import numpy as np
import torch

from experiments.benchmarks._torchvision import models as torchvision
from tests import zoo_weights

NAMES = {
    "efficientnet_b0": "tf_efficientnet_b0",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_v2_s": "tf_efficientnetv2_s",
    "mobilenet_v3_large": "tf_mobilenetv3_large_100",
    "mobilenet_v3_small": "tf_mobilenetv3_small_100",
}
TRANSFORMERS = {"mobilenet_v1": "MobileNetV1", "mobilenet_v2": "MobileNetV2"}
SHAPE = (2, 63, 64, 3)  # the padding differs between odd and even sizes


def logits(net: torch.nn.Module) -> np.ndarray:
    weights = {
        k: torch.from_numpy(np.asarray(zoo_weights.weight(k, tuple(v.shape)))) for k, v in net.state_dict().items()
    }
    net.load_state_dict(weights)
    with torch.no_grad():
        y = net.eval().double()(torch.from_numpy(zoo_weights.images(SHAPE)).movedim(-1, 1).double())
    return (y if isinstance(y, torch.Tensor) else y.logits).numpy().astype(np.float32)


def main() -> None:
    torchvision()  # before timm, which imports torchvision
    import timm
    import transformers

    results = {name: logits(timm.create_model(theirs, num_classes=10)) for name, theirs in NAMES.items()}
    for name, theirs in TRANSFORMERS.items():
        config = getattr(transformers, f"{theirs}Config")(num_labels=10)
        results[name] = logits(getattr(transformers, f"{theirs}ForImageClassification")(config))
    np.savez(pathlib.Path(__file__).parent / "trained" / "tensorflow.npz", **results)


if __name__ == "__main__":
    main()
