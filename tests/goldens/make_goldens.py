"""Write what PyTorch computes, for `tests/test_goldens.py` to compare with: `python tests/goldens/make_goldens.py`.

Needs torch and numpy. Each case is a layer of jaxcnn with its arguments (JSON under "NAME/layer"), and arrays in
jaxcnn's layout: "NAME/x", "NAME/y", parameters "NAME/params/LEAF", state before and after "NAME/state/LEAF" and
"NAME/new_state/LEAF", and for some the gradient "NAME/dx" of sum(y * dy), "NAME/dy".
"""

# ruff: noqa: B023  (each function is called before the loop goes on)

import itertools
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
SPATIAL = {1: (7,), 2: (6, 5), 3: (3, 4, 5)}


class Cases:
    """The cases of one file, with inputs from a generator of its own: eighths, which compress well."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.arrays = {}

    def draw(self, *shape):
        return torch.tensor(self.random.integers(-12, 13, shape) / 8, dtype=torch.float32)

    def add(self, layer, args, options, x, fn, params=None, state=None, new_state=None, gradient=False, train=False):
        """Record `fn` of x (N, C, *spatial), which stands for `jaxcnn.layer(*args, **options)`."""
        x = x.clone().requires_grad_(gradient)
        y = fn(x)
        found = {"x": last(x), "y": last(y)}
        if gradient:
            dy = self.draw(*y.shape)
            y.backward(dy)
            found |= {"dy": last(dy), "dx": last(x.grad)}
        for part, leaves in (("params", params), ("state", state), ("new_state", new_state and new_state())):
            found |= {f"{part}/{leaf}": np.asarray(value) for leaf, value in (leaves or {}).items()}
        name = f"{len({key.split('/')[0] for key in self.arrays}):03d}-{layer}-{x.ndim - 2}d"
        call = json.dumps({"layer": layer, "args": args, "options": options, "train": train})
        self.arrays |= {f"{name}/layer": np.array(call.encode())}
        self.arrays |= {f"{name}/{key}": value.astype(np.float32) for key, value in found.items()}

    def save(self, file):
        np.savez_compressed(HERE / file, **self.arrays)


def last(x):
    """(N, C, *spatial) -> (N, *spatial, C)."""
    return np.moveaxis(x.detach().numpy(), 1, -1)


def of_rank(name, rank):
    return getattr(F, f"{name}{rank}d")


def convolutions():
    cases = Cases(1)
    all_groups = itertools.cycle((1, 2, 4))
    for rank, spatial in SPATIAL.items():
        per_dimension = tuple(range(1, rank + 1))
        for stride, padding, dilation in itertools.product((1, 2), (0, 1, per_dimension), (1, 2)):
            groups = next(all_groups)
            if rank < 3 or (dilation == 1) == (padding == 0):
                add_conv(cases, rank, spatial, 3 if rank < 3 else 2, stride, padding, dilation, groups, "zeros")
        for mode in ("reflect", "replicate", "circular"):
            add_conv(cases, rank, spatial, 3, 2, 2, 1, 1, mode)
            add_conv(cases, rank, spatial, 2, 1, "same", 2 if rank < 3 else 1, 2, mode)
        add_conv(cases, rank, spatial, (4, 2, 3)[:rank], 1, "same", 1, 1, "zeros", gradient=True)
        add_conv(cases, rank, spatial, 2, (2, 1, 3)[:rank], "valid", 1, 4, "zeros", gradient=True)
        for size, stride, padding, extra, dilation, groups in (
            (3, 1, 0, 0, 1, 1),
            (3, 2, 1, 1, 1, 2),
            (2, 2, 0, 0, 1, 1),
            (4, 2, 1, 0, 1, 4),
            ((3, 2, 2)[:rank], (3, 2, 1)[:rank], (0, 1, 1)[:rank], (2, 1, 0)[:rank], 1, 2),
            (3, 2, 2, 1, 2, 1),
        ):
            add_conv_transpose(cases, rank, size, stride, padding, extra, dilation, groups)
    cases.save("conv.npz")


def add_conv(cases, rank, spatial, size, stride, padding, dilation, groups, mode, gradient=False):
    module = getattr(torch.nn, f"Conv{rank}d")(
        4, 8, size, stride, padding, dilation, groups, padding_mode=mode, device="meta"
    ).to_empty(device="cpu")
    with torch.no_grad():
        module.weight.copy_(cases.draw(*module.weight.shape))
        module.bias.copy_(cases.draw(8))
    cases.add(
        "conv",
        [8, size],
        {
            "stride": stride,
            "padding": padding.upper() if isinstance(padding, str) else padding,
            "dilation": dilation,
            "groups": groups,
            "padding_mode": mode,
        },
        cases.draw(1, 4, *spatial),
        module,
        {"kernel": module.weight.detach().permute(*range(2, rank + 2), 1, 0), "bias": module.bias.detach()},
        gradient=gradient,
    )


def add_conv_transpose(cases, rank, size, stride, padding, extra, dilation, groups):
    size_of_each = (size,) * rank if isinstance(size, int) else size
    weight, bias = cases.draw(4, 8 // groups, *size_of_each), cases.draw(8)
    split = weight.reshape(groups, 4 // groups, 8 // groups, *size_of_each)
    kernel = split.permute(*range(3, rank + 3), 1, 0, 2).reshape(*size_of_each, 4 // groups, 8)
    cases.add(
        "conv_transpose",
        [8, size],
        {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups},
        cases.draw(1, 4, *(3, 2, 2)[:rank]),
        lambda x: of_rank("conv_transpose", rank)(x, weight, bias, stride, padding, extra, groups, dilation),
        {"kernel": kernel, "bias": bias},
    )


def pools():
    cases = Cases(2)
    for rank, spatial in SPATIAL.items():
        x = cases.draw(2 if rank < 3 else 1, 2, *spatial)  # eighths: many ties
        for size, stride, padding, dilation, ceil in (
            (2, 2, 0, 1, False),
            (3, 2, 1, 1, False),
            (3, 2, 1, 1, True),
            (2, 3, 1, 1, True),
            (2, 1, 0, 2, False),
            (2, 2, 1, 2, True),
            ((3, 2, 2)[:rank], (1, 2, 3)[:rank], (1, 0, 1)[:rank], 1, True),
        ):
            options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
            cases.add(
                "max_pool",
                [size],
                options,
                x,
                lambda x: of_rank("max_pool", rank)(x, size, **options),
                gradient=rank < 3 or ceil,
            )
            if dilation == 1:
                for counted in (False, True):
                    options = {"stride": stride, "padding": padding, "ceil_mode": ceil, "count_include_pad": counted}
                    cases.add(
                        "avg_pool",
                        [size],
                        options,
                        x,
                        lambda x: of_rank("avg_pool", rank)(x, size, **options),
                        gradient=rank == 2 and counted == ceil,
                    )
        for out in (1, 2, 3, tuple(n - 1 for n in spatial)):
            for kind in ("avg", "max"):
                cases.add(
                    f"adaptive_{kind}_pool",
                    [out],
                    {},
                    x,
                    lambda x: of_rank(f"adaptive_{kind}_pool", rank)(x, out),
                    gradient=rank == 2,
                )
        for p, size, stride in ((2, 2, 2), (2, 3, 1), (4, 2, 1), (1, 2, 2)):
            positive = x.abs() if p == 1 else x
            cases.add(
                "lp_pool",
                [p, size],
                {"stride": stride},
                positive,
                lambda x: of_rank("lp_pool", rank)(x, float(p), size, stride),
            )
    small = cases.draw(1, 2, 2, 3)
    for kind in ("max", "avg"):  # a window larger than the input, which hangs over its end
        cases.add(
            f"{kind}_pool",
            [3],
            {"stride": 2, "ceil_mode": True},
            small,
            lambda x: of_rank(f"{kind}_pool", 2)(x, 3, 2, ceil_mode=True),
        )
    cases.save("pool.npz")


def norms():
    cases = Cases(3)
    eps = 1e-3
    for rank, spatial in enumerate(((), (4,), (3, 4), (2, 3, 2))):
        x, scale, bias = cases.draw(3, 6, *spatial) + 1, cases.draw(6), cases.draw(6)
        affine = {"scale": scale, "bias": bias}
        for train in (False, True):
            mean, var = cases.draw(6), cases.draw(6).square() + 0.5
            running = [mean.clone(), var.clone()]
            cases.add(
                "batch_norm",
                [],
                {"decay": 0.75, "eps": eps},
                x,
                lambda x: F.batch_norm(x, *running, scale, bias, train, 0.25, eps),
                affine,
                {"mean": mean, "var": var},
                lambda: biased(running, var, x.numel() // 6, train),
                gradient=rank == 2,
                train=train,
            )
        cases.add(
            "layer_norm",
            [],
            {"eps": eps},
            x,
            lambda x: F.layer_norm(x.movedim(1, -1), (6,), scale, bias, eps).movedim(-1, 1),
            affine,
            gradient=rank == 2,
        )
        cases.add(
            "rms_norm",
            [],
            {"eps": eps},
            x,
            lambda x: F.rms_norm(x.movedim(1, -1), (6,), scale, eps).movedim(-1, 1),
            {"scale": scale},
            gradient=rank == 2,
        )
        if rank:
            full = {leaf: cases.draw(*spatial, 6) for leaf in ("scale", "bias")}
            cases.add(
                "layer_norm",
                [],
                {"axis": 1, "eps": eps},
                x,
                lambda x: F.layer_norm(x.movedim(1, -1), (*spatial, 6), *full.values(), eps).movedim(-1, 1),
                full,
            )
            cases.add(
                "instance_norm",
                [],
                {"eps": eps},
                x,
                lambda x: F.instance_norm(x, weight=scale, bias=bias, eps=eps),
                affine,
                gradient=rank == 2,
            )
        for groups in (1, 2, 6) if rank else (1, 2):
            cases.add(
                "group_norm",
                [groups],
                {"eps": eps},
                x,
                lambda x: F.group_norm(x, groups, scale, bias, eps),
                affine,
                gradient=rank == 2,
            )
        if rank:
            for size in (2, 5):
                cases.add(
                    "local_response_norm",
                    [size],
                    {"alpha": 0.5, "beta": 0.75, "k": 2.0},
                    x,
                    lambda x: F.local_response_norm(x, size, 0.5, 0.75, 2.0),
                )
        cases.add("prelu", [], {}, x - 1, lambda x: F.prelu(x, scale), {"scale": scale})
    cases.save("norm.npz")


def biased(running, old_var, count, train):
    """The running statistics with the batch's variance divided by n, where torch divides by n - 1."""
    mean, var = running
    if train:
        var = 0.75 * old_var + (var - 0.75 * old_var) * (count - 1) / count
    return {"mean": mean, "var": var}


