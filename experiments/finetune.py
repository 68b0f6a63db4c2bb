"""What a network learned of some pictures helps with others: a frozen backbone and a new head, from few pictures.

    python -m experiments.finetune data.path=photos model=resnet18 weights=resnet18.safetensors
    python -m experiments.finetune                           digits, half a minute on 2 cores

From scratch, then with a new head on the frozen features of the given weights, then all of it trained on from there.
`data.path` is a folder with a folder of pictures for each class, of which some are learned from and the others are
the test. Without weights, the network learns the digits 0 to 4 from thousands of pictures first; without a path, it is
to learn 5 to 9 from five pictures of each, where the features help by SOME points: strokes and bends are the same.
Needs pip install '.[train,images,weights]'.
"""

import math

import numpy as np

from jaxcnn import data, dense, freeze, models, serial, train, weights

CONFIG = {
    "seed": 0,
    "data": {"path": "", "pictures_of_each": 5},  # to learn from
    "model": "lenet5",
    "weights": "",
    "mean": [],  # and deviation, of the pictures that the weights were trained on; none: those of the new ones
    "deviation": [],
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
    build, of_each = models.MODELS[config["model"]], config["data"]["pictures_of_each"]
    height, width, channels = build.input_shape
    run = train.Run("finetune", config, config["runs"])
    common = {"seed": config["seed"], "checkpoint": {"keep": 0}}

    def fit(name, model, seen, unseen, settings, start=None):
        run.say(f"\n{name}")
        part = train.Run(name, config, folder=run.folder / name.replace(" ", "_"))
        return train.fit(model, seen, eval_data=unseen, config=common | settings, run=part, start=start)

    if config["data"]["path"]:
        pictures = data.image_folder(config["data"]["path"], (height, width), channels=channels)
        few, unseen = divided(pictures, of_each)
    else:
        few, _ = divided(digits_of("train", 5, 9), of_each)
        unseen = digits_of("test", 5, 9)
    scale = data.normalize(config["mean"], config["deviation"]) if config["mean"] else data.normalize(few)

    file = config["weights"]
    if not file:
        own = config["pretrain"]
        settings = {
            "epochs": own["epochs"],
            "augment": own["augment"],
            "optimizer": {"learning_rate": own["learning_rate"]},
        }
        model = serial(scale=scale, net=build(5))
        before = fit("pretrain", model, digits_of("train", 0, 4), digits_of("test", 0, 4), settings)
        file = run.folder / "pretrained.safetensors"
        weights.save(file, before.params["net"], before.state.get("net", {}), model=config["model"])
    backbone = build(None)
    learned = tuple({"backbone": tree} for tree in weights.load(file, config["model"], classes=None))

    own = config["finetune"]
    settings = {name: own[name] for name in ("epochs", "batch_size")} | {
        "optimizer": {"learning_rate": own["learning_rate"]}
    }
    cases = {
        "from scratch": (backbone, None),
        "frozen features": (freeze(backbone), learned),
        "all trained on": (backbone, learned),
    }
    result = {}
    for name, (net, start) in cases.items():
        model = serial(scale=scale, backbone=net, head=dense(len(few.classes)))
        result[name] = fit(name, model, few, unseen, settings, start).history[-1]["test"]
    for name, metrics in result.items():
        print(f"{name:16} {metrics['accuracy']:.1%} of {len(unseen.images):,} pictures from {len(few.images)}")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
