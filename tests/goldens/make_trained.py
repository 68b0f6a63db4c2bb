"""Makes `trained/pnet.npz`: the trained weights of MTCNN's proposal network, two images and PyTorch's outputs.

    pip install torch==2.13.0
    pip download --no-deps facenet-pytorch==2.6.0  # MIT licence; the file is facenet_pytorch/data/pnet.pt in the wheel
    python -m tests.goldens.make_trained facenet_pytorch-2.6.0-py3-none-any.whl

Source: Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional networks", 2016.
"""

import io
import pathlib
import sys
import zipfile

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def outputs(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Face probabilities and box offsets, (N, 6, H, W)."""
    for i in (1, 2, 3):
        x = functional.prelu(functional.conv2d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"]), w[f"prelu{i}.weight"])
        if i == 1:
            x = nn.MaxPool2d(2, 2, ceil_mode=True)(x)
    faces, boxes = (functional.conv2d(x, w[f"conv4_{i}.weight"], w[f"conv4_{i}.bias"]) for i in (1, 2))
    return torch.cat((faces.softmax(1), boxes), 1)


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read("facenet_pytorch/data/pnet.pt")
    weights = torch.load(io.BytesIO(data), weights_only=True)
    coarse = torch.randn(2, 3, 10, 9, generator=torch.Generator().manual_seed(0))
    x = functional.interpolate(coarse, size=(37, 34), mode="bicubic").clamp(-1, 1)
    with torch.no_grad():
        y = outputs(weights, x)
    arrays = {"x": x.movedim(1, -1).numpy(), "y": y.movedim(1, -1).numpy()}
    path = pathlib.Path(__file__).parent / "trained" / "pnet.npz"
    np.savez_compressed(path, **arrays, **{f"weights/{name}": value.numpy() for name, value in weights.items()})
    print(path, path.stat().st_size, "bytes; face probabilities", y[:, 1].min().item(), "to", y[:, 1].max().item())


if __name__ == "__main__":
    main(sys.argv[1])
