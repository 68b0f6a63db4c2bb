"""Classify signals, each set of the UCR archive with one of the networks for signals.

    python -m experiments.signals                                                    GunPoint, fcn1d: test error 0.0 %
    python -m experiments.signals data.name=ItalyPowerDemand                         3.8 %
    python -m experiments.signals data.name=ItalyPowerDemand model.name=resnet1d     4.1 %

ucr.npz must be in data.root or JAXCNN_DATA. It holds the published training and test sets as NumPy arrays: NAME/train/x
(N, steps, channels), NAME/train/y (N,), the same for test, and NAME/classes.

The papers train for 1500 or 2000 epochs, and lower the learning rate when the training loss stops improving. This
takes 100 epochs with a cosine schedule. The batch size is at most a tenth of the training set, as in the papers.
`experiments/README.md` has more test errors. The data sets are small, so the errors vary with the seed.
"""

import os
import pathlib
import zipfile

import numpy as np

from experiments._settings import require_default
from jaxcnn import cross_entropy, data, models, serial, train
from jaxcnn.train import ConfigError

CONFIG = {
    "data": {"name": "GunPoint", "root": ""},
    "model": {"name": "fcn1d"},
    "train": train.FIT | {"epochs": 100, "batch_size": 16, "checkpoint": {"every": 0, "keep": 1}},
    "runs": "runs",
    "folder": "",
}
PUBLISHED = {  # test errors of Wang, Yan and Oates, 2017
    ("GunPoint", "fcn1d"): 0.000,
    ("GunPoint", "resnet1d"): 0.007,
    ("ItalyPowerDemand", "fcn1d"): 0.030,
    ("ItalyPowerDemand", "resnet1d"): 0.040,
    ("OSULeaf", "fcn1d"): 0.012,
    ("OSULeaf", "resnet1d"): 0.021,
}
SIGNAL_MODELS = sorted(name for name, build in models.MODELS.items() if len(build.input_shape) == 2)
EVALUATION_KEYS = ("train.evaluate.tta", "train.watch", "train.patience", "train.restore_best")


def read(name, root):
    """Return the training set and the test set, each (signals, labels), and the class names."""
    path = pathlib.Path(root or os.environ.get("JAXCNN_DATA", ""), "ucr.npz").expanduser()
    if not path.is_file():
        raise data.DataError(
            f"{path}: not found. Set data.root or JAXCNN_DATA to the folder of this file, which holds sets of the UCR "
            "archive (timeseriesclassification.com) as arrays NAME/train/x (N, steps, channels), NAME/train/y, "
            "NAME/test/x, NAME/test/y and NAME/classes"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = sorted({key.partition("/")[0] for key in file})
            arrays = {key: file[key] for key in file if key.startswith(f"{name}/")}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise data.DataError(f"{path}: cannot be read: {error}") from error
    if name not in names:
        raise data.DataError(f"{path}: has no set {name!r}; expected one of: {', '.join(names)}")
    sets = ((arrays[f"{name}/{split}/x"], arrays[f"{name}/{split}/y"]) for split in ("train", "test"))
    return *sets, [str(label) for label in arrays[f"{name}/classes"]]


def main(config):
    train.resolve(config["train"])
    require_default(config, CONFIG, EVALUATION_KEYS, "because the test set is evaluated only once, after training")
    name = config["model"]["name"]
    if name not in SIGNAL_MODELS:
        raise ConfigError(f"model.name must be one of {', '.join(SIGNAL_MODELS)}, got {name!r}")
    train_data, test_data, classes = read(config["data"]["name"], config["data"]["root"])
    signals, _ = train_data
    channels = (0, 1)  # all sets but BasicMotions already have mean 0 and std 1
    model = serial(
        normalize=data.normalize(signals.mean(channels), signals.std(channels)),
        net=models.MODELS[name](len(classes)),
    )
    settings = config["train"] | {"batch_size": max(1, min(config["train"]["batch_size"], len(signals) // 10))}
    run = train.Run("signals", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(model, train_data, config=settings, run=run)
    batch_size = settings["evaluate"]["batch_size"]
    test = train.evaluate(cross_entropy(model), fitted.params, fitted.state, test_data, batch_size=batch_size)
    error = 1 - test["accuracy"]
    published = PUBLISHED.get((config["data"]["name"], name))
    paper = "" if published is None else f" ({published:.1%} in the paper)"
    print(f"{name} on {config['data']['name']}: test error {error:.2%}{paper}; results in {fitted.folder}")
    return fitted.history[-1] | {"test": test | {"error": error}}


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
