"""Write small files of torch.save and their tensors as arrays: `python -m tests.goldens.make_torch_files`.

Needs torch. `golden.npz` has the values of every tensor, as torch reads them; bfloat16 and float8 as float32.
"""

import argparse
import collections
import pathlib

import numpy as np
import torch

FOLDER = pathlib.Path(__file__).parent / "torch_files"


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 7
    dtypes = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    return {
        **{f"dtype.{name}": (base * 3).to(getattr(torch, name)) for name in dtypes},
        "transposed": base.permute(2, 0, 1),
        "sliced": base[1:, ::2, 1:3],
        "tied.a": base,
        "tied.b": base,
        "expanded": torch.tensor([2.5]).expand(3, 2),
        "scalar": torch.tensor(4.5),
        "empty": torch.zeros(3, 0, 2),
        "parameter": torch.nn.Parameter(base[0]),
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    plain = tensors()
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    objects = {
        "plain": plain,
        "new": plain | {"uint16": torch.arange(5).to(torch.uint16), "float8": torch.ones(3).to(torch.float8_e4m3fn)},
        "module": module.state_dict(),
        "checkpoint": {
            "epoch": 3,
            "optimizer_states": [{"state": {0: {"step": 5, "momentum": torch.ones(2, dtype=torch.int32)}}}],
            "hyper_parameters": argparse.Namespace(lr=0.1, sizes={1, 2}),
            "losses": collections.defaultdict(list, a=[1.5]),
            "metric": np.float64(0.5),
            "size": torch.Size([1, 2]),
            "state_dict": collections.OrderedDict((f"model.{k}", v) for k, v in module.state_dict().items()),
        },
    }
    arrays = {}
    for name, value in objects.items():
        for kind in ("zip", "legacy"):
            if (name, kind) != ("new", "legacy"):  # the legacy format lacks these dtypes
                torch.save(value, FOLDER / f"{name}.{kind}.pth", _use_new_zipfile_serialization=kind == "zip")
        state_dict = value.get("state_dict", value)
        for key, tensor in state_dict.items():
            tensor = tensor.detach()
            lossless = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float8_e4m3fn) else tensor
            arrays[f"{name}/{key}"] = lossless.numpy()
            arrays[f"{name}/{key}/dtype"] = np.array(str(tensor.dtype).removeprefix("torch."))
    torch.save(plain, FOLDER / "protocol4.zip.pth", pickle_protocol=4)
    np.savez_compressed(FOLDER / "golden.npz", **arrays)


if __name__ == "__main__":
    main()
