"""Segmentation: the digit, or the background, at each pixel of a scene. U-Net against a fully convolutional network.

    python -m experiments.segmentation      mean IoU 0.75 of U-Net, 0.34 of FCN, against 0.09 of background everywhere;
                                            4 minutes on 2 cores

The scenes have one to four digits on textured backgrounds, with two fragments of digits between them. The digits and
fragments are brighter than the textures, so that a network has to find out which digit it is, and what is no digit.
94 % of the pixels are background, so they get a smaller weight in the loss. Both networks have the same contracting
path. FCN enlarges its coarse logits by interpolation. U-Net adds finer feature maps at each step, so that its outlines
are sharper. Baseline: background everywhere. With train.report=true, the report shows masks over images.
"""

import functools

import numpy as np

from experiments._metrics import metric_values
from experiments._scenes import BACKGROUND, train_and_test_scenes
from experiments.mnist_cnn import block
from jaxcnn import batch_norm, conv, cross_entropy, data, metrics, models, resize, serial, train

CLASSES = 11  # background and ten digits
CONFIG = {
    "data": {"name": "mnist_small", "root": "", "size": 48, "train_scenes": 3000, "test_scenes": 500},
    "model": {"width": 12, "levels": 4},
    "background_weight": 0.2,  # class weight in the loss; that of the digits is 1
    "train": train.FIT
    | {
        "epochs": 12,
        "batch_size": 16,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "weight_decay": {"rate": 0.01, "where": "(.*/)?kernel"},
        "evaluate": {"batch_size": 100, "tta": "none"},
        "watch": "mean_iou",
    },
    "runs": "runs",
    "folder": "",
}
LIMITS = {
    "data.size": (32, 1000),
    "data.train_scenes": (1, 10**6),
    "data.test_scenes": (1, 10**6),
    "model.width": (1, 10**4),
    "model.levels": (2, 6),
    "background_weight": (0, 1e6),
}
METRICS = {"mean_iou": metrics.mean_iou(), "pixel_accuracy": metrics.pixel_accuracy()}
CLASS_NAMES = ("background", *map(str, range(10)))


def load_scenes(config):
    """Return training and test scenes."""
    options = {"dark": True, "fragments": 2}
    for images, masks, _ in train_and_test_scenes(config["data"], config["train"]["seed"], **options):
        yield data.Dataset(images, masks, CLASS_NAMES)


def unet(scale, size, widths):
    return serial(
        normalize=scale, net=models.unet(CLASSES, widths=widths, padding="SAME", norm=batch_norm, dropout=0.0)
    )


def fcn(scale, size, widths):
    blocks = {f"block{i}": block(width) for i, width in enumerate(widths[:-1], 1)}
    return serial(normalize=scale, **blocks, last=conv(widths[-1]), head=conv(CLASSES, 1), enlarge=resize(size))


def background_only(masks):
    """The metrics of the prediction that every pixel is background."""
    logits = np.zeros((*masks.shape, CLASSES), np.float32)
    logits[..., BACKGROUND] = 1
    return metric_values(METRICS, logits, masks)


def main(config):
    train.require(config, LIMITS)
    train.resolve(config["train"])
    size, stride = config["data"]["size"], 2 ** (config["model"]["levels"] - 1)
    if size % stride:
        raise train.ConfigError(f"data.size must be a multiple of {stride}, 2^(model.levels - 1), got {size}")
    loss = functools.partial(cross_entropy, class_weight=[config["background_weight"], *(CLASSES - 1) * [1.0]])
    train_scenes, test_scenes = load_scenes(config)
    scale = data.normalize(train_scenes)
    widths = tuple(config["model"]["width"] * 2**level for level in range(config["model"]["levels"]))
    run = train.Run("segmentation", config, root=config["runs"], folder=config["folder"])
    result = {"background": background_only(test_scenes.labels)}
    for name, network in {"fcn": fcn, "unet": unet}.items():
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name)
        options = {"loss": loss, "metrics": METRICS, "config": config["train"], "run": part}
        fitted = train.fit(network(scale, size, widths), train_scenes, eval_data=test_scenes, **options)
        result[name] = {metric: fitted.history[-1]["test"][metric] for metric in METRICS}
    for name, row in result.items():
        print(f"{name:12} mean IoU {row['mean_iou']:.3f}, pixel accuracy {row['pixel_accuracy']:.2%}")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
