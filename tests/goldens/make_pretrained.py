"""Write the table of published weights, jaxcnn/weights/pretrained.json, and the class names of ImageNet.

The facts are those of timm's and torchvision's metadata. A network is listed only if its random weights convert with
`from_torch` and give timm's or torchvision's logits here. The largest ones are checked by names and shapes only.

    pip install --no-deps torchvision==0.29.1 timm==1.0.31
    python -m tests.goldens.make_pretrained
"""

import functools
import json
import math
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import torch

import jaxcnn
from experiments.benchmarks._torchvision import models as torchvision
from jaxcnn.weights._convert import WeightsError

FOLDER = pathlib.Path(jaxcnn.__file__).parent / "weights"
MAX_TESTED = 100e6  # parameters
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
TOLERANCE = 1e-3  # relative to the largest logit

# 10^6 multiply-adds -> the last part of our name
REGNET_SIZES = {
    **{200: "200mf", 400: "400mf", 600: "600mf", 800: "800mf", 1600: "1_6gf", 3200: "3_2gf"},
    **{4000: "4gf", 6400: "6_4gf", 8000: "8gf", 12000: "12gf", 16000: "16gf", 32000: "32gf"},
}
# timm's names of architectures -> ours, where they are not equal
TIMM = {
    "efficientnetv2_rw_s": None,  # other widths
    "legacy_xception": "xception",
    "mnasnet_100": "mnasnet1_0",
    "mobilenetv1_100": "mobilenet_v1",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    **{f"resnetv2_{depth}": f"preact_resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{f"seresnet{depth}": f"se_resnet{depth}" for depth in (18, 34, 50, 101, 152)},
    **{
        f"regnet{kind}_{mega // 100:03}{suffix}": f"regnet_{kind}_{size}"
        for kind, sizes in {
            "x": REGNET_SIZES,
            "y": REGNET_SIZES | {128000: "128gf"},
        }.items()
        for mega, size in sizes.items()
        for suffix in ("", "_tv")
    },
}
SMALL_EPS = ("mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7")
AUXILIARY = ("googlenet", "inception_v3")
# names that ImageNet uses twice
NAMES = {
    "n02012849": "crane (bird)",
    "n03126707": "crane (machine)",
    "n03710637": "maillot",
    "n03710721": "maillot (tank suit)",
}


def randomized(net: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def options(model: str, of_timm: bool) -> dict:
    if model in AUXILIARY:
        return {"auxiliary": False}
    return {"norm": jaxcnn.batch_norm} if of_timm and model in SMALL_EPS else {}


def problem(build: Callable[[], torch.nn.Module], model: str, of_timm: bool) -> str:
    """Why the network is not listed, or an empty text."""
    size = 128 if model in (*AUXILIARY, "xception") or model.startswith("vgg") or model == "alexnet" else 64
    given = options(model, of_timm)
    with torch.device("cpu" if model.startswith("regnet") else "meta"):  # torchvision's RegNets compute their widths
        shapes = {name: value.shape for name, value in build().state_dict().items()}
    tested = sum(map(math.prod, shapes.values())) < MAX_TESTED
    if tested:
        net = randomized(build())
        state_dict = {name: value.numpy() for name, value in net.state_dict().items()}
    else:
        state_dict = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    try:
        params, state = jaxcnn.weights.from_torch(model, state_dict, **given)
    except WeightsError as error:
        return str(error).splitlines()[-1][:150]
    if not tested:
        return ""
    x = torch.rand(2, 3, size, size) - 0.5
    with torch.no_grad():
        expected = net(x).numpy()
    ours = getattr(jaxcnn.models, model)(**given)
    apply = jax.jit(ours.apply, static_argnames="train", compiler_options=FAST_COMPILE)
    found, _ = apply(params, state, x.permute(0, 2, 3, 1).numpy(), train=False)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    return "" if error < TOLERANCE else f"the logits differ by {error:.2g}"


def row(model: str, config: dict, params: int) -> dict:
    """One line of the table: `config` has the facts of the file, and `params` is the number of parameters."""
    auxiliary = {"auxiliary": False} if model in AUXILIARY else {}
    return {"model": model, **auxiliary, "params": params, **config}


def of_timm() -> dict[str, dict]:
    import timm

    table, reasons = {}, {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name)
        model = TIMM.get(config.architecture, config.architecture)
        if model not in jaxcnn.models.MODELS or not config.hf_hub_id or config.num_classes < 1000:
            continue  # the outputs of CLIP are no classes
        if config.architecture not in reasons:
            build = functools.partial(timm.create_model, config.architecture)
            reasons[config.architecture] = problem(build, model, True)
            print(config.architecture, reasons[config.architecture] or "listed", flush=True)
        if reasons[config.architecture]:
            continue
        hub_id = config.hf_hub_id
        if hub_id != f"timm/{name}" or config.crop_mode not in ("center", "squash"):
            print(name, "not listed:", hub_id, config.crop_mode)
            continue
        size = config.input_size[-1]
        table[hub_id] = row(
            model,
            {
                "norm": "batch_norm" if model in SMALL_EPS else None,
                "classes": config.num_classes,
                "size": size,
                "resize": math.floor(size / config.crop_pct),
                "interpolation": config.interpolation,
                "crop_mode": config.crop_mode,
                "mean": config.mean,
                "std": config.std,
                "license": config.license,
                "top1": None,
            },
            parameters(model, config.num_classes),
        )
    return table


def of_torchvision() -> dict[str, dict]:
    models = torchvision()
    table = {}
    for model in jaxcnn.models.MODELS:
        if not hasattr(models, model):
            continue
        extra = {"aux_logits": False, "init_weights": False} if model in AUXILIARY else {}
        if model.startswith(("fcn", "deeplab", "lraspp", "r3d", "mc3", "r2plus1d", "s3d")):
            continue  # their images or their preprocessing have another form
        reason = problem(functools.partial(models.get_model, model, weights=None, **extra), model, False)
        print("torchvision", model, reason or "listed", flush=True)
        if reason:
            continue
        for weights in models.get_model_weights(model):
            top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            if math.isnan(top1):  # VGG's layers without a classifier
                continue
            eval_transform = weights.transforms()
            # torchvision's pretrained GoogLeNet and Inception v3 change the normalization to this one, inside
            half = [0.5] * 3 if model in AUXILIARY else None
            table["torchvision/" + weights.url.rsplit("/", 1)[-1].removesuffix(".pth")] = row(
                model,
                {
                    "norm": None,
                    "classes": len(weights.meta["categories"]),
                    "size": eval_transform.crop_size[0],
                    "resize": eval_transform.resize_size[0],
                    "interpolation": eval_transform.interpolation.value,
                    "crop_mode": "center",
                    "mean": half or eval_transform.mean,
                    "std": half or eval_transform.std,
                    "license": weights.meta.get("license"),
                    "top1": top1,
                },
                parameters(model, len(weights.meta["categories"])),
            )
    return table


def parameters(model: str, classes: int) -> int:
    build = jaxcnn.models.MODELS[model]
    given = options(model, False) | {"classes": classes}
    spec = jax.ShapeDtypeStruct((1, *build.input_shape), np.float32)
    params, _ = jax.eval_shape(build(**given).init, jax.eval_shape(lambda: jax.random.key(0)), spec)
    return jaxcnn.count_params(params)


def imagenet() -> list[str]:
    import timm

    folder = pathlib.Path(timm.__file__).parent / "data" / "_info"
    lemmas = dict(
        line.split("\t") for line in (folder / "imagenet_synset_to_lemma.txt").read_text().splitlines() if line
    )
    synsets = (folder / "imagenet_synsets.txt").read_text().split()
    return [f"{synset}\t{NAMES.get(synset, lemmas[synset].split(',')[0])}" for synset in synsets]


if __name__ == "__main__":
    names = imagenet() if torchvision() else []  # torchvision before timm, which imports it
    assert len({line.split("\t")[1] for line in names}) == 1000
    (FOLDER / "imagenet_classes.txt").write_text("\n".join(names) + "\n")
    table = of_timm() | of_torchvision()
    lines = [f"{json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table)]
    (FOLDER / "pretrained.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(table), "weights")
