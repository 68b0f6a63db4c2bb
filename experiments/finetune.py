"""Transfer learning from few images: a pretrained backbone, frozen or fine-tuned, with a new head.

    python -m experiments.finetune data.path=photos model=resnet18 weights=resnet18.safetensors
    python -m experiments.finetune                           digits, half a minute on 2 cores

Compares training from scratch, a new head on frozen pretrained features, and training all layers from the pretrained
weights. `data.path` contains one folder of images per class. data.images_per_class of them are used for training, the
others for the test. Without weights, a small network is pretrained on thousands of images of the digits 0 to 4. It then
learns 5 to 9 from five images per class. The pretrained features improve the accuracy by 8 points: both sets of digits
consist of similar strokes and bends. For mean, std and eps see `experiments.predict`.
Needs pip install '.[train,images,weights]'.
"""

import math

import numpy as np

from experiments._model_settings import norm_options, require_weights
from experiments._settings import require_default, require_one_of
from experiments.mnist_cnn import block
from jaxcnn import data, dense, flatten, freeze, models, serial, train, weights

CONFIG = {
    "data": {"path": "", "images_per_class": 5, "on_bad_image": "raise"},  # images for training; or "skip"
    "model": "",  # name of the model of the weights
    "weights": "",
    "eps": 0.0,  # epsilon of the batch norms; 0 keeps the model's default
    "mean": [0.485, 0.456, 0.406],  # mean and std of the images that the weights were trained on
    "std": [0.229, 0.224, 0.225],
    "pretrain": {
        "epochs": 8,
        "optimizer": {"learning_rate": 2e-3},
        "augment": [["translate", 2], ["rotate", 15]],
    },
    "train": {"seed": 0, "epochs": 100, "batch_size": 5, "optimizer": {"learning_rate": 1e-3}},
    "runs": "runs",
}
LIMITS = {
    "data.images_per_class": (1, 10**6),
    "eps": (0, 1),
    "pretrain.epochs": (1, 10**6),
    "pretrain.optimizer.learning_rate": (0, math.inf),
    "train.epochs": (1, 10**6),
    "train.batch_size": (1, 10**6),
    "train.optimizer.learning_rate": (0, math.inf),
}
PRETRAIN_KEYS = ("pretrain.epochs", "pretrain.optimizer.learning_rate", "pretrain.augment")


def digits_between(split, first, last):
    """Return the digits `first` to `last`, with labels that start at 0."""
    digits = data.load("mnist_small", split)
    at = np.flatnonzero((digits.labels >= first) & (digits.labels <= last))
    return data.Dataset(digits.images[at], digits.labels[at] - first, digits.classes[first : last + 1])


def split_per_class(images, count):
    """Return the first `count` images per class, and the remaining images."""
    few = np.concatenate([np.flatnonzero(images.labels == label)[:count] for label in range(len(images.classes))])
    rest = np.setdiff1d(np.arange(len(images.labels)), few)
    if not len(rest):
        raise data.DataError(f"no test images left: training uses all {len(few)}; lower data.images_per_class")
    return (data.Dataset(images.images[at], images.labels[at], images.classes) for at in (np.sort(few), rest))


def main(config):
    train.require(config, LIMITS)
    require_one_of(config, "data.on_bad_image", ("raise", "skip"))
    require_weights(config, CONFIG, "data.path", ("data.on_bad_image", "eps"))
    if config["weights"]:
        require_default(config, CONFIG, PRETRAIN_KEYS, "with weights=FILE, which skips pretraining")
    data_config, model = config["data"], config["model"]
    if config["weights"]:
        options = norm_options(model, config["eps"])
        pretrained = weights.load(config["weights"], model, classes=None, **options)
        backbone = models.MODELS[model](None, **options)
        height, width, channels = models.MODELS[model].input_shape
        images = data.image_folder(
            data_config["path"], (height, width), channels=channels, on_bad_image=data_config["on_bad_image"]
        )
        few, test_data = split_per_class(images, data_config["images_per_class"])
        scale = data.normalize(config["mean"], config["std"])
    run = train.Run("finetune", config, root=config["runs"])
    common = {"seed": config["train"]["seed"], "checkpoint": {"keep": 0}}

    def fit(name, model, train_data, test_data, settings, start=None):
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name.replace(" ", "_"))
        return train.fit(model, train_data, eval_data=test_data, config=common | settings, run=part, start=start)

    if not config["weights"]:
        backbone = serial(block1=block(16), block2=block(32), block3=block(64), flatten=flatten)
        few, _ = split_per_class(digits_between("train", 5, 9), data_config["images_per_class"])
        test_data = digits_between("test", 5, 9)
        scale = data.normalize(few)
        net = serial(scale=scale, backbone=backbone, head=dense(5))
        trained = fit("pretrain", net, digits_between("train", 0, 4), digits_between("test", 0, 4), config["pretrain"])
        pretrained = trained.params["backbone"], trained.state["backbone"]
    start = tuple({"backbone": tree} if tree else {} for tree in pretrained)

    cases = {
        "from scratch": (backbone, None),
        "frozen features": (freeze(backbone), start),
        "fine-tuned": (backbone, start),
    }
    result = {}
    for name, (case_backbone, case_start) in cases.items():
        net = serial(scale=scale, backbone=case_backbone, head=dense(len(few.classes)))
        result[name] = fit(name, net, few, test_data, config["train"], case_start).history[-1]["test"]
    for name, metrics in result.items():
        counts = f"{len(test_data.images):,} test images, from {len(few.images)} training images"
        print(f"{name:16} {metrics['accuracy']:.1%} of {counts}")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
