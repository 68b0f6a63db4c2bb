"""Makes `trained/tensorflow.npz`: logits of timm's `tf_` variants, for the weights of `tests/zoo_weights.py`.

pip install torch==2.13.0 safetensors pyyaml huggingface_hub
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
    "efficientnet_v2_s": "tf_efficientnetv2_s",
    "mobilenet_v3_large": "tf_mobilenetv3_large_100",
    "mobilenet_v3_small": "tf_mobilenetv3_small_100",
}
SHAPE = (2, 63, 64, 3)  # the padding differs between odd and even sizes


def main() -> None:
    torchvision()  # before timm, which imports torchvision
    import timm

    logits = {}
    for name, name_in_timm in NAMES.items():
        net = timm.create_model(name_in_timm, num_classes=10).eval()
        weights = {
            k: torch.from_numpy(np.asarray(zoo_weights.weight(k, tuple(v.shape)))) for k, v in net.state_dict().items()
        }
        net.load_state_dict(weights)
        with torch.no_grad():
            x = torch.from_numpy(zoo_weights.images(SHAPE)).movedim(-1, 1)
            logits[name] = net.double()(x.double()).numpy().astype(np.float32)
    np.savez(pathlib.Path(__file__).parent / "trained" / "tensorflow.npz", **logits)


if __name__ == "__main__":
    main()
