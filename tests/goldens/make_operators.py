"""Write what PyTorch computes for layers of several inputs or outputs: `python tests/goldens/make_operators.py`.

`tests/test_unpool.py`, `test_grid_sample.py` and `test_deform_conv.py` compare with the files in `operators/`. All
arrays are in jaxcnn's layout, channels last. "NAME/options" is JSON.
"""

import itertools
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent / "operators"
SPATIAL = {1: (9,), 2: (7, 6), 3: (4, 5, 4)}
random = np.random.default_rng(6)


def draw(*shape):
    """Eighths: they compress well, and many are equal."""
    return torch.tensor(random.integers(-12, 13, shape) / 8, dtype=torch.float32)


def last(x):
    """(N, C, *spatial) -> (N, *spatial, C)."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def save(file, cases):
    arrays = {}
    for i, (options, found) in enumerate(cases):
        arrays[f"{i:03d}/options"] = np.array(json.dumps(options).encode())
        arrays |= {f"{i:03d}/{key}": value for key, value in found.items()}
    np.savez_compressed(HERE / file, **arrays)


def unpool():
    options = [
        {"size": 2},
        {"size": 3, "stride": 2, "padding": 1},
        {"size": 2, "stride": 3},
        {"size": 2, "stride": 1, "dilation": 2, "padding": 1},
        {"size": 3, "ceil_mode": True},
    ]
    for rank, option in itertools.product(SPATIAL, options):
        x = draw(2, 3, *SPATIAL[rank]).requires_grad_()
        names = {"kernel_size" if key == "size" else key: value for key, value in option.items()}
        y, indices = getattr(F, f"max_pool{rank}d")(x, **names, return_indices=True)
        dy = draw(*y.shape)
        (dx,) = torch.autograd.grad(y, x, dy)
        found = {"x": last(x), "y": last(y), "indices": last(indices).astype(np.int32), "dy": last(dy), "dx": last(dx)}
        if option["size"] == 2 and option.get("stride") != 1:  # windows that do not overlap
            size, stride = option["size"], option.get("stride")
            values = draw(*y.shape).requires_grad_()
            z = getattr(F, f"max_unpool{rank}d")(values, indices, size, stride, output_size=SPATIAL[rank])
            dz = draw(*z.shape)
            (dv,) = torch.autograd.grad(z, values, dz)
            found |= {"values": last(values), "z": last(z), "dz": last(dz), "dvalues": last(dv)}
        yield option, found


def grid_samples():
    torch_modes = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}
    modes = [(2, method) for method in torch_modes] + [(3, "linear"), (3, "nearest")]
    boundaries = ("zeros", "border", "reflection")
    for (rank, method), boundary, align in itertools.product(modes, boundaries, (False, True)):
        x = draw(2, 3, *SPATIAL[rank]).requires_grad_()
        grid = (
            torch.tensor(random.uniform(-1.6, 1.6, (2, *(3, 4, 2)[:rank], rank)), dtype=torch.float32)
        ).requires_grad_()
        y = F.grid_sample(x, grid, torch_modes[method], boundary, align)
        dy = draw(*y.shape)
        dx, dgrid = torch.autograd.grad(y, (x, grid), dy)
        found = {"x": last(x), "grid": grid.detach().numpy(), "y": last(y), "dy": last(dy), "dx": last(dx)}
        yield (
            {"method": method, "padding_mode": boundary, "align_corners": align},
            found | {"dgrid": dgrid.numpy()},
        )


def deform_convs():
    """From `grid_sample`, one kernel element at a time, with offsets in the order of torchvision's deform_conv2d."""
    options = [
        {"size": (3, 3), "padding": 1},
        {"size": (3, 2), "stride": 2, "dilation": (1, 2), "padding": (1, 2)},
        {"size": (2, 2), "padding": 0, "groups": 2},
        {"size": (1, 3), "padding": 0, "stride": (2, 1), "groups": 4},
    ]
    for option, (offset_groups, masked) in itertools.product(options, ((1, False), (2, True))):
        stride, dilation, padding = (
            np.broadcast_to(option.get(key, default), 2)
            for key, default in (("stride", 1), ("dilation", 1), ("padding", 0))
        )
        size, groups = option["size"], option.get("groups", 1)
        n, channels, features, spatial = 2, 4, 8, np.array([7, 6])
        out = (spatial + 2 * padding - dilation * (np.array(size) - 1) - 1) // stride + 1
        count = size[0] * size[1]
        x, kernel = (
            draw(n, channels, *spatial).requires_grad_(),
            draw(features, channels // groups, *size).requires_grad_(),
        )
        offset = torch.tensor(random.uniform(-2, 2, (n, offset_groups * count * 2, *out)), dtype=torch.float32)
        mask = torch.tensor(random.uniform(0, 1, (n, offset_groups * count, *out)), dtype=torch.float32)
        offset.requires_grad_(), mask.requires_grad_()
        y = 0
        for k, (a, b) in enumerate(itertools.product(range(size[0]), range(size[1]))):
            parts = []
            for g in range(offset_groups):
                at = g * count + k
                rows = torch.arange(out[0])[:, None] * stride[0] + a * dilation[0] - padding[0] + offset[:, 2 * at]
                columns = torch.arange(out[1]) * stride[1] + b * dilation[1] - padding[1] + offset[:, 2 * at + 1]
                scaled = [2 * columns / (spatial[1] - 1) - 1, 2 * rows / (spatial[0] - 1) - 1]
                part = x[:, g * channels // offset_groups : (g + 1) * channels // offset_groups]
                part = F.grid_sample(part, torch.stack(scaled, -1), align_corners=True)
                parts.append(part * mask[:, at, None] if masked else part)
            y = y + F.conv2d(torch.cat(parts, 1), kernel[:, :, a : a + 1, b : b + 1], groups=groups)
        dy = draw(*y.shape)
        inputs = {"x": x, "offset": offset, "kernel": kernel} | ({"mask": mask} if masked else {})
        gradients = dict(zip(inputs, torch.autograd.grad(y, list(inputs.values()), dy), strict=True))
        found = {"y": last(y), "dy": last(dy)}
        for name, value in inputs.items():
            for key, array in ((name, value), (f"d{name}", gradients[name])):
                moved = array.detach().permute(2, 3, 1, 0).numpy() if name == "kernel" else last(array)
                found[key] = np.ascontiguousarray(moved, np.float32)
        yield option, found


if __name__ == "__main__":
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    save("unpool.npz", unpool())
    save("grid_sample.npz", grid_samples())
    save("deform_conv.npz", deform_convs())
