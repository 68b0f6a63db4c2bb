"""What the lessons show: digits, a photo, a trained LeNet-5, and training runs with different regularization."""

import base64
import contextlib
import io
import tempfile

import jax
import numpy as np

from experiments import overfit_and_regularize
from experiments.concepts._digits import digits, trained
from experiments.concepts._figure import load_matplotlib
from experiments.lessons._networks import networks
from jaxcnn import cross_entropy, data, dropout, models, paths, train

NEAR_ZERO = 1e-3
EDGE, BINS = 0.3, 61  # the histogram of weights: from -EDGE to EDGE


def content(config):
    """Return all values of the page's script: a dict that JSON can hold."""
    params, accuracy = lenet(**config["lenet"])
    return {
        "digits": examples(),
        "photo": encoded(photo()),
        "lenet": dict(zip(paths(params), map(encoded, map(np.asarray, jax.tree.leaves(params))), strict=True)),
        "accuracy": accuracy,
        "overfitting": overfitting(**config["overfitting"]),
        "networks": networks(),
    }


def encoded(array):
    """Return an array of bytes or float32 as base64."""
    kind = "bytes" if array.dtype == np.uint8 else "floats"
    return {
        "shape": array.shape,
        kind: base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode(),
    }


def examples():
    """Return a test digit of each class."""
    images, labels = data.load("mnist_small", "test")[:2]
    return [{"image": encoded(images[np.flatnonzero(labels == label)[0]])} for label in range(10)]


def photo(size=64):
    """Return a color photo (size, size, 3): Grace Hopper, in the public domain, from matplotlib's sample data."""
    load_matplotlib()  # its error names the extra
    from matplotlib import cbook
    from matplotlib import image as reader

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = reader.imread(file, format="jpg")
    face = pixels[40:424, 80:464]
    step = len(face) // size
    return face.reshape(size, step, size, step, 3).mean((1, 3)).round().astype(np.uint8)


def lenet(seed, epochs):
    """Train LeNet-5. Return its params and the fraction of the test digits that it classifies correctly."""
    model = models.lenet5()
    params, state, _ = trained(model, epochs=epochs, seed=seed)
    test = dict(zip(("image", "label"), digits("test"), strict=True))
    return params, float(train.evaluate(cross_entropy(model), params, state, test)["accuracy"])


def overfitting(images, test_images, epochs, l1, l2, dropout_rates):
    """Train a network for each combination, in one sweep. Return the curves and the weights of each run."""
    few, test = (
        {"image": images_of[:count], "label": labels[:count]}
        for count, (images_of, labels) in ((images, digits("train")), (test_images, digits("test")))
    )
    config = overfit_and_regularize.CONFIG["train"] | {"epochs": epochs, "checkpoint": {"keep": 0, "every": 0}}
    over = {"regularize.l1": l1, "regularize.l2": l2, "rate": dropout_rates}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        swept = train.sweep(
            lambda rate: overfit_and_regularize.network(dropout(rate)),
            few,
            over=over,
            eval_data=test,
            config=config,
            run=train.Run("lessons", {}, folder=folder),
        )
    return {
        "images": images,
        "l1": l1,
        "l2": l2,
        "dropout": dropout_rates,
        "edges": [-EDGE, EDGE],
        "runs": [of_run(run) for run in swept.runs],  # dropout rates fastest
    }


def of_run(run):
    """Return the losses and the weights of a run as the page needs them."""
    named = zip(paths(run.params), jax.tree.leaves(run.params), strict=True)
    weights = np.concatenate([np.ravel(leaf) for path, leaf in named if path.endswith("kernel")])
    counts, _ = np.histogram(weights, BINS, (-EDGE, EDGE))
    curves = {split: [round(row[split]["loss"], 4) for row in run.history] for split in ("train", "test")}
    return curves | {
        "accuracy": round(run.metrics["accuracy"], 4),
        "histogram": counts.tolist(),
        "nearZero": float((np.abs(weights) < NEAR_ZERO).mean()),
        "absolute": float(np.abs(weights).sum()),
        "squares": float(np.square(weights).sum()),
    }
