"""What a network learned of some digits helps with others: a frozen backbone and a new head, from few pictures.

    python -m experiments.finetune                           half a minute on 2 cores

A network learns the digits 0 to 4 from thousands of pictures. Then 5 to 9 are to be learned from five pictures of each:
by a network from scratch; by a new head on the frozen features of the first; and by the first, all of it trained on.
The features help by 9 points: strokes and bends are those of other digits.
"""

import math

import numpy as np

from experiments.mnist_cnn import block
from jaxcnn import data, dense, flatten, freeze, serial, train

CONFIG = {
    "seed": 0,
    "pictures_of_each": 5,
    "pretrain": {"epochs": 8, "learning_rate": 2e-3, "augment": [["translate", 2], ["rotate", 15]]},
    "finetune": {"epochs": 100, "learning_rate": 1e-3},
    "runs": "runs",
}
LIMITS = {
    "pictures_of_each": (1, 500),
    "pretrain.epochs": (1, 10**6),
    "pretrain.learning_rate": (0, math.inf),
    "finetune.epochs": (1, 10**6),
    "finetune.learning_rate": (0, math.inf),
}


def backbone():
    return serial(block1=block(16), block2=block(32), block3=block(64), flatten=flatten)


def digits_of(dataset, first, last, most=None):
    """Those of some classes, the first becoming 0; at most so many of each."""
    kept = [np.flatnonzero(dataset.labels == label)[:most] for label in range(first, last + 1)]
    at = np.sort(np.concatenate(kept))
    return data.Dataset(dataset.images[at], dataset.labels[at] - first, dataset.classes[first : last + 1])


def main(config):
    train.require(config, LIMITS)
    digits, unseen = (data.load("mnist_small", split) for split in ("train", "test"))
    run = train.Run("finetune", config, config["runs"])
    common = {"seed": config["seed"], "checkpoint": {"keep": 0}}

    def fit(name, model, seen, new, settings, start=None):
        part = train.Run(name, config, folder=run.folder / name)
        return train.fit(model, seen, eval_data=new, config=common | settings, run=part, start=start)

    run.say("\n0 to 4, from all pictures")
    own = config["pretrain"]
    settings = {name: own[name] for name in ("epochs", "augment")} | {
        "optimizer": {"learning_rate": own["learning_rate"]}
    }
    model = serial(backbone=backbone(), head=dense(5))
    before = fit("pretrain", model, digits_of(digits, 0, 4), digits_of(unseen, 0, 4), settings)
    learned = ({"backbone": before.params["backbone"]}, {"backbone": before.state["backbone"]})

    few, new = digits_of(digits, 5, 9, config["pictures_of_each"]), digits_of(unseen, 5, 9)
    own = config["finetune"]
    settings = {"epochs": own["epochs"], "batch_size": 5, "optimizer": {"learning_rate": own["learning_rate"]}}
    cases = {
        "from scratch": (model, None),
        "frozen features": (serial(backbone=freeze(backbone()), head=dense(5)), learned),
        "all trained on": (model, learned),
    }
    result = {}
    for name, (network, start) in cases.items():
        run.say(f"\n5 to 9, {name}")
        result[name] = fit(name, network, few, new, settings, start).history[-1]["test"]
    for name, metrics in result.items():
        print(f"{name:16} {metrics['accuracy']:.1%} of 5 to 9 from {len(few.images)} pictures")
    run.log(f"see {run.folder}", **result)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