def shapes():
    cases = Cases(4)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    for rank, spatial in SPATIAL.items():
        x = cases.draw(1, 2, *spatial)
        for scale in (2, 3, (2, 1, 3)[:rank]):
            if rank < 3 or scale != 3:
                cases.add("upsample", [scale], {}, x, lambda x: F.interpolate(x, scale_factor=scale))
                cases.add(
                    "upsample",
                    [scale, "linear"],
                    {},
                    x,
                    lambda x: F.interpolate(x, scale_factor=scale, mode=linear[rank], align_corners=False),
                )
        for size in ((4, 7, 2)[:rank], (9, 3, 6)[:rank]):
            cases.add(
                "resize",
                [size],
                {"antialias": False},
                x,
                lambda x: F.interpolate(x, size, mode=linear[rank], align_corners=False),
            )
        for mode in ("reflect", "replicate", "circular"):
            pads = [(1, 2), (2, 0), (0, 1)][:rank]
            cases.add(
                "pad",
                [pads],
                {"mode": mode},
                x,
                lambda x: F.pad(x, [side for pair in pads[::-1] for side in pair], mode),
            )
    for size, method in itertools.product(((4, 7), (9, 3)), ("linear", "cubic")):
        cases.add(
            "resize",
            [size, method],
            {},
            cases.draw(1, 2, 8, 5),
            lambda x: F.interpolate(x, size, mode=f"bi{method}", antialias=True),
        )
    for scale in (2, 3):
        cases.add("pixel_shuffle", [scale], {}, cases.draw(2, 2 * scale**2, 2, 3), torch.nn.PixelShuffle(scale))
        cases.add("pixel_unshuffle", [scale], {}, cases.draw(2, 3, 2 * scale, scale), torch.nn.PixelUnshuffle(scale))
    cases.save("shape.npz")


