"""What a network learned of some images helps with others: a frozen backbone and a new head, from few images.

    python -m experiments.finetune data.path=photos model=resnet18 weights=resnet18.safetensors
    python -m experiments.finetune                           digits, half a minute on 2 cores

From scratch, then with a new head on the frozen features of the given weights, then all of it trained on from there.
`data.path` is a folder with a folder of images for each class, of which some are learned from and the others are
the test. Without weights, a small network learns the digits 0 to 4 from thousands of images first, and is then to
learn 5 to 9 from five of each, where its features help by 7 points: strokes and bends are the same.
Mean and std are as for `experiments.predict`, and so is eps.
Needs pip install '.[train,images,weights]'.
"""

import functools
import math

import numpy as np

from experiments._settings import require_default, require_one_of, require_weights
from experiments.mnist_cnn import block
from jaxcnn import batch_norm, data, dense, flatten, freeze, models, serial, train, weights

CONFIG = {
    "data": {"path": "", "images_per_class": 5, "on_bad_image": "raise"},  # to learn from; or "skip"
    "model": "",  # that the weights are for
    "weights": "",
    "eps": 0.0,  # of the model's batch norms; 0 for its own
    "mean": [0.485, 0.456, 0.406],  # and std, of the images that the weights were trained on
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


OF_DIGITS = ("pretrain.epochs", "pretrain.optimizer.learning_rate", "pretrain.augment")


def digits_of(split, first, last):
    """Those of some classes, the first becoming 0."""
    digits = data.load("mnist_small", split)
    at = np.flatnonzero((digits.labels >= first) & (digits.labels <= last))
    return data.Dataset(digits.images[at], digits.labels[at] - first, digits.classes[first : last + 1])


def divided(images, of_each):
    """The first so many of each class, and the others."""
    few = np.concatenate([np.flatnonzero(images.labels == label)[:of_each] for label in range(len(images.classes))])
    rest = np.setdiff1d(np.arange(len(images.labels)), few)
    if not len(rest):
        raise data.DataError(f"none of {len(few)} images is left for the test; lower data.images_per_class")
    return (data.Dataset(images.images[at], images.labels[at], images.classes) for at in (np.sort(few), rest))


def main(config):
    train.require(config, LIMITS)
    require_one_of(config, "data.on_bad_image", ("raise", "skip"))
    require_weights(config, CONFIG, "data.path", ("data.on_bad_image", "eps"))
    if config["weights"]:
        require_default(config, CONFIG, OF_DIGITS, "with weights, which are trained already")
    own, model = config["data"], config["model"]
    if config["weights"]:
        options = {"norm": functools.partial(batch_norm, eps=config["eps"])} if config["eps"] else {}
        learned = weights.load(config["weights"], model, classes=None, **options)
        backbone = models.MODELS[model](None, **options)
        height, width, channels = models.MODELS[model].input_shape
        images = data.image_folder(own["path"], (height, width), channels=channels, on_bad_image=own["on_bad_image"])
        few, unseen = divided(images, own["images_per_class"])
        scale = data.normalize(config["mean"], config["std"])
    run = train.Run("finetune", config, root=config["runs"])
    common = {"seed": config["train"]["seed"], "checkpoint": {"keep": 0}}

    def fit(name, model, seen, unseen, settings, start=None):
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name.replace(" ", "_"))
        return train.fit(model, seen, eval_data=unseen, config=common | settings, run=part, start=start)

    if not config["weights"]:
        backbone = serial(block1=block(16), block2=block(32), block3=block(64), flatten=flatten)
        few, _ = divided(digits_of("train", 5, 9), own["images_per_class"])
        unseen = digits_of("test", 5, 9)
        scale = data.normalize(few)
        net = serial(scale=scale, backbone=backbone, head=dense(5))
        trained = fit("pretrain", net, digits_of("train", 0, 4), digits_of("test", 0, 4), config["pretrain"])
        learned = trained.params["backbone"], trained.state["backbone"]
    start = tuple({"backbone": tree} if tree else {} for tree in learned)

    cases = {
        "from scratch": (backbone, None),
        "frozen features": (freeze(backbone), start),
        "all trained on": (backbone, start),
    }
    result = {}
    for name, (part, begun) in cases.items():
        net = serial(scale=scale, backbone=part, head=dense(len(few.classes)))
        result[name] = fit(name, net, few, unseen, config["train"], begun).history[-1]["test"]
    for name, metrics in result.items():
        print(f"{name:16} {metrics['accuracy']:.1%} of {len(unseen.images):,} images from {len(few.images)}")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
