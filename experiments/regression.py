"""Regression: the angle in degrees by which a digit was rotated, predicted by a network with one output.

    python -m experiments.regression                mean absolute error 8 degrees, against 13 of ridge regression and
                                                    23 of the mean; 1 minute on 2 cores
    python -m experiments.regression loss=huber     outliers count less

The angles are uniform in [-data.degrees, data.degrees]. The labels are the angles in degrees. The last layer of the
network scales its output by the mean and std of the training labels, so that predictions, loss and metrics are in
degrees too. Ridge regression uses the pixels. The error cannot be zero, because writers slant their digits.
"""

import functools

import jax
import numpy as np

from experiments._metrics import metric_values
from experiments._settings import require_gray, require_one_of
from experiments.mnist_cnn import block
from jaxcnn import data, dense, flatten, huber, mean_squared_error, metrics, serial, train

CONFIG = {
    "data": {"name": "mnist_small", "root": "", "degrees": 45.0, "copies": 4},  # copies: rotations per training digit
    "model": {"width": 16},
    "loss": "mean_squared_error",  # or "huber"
    "train": train.FIT
    | {
        "epochs": 8,
        "optimizer": {"name": "adamw", "learning_rate": 3e-3},
        "weight_decay": {"rate": 0.01, "where": "(.*/)?kernel"},
        "augment": [["translate", 1]],
    },
    "runs": "runs",
    "folder": "",
}
LIMITS = {"data.degrees": (1, 181), "data.copies": (1, 100), "model.width": (1, 10**4)}
LOSSES = {"mean_squared_error": mean_squared_error, "huber": functools.partial(huber, delta=5.0)}  # in degrees
METRICS = {"mean_absolute_error": metrics.mean_absolute_error(), "r2": metrics.r2()}


def rotated_digits(digits, degrees, copies, seed):
    """Return images uint8 (copies * N, H, W, 1) and their angles in degrees (copies * N, 1)."""
    images = np.tile(digits.images[..., 0], (copies, 1, 1))
    angles = np.random.default_rng(seed).uniform(-degrees, degrees, len(images)).astype(np.float32)
    center = (np.array(images.shape[1:], np.float32) - 1) / 2
    offsets = np.indices(images.shape[1:]).reshape(2, -1).astype(np.float32) - center[:, None]

    @jax.jit
    @jax.vmap
    def rotate(image, angle):  # counterclockwise, with bilinear interpolation
        c, s = jax.numpy.cos(angle), jax.numpy.sin(angle)
        rows, columns = offsets
        source = [c * rows + s * columns + center[0], c * columns - s * rows + center[1]]
        return jax.scipy.ndimage.map_coordinates(image, source, order=1).reshape(image.shape)

    rotated = rotate(images.astype(np.float32), np.deg2rad(angles))
    return np.round(rotated).astype(np.uint8)[..., None], angles[:, None]


def network(digits, angles, width):
    mean, std = float(angles.mean()), float(angles.std())
    return serial(
        normalize=data.normalize(digits),
        block1=block(width),  # 14 x 14
        block2=block(2 * width),  # 7 x 7
        block3=block(4 * width),  # 3 x 3
        flatten=flatten,
        head=dense(1),
        degrees=lambda y: mean + std * y,
    )


def ridge(images, labels, test_images, strength=100.0):
    """Predictions (M, 1) of w.x + b for pixels x in [0, 1], minimizing the squared error + strength * |w|^2."""
    x, test_x = (pixels.reshape(len(pixels), -1) / 255.0 for pixels in (images, test_images))
    mean_x, mean_y = x.mean(0), labels.mean(0)
    x, y = x - mean_x, labels - mean_y
    w = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)
    return (test_x - mean_x) @ w + mean_y


def errors(predictions, labels):
    """The metrics of given predictions."""
    return metric_values(METRICS, predictions.astype(np.float32), labels)


def main(config):
    train.require(config, LIMITS)
    require_one_of(config, "loss", tuple(LOSSES))
    train.resolve(config["train"])
    settings, seed = config["data"], config["train"]["seed"]
    digits, test_digits = (
        data.load(settings["name"], split, root=settings["root"] or None) for split in ("train", "test")
    )
    require_gray(config, digits)
    images, angles = rotated_digits(digits, settings["degrees"], settings["copies"], (seed, 1))
    test_images, test_angles = rotated_digits(test_digits, settings["degrees"], 1, 0)
    run = train.Run("regression", config, root=config["runs"], folder=config["folder"])
    fitted = train.fit(
        network(digits, angles, **config["model"]),
        (images, angles),
        eval_data=(test_images, test_angles),
        loss=LOSSES[config["loss"]],
        metrics=METRICS,
        config=config["train"],
        run=run,
    )
    test = fitted.history[-1]["test"]
    result = {
        "network": {name: test[name] for name in METRICS},
        "ridge": errors(ridge(images, angles, test_images), test_angles),
        "mean": errors(np.broadcast_to(angles.mean(0), test_angles.shape), test_angles),
    }
    for name, row in result.items():
        run.say(f"{name:8} mean absolute error {row['mean_absolute_error']:5.2f} degrees, R2 {row['r2']:6.3f}")
    print(fitted.outcome)
    return result


if __name__ == "__main__":
    train.command(main, CONFIG, __doc__)
