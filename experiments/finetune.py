"""What a network learned of some pictures helps with others: a frozen backbone and a new head, from few pictures.

    python -m experiments.finetune data.path=photos model=resnet18 weights=resnet18.safetensors
    python -m experiments.finetune                           digits, half a minute on 2 cores

From scratch, then with a new head on the frozen features of the given weights, then all of it trained on from there.
`data.path` is a folder with a folder of pictures for each class, of which some are learned from and the others are
the test. Without weights, a small network learns the digits 0 to 4 from thousands of pictures first, and is then to
learn 5 to 9 from five of each, where its features help by 7 points: strokes and bends are the same.
Needs pip install '.[train,images,weights]'.
"""

import math

import numpy as np

from experiments.mnist_cnn import block
from jaxcnn import data, dense, flatten, freeze, models, serial, train, weights

CONFIG = {
    "seed": 0,
    "data": {"path": "", "pictures_of_each": 5},  # to learn from
    "model": "",  # that the weights are for
    "weights": "",
    "mean": [0.485, 0.456, 0.406],  # and deviation, of the pictures that the weights were trained on
    "deviation": [0.229, 0.224, 0.225],
    "pretrain": {"epochs": 8, "learning_rate": 2e-3, "augment": [["translate", 2], ["rotate", 15]]},
    "finetune": {"epochs": 100, "batch_size": 5, "learning_rate": 1e-3},
    "runs": "runs",
}
LIMITS = {
    "data.pictures_of_each": (1, 10**6),
    "pretrain.epochs": (1, 10**6),
    "pretrain.learning_rate": (0, math.inf),
    "finetune.epochs": (1, 10**6),
    "finetune.batch_size": (1, 10**6),
    "finetune.learning_rate": (0, math.inf),
}


def digits_of(split, first, last):
    """Those of some classes, the first becoming 0."""
    digits = data.load("mnist_small", split)
    at = np.flatnonzero((digits.labels >= first) & (digits.labels <= last))
    return data.Dataset(digits.images[at], digits.labels[at] - first, digits.classes[first : last + 1])


def divided(pictures, of_each):
    """The first so many of each class, and the others."""
    few = np.concatenate([np.flatnonzero(pictures.labels == label)[:of_each] for label in range(len(pictures.classes))])
    rest = np.setdiff1d(np.arange(len(pictures.labels)), few)
    return (data.Dataset(pictures.images[at], pictures.labels[at], pictures.classes) for at in (np.sort(few), rest))


def main(config):
    train.require(config, LIMITS)
    own, model = config["data"], config["model"]
    run = train.Run("finetune", config, root=config["runs"])
    common = {"seed": config["seed"], "checkpoint": {"keep": 0}}

    def fit(name, model, seen, unseen, settings, start=None):
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name.replace(" ", "_"))
        return train.fit(model, seen, eval_data=unseen, config=common | settings, run=part, start=start)

    if config["weights"]:
        learned = weights.load(config["weights"], model, classes=None)
        backbone = models.MODELS[model](None)
        height, width, channels = models.MODELS[model].input_shape
        pictures = data.image_folder(own["path"], (height, width), channels=channels)
        few, unseen = divided(pictures, own["pictures_of_each"])
        scale = data.normalize(config["mean"], config["deviation"])
    else:
        backbone = serial(block1=block(16), block2=block(32), block3=block(64), flatten=flatten)
        few, _ = divided(digits_of("train", 5, 9), own["pictures_of_each"])
        unseen = digits_of("test", 5, 9)
        scale = data.normalize(few)
        before = config["pretrain"]
        settings = {name: before[name] for name in ("epochs", "augment")} | {
            "optimizer": {"learning_rate": before["learning_rate"]}
        }
        net = serial(scale=scale, backbone=backbone, head=dense(5))
        trained = fit("pretrain", net, digits_of("train", 0, 4), digits_of("test", 0, 4), settings)
        learned = trained.params["backbone"], trained.state["backbone"]
    start = tuple({"backbone": tree} if tree else {} for tree in learned)

    own = config["finetune"]
    settings = {name: own[name] for name in ("epochs", "batch_size")} | {
        "optimizer": {"learning_rate": own["learning_rate"]}
    }
    cases = {
        "from scratch": (backbone, None),
        "frozen features": (freeze(backbone), start),
        "all trained on": (backbone, start),
    }
    result = {}
    for name, (part, begun) in cases.items():
        net = serial(scale=scale, backbone=part, head=dense(len(few.classes)))
        result[name] = fit(name, net, few, unseen, settings, begun).history[-1]["test"]
    for name, metrics in result.items():
        print(f"{name:16} {metrics['accuracy']:.1%} of {len(unseen.images):,} pictures from {len(few.images)}")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