def resizes():
    """The conventions of `interpolate`, and constant padding."""
    cases = Cases(5)
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}
    torch_cubic = {"antialias": False, "a": -0.75, "exclude_outside": False}
    corners = {"antialias": False, "coordinates": "align_corners"}
    nearest = {"coordinates": "asymmetric", "rounding": "floor"}
    for rank, spatial in SPATIAL.items():
        x = cases.draw(1, 2, *spatial)
        for size in ((4, 7, 2)[:rank], (10, 3, 1)[:rank]):
            cases.add(
                "resize",
                [size],
                corners,
                x,
                lambda x: F.interpolate(x, size, mode=linear[rank], align_corners=True),
                gradient=rank == 2,
            )
            cases.add("resize", [size, "nearest"], nearest, x, lambda x: F.interpolate(x, size))
            cases.add("resize", [size, "nearest"], {}, x, lambda x: F.interpolate(x, size, mode="nearest-exact"))
        for scale in (0.6, 1.7):
            cases.add(
                "resize",
                [],
                {"scale": scale, "antialias": False},
                x,
                lambda x: F.interpolate(x, scale_factor=scale, mode=linear[rank], align_corners=False),
            )
        cases.add(
            "upsample",
            [2, "linear"],
            {"coordinates": "align_corners"},
            x,
            lambda x: F.interpolate(x, scale_factor=2, mode=linear[rank], align_corners=True),
        )
        pads = [(1, 2), (2, 0), (0, 1)][:rank]
        cases.add(
            "pad",
            [pads],
            {"value": -1.5},
            x,
            lambda x: F.pad(x, [side for pair in pads[::-1] for side in pair], value=-1.5),
        )
    for size in ((4, 7), (9, 3), (1, 12)):
        x = cases.draw(1, 2, 8, 5)
        for align, options in ((False, torch_cubic), (True, torch_cubic | corners)):
            cases.add(
                "resize",
                [size, "cubic"],
                options,
                x,
                lambda x: F.interpolate(x, size, mode="bicubic", align_corners=align),
                gradient=size == (4, 7),
            )
    cases.save("resize.npz")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for write in (convolutions, pools, norms, shapes, resizes):
        write()
