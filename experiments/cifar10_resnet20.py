"""ResNet-20 on CIFAR-10, trained as in the paper: SGD with momentum, random flips and shifts of up to 4 pixels.

    python -m experiments.cifar10_resnet20                   91.25 % in the paper; hours on 2 cores
    python -m experiments.cifar10_resnet20 train.epochs=3    68 %, 3.5 minutes

CIFAR-10 is read from data.root. If that is empty, it is read from JAXCNN_DATA or ~/.cache/jaxcnn.
"""

from experiments._settings import config_error
from jaxcnn import data, models, serial, train

CONFIG = {
    "data": {"root": ""},
    "model": {"option": "A"},
    "train": train.FIT
    | {
        "epochs": 182,  # 64,000 steps
        "batch_size": 128,
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "schedule": {"name": "step", "warmup": 0.0, "end": 0.0},
        "weight_decay": {"rate": 1e-4, "where": ".*"},
        "augment": [["translate", 4], ["flip"]],
    },
    "runs": "runs",
    "folder": "",
}


def main(config):
    train.resolve(config["train"])
    root = config["data"]["root"] or None
    train_data, test_data = (data.load("cifar10", split, root=root) for split in ("train", "test"))
    with config_error("model"):
        network = models.resnet20(**config["model"])
    model = serial(normalize=data.normalize(train_data), net=network)
    run = train.Run("cifar10_resnet20", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model, train_data, eval_data=test_data, config=config["train"], run=run)
    print(fitted.outcome)
    return fitted.history


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
